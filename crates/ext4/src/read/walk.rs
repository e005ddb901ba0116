//! Visits everything below a directory, once, whatever a hostile image makes its directories name.

use std::collections::HashSet;

use super::Filesystem;
use super::dir::DirEntry;
use super::error::{Fault, Place, ReadError};
use super::inode::{FileType, Inode, InodeNumber};
use super::source::ReadAt;

/// Everything below a directory: parents before their children, the names of a directory in the order of their bytes.
///
/// ```
/// # fn list(image: &[u8]) -> Result<(), firebrick_ext4::read::ReadError> {
/// # use firebrick_ext4::read::{Filesystem, InodeNumber};
/// let filesystem = Filesystem::open(image)?;
/// let mut walk = filesystem.walk(filesystem.inode(InodeNumber::ROOT)?);
/// while let Some(visit) = walk.advance()? {
///     println!("{:?} has {} bytes", visit.path.escape_ascii().to_string(), visit.inode.stat().size);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Walk<'a, R> {
    filesystem: &'a Filesystem<R>,
    /// Below where the walk began; grows and shrinks with it.
    path: Vec<u8>,
    levels: Vec<Level>,
    /// What comes next, if it is not the next entry of the last level: the start, or a directory to go into.
    pending: Pending,
    directories: HashSet<InodeNumber>,
    /// How many more blocks of directories may be read: all of them together have no more than the filesystem.
    budget: u64,
}

#[derive(Debug)]
enum Pending {
    Start(Inode),
    Into(Inode),
    Nothing,
}

#[derive(Debug)]
struct Level {
    /// What is left of the directory, the next one last.
    entries: Vec<DirEntry>,
    /// How long the path to the directory is.
    path_len: usize,
}

/// One thing that a [`Walk`] came to.
#[derive(Debug)]
pub struct Visit<'w> {
    /// Its path from the start of the walk, without a leading slash. Empty for the start itself.
    pub path: &'w [u8],
    /// What is there. Hardlinks are several visits of one number.
    pub inode: Inode,
}

impl<R: ReadAt> Filesystem<R> {
    /// Begins a walk; its first visit is `start` itself.
    pub fn walk(&self, start: Inode) -> Walk<'_, R> {
        Walk {
            filesystem: self,
            path: Vec::new(),
            levels: Vec::new(),
            pending: Pending::Start(start),
            directories: HashSet::new(),
            budget: self.geometry.blocks,
        }
    }

    /// Reads the names of a directory and what they name, in the order of the names' bytes.
    ///
    /// # Errors
    /// As [`Filesystem::read_dir`] and [`Filesystem::inode`].
    pub fn list(&self, directory: &Inode) -> Result<Vec<(DirEntry, Inode)>, ReadError> {
        let mut entries = self.read_dir(directory)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
            .into_iter()
            .map(|entry| {
                let inode = self.inode(entry.inode)?;
                Ok((entry, inode))
            })
            .collect()
    }
}

impl<R: ReadAt> Walk<'_, R> {
    /// Goes on to the next; `None` at the end. After an error, what comes next is what does not depend on it.
    ///
    /// # Errors
    /// As [`Filesystem::read_dir`] and [`Filesystem::inode`]; corrupt where a directory has a second name.
    pub fn advance(&mut self) -> Result<Option<Visit<'_>>, ReadError> {
        let inode = match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Start(inode) => Some(inode),
            Pending::Into(directory) => {
                self.enter(&directory)?;
                self.next_entry()?
            }
            Pending::Nothing => self.next_entry()?,
        };
        let Some(inode) = inode else {
            return Ok(None);
        };
        if inode.stat.file_type == FileType::Directory {
            self.pending = Pending::Into(inode.clone());
        }
        Ok(Some(Visit {
            path: &self.path,
            inode,
        }))
    }

    fn enter(&mut self, directory: &Inode) -> Result<(), ReadError> {
        let corrupt = |text| {
            let place = Place::Directory {
                inode: directory.number,
                block: None,
            };
            ReadError::corrupt(place, Fault::Structure(text))
        };
        if !self.directories.insert(directory.number) {
            return Err(corrupt("it has more than one name"));
        }
        let blocks = self.filesystem.directory_blocks(directory)?;
        self.budget = self
            .budget
            .checked_sub(blocks)
            .ok_or_else(|| corrupt("with it, directories have more blocks than the filesystem"))?;
        let mut entries = self.filesystem.read_dir(directory)?;
        entries.sort_by(|a, b| b.name.cmp(&a.name));
        self.levels.push(Level {
            entries,
            path_len: self.path.len(),
        });
        Ok(())
    }

    fn next_entry(&mut self) -> Result<Option<Inode>, ReadError> {
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_len);
            let Some(entry) = level.entries.pop() else {
                self.levels.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&entry.name);
            return Ok(Some(self.filesystem.inode(entry.inode)?));
        }
        Ok(None)
    }
}
