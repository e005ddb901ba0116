//! Decides what the filesystem holds: which inode has which number, owners, attributes, and the order of contents.
//!
//! A *node* is an inode to be written. Nodes are numbered from 1 in the order in which they are written: below each
//! directory first its folders, then what else it holds by name, then itself; the root is last. So what a directory
//! names lies together, and before it.

use std::collections::HashMap;

use firebrick_tree::{Inode, InodeId, Kind, Timestamp, Tree};

use crate::dir;
use crate::error::PlanError;
use crate::format::SQUASHFS_INVALID_XATTR;
use crate::options::{BLOCK_SIZES, Options};
use crate::xattr::{self, Set};

/// Most different owners and groups: `no_ids` has 16 bits.
const IDS_MAX: usize = 65535;
/// Most blocks of all files: their lists take 128 MiB.
const BLOCKS_MAX: u64 = 1 << 25;
/// Largest numbers of devices.
const MAJOR_MAX: u32 = 4095;
const MINOR_MAX: u32 = 1_048_575;

/// An inode to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) id: InodeId,
    /// Names, and for directories as is usual 2 and one more for each folder in it.
    pub(crate) links: u32,
    /// Number of the directory that holds a directory; the root's own for the root. Without meaning for others.
    pub(crate) parent: u32,
    pub(crate) mode: u16,
    /// Places in the table of owners and groups.
    pub(crate) uid: u16,
    pub(crate) gid: u16,
    pub(crate) mtime: u32,
    /// Place in the table of sets of attributes.
    pub(crate) xattr: u32,
}

/// A filesystem that can be written. Plain data; a function of the tree and the options alone.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) options: Options,
    /// In the order of their numbers; the first has number 1.
    pub(crate) nodes: Vec<Node>,
    /// Numbers by [`InodeId::index`]; 0 for inodes without a name.
    pub(crate) numbers: Vec<u32>,
    pub(crate) ids: Vec<u32>,
    pub(crate) xattrs: Vec<Set>,
    /// Files that are not empty, in the order in which layers bring their contents.
    pub(crate) files: Vec<InodeId>,
    pub(crate) mkfs_time: u32,
    clamped_times: u64,
    left_out_xattrs: Vec<String>,
}

impl Plan {
    /// Inodes of the filesystem.
    pub fn inodes(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }

    /// How many times lay before 1970 or after 2106, which squashfs cannot say, and became the nearest that it can.
    pub fn clamped_times(&self) -> u64 {
        self.clamped_times
    }

    /// Attributes that squashfs has no place for, as `path: name`.
    pub fn left_out_xattrs(&self) -> &[String] {
        &self.left_out_xattrs
    }
}

/// Decides everything that does not depend on how well contents compress.
///
/// # Errors
/// [`PlanError`] for options and trees that squashfs cannot have.
pub fn plan(tree: &Tree, options: &Options) -> Result<Plan, PlanError> {
    check(options)?;
    let mut planner = Planner {
        tree,
        plan: Plan {
            options: options.clone(),
            nodes: Vec::new(),
            numbers: vec![0; tree.inode_slots()],
            ids: Vec::new(),
            xattrs: Vec::new(),
            files: Vec::new(),
            mkfs_time: seconds(options.created).0,
            clamped_times: 0,
            left_out_xattrs: Vec::new(),
        },
        id_places: HashMap::new(),
        xattr_places: HashMap::new(),
        links: vec![0; tree.inode_slots()],
        left_out: HashMap::new(),
        blocks: 0,
    };
    planner.nodes()?;
    planner.order_files();
    planner.name_left_out();
    Ok(planner.plan)
}

fn check(options: &Options) -> Result<(), PlanError> {
    let block_size = options.block_size;
    if !BLOCK_SIZES.contains(&block_size) || !block_size.is_power_of_two() {
        return Err(PlanError::BlockSize { block_size });
    }
    let compression = options.compression;
    match (options.level, compression.levels()) {
        (None, _) => Ok(()),
        (Some(level), Some(levels)) if levels.contains(&level) => Ok(()),
        (Some(level), _) => Err(PlanError::Level { compression, level }),
    }
}

/// Whole seconds as squashfs has them, and whether they are others than those asked for.
fn seconds(time: Timestamp) -> (u32, bool) {
    match u32::try_from(time.seconds) {
        Ok(seconds) => (seconds, false),
        Err(_) => (if time.seconds < 0 { 0 } else { u32::MAX }, true),
    }
}

struct Planner<'a> {
    tree: &'a Tree,
    plan: Plan,
    id_places: HashMap<u32, u16>,
    xattr_places: HashMap<Set, u32>,
    /// Names that were met, by [`InodeId::index`].
    links: Vec<u32>,
    left_out: HashMap<InodeId, Vec<Box<[u8]>>>,
    blocks: u64,
}

/// A directory on the way down: its folders that are still to be visited, the next one last.
struct Level {
    id: InodeId,
    folders: Vec<InodeId>,
}

