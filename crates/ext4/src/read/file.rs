//! Streams the content of a file, holes as zeros.

use std::io;

use super::FileType;
use super::Filesystem;
use super::ReadAt;
use super::error::{Place, ReadError};
use super::inode::Inode;
use super::runs::{Run, Runs};

/// A regular file's content from its first byte to its last.
///
/// Errors are [`io::Error`]s with a [`ReadError`] inside; `io::Error::downcast` gives it back.
#[derive(Debug)]
pub struct FileReader<'a, R> {
    filesystem: &'a Filesystem<R>,
    inode: &'a Inode,
    runs: Runs<'a, R>,
    /// The run that the position is in, or that comes after it.
    run: Option<Run>,
    /// In bytes from the start of the file.
    position: u64,
}

impl<R: ReadAt> Filesystem<R> {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`ReadError::WrongType`] for anything else; corrupt where the map of its blocks is wrong from the start.
    pub fn open_file<'a>(&'a self, inode: &'a Inode) -> Result<FileReader<'a, R>, ReadError> {
        inode.expect(FileType::Regular)?;
        self.open_content(inode)
    }

    pub(super) fn open_content<'a>(&'a self, inode: &'a Inode) -> Result<FileReader<'a, R>, ReadError> {
        let size = inode.stat.size;
        if size.div_ceil(self.geometry.block_size.into()) > 1 << 32 {
            return Err(super::out_of_range(Place::Inode(inode.number), "i_size", size));
        }
        Ok(FileReader {
            filesystem: self,
            inode,
            runs: self.runs(inode)?,
            run: None,
            position: 0,
        })
    }

    /// Fills `buffer` from the start of an inode's content, whatever its type. Holes are zeros.
    pub(super) fn read_content(&self, inode: &Inode, buffer: &mut [u8]) -> Result<(), ReadError> {
        let mut reader = self.open_content(inode)?;
        let mut rest = buffer;
        while !rest.is_empty() {
            let count = reader.read_some(rest)?;
            match std::mem::take(&mut rest).get_mut(count..) {
                Some(after) if count > 0 => rest = after,
                _ => {
                    return Err(super::out_of_range(
                        Place::Inode(inode.number),
                        "i_size",
                        inode.stat.size,
                    ));
                }
            }
        }
        Ok(())
    }
}

impl<R: ReadAt> FileReader<'_, R> {
    /// Reads at least one byte into `buffer` and tells how many; 0 at the end of the file.
    ///
    /// # Errors
    /// Corrupt where the map of blocks is wrong, and where the host fails.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let rest = self.inode.stat.size.saturating_sub(self.position);
        let wanted = u64::try_from(buffer.len()).unwrap_or(u64::MAX).min(rest);
        if wanted == 0 {
            return Ok(0);
        }
        let block_size = u64::from(self.filesystem.geometry.block_size);
        let (until, from) = match self.current_run()? {
            None => (u64::MAX, None),
            Some(run) => {
                let start = run.logical.saturating_mul(block_size);
                match self.position.checked_sub(start) {
                    None => (start, None),
                    Some(inside) => {
                        let first = run.physical.map(|first| first.saturating_mul(block_size));
                        let end = run.end().saturating_mul(block_size);
                        (end, first.map(|first| first.saturating_add(inside)))
                    }
                }
            }
        };
        let count = wanted.min(until.saturating_sub(self.position));
        let len = usize::try_from(count).unwrap_or(usize::MAX);
        let part = buffer.get_mut(..len).unwrap_or_default();
        match from {
            Some(offset) => self
                .filesystem
                .read_bytes(offset, part, Place::Inode(self.inode.number))?,
            None => part.fill(0),
        }
        self.position = self.position.saturating_add(count);
        Ok(part.len())
    }

    /// Goes on `count` bytes further, without reading what lies between.
    pub fn skip(&mut self, count: u64) {
        self.position = self.position.saturating_add(count);
    }

    /// The run at the position or after it; `None` where only zeros follow.
    fn current_run(&mut self) -> Result<Option<Run>, ReadError> {
        let block = self.position >> self.filesystem.geometry.block_size.trailing_zeros();
        while self.run.is_none_or(|run| run.end() <= block) {
            match self.runs.next().transpose()? {
                Some(run) => self.run = Some(run),
                None => return Ok(None),
            }
        }
        Ok(self.run)
    }
}

impl<R: ReadAt> io::Read for FileReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_some(buffer)?)
    }
}
