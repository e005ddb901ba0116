//! A filesystem as it should be: the same changes, made to a map.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use firebrick_ext4::edit::Editor;
use firebrick_ext4::read::{FileType, Filesystem, InodeNumber, ReadAt};
use firebrick_tree::{Timestamp, Xattrs};

/// What an inode should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) file_type: FileType,
    pub(crate) mode: u16,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: Timestamp,
    pub(crate) xattrs: Xattrs,
    /// Of a file, or a symbolic link's target.
    pub(crate) content: Vec<u8>,
    pub(crate) device: Option<(u32, u32)>,
}

/// Paths without a leading slash, each with its inode's number in `nodes`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) paths: BTreeMap<Vec<u8>, u32>,
    pub(crate) nodes: BTreeMap<u32, Node>,
}

impl Model {
    /// What an image holds; only `lost+found` is left out.
    pub(crate) fn of<R: ReadAt>(filesystem: &Filesystem<R>) -> Model {
        let mut model = Model::default();
        let mut walk = filesystem.walk(filesystem.inode(InodeNumber::ROOT).unwrap());
        while let Some(visit) = walk.advance().unwrap() {
            if visit.path == b"lost+found" {
                continue;
            }
            let inode = &visit.inode;
            let stat = inode.stat();
            let mut content = Vec::new();
            match stat.file_type {
                FileType::Regular => {
                    filesystem
                        .open_file(inode)
                        .unwrap()
                        .read_to_end(&mut content)
                        .unwrap();
                }
                FileType::Symlink => content = filesystem.read_link(inode).unwrap(),
                _ => {}
            }
            let node = Node {
                file_type: stat.file_type,
                mode: stat.mode,
                owner: (stat.uid, stat.gid),
                mtime: stat.mtime,
                xattrs: filesystem.xattrs(inode).unwrap(),
                content,
                device: stat.device.map(|device| (device.major, device.minor)),
            };
            model.paths.insert(visit.path.to_vec(), inode.number().get());
            model.nodes.insert(inode.number().get(), node);
        }
        model
    }

    pub(crate) fn open(path: &Path) -> Model {
        Model::of(&Filesystem::open(File::open(path).unwrap()).unwrap())
    }

    pub(crate) fn node(&self, path: &[u8]) -> &Node {
        &self.nodes[&self.paths[path]]
    }

    pub(crate) fn node_mut(&mut self, path: &[u8]) -> &mut Node {
        self.nodes.get_mut(&self.paths[path]).unwrap()
    }

    /// Puts something new at a path.
    pub(crate) fn insert(&mut self, path: &[u8], node: Node) {
        let number = self.nodes.keys().max().unwrap() + 1;
        self.nodes.insert(number, node);
        self.paths.insert(path.to_vec(), number);
    }

    /// Removes a path and all below.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.paths
            .retain(|there, _| there != path && !there.starts_with(&below));
    }

    /// Moves a path and all below.
    pub(crate) fn rename(&mut self, from: &[u8], to: &[u8]) {
        let below = [from, b"/"].concat();
        let moved: Vec<(Vec<u8>, u32)> = self
            .paths
            .iter()
            .filter(|(path, _)| *path == from || path.starts_with(&below))
            .map(|(path, number)| ([to, &path[from.len()..]].concat(), *number))
            .collect();
        self.remove(from);
        self.paths.extend(moved);
    }

    /// How many names an inode has, as `stat` counts them.
    fn links(&self, number: u32) -> usize {
        let names = self.paths.iter().filter(|(_, at)| **at == number);
        if self.nodes[&number].file_type != FileType::Directory {
            return names.count();
        }
        let path = names.map(|(path, _)| path.clone()).next().unwrap();
        let folders = self.paths.iter().filter(|(there, at)| {
            let parent = there.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at);
            !there.is_empty() && there[..parent] == path && self.nodes[at].file_type == FileType::Directory
        });
        2 + folders.count() + usize::from(path.is_empty()) // lost+found
    }

    /// Compares with what is in an image.
    pub(crate) fn compare(&self, image: &Path) {
        let filesystem = Filesystem::open(File::open(image).unwrap()).unwrap();
        let found = Model::of(&filesystem);
        let names = |model: &Model| -> Vec<String> {
            let paths = model.paths.keys();
            paths
                .map(|path| String::from_utf8_lossy(path).into_owned())
                .collect()
        };
        assert_eq!(names(&found), names(self));
        for (path, number) in &self.paths {
            let (expected, node) = (&self.nodes[number], found.node(path));
            let shown = String::from_utf8_lossy(path);
            assert!(expected.content == node.content, "the content of {shown}");
            let bare = |node: &Node| Node {
                content: Vec::new(),
                ..node.clone()
            };
            assert_eq!(bare(node), bare(expected), "{shown}");
            let inode = filesystem
                .inode(InodeNumber::new(found.paths[path]).unwrap())
                .unwrap();
            assert_eq!(usize::from(inode.stat().links), self.links(*number), "{shown}");
        }
    }
}

/// Opens an image for changes.
pub(crate) fn edit(path: &Path) -> Editor<File> {
    let file = File::options().read(true).write(true).open(path).unwrap();
    Editor::open(file).unwrap()
}
