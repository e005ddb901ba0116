//! Applying layers: whiteouts first, then the layer's own entries in tar order.
//!
//! What the specification leaves open is decided in `docs/merge.md`, with the reasons.

use std::collections::BTreeMap;

use crate::entry::{Entry, EntryKind, LayerIndex, Metadata, Timestamp};
use crate::path::{LayerPath, Name};
use crate::tree::{Inode, InodeId, Kind, Tree};

/// How many symbolic links one path may lead through, as in the kernel (`MAXSYMLINKS`).
const SYMLINK_HOPS_MAX: u32 = 40;

/// How many names are looked up in one layer, beside [`STEPS_PER_ENTRY`] for each of its entries: a few deep paths cost
/// that much, and hostile ones would cost thousands for every entry.
const STEPS_MIN: u64 = 1_000_000;
const STEPS_PER_ENTRY: u64 = 200;

/// What a merge needs to know beside the layers.
#[derive(Clone, Copy, Debug)]
pub struct MergeOptions {
    /// Modification time of directories that no layer describes: the root and missing parents.
    pub created: Timestamp,
    /// Most inodes, hidden ones included: a short path may imply thousands of directories.
    pub inodes: u32,
}

/// At the epoch, with as many inodes as can be.
impl Default for MergeOptions {
    fn default() -> MergeOptions {
        MergeOptions::at(Timestamp::default())
    }
}

impl MergeOptions {
    /// With directories made at this time, and as many inodes as can be.
    pub fn at(created: Timestamp) -> MergeOptions {
        MergeOptions {
            created,
            inodes: u32::MAX,
        }
    }
}

/// Why layers cannot be merged. The layers are wrong: trying again cannot help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A hardlink to nothing.
    #[error("hardlink {} names {}, which does not exist in this layer before it or in a lower one", short(.path), short(.target))]
    LinkTargetMissing {
        /// The link.
        path: LayerPath,
        /// What it names.
        target: LayerPath,
    },
    /// A hardlink to a directory.
    #[error("hardlink {} names {}, which is a directory", short(.path), short(.target))]
    LinkTargetDirectory {
        /// The link.
        path: LayerPath,
        /// What it names.
        target: LayerPath,
    },
    /// An entry below something that is not a directory.
    #[error("entry {} stands below {}, which is not a directory", short(.path), short(.parent))]
    ParentNotDirectory {
        /// The entry.
        path: LayerPath,
        /// The path that should be a directory (symbolic links followed).
        parent: LayerPath,
    },
    /// Symbolic links among the parents lead in a circle.
    #[error("entry {} stands below a loop of symbolic links (more than 40)", short(.path))]
    SymlinkLoop {
        /// The entry.
        path: LayerPath,
    },
    /// The root must be a directory.
    #[error("entry {} would replace the root by something that is not a directory", short(.path))]
    RootReplaced {
        /// The entry.
        path: LayerPath,
    },
    /// More inodes than [`MergeOptions::inodes`].
    #[error("entry {} is one inode too many: with the directories that paths imply, there are over {limit}", short(.path))]
    TooManyInodes {
        /// The entry.
        path: LayerPath,
        /// The bound.
        limit: u32,
    },
    /// Paths so deep, or through so many symbolic links, that finding them all would take for ever.
    #[error("entry {} leads through too many directories and symbolic links", short(.path))]
    Tangled {
        /// The entry at which the bound was reached.
        path: LayerPath,
    },
}

