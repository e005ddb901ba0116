//! Directories as paths and walks see them.

use firebrick_reader::{Directories, LastSymlink, PathError, Tangle, Walk};

use super::FileType;
use super::dir::DirEntry;
use super::error::{Fault, Place, ReadError};
use super::inode::{Inode, InodeNumber};
use super::{Filesystem, ReadAt};

impl<R: ReadAt> Filesystem<R> {
    /// Finds what stands at a path, which begins at the root whether or not it begins with a slash.
    ///
    /// # Errors
    /// [`ReadError::NotFound`], [`ReadError::NotDirectory`] and [`ReadError::TooManySymlinks`] by the path; corrupt
    /// where something on the way is.
    pub fn lookup(&self, path: &[u8], last: LastSymlink) -> Result<Inode, ReadError> {
        firebrick_reader::lookup(self, path, last)
    }

    /// Begins a walk; its first visit is `start` itself. A directory with a second name is corrupt.
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
    pub fn walk(&self, start: Inode) -> Walk<'_, Filesystem<R>> {
        Walk::new(self, start)
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

impl<R: ReadAt> Directories for Filesystem<R> {
    type Inode = Inode;
    type Entry = DirEntry;
    type Error = ReadError;

    fn root_inode(&self) -> Result<Inode, ReadError> {
        self.inode(InodeNumber::ROOT)
    }

    fn file_type(inode: &Inode) -> FileType {
        inode.stat.file_type
    }

    fn number(inode: &Inode) -> u32 {
        inode.number.get()
    }

    fn target(&self, link: &Inode) -> Result<Vec<u8>, ReadError> {
        self.read_link(link)
    }

    fn find_inode(&self, directory: &Inode, name: &[u8]) -> Result<Option<Inode>, ReadError> {
        let number = self.find(directory, name)?;
        number.map(|number| self.inode(number)).transpose()
    }

    fn entries_backwards(&self, directory: &Inode) -> Result<Vec<DirEntry>, ReadError> {
        let mut entries = self.read_dir(directory)?;
        entries.sort_by(|a, b| b.name.cmp(&a.name));
        Ok(entries)
    }

    fn name(entry: &DirEntry) -> &[u8] {
        &entry.name
    }

    fn entry_inode(&self, entry: &DirEntry) -> Result<Inode, ReadError> {
        self.inode(entry.inode)
    }

    fn budget(&self) -> u64 {
        self.geometry.blocks
    }

    fn cost(&self, directory: &Inode) -> Result<u64, ReadError> {
        self.directory_blocks(directory)
    }

    fn tangled(directory: &Inode, tangle: Tangle) -> ReadError {
        let place = Place::Directory {
            inode: directory.number,
            block: None,
        };
        ReadError::corrupt(
            place,
            Fault::Structure(match tangle {
                Tangle::TwoNames => "it has more than one name",
                Tangle::OverBudget => "with it, directories have more blocks than the filesystem",
            }),
        )
    }
}

impl From<PathError> for ReadError {
    fn from(error: PathError) -> ReadError {
        match error {
            PathError::NotFound { path } => ReadError::NotFound { path },
            PathError::NotDirectory { path } => ReadError::NotDirectory { path },
            PathError::TooManySymlinks { path, limit } => ReadError::TooManySymlinks { path, limit },
        }
    }
}
