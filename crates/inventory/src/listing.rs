//! Everything that has a name in an image: a [`Listing`] is a flat tree of [`Node`]s, parents before children.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use firebrick_digest::Digest;
use firebrick_reader::{DeviceNumber, FileType};

/// Symbolic links followed in one path, at most. The kernel's limit.
const SYMLINKS: u32 = 40;

/// Longest path that is followed, in bytes. The kernel's limit.
const PATH_MAX: usize = 4096;

/// Directories that are remembered by their path.
const REMEMBERED: usize = 1 << 16;

/// What an image says of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of its inode: entries of one number are hardlinks.
    pub inode: u32,
    /// What it is.
    pub file_type: FileType,
    /// Permission, set-id and sticky bits: `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes, as `stat(2)` has it.
    pub size: u64,
    /// Bytes of the image that hold it.
    pub stored: u64,
    /// Of a symbolic link.
    pub target: Option<Box<[u8]>>,
    /// Of a device node.
    pub device: Option<DeviceNumber>,
    /// Digest of the extended attributes, where there are any.
    pub xattrs: Option<Digest>,
    /// Place of the layer that its content came with, from 0, where the image tells.
    pub layer: Option<u16>,
}

/// A place in a [`Listing`], from 0; the root's is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// As an index into something that has a place for each node.
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// A name, and what stands there.
#[derive(Clone, Debug)]
pub struct Node {
    /// The directory that it is in; the root is in itself.
    pub parent: NodeId,
    /// Its name there; the root has none.
    pub name: Box<[u8]>,
    /// What stands there.
    pub entry: Entry,
    /// Behind the last node below it.
    end: u32,
}

/// Why no listing can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListingError {
    /// More than this can be held.
    #[error("the image has more than {limit} names, which is more than can be looked at")]
    TooMany {
        /// How many are possible.
        limit: u32,
    },
    /// No program could reach it.
    #[error("the image has a path of {len} bytes, which is more than can be looked at")]
    TooDeep {
        /// The length of the path.
        len: usize,
    },
    /// Names have to come in the order of a walk.
    #[error("{path:?} came before its directory")]
    Order {
        /// The name that came too early.
        path: String,
    },
}

/// Makes a [`Listing`] from a walk.
#[derive(Debug)]
pub struct ListingBuilder {
    nodes: Vec<Node>,
    /// The directories above the next node, with the length of their paths.
    above: Vec<(NodeId, Vec<u8>)>,
    limit: u32,
}

impl ListingBuilder {
    /// More names than this are refused.
    pub const LIMIT: u32 = 20_000_000;

    /// Begins with nothing.
    pub fn new() -> ListingBuilder {
        ListingBuilder {
            nodes: Vec::new(),
            above: Vec::new(),
            limit: ListingBuilder::LIMIT,
        }
    }

    /// Adds what stands at a path, which has no slash in front. The root, with an empty path, comes first; a directory before
    /// what is in it, and all of that before anything else.
    ///
    /// # Errors
    /// [`ListingError`] where there are too many, or where the order is another.
    pub fn add(&mut self, path: &[u8], entry: Entry) -> Result<NodeId, ListingError> {
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        if id.0 >= self.limit {
            return Err(ListingError::TooMany { limit: self.limit });
        }
        // What comes of a path takes as long as it: this bounds how long all together take.
        if path.len() > 2 * PATH_MAX {
            return Err(ListingError::TooDeep { len: path.len() });
        }
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (
                path.get(..slash).unwrap_or_default(),
                path.get(slash.saturating_add(1)..).unwrap_or_default(),
            ),
            None => (&[][..], path),
        };
        let is_root = path.is_empty();
        while let Some((_, top)) = self.above.last()
            && (top != folder || is_root)
        {
            self.close();
        }
        let parent = self.above.last().map(|(id, _)| *id);
        if parent.is_none() && !(is_root && self.nodes.is_empty()) {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(ListingError::Order { path });
        }
        let is_directory = entry.file_type == FileType::Directory;
        self.nodes.push(Node {
            parent: parent.unwrap_or(NodeId::ROOT),
            name: name.into(),
            entry,
            end: id.0.saturating_add(1),
        });
        if is_directory {
            self.above.push((id, path.to_vec()));
        }
        Ok(id)
    }

    fn close(&mut self) {
        let end = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        if let Some((id, _)) = self.above.pop()
            && let Some(node) = self.nodes.get_mut(id.index())
        {
            node.end = end;
        }
    }

    /// The listing.
    pub fn finish(mut self) -> Listing {
        while !self.above.is_empty() {
            self.close();
        }
        let mut first = HashMap::new();
        for (id, node) in (0..).map(NodeId).zip(&self.nodes) {
            first.entry(node.entry.inode).or_insert(id);
        }
        let mut children: Vec<Vec<NodeId>> = Vec::new();
        let mut folder_of: HashMap<NodeId, usize> = HashMap::new();
        for (id, node) in (0..).map(NodeId).zip(&self.nodes).skip(1) {
            let place = *folder_of.entry(node.parent).or_insert_with(|| {
                children.push(Vec::new());
                children.len().saturating_sub(1)
            });
            if let Some(list) = children.get_mut(place) {
                list.push(id);
            }
        }
        let name = |id: &NodeId| self.nodes.get(id.index()).map(|node| &node.name);
        for list in &mut children {
            list.sort_by(|a, b| name(a).cmp(&name(b)));
        }
        Listing {
            nodes: self.nodes,
            first,
            children,
            folder_of,
            remembered: Mutex::default(),
        }
    }
}

