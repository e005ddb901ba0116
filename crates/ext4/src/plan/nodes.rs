//! Each inode's blocks.

use firebrick_tree::{FileData, InodeId, Kind, Tree};

use super::Region;
use super::number::{LOST_AND_FOUND, Numbers};
use crate::dir::{DirForm, DirName, Packing};
use crate::error::PlanError;
use crate::extent::{Extent, NodeForm, push_run, tree_block_count};
use crate::format::{BLOCK_SIZE, EXT4_GOOD_OLD_FIRST_INO, file_type};
use crate::geometry::{Allocator, BlockNumber, DataBlock, Layout, Run};
use crate::inode::{device_block, type_of};
use crate::xattr::{self, Packed};

/// Longest file in bytes: 2^32 - 1 blocks.
const FILE_SIZE_MAX: u64 = (u32::MAX as u64) * BLOCK_SIZE;

/// Longest target of a symbolic link that fits the inode.
pub(crate) const FAST_SYMLINK_MAX: usize = 59;

/// An inode, decided.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) id: InodeId,
    pub(crate) number: u32,
    pub(crate) parent: u32,
    pub(crate) links: u16,
    /// Content: of files in their region, of directories and long symbolic links behind the regions.
    pub(crate) extents: Vec<Extent>,
    /// Blocks of the extent tree beside the inode.
    pub(crate) tree_blocks: Vec<BlockNumber>,
    pub(crate) xattrs: Option<Box<Packed>>,
    pub(crate) xattr_block: Option<BlockNumber>,
    /// Whether a directory has an index.
    pub(crate) indexed: bool,
}

impl Node {
    /// An inode without any blocks yet.
    fn new(id: InodeId, numbers: &Numbers) -> Node {
        Node {
            id,
            number: numbers.of(id),
            parent: numbers.parent[id.index()],
            links: numbers.links[id.index()],
            extents: Vec::new(),
            tree_blocks: Vec::new(),
            xattrs: None,
            xattr_block: None,
            indexed: false,
        }
    }

    /// Blocks that count as the inode's own.
    pub(crate) fn block_count(&self) -> u64 {
        let content: u64 = self.extents.iter().map(|extent| u64::from(extent.count)).sum();
        content + self.tree_blocks.len() as u64 + u64::from(self.xattr_block.is_some())
    }

    /// How many blocks of content.
    pub(crate) fn content_blocks(&self) -> u64 {
        self.extents.iter().map(|extent| u64::from(extent.count)).sum()
    }
}

/// How inode numbers are used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InodeCounts {
    /// How many are in use, those that the filesystem keeps for itself included.
    pub(crate) used: u32,
    /// The highest in use.
    pub(crate) highest: u32,
}

/// All inodes that have a name, by number.
#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) list: Vec<Node>,
    /// Place in `list` of each tree inode; `u32::MAX` if it has no name.
    by_id: Vec<u32>,
    /// The block of the `lost+found` that we add, if the tree has none.
    pub(crate) lost_and_found: Option<BlockNumber>,
    pub(crate) counts: InodeCounts,
    pub(crate) left_out_xattrs: Vec<String>,
}

impl InodeCounts {
    fn of(numbers: &Numbers) -> InodeCounts {
        let own = EXT4_GOOD_OLD_FIRST_INO;
        let counted = numbers.order.iter().filter(|&&id| numbers.of(id) > own).count();
        let last = numbers.order.last().map_or(0, |&id| numbers.of(id));
        InodeCounts {
            used: own + u32::try_from(counted).expect("fewer than there are numbers"),
            highest: last.max(own),
        }
    }
}

impl Nodes {
    /// The nodes of a group of `per_group` inodes.
    pub(crate) fn of_group(&self, group: u32, per_group: u32) -> &[Node] {
        let from = |first: u64| self.list.partition_point(|node| u64::from(node.number) <= first);
        let before = u64::from(group) * u64::from(per_group);
        &self.list[from(before)..from(before + u64::from(per_group))]
    }

    /// Says which attributes are left out, each inode's once. One walk for all of them: there may be as many as inodes.
    fn name_left_out(&mut self, tree: &Tree) {
        let mut told = vec![false; self.by_id.len()];
        for (path, id) in tree.walk() {
            if std::mem::replace(&mut told[id.index()], true) {
                continue;
            }
            let packed = self.list[self.by_id[id.index()] as usize].xattrs.as_deref();
            let left_out = packed.into_iter().flat_map(|packed| &packed.left_out);
            let said = left_out.map(|name| format!("{path}: {}", name.escape_ascii()));
            self.left_out_xattrs.extend(said.collect::<Vec<_>>());
        }
    }

    /// The node of an inode that has a name.
    pub(crate) fn of(&self, id: InodeId) -> &Node {
        &self.list[self.by_id[id.index()] as usize]
    }
}