impl Planner<'_> {
    fn level(&self, id: InodeId) -> Level {
        let names = self.tree.directory(id).into_iter().flatten();
        let is_folder = |child: &InodeId| matches!(self.tree.inode(*child).kind, Kind::Directory(_));
        let folders = names.map(|(_, &child)| child).filter(is_folder).rev().collect();
        Level { id, folders }
    }

    /// Without recursion: hostile trees are thousands of folders deep.
    fn nodes(&mut self) -> Result<(), PlanError> {
        let mut levels = vec![self.level(Tree::ROOT)];
        // Nodes of the folders that a directory holds, which learn its number when it has one.
        let mut children: Vec<Vec<usize>> = vec![Vec::new()];
        while let Some(level) = levels.last_mut() {
            if let Some(folder) = level.folders.pop() {
                let level = self.level(folder);
                levels.push(level);
                children.push(Vec::new());
                continue;
            }
            let id = level.id;
            levels.pop();
            let folders = children.pop().unwrap_or_default();
            self.files_of(id)?;
            let node = self.directory(id, folders.len())?;
            let number = self.plan.inodes();
            for folder in folders {
                self.plan.nodes[folder].parent = number;
            }
            match children.last_mut() {
                Some(siblings) => siblings.push(node),
                None => self.plan.nodes[node].parent = number,
            }
        }
        for node in &mut self.plan.nodes {
            if !matches!(self.tree.inode(node.id).kind, Kind::Directory(_)) {
                node.links = self.links[node.id.index()];
            }
        }
        Ok(())
    }

    /// What a directory holds that is no directory.
    fn files_of(&mut self, id: InodeId) -> Result<(), PlanError> {
        let tree = self.tree;
        for &child in tree.directory(id).into_iter().flat_map(|names| names.values()) {
            let inode = tree.inode(child);
            match &inode.kind {
                Kind::Directory(_) => continue,
                Kind::Device { major, minor, .. } if *major > MAJOR_MAX || *minor > MINOR_MAX => {
                    let (path, major, minor) = (tree.path_of(child), *major, *minor);
                    return Err(PlanError::Device { path, major, minor });
                }
                _ => {}
            }
            self.links[child.index()] += 1;
            if self.plan.numbers[child.index()] != 0 {
                continue;
            }
            if let Kind::File(data) = &inode.kind
                && data.size > 0
            {
                self.blocks = self
                    .blocks
                    .saturating_add(data.size.div_ceil(self.plan.options.block_size.into()));
                if self.blocks > BLOCKS_MAX {
                    return Err(PlanError::FileTooLarge {
                        path: tree.path_of(child),
                        size: data.size,
                        limit: BLOCKS_MAX,
                    });
                }
                self.plan.files.push(child);
            }
            self.add(child, inode, 0)?;
        }
        Ok(())
    }

    /// The directory itself; its place among the nodes.
    fn directory(&mut self, id: InodeId, folders: usize) -> Result<usize, PlanError> {
        let names = self.tree.directory(id).into_iter().flat_map(|names| names.keys());
        if dir::bound(names.map(|name| name.as_bytes())) > dir::LISTING_MAX {
            let path = self.tree.path_of(id);
            return Err(PlanError::DirectoryTooLarge { path });
        }
        let links = u32::try_from(folders).unwrap_or(u32::MAX).saturating_add(2);
        self.add(id, self.tree.inode(id), links)?;
        Ok(self.plan.nodes.len() - 1)
    }

    fn add(&mut self, id: InodeId, inode: &Inode, links: u32) -> Result<(), PlanError> {
        let (mtime, clamped) = seconds(inode.meta.mtime);
        self.plan.clamped_times += u64::from(clamped);
        let (mode, xattr) = self.xattrs(id, inode)?;
        let node = Node {
            id,
            links,
            parent: 0,
            mode,
            uid: self.owner(inode.meta.uid)?,
            gid: self.owner(inode.meta.gid)?,
            mtime,
            xattr,
        };
        self.plan.nodes.push(node);
        self.plan.numbers[id.index()] = self.plan.inodes();
        Ok(())
    }

    fn owner(&mut self, id: u32) -> Result<u16, PlanError> {
        if let Some(&place) = self.id_places.get(&id) {
            return Ok(place);
        }
        let place = match u16::try_from(self.plan.ids.len()) {
            Ok(place) if self.plan.ids.len() < IDS_MAX => place,
            _ => return Err(PlanError::TooManyIds { limit: IDS_MAX }),
        };
        self.plan.ids.push(id);
        self.id_places.insert(id, place);
        Ok(place)
    }

    /// The mode that stays, and the place of the set of attributes.
    fn xattrs(&mut self, id: InodeId, inode: &Inode) -> Result<(u16, u32), PlanError> {
        if inode.meta.xattrs.is_empty() {
            return Ok((inode.meta.mode, SQUASHFS_INVALID_XATTR));
        }
        let packed = xattr::pack(&inode.meta.xattrs, inode.meta.mode).map_err(|bad| PlanError::Acl {
            path: self.tree.path_of(id),
            len: bad.0,
        })?;
        if !packed.left_out.is_empty() {
            self.left_out.insert(id, packed.left_out);
        }
        if packed.set.count == 0 {
            return Ok((packed.mode, SQUASHFS_INVALID_XATTR));
        }
        if let Some(&place) = self.xattr_places.get(&packed.set) {
            return Ok((packed.mode, place));
        }
        let place = u32::try_from(self.plan.xattrs.len()).expect("there are no more sets than inodes");
        self.xattr_places.insert(packed.set.clone(), place);
        self.plan.xattrs.push(packed.set);
        Ok((packed.mode, place))
    }

    /// By region and place in it, which is the order of the layers and of their tars.
    fn order_files(&mut self) {
        let tree = self.tree;
        self.plan.files.sort_by_key(|&id| {
            let first = match &tree.inode(id).kind {
                Kind::File(data) => data.segments.first(),
                _ => None,
            };
            (first.map(|segment| (segment.region, segment.region_offset)), id)
        });
    }

    fn name_left_out(&mut self) {
        if self.left_out.is_empty() {
            return;
        }
        for (path, id) in self.tree.walk() {
            // A file of several names is named by the first.
            for name in self.left_out.remove(&id).unwrap_or_default() {
                let text = format!("{path}: {}", name.escape_ascii());
                self.plan.left_out_xattrs.push(text);
            }
        }
    }
}
