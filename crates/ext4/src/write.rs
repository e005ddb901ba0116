//! Emits a plan: every block that is not a file's content, superblock last.

use std::io;

use firebrick_tree::{Kind, Metadata, Tree};
use zerocopy::IntoBytes;

use crate::checksum::Crc;
use crate::dir::{DirForm, Packing};
use crate::error::PlanError;
use crate::extent::{self, NodeForm, push_run};
use crate::format::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, EXT4_GOOD_OLD_FIRST_INO, EXT4_JOURNAL_INO, EXT4_RESIZE_INO, EXT4_ROOT_INO,
    INODE_SIZE, SUPERBLOCK_OFFSET, inode_flags, mode,
};
use crate::geometry::{BlockNumber, DESCRIPTOR_BLOCKS};
use crate::inode::{EXTENTS, InodeParts, device_block, encode, type_of};
use crate::plan::{FAST_SYMLINK_MAX, Node, Plan, descriptor_blocks_used, packing};
use crate::superblock::{descriptors, inode_bitmap, superblock};
use crate::xattr;

/// Takes an image's blocks. What is never written reads as zeros.
pub trait BlockSink {
    /// Writes whole blocks from `start` on.
    ///
    /// # Errors
    /// What writing gives; the image is then not usable.
    fn write_blocks(&mut self, start: BlockNumber, bytes: &[u8]) -> io::Result<()>;
}

/// Why a filesystem could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The sink failed. The cause is `source`.
    #[error("cannot write filesystem metadata")]
    Write {
        /// What happened.
        source: io::Error,
    },
    /// The tree is not the one that was planned.
    #[error("the tree changed after it was planned")]
    Tree {
        /// What differs.
        source: PlanError,
    },
}

/// Emits everything but file contents. `tree` is the tree that was planned.
///
/// # Errors
/// [`WriteError`] if the sink fails.
pub fn write(plan: &Plan, tree: &Tree, sink: &mut impl BlockSink) -> Result<(), WriteError> {
    let mut writer = Writer {
        plan,
        tree,
        table: InodeTable::default(),
    };
    // All of these have numbers in the first group.
    writer.lost_and_found(sink)?;
    writer.resize_inode(sink)?;
    let journal = writer.journal(sink)?;
    writer.unused_inodes(journal.is_some());
    for node in &plan.nodes.list {
        while writer.table.group < (node.number - 1) / plan.groups.inodes_per_group {
            writer.end_table(sink)?;
        }
        writer.node(node, sink)?;
    }
    writer.end_table(sink)?;
    writer.finish(journal, sink)
}

/// The used part of one group's inode table. Groups follow each other, as inode numbers do.
#[derive(Default)]
struct InodeTable {
    group: u32,
    bytes: Vec<u8>,
}

struct Writer<'a> {
    plan: &'a Plan,
    tree: &'a Tree,
    table: InodeTable,
}

fn put(sink: &mut impl BlockSink, start: BlockNumber, bytes: &[u8]) -> Result<(), WriteError> {
    sink.write_blocks(start, bytes)
        .map_err(|source| WriteError::Write { source })
}