/// The names of a directory as they go to disk, `lost+found` added where the tree has none.
pub(crate) fn packing<'a>(
    tree: &'a Tree,
    id: InodeId,
    number_of: impl Fn(InodeId) -> u32,
    add_lost_and_found: bool,
) -> Result<Packing<'a>, PlanError> {
    let entries = tree.directory(id).into_iter().flatten();
    let mut names: Vec<DirName<'a>> = entries
        .map(|(name, &child)| DirName {
            name: name.as_bytes(),
            inode: number_of(child),
            file_type: type_of(&tree.inode(child).kind).1,
        })
        .collect();
    if add_lost_and_found && id == Tree::ROOT {
        let added = DirName {
            name: LOST_AND_FOUND,
            inode: EXT4_GOOD_OLD_FIRST_INO,
            file_type: file_type::DIR,
        };
        let place = names.partition_point(|entry| entry.name < LOST_AND_FOUND);
        names.insert(place, added);
    }
    Packing::new(names, DirForm::ours()).map_err(|_| PlanError::DirectoryTooLarge {
        path: tree.path_of(id),
    })
}

/// Decides every inode's blocks; those that are not in a region come from `allocator`.
pub(super) fn place(
    tree: &Tree,
    regions: &[Region],
    numbers: &Numbers,
    allocator: &mut Allocator,
    layout: Layout,
) -> Result<Nodes, PlanError> {
    let mut nodes = Nodes {
        list: Vec::new(),
        by_id: vec![u32::MAX; tree.inode_slots()],
        lost_and_found: (!numbers.has_lost_and_found).then(|| allocator.contiguous(1)),
        counts: InodeCounts::of(numbers),
        left_out_xattrs: Vec::new(),
    };
    let mut any_left_out = false;
    for &id in &numbers.order {
        let inode = tree.inode(id);
        let mut node = Node::new(id, numbers);
        match &inode.kind {
            Kind::Directory(_) => {
                let add = !numbers.has_lost_and_found;
                let packing = packing(tree, id, |child| numbers.of(child), add)?;
                node.indexed = packing.is_indexed();
                push_runs(&mut node.extents, 0, allocator.runs(packing.block_count()));
            }
            Kind::File(data) => {
                node.extents = file_extents(data, regions, layout, || tree.path_of(id))?;
            }
            Kind::Symlink(target) if target.len() > FAST_SYMLINK_MAX => {
                push_runs(&mut node.extents, 0, allocator.runs(1));
            }
            Kind::Device { major, minor, .. } if device_block(*major, *minor).is_none() => {
                return Err(PlanError::Device {
                    path: tree.path_of(id),
                    major: *major,
                    minor: *minor,
                });
            }
            Kind::Symlink(_) | Kind::Device { .. } | Kind::Fifo | Kind::Socket => {}
        }
        node.tree_blocks = (0..tree_block_count(node.extents.len(), NodeForm::OURS))
            .map(|_| allocator.contiguous(1))
            .collect();
        let packed = xattr::pack(&inode.meta.xattrs).map_err(|source| PlanError::Xattr {
            path: tree.path_of(id),
            source,
        })?;
        if let Some(packed) = packed {
            any_left_out |= !packed.left_out.is_empty();
            node.xattr_block = packed.block.is_some().then(|| allocator.contiguous(1));
            node.xattrs = Some(Box::new(packed));
        }
        nodes.by_id[id.index()] = u32::try_from(nodes.list.len()).expect("fewer than there are numbers");
        nodes.list.push(node);
    }
    if any_left_out {
        nodes.name_left_out(tree);
    }
    Ok(nodes)
}

fn push_runs(extents: &mut Vec<Extent>, mut file_block: u32, runs: Vec<Run>) {
    for run in runs {
        push_run(extents, file_block, run);
        file_block += u32::try_from(run.count).expect("files have at most 2^32 blocks");
    }
}

fn file_extents(
    data: &FileData,
    regions: &[Region],
    layout: Layout,
    path: impl Fn() -> firebrick_tree::LayerPath,
) -> Result<Vec<Extent>, PlanError> {
    if data.size > FILE_SIZE_MAX {
        return Err(PlanError::FileTooLarge {
            path: path(),
            size: data.size,
        });
    }
    let mut extents = Vec::with_capacity(data.segments.len());
    let mut file_end = 0;
    for segment in &data.segments {
        let region = usize::try_from(segment.region.0)
            .ok()
            .and_then(|index| regions.get(index));
        let first = segment.region_offset / BLOCK_SIZE;
        let count = segment.len.div_ceil(BLOCK_SIZE);
        let aligned = segment.region_offset.is_multiple_of(BLOCK_SIZE)
            && segment.file_offset.is_multiple_of(BLOCK_SIZE);
        let fits = |region: &&Region| first.checked_add(count).is_some_and(|end| end <= region.blocks);
        let in_order = segment.file_offset >= file_end
            && segment
                .file_offset
                .checked_add(segment.len)
                .is_some_and(|end| end <= data.size);
        let Some(region) = region.filter(fits).filter(|_| aligned && in_order && count > 0) else {
            return Err(PlanError::Segments { path: path() });
        };
        file_end = segment.file_offset + segment.len;
        let file_block = u32::try_from(segment.file_offset / BLOCK_SIZE).expect("within the longest file");
        push_runs(
            &mut extents,
            file_block,
            layout.runs(DataBlock(region.start.0 + first), count),
        );
    }
    Ok(extents)
}
