//! What the readers of filesystem images have in common, whatever the format.
//!
//! - a [`ReadAt`] is the image's bytes: a file, or a slice;
//! - a [`FileType`] and a [`DeviceNumber`] say what an inode is;
//! - [`Directories`] is what a format tells of its directories; from that alone [`lookup`] follows a path and a [`Walk`] visits
//!   everything.
//!
//! Nothing of an image is believed here: a path ends after so many links, and a walk enters no directory twice.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

mod kind;
mod path;
mod source;
mod walk;

pub use kind::{DeviceNumber, FileType, mode_text};
pub use path::{LastSymlink, PathError, lookup};
pub use source::ReadAt;
pub use walk::{Tangle, Visit, Walk};

use std::fmt::Debug;

/// A filesystem's directories.
pub trait Directories {
    /// One inode.
    type Inode: Clone + Debug;
    /// A name in a directory, and where its inode is.
    type Entry: Debug;
    /// Why something cannot be read.
    type Error: From<PathError>;

    /// The root directory.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn root_inode(&self) -> Result<Self::Inode, Self::Error>;

    /// What an inode is.
    fn file_type(inode: &Self::Inode) -> FileType;

    /// The inode's number; every directory has one of its own.
    fn number(inode: &Self::Inode) -> u32;

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn target(&self, link: &Self::Inode) -> Result<Vec<u8>, Self::Error>;

    /// What a directory has under a name.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn find_inode(&self, directory: &Self::Inode, name: &[u8]) -> Result<Option<Self::Inode>, Self::Error>;

    /// The names of a directory in the order of their bytes, the last one first.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn entries_backwards(&self, directory: &Self::Inode) -> Result<Vec<Self::Entry>, Self::Error>;

    /// The name of an entry.
    fn name(entry: &Self::Entry) -> &[u8];

    /// What an entry names.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn entry_inode(&self, entry: &Self::Entry) -> Result<Self::Inode, Self::Error>;

    /// How much all directories together can have of what [`Directories::cost`] counts.
    fn budget(&self) -> u64;

    /// How much of the budget a directory takes.
    ///
    /// # Errors
    /// Where that cannot be told.
    fn cost(&self, directory: &Self::Inode) -> Result<u64, Self::Error>;

    /// Why a directory cannot be entered.
    fn tangled(directory: &Self::Inode, tangle: Tangle) -> Self::Error;
}
