//! Why nothing can be said about an image.

use std::io;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InventoryError {
    /// A file of the image cannot be read.
    #[error("cannot read {path:?} in the image")]
    Read {
        /// Its path, without a slash in front.
        path: String,
        /// Why.
        source: io::Error,
    },
}
