//! What can be wrong with an image, or with what was asked of it.

use std::io;
use std::path::PathBuf;

use super::FileType;

/// Why an image, or something in it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bytes are wrong: retrying cannot help.
    #[error("{what} ({offset:#x}) is corrupt: {fault}")]
    Corrupt {
        /// Which structure.
        what: &'static str,
        /// Where it is: bytes from the start of the image, or an inode's block and offset in one number.
        offset: u64,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The bytes may be right, but they use something that this reader does not know.
    #[error("the filesystem uses {feature}, which is not supported")]
    Unsupported {
        /// What it uses.
        feature: String,
    },
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
        /// The inode's number.
        inode: u32,
        /// What the call needs.
        expected: FileType,
        /// What it is.
        found: FileType,
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

pub(super) fn corrupt(what: &'static str, offset: u64, fault: &'static str) -> ReadError {
    ReadError::Corrupt { what, offset, fault }
}

/// A corrupt image is invalid data; a failing host keeps its kind. The [`ReadError`] is inside.
impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> io::Error {
        let kind = match &error {
            ReadError::Host { source, .. } => source.kind(),
            ReadError::NotFound { .. } => io::ErrorKind::NotFound,
            ReadError::NotDirectory { .. } => io::ErrorKind::NotADirectory,
            ReadError::Unsupported { .. } => io::ErrorKind::Unsupported,
            ReadError::WrongType { .. } => io::ErrorKind::InvalidInput,
            ReadError::Corrupt { .. } | ReadError::TooManySymlinks { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
