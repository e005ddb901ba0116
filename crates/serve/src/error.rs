//! Why a disk cannot be served at all. What happens to single clients is an [`crate::Event`].

use std::io;
use std::path::PathBuf;

/// Why there is no server, or no longer one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Somebody listens at that path.
    #[error("another program serves at {path:?} already")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// There is something of that name that is not a socket, and stays.
    #[error("{path:?} is there, and is not a socket")]
    NotSocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The kernel's addresses have room for a short path only.
    #[error("{path:?} has {len} bytes, and the path of a socket at most {limit}")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// The most bytes that are possible.
        limit: usize,
    },
    /// The name of the export is one that no client could ask for.
    #[error("an export's name has at most {limit} bytes, and this one {len}")]
    NameTooLong {
        /// Its length in bytes.
        len: usize,
        /// The most bytes that are possible.
        limit: usize,
    },
    /// The socket cannot be made. The cause is `source`.
    #[error("cannot listen at {path:?}")]
    Listen {
        /// Where the socket should be.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// No further client can be waited for. The cause is `source`.
    #[error("cannot accept connections at {path:?}")]
    Accept {
        /// The socket.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}
