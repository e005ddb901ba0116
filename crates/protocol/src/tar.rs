//! Headers of tars, as trees travel: reading them block by block, and writing them.
//!
//! A *block* is 512 bytes. An *entry* is a header block and its contents, filled up to whole blocks; long names stand in
//! *extensions* before it (GNU's `L` and `K`, POSIX's `x`). A block of zeros ends the tar. Written are `ustar` headers with
//! GNU's extensions, which every tar reads.

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use alloc::vec::Vec;

/// The length of a block.
pub const BLOCK_BYTES: usize = 512;

/// The longest extension.
const MAX_EXTENSION_BYTES: u64 = 64 * 1024;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Its name, as it stands there: it may be anything.
    pub path: Vec<u8>,
    /// Where a link leads.
    pub link: Vec<u8>,
    /// The length of its contents.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// When it was changed, in seconds since 1970; before, it is negative.
    pub mtime_s: i64,
    /// A device's numbers.
    pub device: (u32, u32),
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// One more name for an earlier entry.
    Hardlink,
    /// A symlink.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A folder.
    Dir,
    /// A named pipe.
    Fifo,
}

impl Kind {
    const ALL: [(Kind, u8); 7] = [
        (Kind::File, b'0'),
        (Kind::Hardlink, b'1'),
        (Kind::Symlink, b'2'),
        (Kind::Char, b'3'),
        (Kind::Block, b'4'),
        (Kind::Dir, b'5'),
        (Kind::Fifo, b'6'),
    ];

    fn of_type(byte: u8) -> Option<Kind> {
        let byte = if matches!(byte, 0 | b'7') { b'0' } else { byte };
        Kind::ALL
            .into_iter()
            .find(|(_, known)| *known == byte)
            .map(|(kind, _)| kind)
    }

    fn type_byte(self) -> u8 {
        Kind::ALL
            .into_iter()
            .find(|(kind, _)| *kind == self)
            .map_or(b'0', |(_, byte)| byte)
    }
}

/// Why a tar cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// The checksum does not fit: it is no tar, or damaged.
    #[error("this is no tar: the checksum of a header is wrong")]
    Checksum,
    /// A number is none.
    #[error("a header of the tar holds a number that is none, or too large")]
    Number,
    /// An entry of a kind that we do not know.
    #[error("the tar holds an entry of the unknown kind {0:?}")]
    Kind(char),
    /// An extension is too long or makes no sense.
    #[error("the tar holds an extension that is too long or makes no sense")]
    Extension,
}

/// What a block was.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Part of something: feed the next.
    More,
    /// An entry. Its contents follow, `size` bytes, filled up to whole blocks; then the next header.
    Entry(Header),
    /// The end.
    End,
}

/// Reads headers.
#[derive(Debug, Default)]
pub struct Reader {
    /// The extension that is being read: its type, its bytes so far and how many are missing.
    extension: Option<(u8, Vec<u8>, u64)>,
    next: Overrides,
}

/// What extensions say about the entry that comes next.
#[derive(Debug, Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime_s: Option<i64>,
}

