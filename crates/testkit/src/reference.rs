//! A simple application of OCI layers in memory, written from the OCI image specification
//! (<https://github.com/opencontainers/image-spec/blob/main/layer.md>) and not from the crate `firebrick-tree`.
//!
//! It favours being evidently right over being fast: the whole tree is one map from full path to inode, and every
//! step is a look-up or a removal in that map. Where the specification is silent, the decisions of `docs/merge.md`
//! hold; they are listed at the functions that carry them out.

use std::collections::{BTreeMap, VecDeque};

use crate::layers::{Entry, EntryKind, Layer};
use crate::listing::{Kind, Listing, Record, Time};

/// Why layers cannot be applied; the kinds in which our own merge must fail as well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A path with `..`, a NUL byte, or a name of more than 255 bytes.
    #[error("{0} is not a path for a layer")]
    Path(String),
    /// An entry below something that is not a directory.
    #[error("{0} stands below something that is not a directory")]
    NotDirectory(String),
    /// More than 40 symbolic links on the way to an entry.
    #[error("{0} stands below a loop of symbolic links")]
    Loop(String),
    /// A hard link to nothing.
    #[error("{0} links to nothing")]
    LinkMissing(String),
    /// A hard link to a directory.
    #[error("{0} links to a directory")]
    LinkDirectory(String),
    /// Something that is not a directory in place of the root.
    #[error("{0} replaces the root")]
    Root(String),
}

#[derive(Clone, Debug)]
struct Inode {
    kind: Kind,
    mode: u16,
    uid: u32,
    gid: u32,
    mtime: Time,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A tree under construction: every path (the root is empty, others begin with `/`) and its inode.
#[derive(Clone, Debug)]
struct State {
    paths: BTreeMap<Vec<u8>, usize>,
    inodes: Vec<Inode>,
    created: Time,
}

/// Applies `layers`, lowest first. Directories that no layer describes (the root, missing parents) belong to root,
/// have mode 0755 and the modification time `created`.
///
/// # Errors
/// [`Refusal`] if an entry cannot be applied.
pub fn apply(layers: &[Layer], created: Time) -> Result<Listing, Refusal> {
    let mut state = State::new(created);
    for layer in layers {
        state.apply_layer(layer)?;
    }
    Ok(state.listing())
}

/// The same layers without the entries that cannot be applied.
pub fn keep_valid(layers: &[Layer]) -> Vec<Layer> {
    let mut state = State::new(Time::default());
    let keep = |layer: &Layer| {
        let mut kept = Layer::default();
        let mut removals = Vec::new();
        for entry in &layer.entries {
            if state.whiteout(entry, &mut removals).is_ok() {
                kept.entries.push(entry.clone());
            }
        }
        state.remove(&removals);
        kept.entries.retain(|entry| state.apply_entry(entry).is_ok());
        kept
    };
    layers.iter().map(keep).collect()
}

impl State {
    fn new(created: Time) -> State {
        let mut state = State {
            paths: BTreeMap::new(),
            inodes: Vec::new(),
            created,
        };
        state.make_directory(Vec::new());
        state
    }

    /// "Whiteouts … apply to resources in lower layers only", and "implementations MUST … apply opaque whiteouts
    /// first, regardless of the ordering": both act on the tree as the lower layers left it, then the entries follow.
    fn apply_layer(&mut self, layer: &Layer) -> Result<(), Refusal> {
        let mut removals = Vec::new();
        for entry in &layer.entries {
            self.whiteout(entry, &mut removals)?;
        }
        self.remove(&removals);
        layer.entries.iter().try_for_each(|entry| self.apply_entry(entry))
    }

    /// Finds what a whiteout hides. Decided: a whiteout of nothing does nothing; parents that are symbolic links are
    /// followed; an opaque whiteout of something that is not a directory does nothing.
    fn whiteout(&self, entry: &Entry, removals: &mut Vec<(Vec<u8>, bool)>) -> Result<(), Refusal> {
        let opaque = match entry.kind {
            EntryKind::Whiteout => false,
            EntryKind::Opaque => true,
            _ => return Ok(()),
        };
        let names = names(&entry.path)?;
        let Some((base, parents)) = names.split_last() else {
            if !opaque {
                return Err(Refusal::Path(show(entry)));
            }
            removals.push((Vec::new(), true));
            return Ok(());
        };
        if let Some(parent) = self.find(parents, entry)? {
            removals.push((join(&parent, base), opaque));
        }
        Ok(())
    }

