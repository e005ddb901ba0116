//! Why a filesystem cannot be planned or written.

use std::io;

use firebrick_tree::LayerPath;

use crate::options::Compression;

/// Why a tree does not become a squashfs filesystem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A block size that squashfs does not have.
    #[error("the block size is {block_size} bytes, squashfs has powers of two from 4096 to 1048576")]
    BlockSize {
        /// The one asked for.
        block_size: u32,
    },
    /// A level that the compression does not have.
    #[error("{compression} has no compression level {level}")]
    Level {
        /// How is compressed.
        compression: Compression,
        /// The one asked for.
        level: u32,
    },
    /// More owners and groups than the table of them holds.
    #[error(
        "the files have more than {limit} different owners and groups, which is all that squashfs can hold"
    )]
    TooManyIds {
        /// How many fit.
        limit: usize,
    },
    /// Files so long that the lists of their blocks would be the larger part of an image.
    #[error("{path} is {size} bytes long, with it the files have more than {limit} blocks")]
    FileTooLarge {
        /// The file that is too much.
        path: LayerPath,
        /// Its length in bytes.
        size: u64,
        /// How many blocks the files may have together.
        limit: u64,
    },
    /// A directory whose names take more bytes than squashfs can count.
    #[error("directory {path} has too many names for squashfs")]
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
    /// An access control list that is not in the kernel's form.
    #[error("{path} has an access control list ({len} bytes) that is not in the form that getxattr gives")]
    Acl {
        /// The inode.
        path: LayerPath,
        /// Length of the value in bytes.
        len: usize,
    },
}

/// Why a filesystem could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The sink failed. The cause is `source`.
    #[error("cannot write the filesystem")]
    Write {
        /// What happened.
        source: io::Error,
    },
    /// Contents cannot be read back. The cause is `source`.
    #[error("cannot read contents back to compress them")]
    Read {
        /// What happened.
        source: io::Error,
    },
    /// The host has not the threads or the memory to compress.
    #[error("cannot compress")]
    Compress {
        /// What happened.
        source: io::Error,
    },
}