impl Reader {
    /// Takes a block in which a header is expected.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn block(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<Step, TarError> {
        if let Some((kind, mut bytes, missing)) = self.extension.take() {
            let part = usize::try_from(missing).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
            bytes.extend_from_slice(block.get(..part).unwrap_or(block));
            let missing = missing.saturating_sub(512);
            if missing > 0 {
                self.extension = Some((kind, bytes, missing));
            } else {
                self.next.take(kind, bytes)?;
            }
            return Ok(Step::More);
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(Step::End);
        }
        let fields = Fields(block);
        if fields.number(148, 8)? != fields.checksum() {
            return Err(TarError::Checksum);
        }
        let type_byte = block[156];
        let size = fields.number(124, 12)?;
        match Kind::of_type(type_byte) {
            Some(kind) => self.entry(&fields, kind, size).map(Step::Entry),
            None if matches!(type_byte, b'x' | b'L' | b'K' | b'g') => {
                if size > MAX_EXTENSION_BYTES {
                    return Err(TarError::Extension);
                }
                if size > 0 {
                    self.extension = Some((type_byte, Vec::new(), size));
                }
                Ok(Step::More)
            }
            None => Err(TarError::Kind(char::from(type_byte))),
        }
    }

    fn entry(&mut self, fields: &Fields<'_>, kind: Kind, size: u64) -> Result<Header, TarError> {
        let next = core::mem::take(&mut self.next);
        let small = |number| u32::try_from(number).map_err(|_| TarError::Number);
        let path = next.path.map_or_else(|| fields.path(), Ok)?;
        // Old tars mark folders by a slash alone.
        let kind = if kind == Kind::File && path.ends_with(b"/") {
            Kind::Dir
        } else {
            kind
        };
        let size = next.size.unwrap_or(size);
        Ok(Header {
            kind,
            path,
            link: next.link.unwrap_or_else(|| fields.text(157, 100).to_vec()),
            // Only files have contents, whatever their headers say of the others.
            size: if kind == Kind::File { size } else { 0 },
            mode: small(fields.number(100, 8)?)? & 0o7777,
            uid: next.uid.map_or_else(|| small(fields.number(108, 8)?), Ok)?,
            gid: next.gid.map_or_else(|| small(fields.number(116, 8)?), Ok)?,
            mtime_s: next.mtime_s.map_or_else(|| fields.signed(136, 12), Ok)?,
            device: match kind {
                Kind::Char | Kind::Block => (small(fields.number(329, 8)?)?, small(fields.number(337, 8)?)?),
                _ => (0, 0),
            },
        })
    }
}

impl Overrides {
    fn take(&mut self, kind: u8, mut bytes: Vec<u8>) -> Result<(), TarError> {
        let mut until_zero = || {
            bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
            core::mem::take(&mut bytes)
        };
        match kind {
            b'L' => self.path = Some(until_zero()),
            b'K' => self.link = Some(until_zero()),
            b'x' => self.take_records(&bytes)?,
            _ => {} // what stands for all entries concerns nothing that we keep
        }
        Ok(())
    }

    /// `LENGTH KEY=VALUE\n`, again and again.
    fn take_records(&mut self, mut bytes: &[u8]) -> Result<(), TarError> {
        while !bytes.is_empty() {
            let record = || {
                let space = bytes.iter().position(|byte| *byte == b' ')?;
                let length: usize = core::str::from_utf8(bytes.get(..space)?).ok()?.parse().ok()?;
                let record = bytes.get(space.checked_add(1)?..length)?.strip_suffix(b"\n")?;
                let equals = record.iter().position(|byte| *byte == b'=')?;
                let value = record.get(equals.checked_add(1)?..)?;
                Some((record.get(..equals)?, value, bytes.get(length..)?))
            };
            let (key, value, rest) = record().ok_or(TarError::Extension)?;
            bytes = rest;
            let number = || -> Result<&str, TarError> {
                let text = core::str::from_utf8(value).map_err(|_| TarError::Number)?;
                Ok(text.split('.').next().unwrap_or(text))
            };
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number()?.parse().map_err(|_| TarError::Number)?),
                b"uid" => self.uid = Some(number()?.parse().map_err(|_| TarError::Number)?),
                b"gid" => self.gid = Some(number()?.parse().map_err(|_| TarError::Number)?),
                b"mtime" => self.mtime_s = Some(whole_seconds(value)?),
                // A sparse file's contents are not its bytes.
                _ if key.starts_with(b"GNU.sparse.") => return Err(TarError::Kind('S')),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A time with or without a fraction, rounded down as filesystems do: `-1.5` is the second half of second -2.
fn whole_seconds(value: &[u8]) -> Result<i64, TarError> {
    let text = core::str::from_utf8(value).map_err(|_| TarError::Number)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| TarError::Number)?;
    if whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0') {
        return seconds.checked_sub(1).ok_or(TarError::Number);
    }
    Ok(seconds)
}

/// A header block's fields, by offset and length.
struct Fields<'a>(&'a [u8; BLOCK_BYTES]);

