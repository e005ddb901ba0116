//! Scans one layer: entries into an index, file bytes straight to where the caller wants them.
//!
//! ```text
//! stored blob ─► decompress ─► tar::scan ─┬─► LayerIndex   (entries, in memory)
//!   gzip, zstd, xz,   plain tar           └─► RegionSink   (file contents, 4 KiB aligned, in tar order)
//!   bzip2 or none
//! ```
//!
//! A layer's *region* is all its files' contents one after the other, each from a 4096-byte boundary. It is a
//! function of the tar alone, so two images that share a layer hold the same bytes for it.
//! [`tar::Writer`] makes the layers that firebrick adds itself.
#![forbid(unsafe_code)]

mod decompress;
mod error;
mod limits;
pub mod tar;

pub use decompress::{Compression, Whole, decompress, detect};
pub use error::{ScanError, TarError};
pub use limits::Limits;
pub use tar::scan::{BLOCK_LEN, RegionSink, ScanSummary, scan};
