//! Writes the tars of firebrick's own layers: PAX where a field does not fit, same input, same bytes.

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
        let mut records = Vec::new();
        let mut record = |keyword: &[u8], value: &[u8]| records.extend(pax_record(keyword, value));
        let path = if path.is_empty() { b"./" } else { path };
        let mtime = meta.mtime;
        if path.len() > 100 {
            record(b"path", path);
        }
        if link.len() > 100 {
            record(b"linkpath", link);
        }
        if size > OCTAL_11_MAX {
            record(b"size", size.to_string().as_bytes());
        }
        if u64::from(meta.uid) > OCTAL_7_MAX {
            record(b"uid", meta.uid.to_string().as_bytes());
        }
        if u64::from(meta.gid) > OCTAL_7_MAX {
            record(b"gid", meta.gid.to_string().as_bytes());
        }
        let plain_time = u64::try_from(mtime.seconds).is_ok_and(|seconds| seconds <= OCTAL_11_MAX);
        if !plain_time || mtime.nanoseconds != 0 {
            record(b"mtime", pax_time(mtime.seconds, mtime.nanoseconds).as_bytes());
        }
        if u64::from(major) > OCTAL_7_MAX {
            record(b"SCHILY.devmajor", major.to_string().as_bytes());
        }
        if u64::from(minor) > OCTAL_7_MAX {
            record(b"SCHILY.devminor", minor.to_string().as_bytes());
        }
        if matches!(entry, WriterEntry::Socket) {
            record(b"FIREBRICK.type", b"socket");
        }
        for (name, value) in &meta.xattrs {
            record(&[b"SCHILY.xattr.", &**name].concat(), value);
        }
        if !records.is_empty() {
            let block = header_block(
                b"@pax",
                &Fields {
                    mode: 0o644,
                    size: records.len() as u64,
                    ..Fields::default()
                },
                b'x',
                b"",
            );
            self.out.write_all(&block)?;
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
        self.out.write_all(&header_block(path, &fields, typeflag, link))
    }
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
    put(0, &path[..path.len().min(100)]);
    put(100, format!("{:07o}\0", fields.mode).as_bytes());
    put(108, format!("{:07o}\0", fields.uid).as_bytes());
    put(116, format!("{:07o}\0", fields.gid).as_bytes());
    put(124, format!("{:011o}\0", fields.size).as_bytes());
    put(136, format!("{:011o}\0", fields.mtime).as_bytes());
    put(148, b"        ");
    put(156, &[typeflag]);
    put(157, &link[..link.len().min(100)]);
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

/// Seconds as a decimal; a negative time counts its fraction away from the epoch.
fn pax_time(seconds: i64, nanoseconds: u32) -> String {
    match (seconds, nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (0.., nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
        (seconds, nanoseconds) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
    }
}