impl<'a> Fields<'a> {
    fn bytes(&self, at: usize, len: usize) -> &'a [u8] {
        self.0.get(at..at.saturating_add(len)).unwrap_or_default()
    }

    /// Up to the first zero.
    fn text(&self, at: usize, len: usize) -> &'a [u8] {
        let bytes = self.bytes(at, len);
        bytes.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn path(&self) -> Result<Vec<u8>, TarError> {
        let name = self.text(0, 100);
        // GNU's own headers have other things where the prefix is.
        let prefix = if self.bytes(257, 6) == b"ustar\0" {
            self.text(345, 155)
        } else {
            b""
        };
        Ok(if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        })
    }

    fn number(&self, at: usize, len: usize) -> Result<u64, TarError> {
        u64::try_from(self.signed(at, len)?).map_err(|_| TarError::Number)
    }

    /// Octal digits among blanks, or GNU's form for other numbers: after a first bit, two's complement.
    fn signed(&self, at: usize, len: usize) -> Result<i64, TarError> {
        let bytes = self.bytes(at, len);
        if let Some((first, rest)) = bytes.split_first().filter(|(first, _)| **first & 0x80 != 0) {
            let sign = if first & 0x40 != 0 { -0x80 } else { 0 };
            return rest
                .iter()
                .try_fold(sign | i64::from(first & 0x7f), |number, byte| {
                    number.checked_mul(256)?.checked_add(i64::from(*byte))
                })
                .ok_or(TarError::Number);
        }
        let digits = bytes
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default()
            .trim_ascii();
        digits
            .iter()
            .try_fold(0i64, |number, digit| {
                let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
                number.checked_mul(8)?.checked_add(i64::from(digit))
            })
            .ok_or(TarError::Number)
    }

    /// The sum of all bytes, with blanks in the place of the checksum.
    fn checksum(&self) -> u64 {
        self.0
            .iter()
            .enumerate()
            .map(|(index, byte)| {
                if (148..156).contains(&index) {
                    u64::from(b' ')
                } else {
                    u64::from(*byte)
                }
            })
            .sum()
    }
}

/// How many bytes fill contents of that length up to whole blocks.
pub fn padding(size: u64) -> usize {
    let over = size.checked_rem(512).unwrap_or(0);
    let missing = 512u64.saturating_sub(over).checked_rem(512).unwrap_or(0);
    usize::try_from(missing).unwrap_or(0)
}

impl Header {
    /// Adds the entry's header blocks to `out`; its contents and their [`padding`] follow.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for (type_byte, name) in [(b'L', &self.path), (b'K', &self.link)] {
            if name.len() > 100 {
                let with_zero = u64::try_from(name.len()).unwrap_or(0).saturating_add(1);
                let extension = Header {
                    path: b"././@LongLink".to_vec(),
                    link: Vec::new(),
                    size: with_zero,
                    ..Header::plain(Kind::File)
                };
                extension.encode_block(type_byte, out);
                out.extend_from_slice(name);
                let filled = padding(with_zero).saturating_add(1);
                out.extend(core::iter::repeat_n(0, filled));
            }
        }
        self.encode_block(self.kind.type_byte(), out);
    }

    /// An entry of which nothing else is known.
    pub fn plain(kind: Kind) -> Header {
        Header {
            kind,
            path: Vec::new(),
            link: Vec::new(),
            size: 0,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime_s: 0,
            device: (0, 0),
        }
    }

    fn encode_block(&self, type_byte: u8, out: &mut Vec<u8>) {
        let mut block = [0u8; BLOCK_BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            let end = at.saturating_add(bytes.len());
            if let Some(field) = block.get_mut(at..end) {
                field.copy_from_slice(bytes);
            }
        };
        put(0, self.path.get(..100).unwrap_or(&self.path));
        put(100, &number::<8>(u64::from(self.mode)));
        put(108, &number::<8>(u64::from(self.uid)));
        put(116, &number::<8>(u64::from(self.gid)));
        put(124, &number::<12>(self.size));
        put(136, &time(self.mtime_s));
        put(148, b"        ");
        put(156, &[type_byte]);
        put(157, self.link.get(..100).unwrap_or(&self.link));
        put(257, b"ustar  \0");
        put(329, &number::<8>(u64::from(self.device.0)));
        put(337, &number::<8>(u64::from(self.device.1)));
        let sum = Fields(&block).checksum();
        if let (Some(field), Some(digits)) = (block.get_mut(148..155), number::<8>(sum).get(1..)) {
            field.copy_from_slice(digits);
        }
        out.extend_from_slice(&block);
    }
}