/// A path for a message: hostile ones have thousands of bytes.
fn short(path: &LayerPath) -> String {
    let text = path.to_string();
    match text.char_indices().nth(300) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

impl Tree {
    /// Merges layers, lowest first, into the tree a container would see.
    ///
    /// Invariant: the result is a function of the arguments alone; no clock, environment or map iteration order.
    ///
    /// # Errors
    /// As [`Tree::apply`].
    pub fn merge(
        layers: impl IntoIterator<Item = LayerIndex>,
        options: &MergeOptions,
    ) -> Result<Tree, MergeError> {
        let mut tree = Tree::new(Metadata {
            mtime: options.created,
            ..Metadata::default()
        });
        for layer in layers {
            tree.apply(layer, options)?;
        }
        Ok(tree)
    }

    /// Merges one more layer on top.
    ///
    /// A whiteout hides names from *lower* layers only, wherever it stands in its own layer's tar
    /// (<https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts>).
    /// A hardlink whose target sits in a lower layer joins that inode.
    ///
    /// # Errors
    /// [`MergeError`] if a hardlink names nothing or a directory, or an entry has no place to stand.
    pub fn apply(&mut self, layer: LayerIndex, options: &MergeOptions) -> Result<(), MergeError> {
        let entries = u64::try_from(layer.entries.len()).unwrap_or(u64::MAX);
        let mut steps = STEPS_MIN.saturating_add(entries.saturating_mul(STEPS_PER_ENTRY));
        self.white_out(&layer, options, &mut steps)?;
        let mut merger = Merger {
            tree: self,
            options,
            steps,
            last_parent: None,
        };
        for entry in layer.entries {
            merger.apply_entry(entry)?;
        }
        self.layer_ends.push(self.inodes.len());
        Ok(())
    }

    /// Removes what the layer's whiteouts hide.
    ///
    /// All of them are found before any acts: one may hide a symbolic link that leads to another, and their order
    /// in the tar must not matter.
    fn white_out(
        &mut self,
        layer: &LayerIndex,
        options: &MergeOptions,
        steps: &mut u64,
    ) -> Result<(), MergeError> {
        let mut hidden = Vec::new();
        for entry in &layer.entries {
            let everything_below = match entry.kind {
                EntryKind::Whiteout => false,
                EntryKind::OpaqueWhiteout => true,
                _ => continue,
            };
            let Some((parent, name)) = entry.path.split_last() else {
                hidden.extend(everything_below.then_some((Tree::ROOT, None)));
                continue;
            };
            let Some(parent) = Resolver::new(self, &entry.path, options, steps).find(&parent)? else {
                continue;
            };
            if everything_below {
                // Parents are followed, the path itself is not: a symbolic link has nothing below it.
                let names = self.directory(parent);
                hidden.extend(names.and_then(|names| Some((*names.get(&name)?, None))));
            } else {
                hidden.push((parent, Some(name)));
            }
        }
        for (id, name) in hidden {
            match (&mut self.inode_mut(id).kind, name) {
                (Kind::Directory(names), Some(name)) => drop(names.remove(&name)),
                (Kind::Directory(names), None) => names.clear(),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Applies one layer's own entries.
struct Merger<'a> {
    tree: &'a mut Tree,
    options: &'a MergeOptions,
    /// How many more names may be looked up.
    steps: u64,
    /// Tars list a directory's files one after the other, so the parent is usually the last one.
    /// Forgotten whenever a directory or symbolic link is replaced, since paths may lead elsewhere then.
    last_parent: Option<(LayerPath, InodeId)>,
}

impl Merger<'_> {
    fn apply_entry(&mut self, entry: Entry) -> Result<(), MergeError> {
        let Entry { path, meta, kind } = entry;
        let kind = match kind {
            EntryKind::Whiteout | EntryKind::OpaqueWhiteout => return Ok(()),
            EntryKind::Directory => return self.put_directory(&path, meta),
            EntryKind::Hardlink(target) => return self.put_hardlink(&path, &target),
            EntryKind::File(data) => Kind::File(data),
            EntryKind::Symlink(target) => Kind::Symlink(target),
            EntryKind::Device { kind, major, minor } => Kind::Device { kind, major, minor },
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::Socket => Kind::Socket,
        };
        let (parent, name) = self.place(&path)?;
        let id = self.add(&path, Inode { meta, kind })?;
        self.put(parent, name, id);
        Ok(())
    }

    /// A directory over a directory changes its metadata and keeps what it holds; over anything else it replaces it.
    fn put_directory(&mut self, path: &LayerPath, meta: Metadata) -> Result<(), MergeError> {
        if path.is_root() {
            self.tree.inode_mut(Tree::ROOT).meta = meta;
            return Ok(());
        }
        let (parent, name) = self.place(path)?;
        let existing = self
            .tree
            .directory(parent)
            .and_then(|names| names.get(&name).copied());
        if let Some(id) = existing
            && self.tree.directory(id).is_some()
        {
            self.tree.inode_mut(id).meta = meta;
            return Ok(());
        }
        let id = self.add(
            path,
            Inode {
                meta,
                kind: Kind::Directory(BTreeMap::new()),
            },
        )?;
        self.put(parent, name, id);
        Ok(())
    }

    fn put_hardlink(&mut self, path: &LayerPath, target: &LayerPath) -> Result<(), MergeError> {
        let missing = || MergeError::LinkTargetMissing {
            path: path.clone(),
            target: target.clone(),
        };
        let directory = || MergeError::LinkTargetDirectory {
            path: path.clone(),
            target: target.clone(),
        };
        let (target_parent, target_name) = target.split_last().ok_or_else(directory)?;
        let target_parent = Resolver::new(self.tree, path, self.options, &mut self.steps)
            .find(&target_parent)?
            .ok_or_else(missing)?;
        let names = self.tree.directory(target_parent).ok_or_else(missing)?;
        let id = *names.get(&target_name).ok_or_else(missing)?;
        if self.tree.directory(id).is_some() {
            return Err(directory());
        }
        let (parent, name) = self.place(path)?;
        self.put(parent, name, id);
        Ok(())
    }

    /// The directory that will hold `path`, made if missing, and the name in it.
    fn place(&mut self, path: &LayerPath) -> Result<(InodeId, Name), MergeError> {
        let (parent, name) = path
            .split_last()
            .ok_or_else(|| MergeError::RootReplaced { path: path.clone() })?;
        if let Some((known, id)) = &self.last_parent
            && *known == parent
        {
            return Ok((*id, name));
        }
        let id = Resolver::new(self.tree, path, self.options, &mut self.steps).find_or_make(&parent)?;
        self.last_parent = Some((parent, id));
        Ok((id, name))
    }

    fn add(&mut self, path: &LayerPath, inode: Inode) -> Result<InodeId, MergeError> {
        add(self.tree, path, inode, self.options)
    }

    fn put(&mut self, parent: InodeId, name: Name, id: InodeId) {
        let Kind::Directory(names) = &mut self.tree.inode_mut(parent).kind else {
            unreachable!("place() yields directories only, and a parent that is replaced is forgotten")
        };
        let Some(replaced) = names.insert(name, id) else {
            return;
        };
        if matches!(
            self.tree.inode(replaced).kind,
            Kind::Directory(_) | Kind::Symlink(_)
        ) {
            self.last_parent = None;
        }
    }
}

fn add(
    tree: &mut Tree,
    path: &LayerPath,
    inode: Inode,
    options: &MergeOptions,
) -> Result<InodeId, MergeError> {
    let limit = options.inodes;
    tree.add(inode, limit).ok_or_else(|| MergeError::TooManyInodes {
        path: path.clone(),
        limit,
    })
}

/// Finds directories, following symbolic links inside the root as a container's kernel would.
struct Resolver<'a> {
    tree: &'a mut Tree,
    /// The entry on whose behalf this happens, for errors.
    entry: &'a LayerPath,
    options: &'a MergeOptions,
    steps: &'a mut u64,
    hops: u32,
}

impl<'a> Resolver<'a> {
    fn new(
        tree: &'a mut Tree,
        entry: &'a LayerPath,
        options: &'a MergeOptions,
        steps: &'a mut u64,
    ) -> Resolver<'a> {
        Resolver {
            tree,
            entry,
            options,
            steps,
            hops: 0,
        }
    }

    /// The directory at `path`; `None` if it is missing or is not a directory.
    fn find(&mut self, path: &LayerPath) -> Result<Option<InodeId>, MergeError> {
        match self.resolve(path, false) {
            Err(MergeError::ParentNotDirectory { .. }) => Ok(None),
            other => other,
        }
    }

    /// The directory at `path`, made with mode 0755 and owner root where it is missing.
    fn find_or_make(&mut self, path: &LayerPath) -> Result<InodeId, MergeError> {
        let found = self.resolve(path, true)?;
        Ok(found.expect("what is missing is made"))
    }

    fn resolve(&mut self, path: &LayerPath, make: bool) -> Result<Option<InodeId>, MergeError> {
        // Directories from the root to here, so that `..` in a link's target knows its way and stays inside.
        let mut here = vec![Tree::ROOT];
        let mut pending: Vec<Box<[u8]>> = path.names().rev().map(Box::from).collect();
        while let Some(component) = pending.pop() {
            let current = *here.last().expect("the root is never popped");
            *self.steps = self.steps.checked_sub(1).ok_or_else(|| MergeError::Tangled {
                path: self.entry.clone(),
            })?;
            if component.is_empty() || *component == *b"." {
                continue;
            }
            if *component == *b".." {
                if here.len() > 1 {
                    here.pop();
                }
                continue;
            }
            let existing = self
                .tree
                .directory(current)
                .and_then(|names| names.get(&*component).copied());
            match existing.map(|id| (id, &self.tree.inode(id).kind)) {
                Some((id, Kind::Directory(_))) => here.push(id),
                Some((_, Kind::Symlink(target))) => {
                    self.hops = self.hops.saturating_add(1);
                    if self.hops > SYMLINK_HOPS_MAX {
                        return Err(MergeError::SymlinkLoop {
                            path: self.entry.clone(),
                        });
                    }
                    if target.starts_with(b"/") {
                        here.truncate(1);
                    }
                    pending.extend(target.split(|&byte| byte == b'/').rev().map(Box::from));
                }
                Some(_) => {
                    return Err(MergeError::ParentNotDirectory {
                        path: self.entry.clone(),
                        parent: path.clone(),
                    });
                }
                None => match (make, Name::new(&component)) {
                    (true, Some(name)) => here.push(self.make_directory(current, name)?),
                    (true, None) => {
                        return Err(MergeError::ParentNotDirectory {
                            path: self.entry.clone(),
                            parent: path.clone(),
                        });
                    }
                    (false, _) => return Ok(None),
                },
            }
        }
        Ok(here.pop())
    }

    fn make_directory(&mut self, parent: InodeId, name: Name) -> Result<InodeId, MergeError> {
        let meta = Metadata {
            mtime: self.options.created,
            ..Metadata::default()
        };
        let directory = Inode {
            meta,
            kind: Kind::Directory(BTreeMap::new()),
        };
        let id = add(self.tree, self.entry, directory, self.options)?;
        if let Kind::Directory(names) = &mut self.tree.inode_mut(parent).kind {
            names.insert(name, id);
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests;
