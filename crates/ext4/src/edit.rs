//! Changes an ext2, ext3 or ext4 filesystem without mounting it: files, folders, links, owners, modes.
//!
//! The nouns:
//!
//! - a [`Target`] is an image's bytes, to read and to write: always a copy, never the image that somebody else may be reading;
//! - an [`Editor`] is a filesystem opened for changes; each of its methods is one change, and [`Editor::finish`] writes what
//!   they have in common, after which `e2fsck -fn` finds nothing;
//! - [`Changes`] says what was done.
//!
//! How: contents and inodes are written where they belong at once. Bitmaps, group descriptors, the superblock and folders
//! are changed in memory and written by `finish`, so that a thousand new names in a folder cost one. A folder is never
//! patched: its names are read, changed, and all its blocks are written again by the code that writes those of new images
//! (`dir`). Blocks that became free are discarded: what was removed is not in the image any more.
//!
//! There is no clock. New files have the times that the caller gives, and all other times stay as they are, also those of
//! folders whose names change.
//!
//! What cannot be kept right is refused by name when a filesystem is opened: features that are not known, a journal that
//! must be replayed, lists of orphans, filesystems with errors. Hostile images cost an error, never a panic.
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

mod blocks;
mod content;
mod error;
mod folder;
pub(crate) mod groups;
mod inodes;
mod map;
pub(crate) mod open;
mod paths;
mod target;
mod xattrs;

use std::collections::BTreeMap;

use zerocopy::IntoBytes as _;

pub use error::EditError;
pub use open::ensure_clean;
pub use paths::Node;
pub use target::Target;

use crate::checksum::Crc;
use crate::dir::DirForm;
use crate::extent::NodeForm;
use crate::format::{SUPERBLOCK_OFFSET, Superblock, ro_compat};
use crate::read::{Filesystem, Place};
use folder::Folder;
use groups::Group;

/// A filesystem opened for changes.
#[derive(Debug)]
pub struct Editor<T> {
    filesystem: Filesystem<T>,
    superblock: Superblock,
    groups: Vec<Group>,
    form: Form,
    /// Blocks of the filesystem itself, in rising order, not overlapping: first, and behind the last.
    system: Vec<(u64, u64)>,
    /// Folders that changed or may change, by inode number.
    folders: BTreeMap<u32, Folder>,
    /// Runs that became free: first block and how many.
    released: Vec<(u64, u64)>,
    changes: Changes,
}

/// What was done to a filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Bytes of files that were written.
    pub written_bytes: u64,
    /// Files and folders that were made.
    pub made: u64,
    /// Files and folders that are gone.
    pub removed: u64,
    /// Bytes in blocks that are free now.
    pub free_bytes: u64,
    /// Extended attributes that were left out because ext4 has no namespace for them, as `path: name`.
    pub left_out_xattrs: Vec<String>,
}

/// What structures look like in this filesystem.
#[derive(Clone, Copy, Debug)]
struct Form {
    /// Bytes of a block: 1024, 2048 or 4096.
    block_len: usize,
    /// Bytes of an inode.
    inode_len: usize,
    /// What every checksum starts from (`metadata_csum`).
    seed: Option<Crc>,
    /// Whether descriptors carry CRC-16 (`uninit_bg`).
    crc16: bool,
    /// Whether new files get extents.
    extents: bool,
    /// Whether counts of sectors have 48 bits (`huge_file`).
    huge_file: bool,
    folders: DirForm,
    nodes: NodeForm,
}

impl Form {
    /// Whether groups may say that their bitmaps were never written.
    fn lazy_groups(&self) -> bool {
        self.crc16 || self.seed.is_some()
    }

    fn block_bytes(&self) -> u64 {
        wide(self.block_len)
    }

    /// What the checksums of all that belongs to an inode start from.
    fn inode_seed(&self, number: u32, generation: u32) -> Crc {
        self.seed.unwrap_or_default().for_inode(number, generation)
    }
}

impl<T: Target> Editor<T> {
    /// The filesystem as it is being changed. Folders are as they were until [`Editor::finish`].
    pub fn filesystem(&self) -> &Filesystem<T> {
        &self.filesystem
    }

    /// Writes everything that is not written yet, and gives the image back.
    ///
    /// # Errors
    /// [`EditError::NoSpace`] where folders became too large; [`EditError::Write`] where the host fails.
    pub fn finish(mut self) -> Result<(T, Changes), EditError> {
        self.flush_folders()?;
        self.flush_groups()?;
        self.discard_released()?;
        self.changes.free_bytes = self.free_blocks().saturating_mul(self.form.block_bytes());
        if self.form.seed.is_some() {
            let bytes = self.superblock.as_bytes();
            let covered = bytes.get(..std::mem::offset_of!(Superblock, s_checksum));
            let checksum = Crc::new().update(covered.unwrap_or_default()).value();
            self.superblock.s_checksum = checksum.into();
        }
        let bytes = *self
            .superblock
            .as_bytes()
            .first_chunk::<1024>()
            .unwrap_or(&[0; 1024]);
        self.put(&bytes, SUPERBLOCK_OFFSET, Place::Superblock)?;
        Ok((self.filesystem.source, self.changes))
    }

    /// Notes that there is a file that old kernels cannot read (`large_file`).
    fn note_large_file(&mut self, size: u64) {
        if size > 0x7fff_ffff {
            let features = self.superblock.s_feature_ro_compat.get() | ro_compat::LARGE_FILE;
            self.superblock.s_feature_ro_compat = features.into();
        }
    }

    /// Writes bytes within the filesystem.
    fn put(&self, bytes: &[u8], offset: u64, place: Place) -> Result<(), EditError> {
        let end = offset.checked_add(wide(bytes.len()));
        let geometry = &self.filesystem.geometry;
        let length = geometry.blocks.saturating_mul(geometry.block_size.into());
        if end.is_none_or(|end| end > length) {
            return Err(crate::read::out_of_range(place, "an offset in bytes", offset).into());
        }
        let written = self.filesystem.source.write_all_at(bytes, offset);
        written.map_err(|source| EditError::Write {
            offset,
            len: wide(bytes.len()),
            source,
        })
    }

    /// Writes whole blocks.
    fn put_blocks(&self, bytes: &[u8], first: u64, place: Place) -> Result<(), EditError> {
        self.put(bytes, first.saturating_mul(self.form.block_bytes()), place)
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn narrow(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// The lowest 16 bits.
fn low16(value: u64) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or_default()
}

/// The lowest 32 bits.
fn low32(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or_default()
}
