//! The merged image below the firebrick layer, with the contents of its files.

use std::io;

use firebrick_tree::{FileData, InodeId, Kind, LayerPath, Metadata, Tree};

use crate::lower::{Lower, LowerKind};

/// Reads the content of a file of the tree.
pub type ReadFile<'a> = dyn Fn(&FileData) -> io::Result<Vec<u8>> + 'a;

/// The longest file of an image that is read, in bytes: its lists of users and packages are far shorter.
const FILE_LEN_MAX: u64 = 64 << 20;

/// The merged tree, and what its files hold.
pub struct Image<'a> {
    /// The tree.
    pub tree: &'a Tree,
    /// Gives what a file of it holds.
    pub read: &'a ReadFile<'a>,
}

impl std::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("tree", &self.tree)
            .finish_non_exhaustive()
    }
}

impl Image<'_> {
    /// What stands at a real path.
    pub(crate) fn inode(&self, path: &[u8]) -> Option<InodeId> {
        self.tree.lookup(&LayerPath::parse(path).ok()?)
    }

    /// A regular file at a real path: its owner and mode, and what it holds; `None` if something else or nothing is there.
    pub(crate) fn file(&self, path: &[u8]) -> io::Result<Option<(&Metadata, Vec<u8>)>> {
        let Some(id) = self.inode(path) else {
            return Ok(None);
        };
        let inode = self.tree.inode(id);
        let Kind::File(data) = &inode.kind else {
            return Ok(None);
        };
        if data.size > FILE_LEN_MAX {
            let why = format!("it has {} bytes, at most {FILE_LEN_MAX} are read", data.size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Some((&inode.meta, (self.read)(data)?)))
    }

    /// The names in a folder at a real path, in byte order.
    pub(crate) fn names(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let names = self.inode(path).and_then(|id| self.tree.directory(id));
        names
            .map(|names| names.keys().map(|name| name.as_bytes().to_vec()).collect())
            .unwrap_or_default()
    }
}

impl Lower for Image<'_> {
    fn kind(&self, path: &[u8]) -> Option<LowerKind> {
        self.tree.kind(path)
    }
}