/// A number in a field of `LEN` bytes: octal digits and a zero, or GNU's form where they do not suffice.
fn number<const LEN: usize>(value: u64) -> [u8; LEN] {
    let mut field = [0u8; LEN];
    let mut rest = value;
    for byte in field.iter_mut().rev().skip(1) {
        let digit = u8::try_from(rest & 7).unwrap_or(0);
        *byte = digit.saturating_add(b'0');
        rest >>= 3u32;
    }
    if rest > 0 {
        field = [0; LEN];
        for (byte, value) in field.iter_mut().rev().zip(value.to_be_bytes().into_iter().rev()) {
            *byte = value;
        }
        if let Some(first) = field.first_mut() {
            *first |= 0x80;
        }
    }
    field
}

/// A time as a field: before 1970 in GNU's form, two's complement.
fn time(seconds: i64) -> [u8; 12] {
    u64::try_from(seconds).map_or_else(
        |_| {
            let mut field = [0xff; 12];
            if let Some(low) = field.last_chunk_mut() {
                *low = seconds.to_be_bytes();
            }
            field
        },
        number,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn read(bytes: &[u8]) -> Result<Vec<Header>, TarError> {
        let mut reader = Reader::default();
        let mut entries = Vec::new();
        for block in bytes.chunks_exact(BLOCK_BYTES) {
            match reader.block(block.first_chunk().expect("a block"))? {
                Step::More => {}
                Step::Entry(header) => entries.push(header),
                Step::End => break,
            }
        }
        Ok(entries)
    }

    #[test]
    fn what_is_written_is_read() {
        let entries = vec![
            Header {
                path: b"./".to_vec(),
                mode: 0o1777,
                uid: 3_000_000,
                ..Header::plain(Kind::Dir)
            },
            Header {
                path: vec![b'n'; 300],
                link: vec![0xff; 101],
                ..Header::plain(Kind::Symlink)
            },
            Header {
                path: vec![b'n'; 100],
                link: vec![b'l'; 100],
                ..Header::plain(Kind::Hardlink)
            },
            Header {
                path: b"null".to_vec(),
                device: (1, 3),
                ..Header::plain(Kind::Char)
            },
            Header {
                path: b"big".to_vec(),
                size: 1 << 40,
                mtime_s: 1 << 34,
                gid: u32::MAX,
                ..Header::plain(Kind::File)
            },
        ];
        let mut bytes = Vec::new();
        for entry in &entries {
            entry.encode(&mut bytes);
        }
        assert_eq!(read(&bytes), Ok(entries));
    }

    #[test]
    fn times_reach_as_far_as_the_kernels() {
        for mtime_s in [
            i64::MIN,
            -(1 << 33),
            -86_400,
            -1,
            0,
            (1 << 33) - 1,
            1 << 33,
            i64::MAX,
        ] {
            let entry = Header {
                mtime_s,
                ..Header::plain(Kind::File)
            };
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            assert_eq!(read(&bytes), Ok(vec![entry]), "{mtime_s}");
        }
        for (text, mtime_s) in [
            ("-1", -1),
            ("-1.5", -2),
            ("-0.25", -1),
            ("-2.000", -2),
            ("1.9", 1),
        ] {
            assert_eq!(whole_seconds(text.as_bytes()), Ok(mtime_s), "{text}");
        }
    }

    #[test]
    fn only_times_are_negative() {
        let mut bytes = Vec::new();
        Header::plain(Kind::File).encode(&mut bytes);
        for at in [108, 116, 124] {
            let mut block: [u8; BLOCK_BYTES] = *bytes.first_chunk().expect("a block");
            block[at..at + 8].fill(0xff);
            let sum = number::<8>(Fields(&block).checksum());
            block[148..155].copy_from_slice(&sum[1..]);
            assert_eq!(read(&block), Err(TarError::Number), "{at}");
        }
    }

    #[test]
    fn damage_is_seen() {
        let mut bytes = Vec::new();
        Header {
            path: b"x".to_vec(),
            ..Header::plain(Kind::File)
        }
        .encode(&mut bytes);
        bytes[0] = b'y';
        assert_eq!(read(&bytes), Err(TarError::Checksum));
        let mut reader = Reader::default();
        assert_eq!(reader.block(&[0; 512]), Ok(Step::End));
        assert_eq!(
            (padding(0), padding(1), padding(512), padding(513)),
            (0, 511, 0, 511)
        );
    }
}