impl Writer<'_> {
    fn crc(&self, inode: u32) -> Crc {
        Crc::ours().for_inode(inode, 0)
    }

    /// Puts an inode into its place in the current group's table.
    fn put_inode(&mut self, number: u32, inode: &[u8; 256]) {
        let first = self.table.group * self.plan.groups.inodes_per_group + 1;
        let at = (number - first) as usize * INODE_SIZE as usize;
        let bytes = &mut self.table.bytes;
        bytes.resize(bytes.len().max(at + 256), 0);
        bytes[at..at + 256].copy_from_slice(inode);
    }

    /// Writes the current group's table and goes on to the next group's.
    fn end_table(&mut self, sink: &mut impl BlockSink) -> Result<(), WriteError> {
        let bytes = &mut self.table.bytes;
        bytes.resize(bytes.len().next_multiple_of(BLOCK_SIZE as usize), 0);
        let start = self.plan.groups.list[self.table.group as usize].inode_table;
        let is_zero = |block: &[u8]| block.iter().all(|&byte| byte == 0);
        let mut block = start.0;
        // Free numbers leave whole blocks empty.
        for run in bytes
            .as_slice()
            .chunks(BLOCK_SIZE as usize)
            .collect::<Vec<_>>()
            .chunk_by(|one, next| is_zero(one) == is_zero(next))
        {
            if !is_zero(run[0]) {
                put(sink, BlockNumber(block), &run.concat())?;
            }
            block += run.len() as u64;
        }
        bytes.clear();
        self.table.group += 1;
        Ok(())
    }

    /// An inode and its blocks behind the regions.
    fn node(&mut self, node: &Node, sink: &mut impl BlockSink) -> Result<(), WriteError> {
        let inode = self.tree.inode(node.id);
        let crc = self.crc(node.number);
        let (type_bits, _) = type_of(&inode.kind);
        let mut parts = InodeParts {
            mode: type_bits | inode.meta.mode,
            meta: &inode.meta,
            size: 0,
            links: node.links,
            blocks: node.block_count(),
            flags: EXTENTS | if node.indexed { inode_flags::INDEX } else { 0 },
            i_block: [0; 60],
            xattr_block: node.xattr_block,
            in_inode_xattrs: node.xattrs.as_ref().and_then(|packed| packed.in_inode.as_deref()),
        };
        let content = match &inode.kind {
            Kind::Directory(_) => {
                parts.size = node.content_blocks() * BLOCK_SIZE;
                self.directory(node)?
            }
            Kind::Symlink(target) if target.len() > FAST_SYMLINK_MAX => {
                parts.size = target.len() as u64;
                let mut block = target.to_vec();
                block.resize(BLOCK_SIZE as usize, 0);
                block
            }
            Kind::Symlink(target) => {
                parts.size = target.len() as u64;
                parts.flags = 0;
                parts.i_block[..target.len()].copy_from_slice(target);
                Vec::new()
            }
            Kind::Device { major, minor, .. } => {
                parts.flags = 0;
                parts.i_block = device_block(*major, *minor).expect("the plan refuses impossible devices");
                Vec::new()
            }
            Kind::Fifo | Kind::Socket => {
                parts.flags = 0;
                Vec::new()
            }
            Kind::File(data) => {
                parts.size = data.size;
                Vec::new()
            }
        };
        if parts.flags & EXTENTS != 0 {
            let encoded = extent::encode(&node.extents, &node.tree_blocks, NodeForm::OURS, crc);
            parts.i_block = encoded.i_block;
            for (block, bytes) in encoded.nodes {
                put(sink, block, &bytes)?;
            }
        }
        let mut rest = content.as_slice();
        for extent in node.extents.iter().filter(|_| !content.is_empty()) {
            let (now, later) = rest.split_at(usize::from(extent.count) * BLOCK_SIZE as usize);
            put(sink, extent.start, now)?;
            rest = later;
        }
        if let (Some(number), Some(packed)) = (node.xattr_block, &node.xattrs) {
            let mut block = packed
                .block
                .clone()
                .expect("a block number is given where there is a block");
            xattr::seal(&mut block, number, Crc::ours());
            put(sink, number, &block)?;
        }
        self.put_inode(node.number, &encode(&parts, crc));
        Ok(())
    }

    fn directory(&self, node: &Node) -> Result<Vec<u8>, WriteError> {
        let nodes = &self.plan.nodes;
        let add = nodes.lost_and_found.is_some();
        let packing = packing(self.tree, node.id, |id| nodes.of(id).number, add)
            .map_err(|source| WriteError::Tree { source })?;
        Ok(packing.bytes(node.number, node.parent, self.crc(node.number)))
    }

    /// The `lost+found` that we add.
    fn lost_and_found(&mut self, sink: &mut impl BlockSink) -> Result<(), WriteError> {
        let Some(block) = self.plan.nodes.lost_and_found else {
            return Ok(());
        };
        let number = EXT4_GOOD_OLD_FIRST_INO;
        let empty = Packing::new(Vec::new(), DirForm::ours()).expect("no names are few enough");
        put(sink, block, &empty.bytes(number, EXT4_ROOT_INO, self.crc(number)))?;
        let meta = Metadata {
            mode: 0o700,
            mtime: self.plan.created,
            ..Metadata::default()
        };
        self.extent_inode(
            number,
            mode::S_IFDIR,
            &meta,
            BLOCK_SIZE,
            2,
            &[crate::geometry::Run {
                start: block,
                count: 1,
            }],
        );
        Ok(())
    }

    /// An inode of our own, whose few runs fit it. Gives its `i_block`.
    fn extent_inode(
        &mut self,
        number: u32,
        type_bits: u16,
        meta: &Metadata,
        size: u64,
        links: u16,
        runs: &[crate::geometry::Run],
    ) -> [u8; 60] {
        let crc = self.crc(number);
        let mut extents = Vec::new();
        let mut file_block = 0;
        for run in runs {
            push_run(&mut extents, file_block, *run);
            file_block += run.count as u32;
        }
        let i_block = extent::encode(&extents, &[], NodeForm::OURS, crc).i_block;
        let parts = InodeParts {
            mode: type_bits | meta.mode,
            meta,
            size,
            links,
            blocks: runs.iter().map(|run| run.count).sum(),
            flags: EXTENTS,
            i_block,
            xattr_block: None,
            in_inode_xattrs: None,
        };
        self.put_inode(number, &encode(&parts, crc));
        i_block
    }

    /// The inode that owns the blocks which the descriptor table may grow into: a block of pointers to them, and in
    /// each of them pointers to its copies behind the backups (`ext2fs_create_resize_inode` in e2fsprogs).
    fn resize_inode(&mut self, sink: &mut impl BlockSink) -> Result<(), WriteError> {
        const POINTERS: u64 = BLOCK_SIZE / 4;
        const DOUBLY_INDIRECT: usize = 13;
        let plan = self.plan;
        let group_count = plan.groups.list.len() as u64;
        let backups: Vec<u64> = (1..group_count)
            .filter(|&group| plan.layout.has_superblock(group))
            .collect();
        let first = 1 + descriptor_blocks_used(plan.groups.list.len());
        let mut pointers = vec![0; BLOCK_SIZE as usize];
        for block in first..=DESCRIPTOR_BLOCKS {
            let at = (block - 1) as usize * 4;
            pointers[at..at + 4].copy_from_slice(&(block as u32).to_le_bytes());
            if !backups.is_empty() {
                let copies = backups
                    .iter()
                    .flat_map(|group| ((block + group * BLOCKS_PER_GROUP) as u32).to_le_bytes());
                let mut bytes: Vec<u8> = copies.collect();
                bytes.resize(BLOCK_SIZE as usize, 0);
                put(sink, BlockNumber(block), &bytes)?;
            }
        }
        put(sink, plan.resize_block, &pointers)?;
        let mut i_block = [0; 60];
        i_block[DOUBLY_INDIRECT * 4..][..4].copy_from_slice(&(plan.resize_block.0 as u32).to_le_bytes());
        let meta = Metadata {
            mode: 0o600,
            mtime: plan.created,
            ..Metadata::default()
        };
        let reserved = DESCRIPTOR_BLOCKS + 1 - first;
        let parts = InodeParts {
            mode: mode::S_IFREG | 0o600,
            meta: &meta,
            size: (POINTERS * POINTERS + POINTERS + 12) * BLOCK_SIZE,
            links: 1,
            blocks: 1 + reserved * (1 + backups.len() as u64),
            flags: 0,
            i_block,
            xattr_block: None,
            in_inode_xattrs: None,
        };
        self.put_inode(EXT4_RESIZE_INO, &encode(&parts, self.crc(EXT4_RESIZE_INO)));
        Ok(())
    }

    /// The journal's first block and inode. Gives what the superblock keeps a copy of.
    fn journal(&mut self, sink: &mut impl BlockSink) -> Result<Option<([u8; 60], u64)>, WriteError> {
        let Some(runs) = &self.plan.journal else {
            return Ok(None);
        };
        let blocks: u64 = runs.iter().map(|run| run.count).sum();
        put(
            sink,
            runs[0].start,
            &crate::journal::first_block(blocks, self.plan.uuid),
        )?;
        let meta = Metadata {
            mode: 0o600,
            mtime: self.plan.created,
            ..Metadata::default()
        };
        let size = blocks * BLOCK_SIZE;
        let i_block = self.extent_inode(EXT4_JOURNAL_INO, mode::S_IFREG, &meta, size, 1, runs);
        Ok(Some((i_block, size)))
    }

    /// Reserved inodes that nothing uses still carry a checksum, as `mke2fs` has it.
    fn unused_inodes(&mut self, has_journal: bool) {
        let journal = (!has_journal).then_some(EXT4_JOURNAL_INO);
        for number in [1, 3, 4, 5, 6, 9, 10].into_iter().chain(journal) {
            let inode = unused_inode(self.crc(number));
            self.put_inode(number, &inode);
        }
    }

    /// Bitmaps, backups, and the superblock last: until then it is no filesystem.
    fn finish(self, journal: Option<([u8; 60], u64)>, sink: &mut impl BlockSink) -> Result<(), WriteError> {
        let plan = self.plan;
        let groups = &plan.groups;
        let bitmaps = |group: usize| (groups.used.group_bitmap(group), inode_bitmap(plan, group));
        for (number, group) in groups.list.iter().enumerate() {
            let (block_bitmap, inode_bitmap) = bitmaps(number);
            put(sink, group.block_bitmap, &block_bitmap)?;
            put(sink, group.inode_bitmap, &inode_bitmap)?;
        }
        let descriptors = descriptors(plan, bitmaps);
        for group in (0..groups.list.len() as u64)
            .rev()
            .filter(|&group| plan.layout.has_superblock(group))
        {
            let start = group * BLOCKS_PER_GROUP;
            put(sink, BlockNumber(start + 1), &descriptors)?;
            let group_number = u16::try_from(group).expect("at most 8192 groups");
            let superblock = superblock(plan, journal, group_number);
            let mut block = vec![0; BLOCK_SIZE as usize];
            // The primary one leaves room for a boot sector.
            let at = if group == 0 { SUPERBLOCK_OFFSET as usize } else { 0 };
            block[at..at + 1024].copy_from_slice(superblock.as_bytes());
            put(sink, BlockNumber(start), &block)?;
        }
        Ok(())
    }
}

/// A reserved inode that nothing uses.
fn unused_inode(crc: Crc) -> [u8; 256] {
    let meta = Metadata {
        mode: 0,
        ..Metadata::default()
    };
    let parts = InodeParts {
        mode: 0,
        meta: &meta,
        size: 0,
        links: 0,
        blocks: 0,
        flags: 0,
        i_block: [0; 60],
        xattr_block: None,
        in_inode_xattrs: None,
    };
    encode(&parts, crc)
}
