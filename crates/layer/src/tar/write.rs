//! Writes tars in one canonical form: ustar, and PAX records where a field does not suffice; same input, same bytes.
//!
//! Directories' names end with a slash, the root is `./`. Records stand sorted by keyword, but for `hdrcharset`, which
//! readers want first. A change here changes the diff IDs of `dir:` images and of the layers that firebrick adds.

use std::collections::BTreeMap;
use std::io::{self, Write};

use firebrick_tree::{DeviceKind, LayerPath, Metadata};

use super::header::TAR_BLOCK;

/// What an entry of a [`Writer`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriterEntry<'a> {
    /// A directory.
    Directory,
    /// A regular file and its content.
    File(&'a [u8]),
    /// A symbolic link and its target.
    Symlink(&'a [u8]),
    /// A hardlink to another path.
    Hardlink(&'a LayerPath),
    /// A device node.
    Device {
        /// Character or block.
        kind: DeviceKind,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A unix socket's name, kept as a FIFO with a record of our own.
    Socket,
}

/// Writes a tar, entry by entry.
///
/// ```
/// use firebrick_layer::tar::{Writer, WriterEntry};
/// use firebrick_tree::{LayerPath, Metadata};
///
/// let mut writer = Writer::new(Vec::new());
/// let path = LayerPath::parse(b"etc/hostname").unwrap();
/// writer.entry(&path, &Metadata { mode: 0o644, ..Metadata::default() }, WriterEntry::File(b"box\n")).unwrap();
/// let tar = writer.finish().unwrap();
/// assert_eq!(tar.len() % 512, 0);
/// ```
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

/// Bytes that a name field holds.
const NAME_LEN: usize = 100;

/// Largest number of 11 octal digits, what a size or time field holds.
const OCTAL_11_MAX: u64 = 0o77777777777;

/// Largest number of 7 octal digits, what an owner field holds.
const OCTAL_7_MAX: u64 = 0o7777777;

impl<W: Write> Writer<W> {
    /// Starts an empty tar.
    pub fn new(out: W) -> Writer<W> {
        Writer { out }
    }

    /// Adds an entry whose content, if any, is in memory.
    ///
    /// # Errors
    /// What writing gives.
    pub fn entry(&mut self, path: &LayerPath, meta: &Metadata, entry: WriterEntry<'_>) -> io::Result<()> {
        let content = if let WriterEntry::File(content) = entry {
            content
        } else {
            b""
        };
        self.header(path.as_bytes(), meta, &entry, content.len() as u64)?;
        self.content(content)
    }

    /// Adds the header of a file of `len` bytes. The caller writes those to [`Writer::get_mut`], then calls
    /// [`Writer::pad`].
    ///
    /// # Errors
    /// What writing gives.
    pub fn file_header(&mut self, path: &LayerPath, meta: &Metadata, len: u64) -> io::Result<()> {
        self.header(path.as_bytes(), meta, &WriterEntry::File(b""), len)
    }

    /// Fills up to a whole block after `len` bytes of content.
    ///
    /// # Errors
    /// What writing gives.
    pub fn pad(&mut self, len: u64) -> io::Result<()> {
        let padding = usize::try_from(len.wrapping_neg() % 512).expect("less than a block");
        self.out.write_all(&[0; TAR_BLOCK][..padding])
    }

    /// Where the tar goes.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Ends the tar.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * TAR_BLOCK])?;
        Ok(self.out)
    }

    fn content(&mut self, content: &[u8]) -> io::Result<()> {
        self.out.write_all(content)?;
        self.pad(content.len() as u64)
    }

    fn header(&mut self, path: &[u8], meta: &Metadata, entry: &WriterEntry<'_>, size: u64) -> io::Result<()> {
        let (typeflag, link, major, minor) = describe(entry);
        let path = match (entry, path) {
            (_, []) => b"./".to_vec(),
            (WriterEntry::Directory, path) => [path, b"/"].concat(),
            (_, path) => path.to_vec(),
        };
        let mtime = meta.mtime;
        let plain_time = u64::try_from(mtime.seconds).is_ok_and(|seconds| seconds <= OCTAL_11_MAX);
        let records = records(&path, meta, entry, size, plain_time);
        if !records.is_empty() {
            let fields = Fields {
                mode: 0o644,
                size: records.len() as u64,
                ..Fields::default()
            };
            self.out
                .write_all(&header_block(b"PaxHeaders.0/x", &fields, b'x', b""))?;
            self.content(&records)?;
        }
        let fits = |value: u64, max: u64| if value <= max { value } else { 0 };
        let fields = Fields {
            mode: u64::from(meta.mode),
            uid: fits(meta.uid.into(), OCTAL_7_MAX),
            gid: fits(meta.gid.into(), OCTAL_7_MAX),
            size: fits(size, OCTAL_11_MAX),
            mtime: if plain_time {
                mtime.seconds.unsigned_abs()
            } else {
                0
            },
            major: fits(major.into(), OCTAL_7_MAX),
            minor: fits(minor.into(), OCTAL_7_MAX),
        };
        self.out.write_all(&header_block(&path, &fields, typeflag, link))
    }
}

/// The PAX records of an entry, for what its header cannot hold.
fn records(path: &[u8], meta: &Metadata, entry: &WriterEntry<'_>, size: u64, plain_time: bool) -> Vec<u8> {
    let (_, link, major, minor) = describe(entry);
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut is_text = true;
    for (keyword, bytes) in [("path", path), ("linkpath", link)] {
        if bytes.len() > NAME_LEN {
            is_text &= std::str::from_utf8(bytes).is_ok();
            records.insert(keyword.into(), bytes.to_vec());
        }
    }
    for (keyword, value, max) in [
        ("size", size, OCTAL_11_MAX),
        ("uid", meta.uid.into(), OCTAL_7_MAX),
        ("gid", meta.gid.into(), OCTAL_7_MAX),
        ("SCHILY.devmajor", major.into(), OCTAL_7_MAX),
        ("SCHILY.devminor", minor.into(), OCTAL_7_MAX),
    ] {
        if value > max {
            records.insert(keyword.into(), value.to_string().into());
        }
    }
    if !plain_time || meta.mtime.nanoseconds != 0 {
        let time = pax_time(meta.mtime.seconds, meta.mtime.nanoseconds);
        records.insert("mtime".into(), time.into());
    }
    if matches!(entry, WriterEntry::Socket) {
        records.insert("FIREBRICK.type".into(), "socket".into());
    }
    for (name, value) in &meta.xattrs {
        records.insert([b"SCHILY.xattr.", &**name].concat(), value.to_vec());
    }
    let charset = (!is_text).then(|| pax_record(b"hdrcharset", b"BINARY"));
    let sorted = records.iter().map(|(keyword, value)| pax_record(keyword, value));
    charset.into_iter().chain(sorted).flatten().collect()
}

fn describe<'a>(entry: &WriterEntry<'a>) -> (u8, &'a [u8], u32, u32) {
    match entry {
        WriterEntry::File(_) => (b'0', b"", 0, 0),
        WriterEntry::Hardlink(target) => (b'1', target.as_bytes(), 0, 0),
        WriterEntry::Symlink(target) => (b'2', target, 0, 0),
        WriterEntry::Device {
            kind: DeviceKind::Char,
            major,
            minor,
        } => (b'3', b"", *major, *minor),
        WriterEntry::Device {
            kind: DeviceKind::Block,
            major,
            minor,
        } => (b'4', b"", *major, *minor),
        WriterEntry::Directory => (b'5', b"", 0, 0),
        WriterEntry::Fifo | WriterEntry::Socket => (b'6', b"", 0, 0),
    }
}

#[derive(Default)]
struct Fields {
    mode: u64,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    major: u64,
    minor: u64,
}

fn header_block(path: &[u8], fields: &Fields, typeflag: u8, link: &[u8]) -> [u8; TAR_BLOCK] {
    let mut block = [0; TAR_BLOCK];
    let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &path[..path.len().min(NAME_LEN)]);
    put(100, format!("{:07o}\0", fields.mode).as_bytes());
    put(108, format!("{:07o}\0", fields.uid).as_bytes());
    put(116, format!("{:07o}\0", fields.gid).as_bytes());
    put(124, format!("{:011o}\0", fields.size).as_bytes());
    put(136, format!("{:011o}\0", fields.mtime).as_bytes());
    put(148, b"        ");
    put(156, &[typeflag]);
    put(157, &link[..link.len().min(NAME_LEN)]);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}\0", fields.major).as_bytes());
    put(337, format!("{:07o}\0", fields.minor).as_bytes());
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// `LEN KEYWORD=VALUE\n`, where LEN counts itself.
fn pax_record(keyword: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = keyword.len() + value.len() + 3;
    let mut len = rest + rest.to_string().len();
    if rest + len.to_string().len() != len {
        len += 1;
    }
    [len.to_string().as_bytes(), b" ", keyword, b"=", value, b"\n"].concat()
}

