//! Reads any squashfs 4.0 that `mksquashfs` makes with gzip, xz, lz4 or zstd, ours or not, without mounting it.
//!
//! The nouns, from the outside in:
//!
//! - a [`ReadAt`] is the image's bytes: a file, or a slice;
//! - a [`Filesystem`] is an image whose superblock was found right; its [`Summary`] is what there is to show;
//! - an [`Inode`] is one inode, found through a directory or by a path ([`Filesystem::lookup`]); its [`Stat`] is what `stat(2)`
//!   would say;
//! - what an inode holds is read by [`Filesystem::list`], [`Filesystem::read_link`], [`Filesystem::xattrs`] and
//!   [`Filesystem::open_file`]; a [`Walk`] visits everything below a directory.
//!
//! squashfs has no checksums, so nothing is believed: every number from the image is checked against the image's own length
//! before it is used, and no block is decompressed to more than it may hold. Hostile bytes cost an error, never a panic, and
//! the time and memory of each call stay within what the image's length, times what a block may be compressed, explains.
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

mod blocks;
mod dir;
mod error;
mod file;
mod inode;
mod path;
mod superblock;
mod xattr;

pub use dir::DirEntry;
pub use error::ReadError;
pub use file::{FileReader, Stored};
pub use firebrick_reader::{DeviceNumber, FileType, LastSymlink, ReadAt, Walk};
pub use inode::{Inode, Stat};
pub use superblock::Summary;

use blocks::Cache;
use error::corrupt;
use superblock::Geometry;

/// A filesystem in an image.
#[derive(Debug)]
pub struct Filesystem<R> {
    source: R,
    geometry: Geometry,
    summary: Summary,
    /// Owners and groups.
    ids: Vec<u32>,
    cache: Cache,
}

impl<R: ReadAt> Filesystem<R> {
    /// Reads and checks the superblock, and reads the table of owners.
    ///
    /// # Errors
    /// Corrupt where it is not one, where its fields do not fit together, and where the image ends before the filesystem does;
    /// unsupported for other versions and for compressions that this reader does not know.
    pub fn open(source: R) -> Result<Filesystem<R>, ReadError> {
        let image_bytes = source.size_bytes().map_err(|source| ReadError::Host {
            offset: 0,
            len: 0,
            source,
        })?;
        let mut bytes = [0; 96];
        if image_bytes < 96 {
            return Err(corrupt("the superblock", 0, "the image ends in it"));
        }
        source
            .read_exact_at(&mut bytes, 0)
            .map_err(|source| ReadError::Host {
                offset: 0,
                len: 96,
                source,
            })?;
        let (geometry, summary) = superblock::parse(&bytes, image_bytes)?;
        let mut filesystem = Filesystem {
            source,
            geometry,
            summary,
            ids: Vec::new(),
            cache: Cache::default(),
        };
        filesystem.ids = filesystem.read_ids()?;
        Ok(filesystem)
    }

    /// What the filesystem says about itself.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The root directory.
    ///
    /// # Errors
    /// Corrupt where its inode is, or is no directory's.
    pub fn root(&self) -> Result<Inode, ReadError> {
        let root = self.inode(self.geometry.root)?;
        match root.stat().file_type {
            FileType::Directory => Ok(root),
            _ => Err(corrupt(
                "the root inode",
                self.geometry.root,
                "it is no directory",
            )),
        }
    }

    /// Reads bytes of the filesystem.
    fn read_bytes(&self, offset: u64, buffer: &mut [u8], what: &'static str) -> Result<(), ReadError> {
        let len = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
        if offset
            .checked_add(len)
            .is_none_or(|end| end > self.geometry.bytes_used)
        {
            return Err(corrupt(what, offset, "it lies behind the end"));
        }
        self.source
            .read_exact_at(buffer, offset)
            .map_err(|source| ReadError::Host {
                offset,
                len: buffer.len(),
                source,
            })
    }

    fn read_u64(&self, offset: u64, what: &'static str) -> Result<u64, ReadError> {
        let mut bytes = [0; 8];
        self.read_bytes(offset, &mut bytes, what)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn read_ids(&self) -> Result<Vec<u32>, ReadError> {
        let count = usize::from(self.geometry.id_count);
        let mut ids = Vec::with_capacity(count);
        for number in 0..count {
            let bytes = self.table_entry::<4>(self.geometry.id_table, number, "the table of owners")?;
            ids.push(u32::from_le_bytes(bytes));
        }
        Ok(ids)
    }

    /// A record of a table in metadata blocks, whose places are listed from `list` on.
    fn table_entry<const LEN: usize>(
        &self,
        list: u64,
        number: usize,
        what: &'static str,
    ) -> Result<[u8; LEN], ReadError> {
        let overflow = || corrupt(what, list, "it is too long");
        let at = number.checked_mul(LEN).ok_or_else(overflow)?;
        // Records never span blocks: their lengths divide 8192.
        let place = u64::try_from(at / 8192)
            .ok()
            .and_then(|block| list.checked_add(block.checked_mul(8)?))
            .ok_or_else(overflow)?;
        let block = self.metadata_block(self.read_u64(place, what)?, what)?;
        let start = at % 8192;
        let record = block.bytes.get(start..start.saturating_add(LEN));
        record
            .and_then(|record| record.try_into().ok())
            .ok_or_else(|| corrupt(what, list, "it is shorter than it says"))
    }
}
