//! Plans, writes and reads ext4 filesystems. No mount, no root, no OCI.
//!
//! - [`plan()`] decides every block from a tree and the regions that hold its file contents;
//! - [`write()`] emits what it decided, superblock last, to a [`BlockSink`];
//! - [`geometry`] says where regions may lie;
//! - [`mod@format`]: the on-disk structures, nothing else; [`checksum`]: CRC-32C as ext4 chains it.
//! - [`read`]: reads an image back, ours or any that `mke2fs` makes; [`edit`] changes one.
//!
//! What the image looks like, and why: `docs/ext4.md`.
#![forbid(unsafe_code)]

pub mod check;
pub mod checksum;
mod dir;
pub mod edit;
mod error;
mod extent;
#[expect(
    missing_docs,
    reason = "the names are the kernel's, documented where each structure links to"
)]
pub mod format;
pub mod geometry;
mod hash;
mod inode;
mod journal;
mod options;
mod plan;
pub mod read;
mod superblock;
mod write;
mod xattr;

pub use error::PlanError;
pub use extent::Extent;
pub use options::{LABEL_LEN_MAX, Options, Size};
pub use plan::{Plan, Region, plan, region_start};
pub use write::{BlockSink, WriteError, write};
pub use xattr::XattrError;

/// Changes whenever the same input gives other bytes. Part of every image's build key.
pub const WRITER_VERSION: u32 = 2;