/// Seconds as a decimal without zeros at its end; a negative time counts its fraction away from the epoch.
fn pax_time(seconds: i64, nanoseconds: u32) -> String {
    let total = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, fraction) = (total.abs() / 1_000_000_000, total.abs() % 1_000_000_000);
    match fraction {
        0 => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{}", format!("{fraction:09}").trim_end_matches('0')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        // From the PAX specification's rule: the decimal length counts itself, the space, '=' and newline.
        for (value_len, expected) in [
            (1, "6 a=x"),
            (3, "8 a=xxx"),
            (4, "9 a=xxxx"),
            (5, "11 a=xxxxx"),
            (6, "12 a=xxxxxx"),
        ] {
            let record = pax_record(b"a", &vec![b'x'; value_len]);
            assert_eq!(String::from_utf8(record).unwrap(), format!("{expected}\n"));
        }
        for len in 1..2000 {
            let record = pax_record(b"path", &vec![b'x'; len]);
            let said = String::from_utf8(record.clone()).unwrap();
            let said: usize = said.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, record.len());
        }
    }

    #[test]
    fn times_before_1970_count_away_from_zero() {
        for (seconds, nanoseconds, expected) in [
            (0, 0, "0"),
            (1, 500_000_000, "1.5"),
            (1, 1, "1.000000001"),
            (-1, 0, "-1"),
            (-2, 500_000_000, "-1.5"),
            (-1, 999_999_999, "-0.000000001"),
            (i64::MIN, 0, "-9223372036854775808"),
        ] {
            assert_eq!(pax_time(seconds, nanoseconds), expected);
        }
    }

    /// Diff IDs of `dir:` images, and what is cached and stored by them, hang on every byte.
    #[test]
    fn the_form_stays() {
        let text = format!("{}\u{fffd}", "long/".repeat(30));
        let raw = [text.as_bytes(), b"\xff"].concat();
        let (path, raw) = (LayerPath::parse(text.as_bytes()), LayerPath::parse(&raw));
        let (path, raw) = (path.unwrap(), raw.unwrap());
        let plain = Metadata::default();
        let mut rich = Metadata {
            mode: 0o7777,
            uid: 4_000_000_000,
            gid: 3_000_000,
            ..Metadata::default()
        };
        rich.mtime.seconds = -2;
        rich.mtime.nanoseconds = 120_000_000;
        for (name, value) in [("user.b", &b"\n=\0"[..]), ("user.a", b"")] {
            rich.xattrs.insert(name.as_bytes().into(), value.into());
        }
        let device = |kind, minor| WriterEntry::Device {
            kind,
            major: 259,
            minor,
        };
        let mut writer = Writer::new(Vec::new());
        for (path, meta, entry) in [
            (&LayerPath::root(), &plain, WriterEntry::Directory),
            (&path, &rich, WriterEntry::Directory),
            (&path, &plain, WriterEntry::File(b"content")),
            (&path, &plain, WriterEntry::Hardlink(&raw)),
            (&raw, &rich, WriterEntry::Symlink(b"to")),
            (&path, &plain, device(DeviceKind::Char, 3)),
            (&path, &plain, device(DeviceKind::Block, u32::MAX)),
            (&path, &plain, WriterEntry::Fifo),
            (&path, &rich, WriterEntry::Socket),
        ] {
            writer.entry(path, meta, entry).unwrap();
        }
        writer
            .file_header(&path, &plain, OCTAL_11_MAX.checked_add(1).unwrap())
            .unwrap();
        let mut hasher = firebrick_digest::Hasher::new();
        hasher.update(&writer.finish().unwrap());
        assert_eq!(
            hasher.finish().to_string(),
            "sha256:c53f38851fe4ac06630170404ef0a300a8eb317417c8b3a6595f70a10d8d0e30"
        );
    }
}
