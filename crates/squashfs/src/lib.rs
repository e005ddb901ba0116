//! Plans, writes and reads squashfs filesystems: compressed, read-only. No mount, no root, no OCI.
//!
//! - [`plan()`] decides from a tree what the filesystem holds: inode numbers, owners, attributes, the order of contents;
//! - [`write()`] compresses contents in threads and emits all to a [`BlockSink`], superblock last;
//! - [`mod@format`]: the on-disk structures, nothing else;
//! - [`read`]: reads an image back, ours or any that `mksquashfs` makes.
//!
//! Unlike with ext4, where bytes lie is known only when they are compressed, so the plan has no positions. What the image
//! looks like, and why: `docs/squashfs.md`.
#![forbid(unsafe_code)]

mod compress;
mod dir;
mod error;
#[expect(
    missing_docs,
    reason = "the names are the kernel's, documented where each structure links to"
)]
pub mod format;
mod inode;
mod metadata;
mod options;
mod pack;
mod plan;
pub mod read;
mod write;
mod xattr;

pub use error::{PlanError, WriteError};
pub use options::{BLOCK_SIZE_DEFAULT, BLOCK_SIZES, Compression, Options};
pub use pack::Contents;
pub use plan::{Plan, plan};
pub use write::{BLOCK_LEN, BlockSink, Summary, write};

/// Changes whenever the same input gives other bytes. Part of every image's build key.
pub const WRITER_VERSION: u32 = 1;
