//! What can be wrong: a [`ReadError`] says in which [`Place`] of the image, and a [`Fault`] says how.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::FileType;
use super::inode::InodeNumber;

/// Why an image, or something in it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes are wrong: retrying cannot help.
    #[error("{place} is corrupt: {fault}")]
    Corrupt {
        /// Which structure.
        place: Place,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The bytes may be right, but they use something that this reader does not know.
    #[error("the filesystem uses {feature}, which is not supported")]
    Unsupported {
        /// Its name, as `dumpe2fs` prints it.
        feature: String,
    },
    /// The journal was not replayed, so what lies in the filesystem may be half of a change.
    #[error("the journal holds changes that are not in the filesystem yet (needs_recovery)")]
    NeedsRecovery,
    /// Nothing stands at a path.
    #[error("{path:?} does not exist in the image")]
    NotFound {
        /// The path as far as it was followed.
        path: PathBuf,
    },
    /// A path goes through something that is not a directory.
    #[error("{path:?} in the image is not a directory")]
    NotDirectory {
        /// The path as far as it was followed.
        path: PathBuf,
    },
    /// A path leads through too many symbolic links.
    #[error("{path:?} in the image leads through more than {limit} symbolic links")]
    TooManySymlinks {
        /// The path that was asked for.
        path: PathBuf,
        /// How many are followed.
        limit: u32,
    },
    /// What was asked for makes no sense for this type of file.
    #[error("inode {inode} is a {found}, not a {expected}")]
    WrongType {
        /// The inode.
        inode: InodeNumber,
        /// What the call needs.
        expected: FileType,
        /// What it is.
        found: FileType,
    },
    /// The filesystem has no inode of this number.
    #[error("there is no inode {number}: the filesystem has {count}")]
    NoSuchInode {
        /// The number that was asked for.
        number: u32,
        /// How many there are; the first is 1.
        count: u32,
    },
    /// The host failed.
    #[error("cannot read {len} bytes of the image at byte {offset}")]
    Host {
        /// Where, in bytes from the start of the image.
        offset: u64,
        /// How many bytes were wanted.
        len: usize,
        /// Why.
        source: io::Error,
    },
}

impl ReadError {
    /// Which structure is corrupt, if one is.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            ReadError::Corrupt { place, .. } => Some(*place),
            _ => None,
        }
    }

    pub(crate) fn corrupt(place: Place, fault: Fault) -> ReadError {
        ReadError::Corrupt { place, fault }
    }
}

/// A corrupt image is invalid data; a failing host keeps its kind. The [`ReadError`] is inside.
impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> io::Error {
        let kind = match &error {
            ReadError::Host { source, .. } => source.kind(),
            ReadError::NotFound { .. } => io::ErrorKind::NotFound,
            ReadError::NotDirectory { .. } => io::ErrorKind::NotADirectory,
            ReadError::Unsupported { .. } | ReadError::NeedsRecovery => io::ErrorKind::Unsupported,
            ReadError::WrongType { .. } | ReadError::NoSuchInode { .. } => io::ErrorKind::InvalidInput,
            ReadError::Corrupt { .. } | ReadError::TooManySymlinks { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// A structure of the image. Block numbers are absolute, 0-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The superblock.
    Superblock,
    /// A block group's descriptor, by the group's 0-based number.
    GroupDescriptor(u32),
    /// A block group's bitmap of blocks, by the group's 0-based number.
    BlockBitmap(u32),
    /// A block group's bitmap of inodes, by the group's 0-based number.
    InodeBitmap(u32),
    /// An inode's own bytes.
    Inode(InodeNumber),
    /// A node of an inode's extent tree; `None` is the one inside the inode.
    Extents {
        /// Whose blocks it maps.
        inode: InodeNumber,
        /// Where the node lies.
        block: Option<u64>,
    },
    /// An inode's map of single blocks, or one of its indirect blocks.
    BlockMap {
        /// Whose blocks it maps.
        inode: InodeNumber,
        /// Where the indirect block lies.
        block: Option<u64>,
    },
    /// A block of a directory.
    Directory {
        /// The directory.
        inode: InodeNumber,
        /// Where the block lies; `None` is the directory as a whole.
        block: Option<u64>,
    },
    /// Extended attributes, inside the inode or in a block of their own.
    Xattrs {
        /// Whose they are.
        inode: InodeNumber,
        /// Where the block lies.
        block: Option<u64>,
    },
    /// The target of a symbolic link.
    Symlink(InodeNumber),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, inode, block) = match self {
            Place::Superblock => return out.write_str("the superblock"),
            Place::GroupDescriptor(group) => return write!(out, "the descriptor of block group {group}"),
            Place::BlockBitmap(group) => {
                return write!(out, "the block bitmap of block group {group}");
            }
            Place::InodeBitmap(group) => {
                return write!(out, "the inode bitmap of block group {group}");
            }
            Place::Inode(inode) => return write!(out, "inode {inode}"),
            Place::Symlink(inode) => return write!(out, "the symbolic link in inode {inode}"),
            Place::Extents { inode, block } => ("the extent tree", inode, block),
            Place::BlockMap { inode, block } => ("the block map", inode, block),
            Place::Directory { inode, block } => ("the directory", inode, block),
            Place::Xattrs { inode, block } => ("the set of extended attributes", inode, block),
        };
        write!(out, "{what} of inode {inode}")?;
        match block {
            Some(block) => write!(out, " in block {block}"),
            None => Ok(()),
        }
    }
}

/// How a structure is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The checksum that it holds is not the one that its bytes have.
    #[error("its checksum is {stored:#x}, its bytes have {computed:#x}")]
    Checksum {
        /// What it holds.
        stored: u32,
        /// What it should hold.
        computed: u32,
    },
    /// A field holds what it never may.
    #[error("{field} is {value}")]
    Field {
        /// The kernel's name of the field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// The image ends before the filesystem does.
    #[error("it speaks of {claimed} bytes, the image has {actual}")]
    TooShort {
        /// How long the filesystem says it is.
        claimed: u64,
        /// How long the image is.
        actual: u64,
    },
    /// The parts do not fit together.
    #[error("{0}")]
    Structure(&'static str),
}
