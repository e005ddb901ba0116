//! Visits everything below a directory, once, whatever a hostile image makes its directories name.

use std::collections::HashSet;

use super::Filesystem;
use super::dir::DirEntry;
use super::error::{ReadError, corrupt};
use super::inode::{FileType, Inode};
use super::source::ReadAt;

/// Everything below a directory: parents before their children, the names of a directory in the order of their bytes.
///
/// ```
/// # fn list(image: &[u8]) -> Result<(), firebrick_squashfs::read::ReadError> {
/// # use firebrick_squashfs::read::Filesystem;
/// let filesystem = Filesystem::open(image)?;
/// let mut walk = filesystem.walk(filesystem.root()?);
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
    /// Numbers of the directories so far.
    directories: HashSet<u32>,
    /// How many more bytes of listings may be read: all of them together have no more than their table can hold.
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
            budget: self.geometry.listing_bytes_max(),
        }
    }
}

impl<R: ReadAt> Walk<'_, R> {
    /// Goes on to the next; `None` at the end. After an error, what comes next is what does not depend on it.
    ///
    /// # Errors
    /// As [`Filesystem::list`]; corrupt where a directory has a second name.
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
        let wrong = |fault| corrupt("a directory", directory.reference, fault);
        if !self.directories.insert(directory.stat.inode) {
            return Err(wrong("it has more than one name"));
        }
        self.budget = self
            .budget
            .checked_sub(directory.stat.size)
            .ok_or_else(|| wrong("with it, directories take more bytes than their table has"))?;
        let mut entries = self.filesystem.read_dir(directory)?;
        entries.reverse();
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
            return Ok(Some(self.filesystem.inode(entry.reference)?));
        }
        Ok(None)
    }
}
