//! Layers as tests write them, and the bytes they become.
//!
//! A [`Layer`] is a list of [`Entry`]s in tar order, nothing resolved and nothing checked: whatever a test can
//! write down, however hostile, it can turn into bytes. [`text`] is the form that people write, [`tar`] turns
//! entries into a tar stream (its own writer: it shares no code with the crate it tests), [`read`] turns real
//! tars into entries (with the `tar` crate), [`oci`] wraps layers into an OCI image layout, [`archive`] into tars of
//! images.

pub mod archive;
pub mod content;
pub mod oci;
pub mod read;
pub mod tar;
pub mod text;

use std::fmt;

use crate::listing::Time;
pub use content::Content;

/// The modification time of entries that give none: 2023-11-14 22:13:20 UTC.
pub const DEFAULT_MTIME: Time = Time {
    secs: 1_700_000_000,
    nanos: 0,
};

/// One layer: entries in the order in which they stand in the tar.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// The entries.
    pub entries: Vec<Entry>,
}

/// One entry, as it stands in the tar.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name exactly as it stands in the tar (no leading slash, unless the test wants one).
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes, in this order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// How the tar says what does not fit into a plain header.
    pub format: Format,
    /// Write extended attributes as `LIBARCHIVE.xattr` instead of `SCHILY.xattr`.
    pub libarchive: bool,
    /// A size for the header that is not the content's.
    pub lie: Option<u64>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File(Content),
    /// A directory.
    Dir,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// One more name for this path (as it stands in the tar).
    Hardlink(Vec<u8>),
    /// A character device: major, minor.
    Char(u32, u32),
    /// A block device: major, minor.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket: a named pipe with the record `FIREBRICK.type=socket`.
    Socket,
    /// A whiteout; `path` is the path that it hides.
    Whiteout,
    /// An opaque whiteout; `path` is the directory that it empties.
    Opaque,
}

/// The dialects of tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// POSIX.1-2001: extended headers for whatever does not fit.
    #[default]
    Pax,
    /// GNU: `L` and `K` entries, base-256 numbers; extended headers only for xattrs and nanoseconds.
    Gnu,
    /// POSIX.1-1988: names are split at a slash; what does not fit cannot be written.
    Ustar,
}

impl Entry {
    /// An entry owned by root, of [`DEFAULT_MTIME`], in PAX form.
    pub fn new(path: &[u8], kind: EntryKind, mode: u32) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: DEFAULT_MTIME,
            xattrs: Vec::new(),
            format: Format::Pax,
            libarchive: false,
            lie: None,
        }
    }

    /// A file of mode 0644.
    pub fn file(path: &str, content: &[u8]) -> Entry {
        Entry::new(
            path.as_bytes(),
            EntryKind::File(Content::Bytes(content.to_vec())),
            0o644,
        )
    }

    /// A directory of mode 0755.
    pub fn dir(path: &str) -> Entry {
        Entry::new(path.as_bytes(), EntryKind::Dir, 0o755)
    }
}

/// The text form, so that a failing test shows layers that can be pasted into one.
impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