    fn remove(&mut self, removals: &[(Vec<u8>, bool)]) {
        for (path, only_below) in removals {
            if !only_below {
                self.paths.remove(path);
            }
            self.remove_below(path);
        }
    }

    fn remove_below(&mut self, path: &[u8]) {
        let (from, to) = (join(path, b""), [path, b"0"].concat()); // '0' follows '/'
        let below: Vec<_> = self.paths.range(from..to).map(|(path, _)| path.clone()).collect();
        for path in below {
            self.paths.remove(&path);
        }
    }

    fn apply_entry(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if matches!(entry.kind, EntryKind::Whiteout | EntryKind::Opaque) {
            return Ok(());
        }
        let names = names(&entry.path)?;
        let Some((base, parents)) = names.split_last() else {
            if entry.kind != EntryKind::Dir {
                return Err(Refusal::Root(show(entry)));
            }
            self.inodes[0] = inode_of(entry, Kind::Dir);
            return Ok(());
        };
        // Decided: missing parents are made.
        let path = join(&self.find_or_make(parents, entry)?, base);
        let kind = match &entry.kind {
            EntryKind::Hardlink(target) => {
                let inode = self.link_target(target, entry)?;
                return self.put(path, inode);
            }
            EntryKind::Dir => {
                let existing = self.paths.get(&path).copied();
                // A directory over a directory keeps what it holds; over a symbolic link or a file it replaces it.
                if let Some(inode) = existing.filter(|&inode| self.inodes[inode].kind == Kind::Dir) {
                    self.inodes[inode] = inode_of(entry, Kind::Dir);
                    return Ok(());
                }
                Kind::Dir
            }
            EntryKind::File(content) => Kind::File {
                len: content.len(),
                digest: content.digest(),
            },
            EntryKind::Symlink(target) => Kind::Symlink(target.clone()),
            EntryKind::Char(major, minor) => Kind::Char(*major, *minor),
            EntryKind::Block(major, minor) => Kind::Block(*major, *minor),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::Socket => Kind::Socket,
            EntryKind::Whiteout | EntryKind::Opaque => return Ok(()),
        };
        self.inodes.push(inode_of(entry, kind));
        self.put(path, self.inodes.len() - 1)
    }

    /// Gives `inode` the name `path`; whatever stood there goes, with all that is below it.
    fn put(&mut self, path: Vec<u8>, inode: usize) -> Result<(), Refusal> {
        self.remove_below(&path);
        self.paths.insert(path, inode);
        Ok(())
    }

    /// What a hard link names. Decided: symbolic links among the target's parents are followed, the target itself is
    /// not, so a link to a symbolic link is one more name of it; the link's own metadata counts for nothing.
    fn link_target(&self, target: &[u8], entry: &Entry) -> Result<usize, Refusal> {
        let names = names(target)?;
        let (base, parents) = names
            .split_last()
            .ok_or_else(|| Refusal::LinkDirectory(show(entry)))?;
        let parent = self
            .find(parents, entry)?
            .ok_or_else(|| Refusal::LinkMissing(show(entry)))?;
        let inode = *self
            .paths
            .get(&join(&parent, base))
            .ok_or_else(|| Refusal::LinkMissing(show(entry)))?;
        if self.inodes[inode].kind == Kind::Dir {
            return Err(Refusal::LinkDirectory(show(entry)));
        }
        Ok(inode)
    }

    /// The directory that `names` lead to; `None` if it is missing or not a directory.
    fn find(&self, names: &[Vec<u8>], entry: &Entry) -> Result<Option<Vec<u8>>, Refusal> {
        // A look at a copy that may grow is the simplest way to walk without making anything.
        let mut walk = Walk::new(names);
        loop {
            match walk.step(self, entry)? {
                Step::Done(path) => return Ok(Some(path)),
                Step::Missing(_) | Step::NotDirectory => return Ok(None),
                Step::Further => {}
            }
        }
    }

    fn find_or_make(&mut self, names: &[Vec<u8>], entry: &Entry) -> Result<Vec<u8>, Refusal> {
        let mut walk = Walk::new(names);
        loop {
            match walk.step(self, entry)? {
                Step::Done(path) => return Ok(path),
                Step::Missing(path) => self.make_directory(path),
                Step::NotDirectory => return Err(Refusal::NotDirectory(show(entry))),
                Step::Further => {}
            }
        }
    }

