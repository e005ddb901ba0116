//! Visits everything below a directory, once, whatever a hostile image makes its directories name.

use std::collections::HashSet;

use crate::{Directories, FileType};

/// What makes directories no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tangle {
    /// One has more than one name.
    TwoNames,
    /// With it, those so far have more than [`Directories::budget`].
    OverBudget,
}

/// Everything below a directory: parents before their children, the names of a directory in the order of their bytes.
#[derive(Debug)]
pub struct Walk<'a, F: Directories> {
    filesystem: &'a F,
    /// Below where the walk began; grows and shrinks with it.
    path: Vec<u8>,
    levels: Vec<Level<F::Entry>>,
    /// What comes next, if it is not the next entry of the last level: the start, or a directory to go into.
    pending: Pending<F::Inode>,
    /// Numbers of the directories so far.
    directories: HashSet<u32>,
    /// How much of the budget is left.
    budget: u64,
}

#[derive(Debug)]
enum Pending<I> {
    Start(I),
    Into(I),
    Nothing,
}

#[derive(Debug)]
struct Level<E> {
    /// What is left of the directory, the next one last.
    entries: Vec<E>,
    /// How long the path to the directory is.
    path_len: usize,
}

/// One thing that a [`Walk`] came to.
#[derive(Debug)]
pub struct Visit<'w, I> {
    /// Its path from the start of the walk, without a leading slash. Empty for the start itself.
    pub path: &'w [u8],
    /// What is there. Hardlinks are several visits of one number.
    pub inode: I,
}

impl<'a, F: Directories> Walk<'a, F> {
    /// Begins a walk; its first visit is `start` itself.
    pub fn new(filesystem: &'a F, start: F::Inode) -> Walk<'a, F> {
        Walk {
            filesystem,
            path: Vec::new(),
            levels: Vec::new(),
            pending: Pending::Start(start),
            directories: HashSet::new(),
            budget: filesystem.budget(),
        }
    }

    /// Goes on to the next; `None` at the end. After an error, what comes next is what does not depend on it.
    ///
    /// # Errors
    /// The filesystem's where a directory or an inode cannot be read, and [`Directories::tangled`].
    pub fn advance(&mut self) -> Result<Option<Visit<'_, F::Inode>>, F::Error> {
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
        if F::file_type(&inode) == FileType::Directory {
            self.pending = Pending::Into(inode.clone());
        }
        Ok(Some(Visit {
            path: &self.path,
            inode,
        }))
    }

    fn enter(&mut self, directory: &F::Inode) -> Result<(), F::Error> {
        if !self.directories.insert(F::number(directory)) {
            return Err(F::tangled(directory, Tangle::TwoNames));
        }
        self.budget = self
            .budget
            .checked_sub(self.filesystem.cost(directory)?)
            .ok_or_else(|| F::tangled(directory, Tangle::OverBudget))?;
        self.levels.push(Level {
            entries: self.filesystem.entries_backwards(directory)?,
            path_len: self.path.len(),
        });
        Ok(())
    }

    fn next_entry(&mut self) -> Result<Option<F::Inode>, F::Error> {
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_len);
            let Some(entry) = level.entries.pop() else {
                self.levels.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(F::name(&entry));
            return Ok(Some(self.filesystem.entry_inode(&entry)?));
        }
        Ok(None)
    }
}
