//! Why a filesystem cannot be changed.

use std::io;
use std::path::PathBuf;

use crate::read::ReadError;
use crate::xattr::XattrError;

/// Why a filesystem, or something in it, cannot be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// What is there cannot be read, or leads nowhere.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It uses something that changes would break.
    #[error("the filesystem uses {feature}, which cannot be kept right while it is changed")]
    Unsupported {
        /// Its name, as `dumpe2fs` prints it.
        feature: String,
    },
    /// It must be repaired first.
    #[error("the filesystem {reason}")]
    Unclean {
        /// What its superblock says.
        reason: &'static str,
    },
    /// A repair that would need a decision.
    #[error("something is wrong that does not follow from the rest, so it is not repaired")]
    Beyond,
    /// There are not enough free blocks.
    #[error("the filesystem is full: {needed_bytes} more bytes are needed, {free_bytes} are free")]
    NoSpace {
        /// How many bytes were to be stored.
        needed_bytes: u64,
        /// How many are free.
        free_bytes: u64,
    },
    /// There is no free inode.
    #[error("the filesystem is full: all of its {count} inodes are in use")]
    NoInodes {
        /// How many there are.
        count: u32,
    },
    /// Something else is there.
    #[error("{path:?} is in the image already")]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// A file cannot take a folder's place.
    #[error("{path:?} in the image is a directory")]
    IsDirectory {
        /// The path.
        path: PathBuf,
    },
    /// A folder cannot be moved into itself.
    #[error("{path:?} in the image cannot be moved below itself")]
    BelowItself {
        /// The path.
        path: PathBuf,
    },
    /// The root directory and `/lost+found`, which `e2fsck` wants.
    #[error("{path:?} cannot be removed or replaced: every ext4 has one")]
    Needed {
        /// The path.
        path: PathBuf,
    },
    /// No name of a file.
    #[error("{path:?} does not end in a name of 1 to 255 bytes")]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// No target of a symbolic link.
    #[error(
        "the symbolic link {path:?} would have a target of {len} bytes, this filesystem has room for 1 to {limit}"
    )]
    Target {
        /// The path.
        path: PathBuf,
        /// Length of the target.
        len: usize,
        /// What is possible.
        limit: usize,
    },
    /// More names than an inode counts.
    #[error("{path:?} would have more than 65000 names")]
    TooManyLinks {
        /// The new name.
        path: PathBuf,
    },
    /// A file longer than the filesystem can address.
    #[error("{path:?} is {size} bytes long, this filesystem has room for at most {limit}")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        size: u64,
        /// What is possible.
        limit: u64,
    },
    /// A device number that Linux does not have.
    #[error("{path:?} is device {major}:{minor}, Linux has majors to 4095 and minors to 1048575")]
    Device {
        /// The node.
        path: PathBuf,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// Extended attributes that cannot be stored.
    #[error("{path:?} cannot be stored")]
    Xattr {
        /// The inode.
        path: PathBuf,
        /// What is wrong with them.
        source: XattrError,
    },
    /// What is to be stored cannot be read.
    #[error("cannot read what is to become {path:?} in the image")]
    Content {
        /// Where it was to be stored.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is to be stored ended early.
    #[error("what is to become {path:?} in the image ended after {actual} of {expected} bytes")]
    Length {
        /// Where it was to be stored.
        path: PathBuf,
        /// How many bytes there should be.
        expected: u64,
        /// How many there were.
        actual: u64,
    },
    /// The host failed.
    #[error("cannot write {len} bytes of the image at byte {offset}")]
    Write {
        /// Where, in bytes from the start of the image.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Why.
        source: io::Error,
    },
}
