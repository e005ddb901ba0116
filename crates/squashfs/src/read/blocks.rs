//! Blocks on disk: metadata blocks with a length in front, and a cursor over a stream of them; data blocks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::Filesystem;
use super::ReadAt;
use super::error::{ReadError, corrupt};
use crate::compress::decode;
use crate::format::{DATA_UNCOMPRESSED, METADATA_UNCOMPRESSED, SQUASHFS_METADATA_SIZE};

/// How many blocks are remembered: of metadata, and of contents.
const CACHED: usize = 16;

/// A block as it was before compression.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    /// Where the next one starts, of metadata.
    next: u64,
}

/// The blocks that were read last, by where they start.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<VecDeque<(u64, Arc<Block>)>>);

impl Cache {
    fn get(&self, start: u64) -> Option<Arc<Block>> {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks
            .iter()
            .find(|(at, _)| *at == start)
            .map(|(_, block)| block.clone())
    }

    fn put(&self, start: u64, block: &Arc<Block>) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.len() >= CACHED {
            blocks.pop_front();
        }
        blocks.push_back((start, block.clone()));
    }
}

impl<R: ReadAt> Filesystem<R> {
    /// The metadata block at a place in the image.
    pub(super) fn metadata_block(&self, start: u64, what: &'static str) -> Result<Arc<Block>, ReadError> {
        if let Some(block) = self.cache.get(start) {
            return Ok(block);
        }
        let wrong = |fault| corrupt(what, start, fault);
        let mut header = [0; 2];
        self.read_bytes(start, &mut header, what)?;
        let header = u16::from_le_bytes(header);
        let len = usize::from(header & !METADATA_UNCOMPRESSED);
        if len == 0 || len > SQUASHFS_METADATA_SIZE {
            return Err(wrong("its length is none that a metadata block has"));
        }
        let at = start
            .checked_add(2)
            .ok_or_else(|| wrong("it lies behind the end"))?;
        let mut stored = vec![0; len];
        self.read_bytes(at, &mut stored, what)?;
        let bytes = match header & METADATA_UNCOMPRESSED {
            0 => decode(self.geometry.compression, &stored, SQUASHFS_METADATA_SIZE)
                .filter(|bytes| !bytes.is_empty())
                .ok_or_else(|| wrong("it cannot be decompressed"))?,
            _ => stored,
        };
        let next = u64::try_from(len).ok().and_then(|len| at.checked_add(len));
        let block = Arc::new(Block {
            bytes,
            next: next.unwrap_or(u64::MAX),
        });
        self.cache.put(start, &block);
        Ok(block)
    }

    /// A block of a file or of tails, stored in `stored_len` bytes at `start`; at most a block long.
    pub(super) fn data_block(
        &self,
        start: u64,
        stored_len: u32,
        cached: bool,
    ) -> Result<Arc<Block>, ReadError> {
        if cached && let Some(block) = self.cache.get(start) {
            return Ok(block);
        }
        let wrong = |fault| corrupt("a data block", start, fault);
        let len = stored_len & !DATA_UNCOMPRESSED;
        if len == 0 || len > self.geometry.block_size {
            return Err(wrong("its length is none that a data block has"));
        }
        let limit = usize::try_from(self.geometry.block_size).unwrap_or(usize::MAX);
        let mut stored = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(limit)];
        self.read_bytes(start, &mut stored, "a data block")?;
        let bytes = match stored_len & DATA_UNCOMPRESSED {
            0 => decode(self.geometry.compression, &stored, limit)
                .ok_or_else(|| wrong("it cannot be decompressed"))?,
            _ => stored,
        };
        let block = Arc::new(Block {
            bytes,
            next: u64::MAX,
        });
        if cached {
            self.cache.put(start, &block);
        }
        Ok(block)
    }

    /// Starts reading a stream of metadata at an offset in the block at `start`; nothing at or behind `end` belongs to it.
    pub(super) fn cursor(
        &self,
        start: u64,
        offset: u16,
        end: u64,
        what: &'static str,
    ) -> Result<Cursor<'_, R>, ReadError> {
        let mut cursor = Cursor {
            filesystem: self,
            block: None,
            next: start,
            offset: usize::from(offset),
            end,
            what,
        };
        cursor.load()?;
        Ok(cursor)
    }
}

/// Reads a stream of metadata.
#[derive(Debug)]
pub(super) struct Cursor<'a, R> {
    filesystem: &'a Filesystem<R>,
    block: Option<Arc<Block>>,
    next: u64,
    offset: usize,
    end: u64,
    what: &'static str,
}

impl<R: ReadAt> Cursor<'_, R> {
    fn load(&mut self) -> Result<(), ReadError> {
        if self.next >= self.end {
            return Err(corrupt(self.what, self.next, "it goes on behind its table"));
        }
        let block = self.filesystem.metadata_block(self.next, self.what)?;
        if self.offset > block.bytes.len() {
            return Err(corrupt(
                self.what,
                self.next,
                "it starts behind the end of its block",
            ));
        }
        self.next = block.next;
        self.block = Some(block);
        Ok(())
    }

    /// Fills `buffer` with what comes next.
    pub(super) fn read(&mut self, mut buffer: &mut [u8]) -> Result<(), ReadError> {
        while !buffer.is_empty() {
            let rest = match &self.block {
                Some(block) => block.bytes.get(self.offset..).unwrap_or_default(),
                None => &[],
            };
            let count = rest.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(count);
            now.copy_from_slice(rest.get(..count).unwrap_or_default());
            buffer = later;
            self.offset = self.offset.saturating_add(count);
            if !buffer.is_empty() {
                self.offset = 0;
                self.load()?;
            }
        }
        Ok(())
    }

    /// The next structure.
    pub(super) fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, ReadError> {
        // No structure on disk is longer.
        let mut bytes = [0; 64];
        let part = bytes.get_mut(..size_of::<T>()).unwrap_or_default();
        self.read(part)?;
        T::read_from_bytes(part).map_err(|_| corrupt(self.what, self.next, "it is cut off"))
    }

    /// The next `len` bytes, which were checked to be few.
    pub(super) fn take_bytes(&mut self, len: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; len];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    /// The next number.
    pub(super) fn take_u32(&mut self) -> Result<u32, ReadError> {
        let mut bytes = [0; 4];
        self.read(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Where the stream is, for messages.
    pub(super) fn corrupt(&self, fault: &'static str) -> ReadError {
        corrupt(self.what, self.next, fault)
    }
}
