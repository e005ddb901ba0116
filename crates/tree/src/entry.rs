//! What one layer says: entries in tar order, and where their bytes lie.

use std::collections::BTreeMap;

use crate::path::LayerPath;

/// A point in time: seconds since 1970-01-01 UTC (may be negative) plus 0 to 999,999,999 nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanoseconds: u32,
}

/// Extended attributes by full name (`user.mime_type`), values as bytes. Sorted, so that order never depends on a tar.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What every inode has, whatever its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Permission, set-id and sticky bits (`0o7777`); never the file type.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes. POSIX ACLs are here as `system.posix_acl_access` in the form that `getxattr(2)` gives.
    pub xattrs: Xattrs,
}

/// A directory that anyone may enter: `0755 root:root`, at the epoch.
impl Default for Metadata {
    fn default() -> Metadata {
        Metadata {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: Xattrs::new(),
        }
    }
}

/// Which layer's region holds some bytes: its 0-based place among the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionIndex(pub u32);

/// A stretch of a file's content that lies in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file, in bytes; a multiple of 4096.
    pub file_offset: u64,
    /// The region that holds the bytes.
    pub region: RegionIndex,
    /// Offset from the region's start, in bytes; a multiple of 4096.
    pub region_offset: u64,
    /// Length in bytes. Only the last segment of a file may end off a 4096-byte boundary.
    pub len: u64,
}

/// A regular file's content: its length and the segments that are not holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileData {
    /// Length in bytes.
    pub size: u64,
    /// In rising order, not overlapping, all within `size`. What lies between reads as zeros.
    pub segments: Vec<Segment>,
}

/// Character or block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File(FileData),
    /// A symbolic link and its target, 1 to 4095 bytes without NUL.
    Symlink(Box<[u8]>),
    /// Another name for what stands at this path.
    Hardlink(LayerPath),
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
    /// A unix socket's name.
    Socket,
    /// Hides the entry's path as lower layers have it (`.wh.NAME` in the tar).
    Whiteout,
    /// Hides everything that lower layers have below the entry's path (`.wh..wh..opq` in the tar).
    OpaqueWhiteout,
}

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands. For whiteouts, what they hide.
    pub path: LayerPath,
    /// Owner, mode, times, xattrs. Without meaning for hardlinks and whiteouts.
    pub meta: Metadata,
    /// What it is.
    pub kind: EntryKind,
}

impl Entry {
    /// Puts the three parts together.
    pub fn new(path: LayerPath, meta: Metadata, kind: EntryKind) -> Entry {
        Entry { path, meta, kind }
    }
}

/// What scanning one layer yields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerIndex {
    /// The entries in tar order.
    pub entries: Vec<Entry>,
    /// How many bytes of its region the layer takes; a multiple of 4096.
    pub region_len: u64,
}

impl LayerIndex {
    /// An index of entries that bring no bytes.
    pub fn new(entries: Vec<Entry>) -> LayerIndex {
        LayerIndex {
            entries,
            region_len: 0,
        }
    }
}
