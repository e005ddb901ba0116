//! Directories: their names, and the inodes that those lead to.

use super::FileType;
use super::Filesystem;
use super::ReadAt;
use super::error::ReadError;
use super::inode::{Content, Inode};
use crate::format;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// 1 to 255 bytes without `/` and NUL, neither `.` nor `..`.
    pub name: Box<[u8]>,
    /// Where the inode lies.
    pub(super) reference: u64,
}

impl<R: ReadAt> Filesystem<R> {
    /// Reads the names of a directory, in the order of their bytes.
    ///
    /// # Errors
    /// [`ReadError::WrongType`] for anything else; corrupt where the listing is wrong or a name cannot be one.
    pub fn read_dir(&self, directory: &Inode) -> Result<Vec<DirEntry>, ReadError> {
        directory.expect(FileType::Directory)?;
        let Content::Directory { block, offset, len } = directory.content else {
            return Ok(Vec::new());
        };
        // An empty one may have no place at all.
        let mut entries: Vec<DirEntry> = Vec::new();
        let Some(mut left) = len.checked_sub(3).filter(|left| *left > 0) else {
            return Ok(entries);
        };
        let start = self.geometry.directory_table.saturating_add(block.into());
        let mut cursor = self.cursor(start, offset, self.geometry.directory_end, "a directory")?;
        let mut spend = |bytes: usize| {
            left = u32::try_from(bytes)
                .ok()
                .and_then(|bytes| left.checked_sub(bytes))?;
            Some(left)
        };
        loop {
            let header: format::DirHeader = cursor.take()?;
            let short = "it is longer than it says";
            let mut rest = spend(size_of::<format::DirHeader>()).ok_or_else(|| cursor.corrupt(short))?;
            let count = header.count.get();
            if count >= 256 {
                return Err(cursor.corrupt("a header has more than 256 names"));
            }
            for _ in 0..=count {
                let entry: format::DirEntry = cursor.take()?;
                let name = cursor.take_bytes(usize::from(entry.size.get()).saturating_add(1).min(256))?;
                rest = spend(size_of::<format::DirEntry>().saturating_add(name.len()))
                    .ok_or_else(|| cursor.corrupt(short))?;
                if name.len() > 255
                    || matches!(&name[..], b"." | b"..")
                    || name.contains(&b'/')
                    || name.contains(&0)
                {
                    return Err(cursor.corrupt("a name is none"));
                }
                if entries.last().is_some_and(|last| *last.name >= name[..]) {
                    return Err(cursor.corrupt("its names are not in order"));
                }
                entries.push(DirEntry {
                    name: name.into(),
                    reference: (u64::from(header.start_block.get()) << 16) | u64::from(entry.offset.get()),
                });
            }
            if rest == 0 {
                return Ok(entries);
            }
        }
    }

    /// Reads the names of a directory and what they name, in the order of the names' bytes.
    ///
    /// # Errors
    /// As [`Filesystem::read_dir`]; corrupt where an inode is.
    pub fn list(&self, directory: &Inode) -> Result<Vec<(DirEntry, Inode)>, ReadError> {
        self.read_dir(directory)?
            .into_iter()
            .map(|entry| {
                let inode = self.inode(entry.reference)?;
                Ok((entry, inode))
            })
            .collect()
    }
}
