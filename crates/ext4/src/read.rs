//! Reads any ext2, ext3 or ext4 filesystem that `mke2fs` makes, ours or not, without mounting it.
//!
//! The nouns, from the outside in:
//!
//! - a [`ReadAt`] is the image's bytes: a file, or a slice;
//! - a [`Filesystem`] is an image whose superblock was found right; its [`Summary`] is what there is to show;
//! - an [`Inode`] is one verified inode, found by its [`InodeNumber`] or by a path ([`Filesystem::lookup`]); its [`Stat`]
//!   is what `stat(2)` would say;
//! - what an inode holds is read by [`Filesystem::read_dir`], [`Filesystem::read_link`], [`Filesystem::xattrs`] and
//!   [`Filesystem::open_file`]; a [`Walk`] visits everything below a directory;
//! - a [`ReadError`] says where and how an image is corrupt, what it uses that is not supported, or how the host failed.
//!
//! Where the filesystem has `metadata_csum`, every structure's checksum is compared before the structure is believed.
//! Nothing else is believed either: every number from the image is checked against the image's own length before it is
//! used. Hostile bytes cost an error, never a panic, and the time and memory of each call stay within what the image's length
//! and, for contents, the file's own length explain.
//!
//! Absent on purpose: writing, journal replay (a filesystem that needs it is refused), bitmaps, and the features
//! that change what file contents mean (`inline_data`, `encrypt`, `casefold`, `bigalloc`, `compression`).
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

mod blockmap;
pub(crate) mod bytes;
mod claims;
mod dir;
mod error;
mod extent;
mod features;
mod file;
mod group;
mod inode;
mod path;
mod runs;
mod superblock;
mod xattr;

pub use dir::DirEntry;
pub use error::{Fault, Place, ReadError};
pub use features::Features;
pub use file::FileReader;
pub use firebrick_reader::{DeviceNumber, FileType, LastSymlink, ReadAt, Walk};
pub use inode::{Inode, InodeNumber, Stat};
pub use runs::{Run, Runs};
pub use superblock::{State, Summary};

use crate::format::SUPERBLOCK_OFFSET;
pub(crate) use claims::Claims;
pub(crate) use dir::{from_file_type, record_len};
pub(crate) use inode::type_of_mode;
pub(crate) use superblock::{Geometry, has_super};

/// A filesystem in an image.
#[derive(Debug)]
pub struct Filesystem<R> {
    pub(crate) source: R,
    pub(crate) geometry: Geometry,
    summary: Summary,
}

impl<R: ReadAt> Filesystem<R> {
    /// Reads and checks the superblock.
    ///
    /// # Errors
    /// Corrupt where it is not one, where its fields do not fit together, and where the image ends before the filesystem does;
    /// unsupported where it has a feature that this reader does not follow.
    pub fn open(source: R) -> Result<Filesystem<R>, ReadError> {
        let mut bytes = [0; 1024];
        let host = |source| ReadError::Host {
            offset: SUPERBLOCK_OFFSET,
            len: bytes.len(),
            source,
        };
        let image_bytes = source.size_bytes().map_err(host)?;
        let claimed = SUPERBLOCK_OFFSET.saturating_mul(2);
        if image_bytes < claimed {
            let actual = image_bytes;
            return Err(ReadError::corrupt(
                Place::Superblock,
                Fault::TooShort { claimed, actual },
            ));
        }
        source
            .read_exact_at(&mut bytes, SUPERBLOCK_OFFSET)
            .map_err(|source| ReadError::Host {
                offset: SUPERBLOCK_OFFSET,
                len: 1024,
                source,
            })?;
        Filesystem::with_superblock(source, &bytes)
    }

    /// As [`Filesystem::open`], with a superblock that may be another than the image's.
    pub(crate) fn with_superblock(source: R, bytes: &[u8; 1024]) -> Result<Filesystem<R>, ReadError> {
        let image_bytes = source.size_bytes().map_err(|source| ReadError::Host {
            offset: SUPERBLOCK_OFFSET,
            len: bytes.len(),
            source,
        })?;
        let (geometry, summary) = superblock::parse(bytes, image_bytes)?;
        Ok(Filesystem {
            source,
            geometry,
            summary,
        })
    }

    /// What the filesystem says about itself.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Reads bytes of the filesystem; `place` is what they belong to.
    pub(crate) fn read_bytes(&self, offset: u64, buffer: &mut [u8], place: Place) -> Result<(), ReadError> {
        let len = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        let end = offset.checked_add(len);
        let filesystem_bytes = self
            .geometry
            .blocks
            .saturating_mul(self.geometry.block_size.into());
        if end.is_none_or(|end| end > filesystem_bytes) {
            return Err(out_of_range(place, "an offset in bytes", offset));
        }
        self.source
            .read_exact_at(buffer, offset)
            .map_err(|source| ReadError::Host {
                offset,
                len: buffer.len(),
                source,
            })
    }

    /// Reads a block of metadata; 0 and the block of the superblock are none.
    pub(crate) fn read_block(&self, block: u64, place: Place) -> Result<Vec<u8>, ReadError> {
        if block <= u64::from(self.geometry.first_data_block) || block >= self.geometry.blocks {
            return Err(out_of_range(place, "a block number", block));
        }
        let mut bytes = vec![0; self.geometry.block_len()];
        let offset = block.saturating_mul(self.geometry.block_size.into());
        self.read_bytes(offset, &mut bytes, place)?;
        Ok(bytes)
    }
}

/// A field holds what it never may.
pub(crate) fn out_of_range(place: Place, field: &'static str, value: u64) -> ReadError {
    ReadError::corrupt(place, Fault::Field { field, value })
}
