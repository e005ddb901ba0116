//! Streams the content of a file, holes as zeros.

use std::io;
use std::sync::Arc;

use super::FileType;
use super::Filesystem;
use super::ReadAt;
use super::blocks::{Block, Cursor};
use super::error::{ReadError, corrupt};
use super::inode::{Content, Inode};
use crate::format::{DATA_UNCOMPRESSED, FragmentEntry};
use zerocopy::FromBytes as _;

/// A regular file's content from its first byte to its last.
///
/// Errors are [`io::Error`]s with a [`ReadError`] inside; `io::Error::downcast` gives it back.
#[derive(Debug)]
pub struct FileReader<'a, R> {
    filesystem: &'a Filesystem<R>,
    /// The lengths of the blocks that are still to come.
    list: Cursor<'a, R>,
    /// Where the next block lies.
    next: u64,
    fragment: Option<(u32, u32)>,
    /// In bytes.
    size: u64,
    position: u64,
    current: Current,
}

/// The block that the position is in.
#[derive(Debug)]
enum Current {
    /// None has been read yet, or the last is done.
    None,
    /// Bytes up to here are zeros.
    Zeros { until: u64 },
    /// Bytes of a block, from an offset in it on, up to here.
    Bytes {
        block: Arc<Block>,
        from: usize,
        until: u64,
    },
}

impl<R: ReadAt> Filesystem<R> {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`ReadError::WrongType`] for anything else; corrupt where the inode is.
    pub fn open_file<'a>(&'a self, inode: &Inode) -> Result<FileReader<'a, R>, ReadError> {
        inode.expect(FileType::Regular)?;
        let Content::File {
            start,
            fragment,
            list,
        } = inode.content
        else {
            return Err(corrupt("an inode", inode.reference, "it has no content"));
        };
        let (reference, skip) = list;
        let mut list = self.inode_cursor(reference)?;
        list.take_bytes(skip.into())?;
        Ok(FileReader {
            filesystem: self,
            list,
            next: start,
            fragment,
            size: inode.stat.size,
            position: 0,
            current: Current::None,
        })
    }
}

impl<R: ReadAt> FileReader<'_, R> {
    /// Reads at least one byte into `buffer` and tells how many; 0 at the end of the file.
    ///
    /// # Errors
    /// Corrupt where blocks are, and where the host fails.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        if buffer.is_empty() || self.position >= self.size {
            return Ok(0);
        }
        let until = match &self.current {
            Current::Zeros { until } | Current::Bytes { until, .. } => *until,
            Current::None => 0,
        };
        if until <= self.position {
            self.advance()?;
        }
        let wanted = |until: u64| {
            let rest = until.saturating_sub(self.position);
            usize::try_from(rest).unwrap_or(usize::MAX).min(buffer.len())
        };
        let count = match &mut self.current {
            Current::None => 0,
            Current::Zeros { until } => {
                let part = buffer.get_mut(..wanted(*until)).unwrap_or_default();
                part.fill(0);
                part.len()
            }
            Current::Bytes { block, from, until } => {
                let bytes = block.bytes.get(*from..).unwrap_or_default();
                let count = wanted(*until).min(bytes.len());
                let (to, bytes) = (buffer.get_mut(..count), bytes.get(..count));
                to.unwrap_or_default().copy_from_slice(bytes.unwrap_or_default());
                *from = from.saturating_add(count);
                count
            }
        };
        self.position = self
            .position
            .saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }

    /// Reads the block at the position.
    fn advance(&mut self) -> Result<(), ReadError> {
        let block_size = u64::from(self.filesystem.geometry.block_size);
        let len = self.size.saturating_sub(self.position).min(block_size);
        let until = self.position.saturating_add(len);
        if let Some((number, offset)) = self.fragment.filter(|_| len < block_size) {
            let block = self.filesystem.fragment(number)?;
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let held = block.bytes.len().saturating_sub(from);
            if u64::try_from(held).unwrap_or(u64::MAX) < len {
                return Err(corrupt(
                    "a fragment",
                    offset.into(),
                    "a tail reaches behind its end",
                ));
            }
            self.current = Current::Bytes { block, from, until };
            return Ok(());
        }
        let stored = self.list.take_u32()?;
        if stored & !DATA_UNCOMPRESSED == 0 {
            self.current = Current::Zeros { until };
            return Ok(());
        }
        let block = self.filesystem.data_block(self.next, stored, false)?;
        if u64::try_from(block.bytes.len()).unwrap_or(u64::MAX) != len {
            return Err(corrupt(
                "a data block",
                self.next,
                "it is not as long as its file says",
            ));
        }
        self.next = self.next.saturating_add((stored & !DATA_UNCOMPRESSED).into());
        self.current = Current::Bytes {
            block,
            from: 0,
            until,
        };
        Ok(())
    }
}

/// Where a file's content is stored, and how much of the image that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    /// Where its blocks start, and the number of its fragment block and the offset there. Files that share their content have
    /// one place; so have empty ones.
    pub place: (u64, Option<(u32, u32)>),
    /// Bytes of its blocks after compression, with its share of a fragment block.
    pub bytes: u64,
}

impl<R: ReadAt> Filesystem<R> {
    /// How a regular file is stored. Reads the lengths of its blocks, not the blocks.
    ///
    /// # Errors
    /// As [`Filesystem::open_file`].
    pub fn stored(&self, inode: &Inode) -> Result<Stored, ReadError> {
        let mut reader = self.open_file(inode)?;
        let block_size = u64::from(self.geometry.block_size);
        let place = (reader.next, reader.fragment);
        let whole = reader.size.checked_div(block_size).unwrap_or(0);
        let tail = reader.size.checked_rem(block_size).unwrap_or(0);
        let blocks = match reader.fragment {
            None if tail > 0 => whole.saturating_add(1),
            _ => whole,
        };
        let mut bytes = 0_u64;
        for _ in 0..blocks {
            let stored = reader.list.take_u32()? & !DATA_UNCOMPRESSED;
            bytes = bytes.saturating_add(stored.into());
        }
        if let Some((number, _)) = reader.fragment {
            let stored = self.fragment_entry(number)?.size.get() & !DATA_UNCOMPRESSED;
            // Nobody knows how long it was without decompressing it; all but the last are full.
            let share = u64::from(stored).saturating_mul(tail).checked_div(block_size);
            bytes = bytes.saturating_add(share.unwrap_or(0));
        }
        Ok(Stored { place, bytes })
    }

    fn fragment(&self, number: u32) -> Result<Arc<Block>, ReadError> {
        let entry = self.fragment_entry(number)?;
        self.data_block(entry.start_block.get(), entry.size.get(), true)
    }

    fn fragment_entry(&self, number: u32) -> Result<FragmentEntry, ReadError> {
        let table = self.geometry.fragment_table;
        if number >= self.geometry.fragments {
            return Err(corrupt(
                "the table of fragments",
                table,
                "a file names one behind its end",
            ));
        }
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        let bytes = self.table_entry::<16>(table, place, "the table of fragments")?;
        let cut = |_| corrupt("the table of fragments", table, "it is cut off");
        FragmentEntry::read_from_bytes(&bytes).map_err(cut)
    }
}

impl<R: ReadAt> io::Read for FileReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_some(buffer)?)
    }
}