    fn make_directory(&mut self, path: Vec<u8>) {
        let mtime = self.created;
        let xattrs = BTreeMap::new();
        self.inodes.push(Inode {
            kind: Kind::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime,
            xattrs,
        });
        self.paths.insert(path, self.inodes.len() - 1);
    }

    fn listing(&self) -> Listing {
        let mut first = BTreeMap::new();
        let mut nlink: BTreeMap<usize, u64> = BTreeMap::new();
        for (path, &inode) in &self.paths {
            first.entry(inode).or_insert_with(|| absolute(path));
            let is_dir = self.inodes[inode].kind == Kind::Dir;
            *nlink.entry(inode).or_default() += if is_dir { 2 } else { 1 };
            if is_dir && let Some(slash) = path.iter().rposition(|&byte| byte == b'/') {
                *nlink.entry(self.paths[&path[..slash]]).or_default() += 1;
            }
        }
        let record = |(path, inode): (&Vec<u8>, &usize)| {
            let Inode {
                kind,
                mode,
                uid,
                gid,
                mtime,
                xattrs,
            } = self.inodes[*inode].clone();
            // ext4's `dir_nlink`: 1 stands for more than 65,000.
            let nlink = if kind == Kind::Dir && nlink[inode] > 65_000 {
                1
            } else {
                nlink[inode]
            };
            let same_as = first[inode].clone();
            (
                absolute(path),
                Record {
                    kind,
                    mode,
                    uid,
                    gid,
                    mtime,
                    nlink,
                    same_as,
                    xattrs,
                },
            )
        };
        self.paths.iter().map(record).collect()
    }
}

/// A walk along names, following symbolic links inside the root, at most 40 of them (as Linux does).
struct Walk {
    at: Vec<u8>,
    ahead: VecDeque<Vec<u8>>,
    links: u32,
}

enum Step {
    /// All names are walked: the directory's path.
    Done(Vec<u8>),
    /// There is nothing at this path; once it is made, the walk goes on.
    Missing(Vec<u8>),
    NotDirectory,
    Further,
}

impl Walk {
    fn new(names: &[Vec<u8>]) -> Walk {
        Walk {
            at: Vec::new(),
            ahead: names.iter().cloned().collect(),
            links: 0,
        }
    }

    fn step(&mut self, state: &State, entry: &Entry) -> Result<Step, Refusal> {
        let Some(name) = self.ahead.front().cloned() else {
            return Ok(Step::Done(self.at.clone()));
        };
        if name == b".." {
            // Only the target of a symbolic link brings these here; above the root is the root.
            let slash = self.at.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            self.at.truncate(slash);
            self.ahead.pop_front();
            return Ok(Step::Further);
        }
        let path = join(&self.at, &name);
        let Some(&inode) = state.paths.get(&path) else {
            return Ok(Step::Missing(path));
        };
        self.ahead.pop_front();
        match &state.inodes[inode].kind {
            Kind::Dir => self.at = path,
            Kind::Symlink(target) => {
                self.links += 1;
                if self.links > 40 {
                    return Err(Refusal::Loop(show(entry)));
                }
                if target.starts_with(b"/") {
                    self.at.clear();
                }
                let parts = target
                    .split(|&byte| byte == b'/')
                    .filter(|part| !matches!(*part, b"" | b"."));
                parts.rev().for_each(|part| self.ahead.push_front(part.to_vec()));
            }
            _ => return Ok(Step::NotDirectory),
        }
        Ok(Step::Further)
    }
}

/// The names of a path as it stands in a tar: relative to the root, whatever it looks like.
fn names(path: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let names: Vec<_> = path
        .split(|&byte| byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .collect();
    let bad = |name: &&[u8]| *name == b".." || name.len() > 255 || name.contains(&0);
    if names.iter().any(bad) || path.len() > 4095 {
        return Err(Refusal::Path(String::from_utf8_lossy(path).into_owned()));
    }
    Ok(names.into_iter().map(<[u8]>::to_vec).collect())
}

fn inode_of(entry: &Entry, kind: Kind) -> Inode {
    // Linux gives every symbolic link the mode 0777.
    let mode = if matches!(kind, Kind::Symlink(_)) {
        0o777
    } else {
        entry.mode & 0o7777
    };
    Inode {
        kind,
        mode: mode.try_into().expect("twelve bits fit into sixteen"),
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs.iter().cloned().collect(),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    [parent, b"/", name].concat()
}

fn absolute(path: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        b"/".to_vec()
    } else {
        path.to_vec()
    }
}

fn show(entry: &Entry) -> String {
    entry.to_string()
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
