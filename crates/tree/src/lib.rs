//! The merged file tree, and the OCI rules for merging layers into it. No I/O at all.
//!
//! The nouns, in the order data meets them:
//!
//! - a [`LayerIndex`] is what scanning one layer's tar yields: its [`Entry`]s in tar order. File contents are not in
//!   it, only where they lie: [`Segment`]s of the layer's *region*, the stretch of the image that holds its bytes;
//! - a [`Tree`] is what a container would see: inodes, and directories that give them names. A hardlink is simply
//!   a second name for one [`InodeId`]; link counts are counted when a filesystem is planned;
//! - [`Tree::apply`] merges one more layer on top, following the OCI [layer specification], and `docs/merge.md` where
//!   that is silent.
//!
//! ```
//! use firebrick_tree::{Entry, EntryKind, LayerIndex, LayerPath, MergeOptions, Metadata, Tree};
//!
//! let path = |text: &str| LayerPath::parse(text.as_bytes()).unwrap();
//! let lower = LayerIndex::new(vec![Entry::new(path("etc/motd"), Metadata::default(), EntryKind::Fifo)]);
//! let upper = LayerIndex::new(vec![Entry::new(path("etc/motd"), Metadata::default(), EntryKind::Whiteout)]);
//! let tree = Tree::merge([lower, upper], &MergeOptions::default()).unwrap();
//! assert!(tree.lookup(&path("etc")).is_some());
//! assert!(tree.lookup(&path("etc/motd")).is_none());
//! ```
//!
//! [layer specification]: https://github.com/opencontainers/image-spec/blob/main/layer.md
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

mod dump;
mod entry;
mod merge;
mod path;
mod tree;

pub use entry::{
    DeviceKind, Entry, EntryKind, FileData, LayerIndex, Metadata, RegionIndex, Segment, Timestamp, Xattrs,
};
pub use merge::{MergeError, MergeOptions};
pub use path::{LayerPath, Name, PathError};
pub use tree::{Inode, InodeId, Kind, Tree};
