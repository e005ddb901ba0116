//! Writes tars in one canonical form: ustar, and PAX records where a field does not suffice; same input, same bytes.
//!
//! Directories' names end with a slash, the root is `./`. Records stand sorted by keyword, but for `hdrcharset`, which
//! readers want first. Sparse files have GNU's format 1.0, as records and a map in front of the data. A change here changes the diff IDs of `dir:` images and of the layers that firebrick adds.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;

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

/// The name in the header of a sparse file, for readers that do not know the format; the real one is a record.
const SPARSE_NAME: &[u8] = b"GNUSparseFile.0/x";

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
        self.header(path.as_bytes(), meta, &entry, content.len() as u64, None)?;
        self.content(content)
    }

    /// Adds the header of a file of `len` bytes. The caller writes those to [`Writer::get_mut`], then calls
    /// [`Writer::pad`].
    ///
    /// # Errors
    /// What writing gives.
    pub fn file_header(&mut self, path: &LayerPath, meta: &Metadata, len: u64) -> io::Result<()> {
        self.header(path.as_bytes(), meta, &WriterEntry::File(b""), len, None)
    }

    /// Adds the header of a sparse file of `len` bytes, of which only `parts` follow: ranges of bytes that rise and do
    /// not touch. The caller writes those, then calls [`Writer::pad`] with the sum of their lengths.
    ///
    /// Format: <https://www.gnu.org/software/tar/manual/html_section/Sparse-Formats.html>, version 1.0.
    ///
    /// # Errors
    /// What writing gives.
    pub fn sparse_header(
        &mut self,
        path: &LayerPath,
        meta: &Metadata,
        len: u64,
        parts: &[Range<u64>],
    ) -> io::Result<()> {
        // Readers make the file as long as the last part ends.
        let end = (parts.last().is_none_or(|part| part.end < len)).then_some(len..len);
        let parts = || parts.iter().chain(&end);
        let mut map = format!("{}\n", parts().count());
        for part in parts() {
            map.push_str(&format!("{}\n{}\n", part.start, part.end - part.start));
        }
        let map_len = (map.len() as u64).next_multiple_of(TAR_BLOCK as u64);
        let data_len: u64 = parts().map(|part| part.end - part.start).sum();
        let entry = WriterEntry::File(b"");
        self.header(path.as_bytes(), meta, &entry, map_len + data_len, Some(len))?;
        self.content(map.as_bytes())
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

    /// `size` is what follows the header; a sparse file has a `real_size` too.
    fn header(
        &mut self,
        path: &[u8],
        meta: &Metadata,
        entry: &WriterEntry<'_>,
        size: u64,
        real_size: Option<u64>,
    ) -> io::Result<()> {
        let (typeflag, link, major, minor) = describe(entry);
        let path = match (entry, path) {
            (_, []) => b"./".to_vec(),
            (WriterEntry::Directory, path) => [path, b"/"].concat(),
            (_, path) => path.to_vec(),
        };
        let mtime = meta.mtime;
        let plain_time = u64::try_from(mtime.seconds).is_ok_and(|seconds| seconds <= OCTAL_11_MAX);
        let records = records(&path, meta, entry, (size, real_size), plain_time);
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
        let path = if real_size.is_some() { SPARSE_NAME } else { &path };
        self.out.write_all(&header_block(path, &fields, typeflag, link))
    }
}

/// The PAX records of an entry, for what its header cannot hold.
fn records(
    path: &[u8],
    meta: &Metadata,
    entry: &WriterEntry<'_>,
    (size, real_size): (u64, Option<u64>),
    plain_time: bool,
) -> Vec<u8> {
    let (_, link, major, minor) = describe(entry);
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut is_text = true;
    let path_keyword = match real_size {
        Some(_) => "GNU.sparse.name",
        None => "path",
    };
    for (keyword, bytes) in [(path_keyword, path), ("linkpath", link)] {
        if bytes.len() > NAME_LEN || keyword == "GNU.sparse.name" {
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
    if let Some(real_size) = real_size {
        records.insert("GNU.sparse.major".into(), "1".into());
        records.insert("GNU.sparse.minor".into(), "0".into());
        records.insert("GNU.sparse.realsize".into(), real_size.to_string().into());
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

    /// As in the next test, by hand: GNU's example of format 1.0 with a hole at its end.
    #[test]
    fn the_form_of_sparse_files_stays() {
        let path = LayerPath::parse(b"dir/f").unwrap();
        let mut writer = Writer::new(Vec::new());
        let parts = [4096..8192, 1 << 30..(1 << 30) + 4096];
        writer
            .sparse_header(&path, &Metadata::default(), 1 << 40, &parts)
            .unwrap();
        let tar = writer.get_mut();
        let records = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=dir/f\n37 GNU.sparse.realsize=1099511627776\n";
        assert_eq!(&tar[512..512 + records.len()], records.as_bytes());
        assert_eq!(&tar[1024..1024 + SPARSE_NAME.len()], SPARSE_NAME);
        // The map's block and two blocks of data.
        assert_eq!(
            &tar[1024 + 124..1024 + 136],
            format!("{:011o}\0", 512 + 8192).as_bytes()
        );
        let map = "3\n4096\n4096\n1073741824\n4096\n1099511627776\n0\n";
        assert_eq!(&tar[1536..1536 + map.len()], map.as_bytes());
        assert_eq!(tar.len(), 2048);
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