impl Default for ListingBuilder {
    fn default() -> ListingBuilder {
        ListingBuilder::new()
    }
}

/// Everything that has a name in an image.
#[derive(Debug)]
pub struct Listing {
    nodes: Vec<Node>,
    /// The first name of each inode.
    first: HashMap<u32, NodeId>,
    /// What is in directories, in the order of the names' bytes.
    children: Vec<Vec<NodeId>>,
    /// Which of them is a directory's; empty ones have none.
    folder_of: HashMap<NodeId, usize>,
    /// Directories by paths as databases write them.
    remembered: Mutex<HashMap<Vec<u8>, Option<NodeId>>>,
}

impl Listing {
    /// How many names there are, the root among them.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether not even the root is there.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Every node in order: parents before children, each directory's names in the order of their bytes.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)).map(NodeId)
    }

    /// A node. Ids are asked of the listing that they are of.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes
            .get(id.index())
            .expect("ids are asked of the listing that they are of")
    }

    /// What stands at a node.
    pub fn entry(&self, id: NodeId) -> &Entry {
        &self.node(id).entry
    }

    /// What is in a directory, in the order of the names' bytes.
    pub fn children(&self, id: NodeId) -> &[NodeId] {
        let place = self.folder_of.get(&id);
        place
            .and_then(|place| self.children.get(*place))
            .map_or(&[], Vec::as_slice)
    }

    /// A node and everything below it.
    pub fn below(&self, id: NodeId) -> impl Iterator<Item = NodeId> + use<> {
        (id.0..self.node(id).end).map(NodeId)
    }

    /// Whether a node is `above` or somewhere below it.
    pub fn is_below(&self, id: NodeId, above: NodeId) -> bool {
        id >= above && id.0 < self.node(above).end
    }

    /// Whether this is the first of the names that its inode has.
    pub fn is_first(&self, id: NodeId) -> bool {
        self.first.get(&self.entry(id).inode) == Some(&id)
    }

    /// How many directories are above a node.
    pub fn depth(&self, id: NodeId) -> usize {
        self.ancestors(id).count()
    }

    /// The directories above a node, the nearest first.
    pub fn ancestors(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let above = |id: NodeId| Some(self.node(id).parent).filter(|_| id != NodeId::ROOT);
        std::iter::successors(above(id), move |id| above(*id))
    }

    /// The path of a node, without a slash in front; the root's is empty.
    pub fn path(&self, id: NodeId) -> Vec<u8> {
        let mut parts = vec![id];
        parts.extend(self.ancestors(id));
        parts.pop();
        let names: Vec<&[u8]> = parts.iter().rev().map(|id| &*self.node(*id).name).collect();
        names.join(&b'/')
    }

    /// What a directory has under a name.
    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let children = self.children(directory);
        let place = children
            .binary_search_by(|id| (*self.node(*id).name).cmp(name))
            .ok()?;
        children.get(place).copied()
    }

    /// What stands at a path from the root. Symbolic links on the way are followed, one at its end is not.
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        self.find_from(NodeId::ROOT, path)
    }

    /// As [`Listing::find`], of a path that begins at a directory unless it begins with a slash.
    pub fn find_from(&self, directory: NodeId, path: &[u8]) -> Option<NodeId> {
        let from_root = directory == NodeId::ROOT || path.starts_with(b"/");
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/').filter(|_| from_root) else {
            return self.follow(directory, path, false);
        };
        // Databases name one file of a directory after the other.
        let (folder, name) = (path.get(..slash)?, path.get(slash.saturating_add(1)..)?);
        if matches!(name, b"" | b"." | b"..") {
            return self.follow(directory, path, false);
        }
        let known = self.remembered().get(folder).copied();
        let folder_id = known.unwrap_or_else(|| {
            let found = self.follow(NodeId::ROOT, folder, true);
            let mut remembered = self.remembered();
            if remembered.len() < REMEMBERED {
                remembered.insert(folder.to_vec(), found);
            }
            found
        });
        self.child(folder_id?, name)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Option<NodeId>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Listing::find`], and a symbolic link at the end is followed, too.
    pub fn find_target(&self, path: &[u8]) -> Option<NodeId> {
        self.follow(NodeId::ROOT, path, true)
    }

    fn follow(&self, from: NodeId, path: &[u8], last_too: bool) -> Option<NodeId> {
        if path.len() > PATH_MAX || self.is_empty() {
            return None;
        }
        let mut here = if path.starts_with(b"/") {
            NodeId::ROOT
        } else {
            from
        };
        let mut todo: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
        let mut links = 0_u32;
        while let Some(part) = todo.pop() {
            if part == b".." {
                here = self.node(here).parent;
                continue;
            }
            let found = self.child(here, &part)?;
            match &self.entry(found).target {
                Some(target) if last_too || !todo.is_empty() => {
                    links = links.saturating_add(1);
                    if links > SYMLINKS || target.len() > PATH_MAX {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        here = NodeId::ROOT;
                    }
                    todo.extend(parts(target).rev().map(<[u8]>::to_vec));
                }
                _ => here = found,
            }
        }
        Some(here)
    }
}

/// The names in a path. A `.` between them stands for nothing.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

#[cfg(test)]
mod tests {
    use crate::sample::Sample;
    use crate::{Entry, ListingBuilder, NodeId};

    #[test]
    fn paths_lead_where_the_kernel_would_go() {
        let sample = Sample::new()
            .file("usr/bin/ls", b"x")
            .file("usr/bin.d", b"y")
            .link("bin", "usr/bin")
            .link("usr/lib64", "/usr/lib/../lib")
            .file("usr/lib/libc.so", b"z")
            .link("loop", "loop")
            .link("out", "../../../usr");
        let listing = &sample.listing();
        let found = |path: &str| {
            let id = listing.find(path.as_bytes())?;
            Some(String::from_utf8(listing.path(id)).unwrap())
        };
        for (path, expected) in [
            ("/bin/ls", Some("usr/bin/ls")),
            ("bin", Some("bin")),
            ("bin/", Some("bin")),
            ("usr/lib64/libc.so", Some("usr/lib/libc.so")),
            ("out/bin/./ls", Some("usr/bin/ls")),
            ("../../usr/bin.d", Some("usr/bin.d")),
            ("/", Some("")),
            ("loop/x", None),
            ("usr/bin/ls/x", None),
            ("usr/nothing", None),
        ] {
            assert_eq!(found(path).as_deref(), expected, "{path}");
            assert_eq!(found(path).as_deref(), expected, "{path} a second time");
        }
        assert_eq!(
            listing.find_target(b"bin").map(|id| listing.path(id)),
            Some(b"usr/bin".to_vec())
        );
        let usr = listing.find(b"usr").unwrap();
        assert_eq!(
            listing.find_from(usr, b"bin/ls"),
            listing.find(b"/usr/bin/ls"),
            "from a directory"
        );
        assert_eq!(listing.find_from(usr, b"/loop"), listing.find(b"loop"));
        let names: Vec<String> = listing
            .ids()
            .map(|id| String::from_utf8(listing.path(id)).unwrap())
            .collect();
        assert_eq!(
            names[..8],
            [
                "",
                "bin",
                "loop",
                "out",
                "usr",
                "usr/bin",
                "usr/bin/ls",
                "usr/bin.d"
            ]
        );
        assert_eq!(listing.below(usr).count(), 7);
        assert!(listing.is_below(listing.find(b"usr/bin/ls").unwrap(), usr));
        assert!(!listing.is_below(listing.find(b"loop").unwrap(), usr));
    }

    #[test]
    fn only_the_order_of_a_walk_is_taken() {
        let directory = Entry {
            file_type: firebrick_reader::FileType::Directory,
            ..Sample::entry(1)
        };
        let mut builder = ListingBuilder::new();
        assert!(builder.add(b"x", directory.clone()).is_err());
        assert_eq!(builder.add(b"", directory.clone()).unwrap(), NodeId::ROOT);
        assert!(builder.add(b"a/b", Sample::entry(2)).is_err());
        assert!(builder.add(b"", directory).is_err());
    }
}
