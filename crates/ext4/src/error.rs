//! Why a filesystem cannot be planned.

use firebrick_tree::LayerPath;

use crate::xattr::XattrError;

/// Why a tree does not become an ext4 filesystem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The content does not fit the size that was asked for.
    #[error("the content needs {needed} bytes, the size is {size} bytes")]
    TooSmall {
        /// Smallest size that would do, in bytes.
        needed: u64,
        /// The size asked for, in bytes.
        size: u64,
    },
    /// Beyond what the fixed room for group descriptors can describe.
    #[error("a filesystem of {size} bytes is asked for, at most {limit} are possible")]
    TooLarge {
        /// The size, in bytes.
        size: u64,
        /// The bound, in bytes.
        limit: u64,
    },
    /// More inodes than the groups can hold.
    #[error("{inodes} inodes are needed, a filesystem of this size holds at most {limit}")]
    TooManyInodes {
        /// How many are needed.
        inodes: u64,
        /// How many its groups can hold.
        limit: u64,
    },
    /// A label that does not fit its field.
    #[error("the label has {len} bytes, at most 16 are possible")]
    Label {
        /// Its length in bytes.
        len: usize,
    },
    /// A file with more names than ext4 counts.
    #[error("{path} has {links} names, ext4 counts at most 65000")]
    TooManyLinks {
        /// One of its names.
        path: LayerPath,
        /// How many.
        links: u64,
    },
    /// A file longer than ext4 can address.
    #[error("{path} is {size} bytes long, ext4 files have at most 17592186040320")]
    FileTooLarge {
        /// The file.
        path: LayerPath,
        /// Its length in bytes.
        size: u64,
    },
    /// A directory whose index would need a third level (`large_dir`).
    #[error("directory {path} has too many names for an ext4 index of two levels")]
    DirectoryTooLarge {
        /// The directory.
        path: LayerPath,
    },
    /// A device number that Linux does not have.
    #[error("{path} is device {major}:{minor}, Linux has majors to 4095 and minors to 1048575")]
    Device {
        /// The node.
        path: LayerPath,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// Extended attributes that ext4 cannot store.
    #[error("{path} cannot be stored")]
    Xattr {
        /// The inode.
        path: LayerPath,
        /// What is wrong with them.
        source: XattrError,
    },
    /// `e2fsck` wants `/lost+found` to be a directory.
    #[error("/lost+found is in the tree but is not a directory")]
    LostAndFound,
    /// File contents that lie outside their region, or over each other: the caller's mistake.
    #[error("{path} has contents outside its region or where other contents are")]
    Segments {
        /// The file.
        path: LayerPath,
    },
}
