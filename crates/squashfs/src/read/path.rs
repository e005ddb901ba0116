//! Directories as paths and walks see them.

use firebrick_reader::{Directories, LastSymlink, PathError, Tangle, Walk};

use super::FileType;
use super::dir::DirEntry;
use super::error::{ReadError, corrupt};
use super::inode::Inode;
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
    pub fn walk(&self, start: Inode) -> Walk<'_, Filesystem<R>> {
        Walk::new(self, start)
    }
}

impl<R: ReadAt> Directories for Filesystem<R> {
    type Inode = Inode;
    type Entry = DirEntry;
    type Error = ReadError;

    fn root_inode(&self) -> Result<Inode, ReadError> {
        self.root()
    }

    fn file_type(inode: &Inode) -> FileType {
        inode.stat.file_type
    }

    fn number(inode: &Inode) -> u32 {
        inode.stat.inode
    }

    fn target(&self, link: &Inode) -> Result<Vec<u8>, ReadError> {
        self.read_link(link)
    }

    fn find_inode(&self, directory: &Inode, name: &[u8]) -> Result<Option<Inode>, ReadError> {
        let entries = self.read_dir(directory)?;
        let place = entries.binary_search_by(|entry| (*entry.name).cmp(name));
        let entry = place.ok().and_then(|place| entries.get(place));
        entry.map(|entry| self.inode(entry.reference)).transpose()
    }

    fn entries_backwards(&self, directory: &Inode) -> Result<Vec<DirEntry>, ReadError> {
        let mut entries = self.read_dir(directory)?;
        entries.reverse();
        Ok(entries)
    }

    fn name(entry: &DirEntry) -> &[u8] {
        &entry.name
    }

    fn entry_inode(&self, entry: &DirEntry) -> Result<Inode, ReadError> {
        self.inode(entry.reference)
    }

    fn budget(&self) -> u64 {
        self.geometry.listing_bytes_max()
    }

    fn cost(&self, directory: &Inode) -> Result<u64, ReadError> {
        Ok(directory.stat.size)
    }

    fn tangled(directory: &Inode, tangle: Tangle) -> ReadError {
        let fault = match tangle {
            Tangle::TwoNames => "it has more than one name",
            Tangle::OverBudget => "with it, directories take more bytes than their table has",
        };
        corrupt("a directory", directory.reference, fault)
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
