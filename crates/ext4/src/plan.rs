//! Decides every block of a filesystem from a tree. Pure: no I/O, no clock, no randomness.
//!
//! In order: inode numbers and link counts ([`number`]), blocks of directories, symbolic links, xattrs and extent
//! trees behind the last region ([`nodes`]), then the size, the groups and their tables ([`groups`]).

mod groups;
mod nodes;
mod number;

use std::fmt::Write as _;

use firebrick_tree::Tree;

use crate::error::PlanError;
use crate::format::BLOCK_SIZE;
use crate::geometry::{Allocator, BlockNumber, DataBlock, Layout, REGION_ALIGN_BLOCKS, Run};
use crate::options::{LABEL_LEN_MAX, Options, Size};

pub(crate) use groups::{Groups, descriptor_blocks_used};
pub(crate) use nodes::{FAST_SYMLINK_MAX, Node, Nodes, packing};
use number::{Numbers, Spacing};

/// Where a layer's file contents lie in data space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first block.
    pub start: DataBlock,
    /// How many blocks.
    pub blocks: u64,
}

/// A whole filesystem, decided. See [`Plan::dump`] for what it holds.
#[derive(Debug)]
pub struct Plan {
    pub(crate) layout: Layout,
    pub(crate) label: Vec<u8>,
    pub(crate) uuid: [u8; 16],
    pub(crate) created: firebrick_tree::Timestamp,
    pub(crate) nodes: Nodes,
    pub(crate) groups: Groups,
    pub(crate) journal: Option<Vec<Run>>,
    /// The resize inode's block of pointers.
    pub(crate) resize_block: BlockNumber,
    regions: Vec<Region>,
    left_out_xattrs: Vec<String>,
}

/// Where a region of `len` bytes may start, behind a region that ends at `end` (the start of data space: 0).
pub fn region_start(end: DataBlock) -> DataBlock {
    DataBlock(end.0.next_multiple_of(REGION_ALIGN_BLOCKS))
}

/// Plans a filesystem for `tree`, whose file contents lie in `regions`.
///
/// Invariant: the result is a function of the arguments alone.
///
/// # Errors
/// [`PlanError`] if the tree does not fit the size, or holds what ext4 cannot.
pub fn plan(tree: &Tree, regions: &[Region], options: &Options) -> Result<Plan, PlanError> {
    if options.label.len() > LABEL_LEN_MAX {
        return Err(PlanError::Label {
            len: options.label.len(),
        });
    }
    let layout = Layout {
        online_resize: options.online_resize,
    };
    // What is to be as small as it can be shares nothing.
    let spacing = match options.size {
        Size::Least => Spacing::Dense,
        Size::Auto | Size::Bytes(_) => Spacing::Stable,
    };
    let numbers = Numbers::new(tree, spacing)?;
    let regions_end = regions
        .iter()
        .map(|region| DataBlock(region.start.0 + region.blocks))
        .max();
    let mut allocator = Allocator::new(layout, region_start(regions_end.unwrap_or(DataBlock(0))));
    let nodes = nodes::place(tree, regions, &numbers, &mut allocator, layout)?;
    let resize_block = allocator.contiguous(1);
    let journal = options.journal.then(|| {
        let content_blocks = allocator.position() + options.free.div_ceil(BLOCK_SIZE);
        let blocks = match options.size {
            Size::Auto | Size::Least => content_blocks,
            Size::Bytes(bytes) => bytes / BLOCK_SIZE,
        };
        allocator.runs(crate::journal::block_count(blocks))
    });
    let mut plan = Plan {
        layout,
        label: options.label.clone(),
        uuid: options.uuid.unwrap_or_else(|| uuid_from(&options.identity)),
        created: options.created,
        groups: groups::size(layout, allocator, nodes.counts, options)?,
        left_out_xattrs: nodes.left_out_xattrs.clone(),
        nodes,
        journal,
        resize_block,
        regions: regions.to_vec(),
    };
    groups::claim(&mut plan, tree)?;
    Ok(plan)
}

/// A UUID of version 8 (free form) of RFC 9562.
fn uuid_from(identity: &[u8; 32]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&identity[..16]);
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

impl Plan {
    /// The filesystem's length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.groups.blocks * BLOCK_SIZE
    }

    /// Bytes in blocks that are free for whoever mounts it.
    pub fn free_bytes(&self) -> u64 {
        self.groups.free_blocks() * BLOCK_SIZE
    }

    /// Number of inodes, and how many of them are in use.
    pub fn inodes(&self) -> (u32, u32) {
        (self.groups.inode_count(), self.nodes.counts.used)
    }

    /// The filesystem's UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Extended attributes that were left out because ext4 has no namespace for them, as `path: name`.
    pub fn left_out_xattrs(&self) -> &[String] {
        &self.left_out_xattrs
    }

    /// The blocks of layer regions that no file of the tree holds: contents that an upper layer hid. They must not
    /// stay in the image.
    pub fn hidden(&self) -> Vec<Run> {
        let region_runs = self
            .regions
            .iter()
            .flat_map(|region| self.layout.runs(region.start, region.blocks));
        region_runs
            .flat_map(|run| self.groups.used.unused_runs(run))
            .collect()
    }

    /// The plan as text: one line for the filesystem, each region, each group and each inode.
    pub fn dump(&self, tree: &Tree) -> String {
        let mut text = String::new();
        let groups = &self.groups;
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            text.write_fmt(arguments)
                .expect("writing to a String cannot fail");
            text.push('\n');
        };
        line(format_args!(
            "ext4 {} blocks, {} free, {} inodes, {} used, {} groups",
            groups.blocks,
            groups.free_blocks(),
            groups.inode_count(),
            self.nodes.counts.used,
            groups.list.len()
        ));
        for region in &self.regions {
            line(format_args!("region {}+{}", region.start.0, region.blocks));
        }
        for (number, group) in groups.list.iter().enumerate() {
            line(format_args!(
                "group {number}: bitmaps {} {}, inodes {}, {} blocks free",
                group.block_bitmap.0, group.inode_bitmap.0, group.inode_table.0, group.free_blocks
            ));
        }
        for (path, id) in tree.walk() {
            let node = self.nodes.of(id);
            let extents: Vec<String> = node
                .extents
                .iter()
                .map(|extent| format!(" {}:{}+{}", extent.file_block, extent.start.0, extent.count))
                .collect();
            line(format_args!(
                "inode {} links {} {path}{}",
                node.number,
                node.links,
                extents.concat()
            ));
        }
        text
    }
}
