//! The merged tree: inodes, and directories that name them.

use std::collections::BTreeMap;
use std::iter::once;

use crate::entry::{DeviceKind, FileData, Metadata};
use crate::path::{LayerPath, Name};

/// An inode's place in its [`Tree`], from 0. Not the inode number on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub(crate) u32);

impl InodeId {
    /// The place as an index into a table with [`Tree::inode_slots`] rows.
    pub fn index(self) -> usize {
        usize::try_from(self.0).expect("usize has at least 32 bits on every platform that firebrick supports")
    }
}

/// A file, directory or other node: what it is, without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Owner, mode, times, xattrs.
    pub meta: Metadata,
    /// What it is.
    pub kind: Kind,
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory: names in byte order.
    Directory(BTreeMap<Name, InodeId>),
    /// A regular file.
    File(FileData),
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A device node.
    Device {
        /// Character or block.
        kind: DeviceKind,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A unix socket's name.
    Socket,
}

/// A file tree. Always has a root directory.
///
/// Inodes that lost their last name stay in the table until the tree is dropped, but no walk reaches them.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(crate) inodes: Vec<Inode>,
    /// Where in the table each applied layer's inodes end.
    pub(crate) layer_ends: Vec<usize>,
}

impl Tree {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);

    /// A tree that holds nothing but a root directory.
    pub fn new(root: Metadata) -> Tree {
        Tree {
            inodes: vec![Inode {
                meta: root,
                kind: Kind::Directory(BTreeMap::new()),
            }],
            layer_ends: Vec::new(),
        }
    }

    /// The inode of an id that came from this tree.
    pub fn inode(&self, id: InodeId) -> &Inode {
        self.inodes
            .get(id.index())
            .expect("an InodeId is only ever made for the tree it indexes")
    }

    /// A regular file's content, to say where else it lies now.
    pub fn file_mut(&mut self, id: InodeId) -> Option<&mut FileData> {
        match &mut self.inode_mut(id).kind {
            Kind::File(data) => Some(data),
            _ => None,
        }
    }

    pub(crate) fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        self.inodes
            .get_mut(id.index())
            .expect("an InodeId is only ever made for the tree it indexes")
    }

    /// How many rows a table indexed by [`InodeId::index`] needs (counting inodes that lost their last name).
    pub fn inode_slots(&self) -> usize {
        self.inodes.len()
    }

    /// Every id of the table in order, also of inodes that lost their last name.
    pub fn inode_ids(&self) -> impl Iterator<Item = InodeId> + use<> {
        (0..u32::try_from(self.inodes.len()).expect("add() keeps the table within 32 bits")).map(InodeId)
    }

    /// The ids of [`Tree::inode_ids`], layer by layer as they were applied. The root comes with the first.
    ///
    /// What a layer brings depends on it and on those below, never on those above.
    pub fn inode_ids_by_layer(&self) -> impl Iterator<Item = Vec<InodeId>> {
        let mut ids = self.inode_ids();
        let mut start = 0_usize;
        // Behind the last layer there is something only if nothing was applied, or applying failed.
        let ends = self.layer_ends.iter().copied().chain(once(self.inodes.len()));
        ends.map(move |end| {
            let count = end.saturating_sub(start);
            start = end;
            ids.by_ref().take(count).collect()
        })
    }

    /// One path of an inode; the root's if no name reaches it. Walks the tree: meant for error messages.
    pub fn path_of(&self, id: InodeId) -> LayerPath {
        self.walk()
            .find(|(_, at)| *at == id)
            .map(|(path, _)| path)
            .unwrap_or_default()
    }

    /// The directory's names, or `None` if the inode is not a directory.
    pub fn directory(&self, id: InodeId) -> Option<&BTreeMap<Name, InodeId>> {
        match &self.inode(id).kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        }
    }

    /// What stands at `path`, not following symbolic links.
    pub fn lookup(&self, path: &LayerPath) -> Option<InodeId> {
        path.names()
            .try_fold(Tree::ROOT, |id, name| self.directory(id)?.get(name).copied())
    }

    /// Every name in the tree with its path, directories before what they hold, names in byte order.
    /// The root comes first. An inode with several names comes once for each.
    pub fn walk(&self) -> Walk<'_> {
        Walk {
            tree: self,
            pending: vec![(LayerPath::root(), Tree::ROOT)],
        }
    }

    /// `None` if there are `limit` inodes already.
    pub(crate) fn add(&mut self, inode: Inode, limit: u32) -> Option<InodeId> {
        let id = InodeId(u32::try_from(self.inodes.len()).ok().filter(|&id| id < limit)?);
        self.inodes.push(inode);
        Some(id)
    }
}

/// Iterator of [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    pending: Vec<(LayerPath, InodeId)>,
}

impl Iterator for Walk<'_> {
    type Item = (LayerPath, InodeId);

    fn next(&mut self) -> Option<(LayerPath, InodeId)> {
        let (path, id) = self.pending.pop()?;
        if let Some(names) = self.tree.directory(id) {
            self.pending
                .extend(names.iter().rev().map(|(name, &child)| (path.join(name), child)));
        }
        Some((path, id))
    }
}
