//! What the caller decides about a filesystem.

use firebrick_tree::Timestamp;

/// How large a filesystem becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// Exactly what fits, plus [`Options::free`].
    #[default]
    Auto,
    /// The same. Whoever lays contents down for it moves together what is not hidden, so that hidden contents leave no room.
    Least,
    /// This many bytes in all, rounded down to blocks.
    Bytes(u64),
}

/// Options of a filesystem. The same options over the same tree and regions give the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Length of the filesystem.
    pub size: Size,
    /// Free space left for whoever mounts it, in bytes, with [`Size::Auto`] and [`Size::Least`].
    pub free: u64,
    /// Number of inodes at least; by default what the tree needs and plenty for the free space.
    pub inodes: Option<u32>,
    /// Volume label, at most 16 bytes.
    pub label: Vec<u8>,
    /// UUID; by default made from [`Options::identity`].
    pub uuid: Option<[u8; 16]>,
    /// 32 bytes that stand for the image's content: the default UUID comes from here.
    pub identity: [u8; 32],
    /// Time of making, and of what the tree does not describe (`lost+found`).
    pub created: Timestamp,
    /// Lay a journal.
    pub journal: bool,
    /// Lay classic backups, which Linux needs to grow a mounted filesystem.
    pub online_resize: bool,
}

/// Longest label, in bytes.
pub const LABEL_LEN_MAX: usize = 16;
