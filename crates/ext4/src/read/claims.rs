//! Which blocks an inode takes: those of its content, also where they read as zeros, and those of its map.

use super::ReadAt;
use super::bytes::{join, u32_at, view};
use super::error::{Fault, Place, ReadError};
use super::extent::{self, ENTRY, MAX_DEPTH, Node};
use super::inode::Inode;
use super::superblock::Geometry;
use super::{Filesystem, out_of_range};
use crate::format::{ExtentIndex, ExtentLeaf, inode_flags};
use crate::read::FileType;

/// The blocks of an inode, without its block of extended attributes.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Content: the block's place in the file, the first block, and how many.
    pub(crate) content: Vec<(u64, u64, u64)>,
    /// Nodes of the extent tree, or indirect blocks.
    pub(crate) map: Vec<u64>,
}

/// Collects, and counts down what may still come.
struct Collector<'a, R> {
    filesystem: &'a Filesystem<R>,
    inode: &'a Inode,
    claims: Claims,
    budget: u64,
}

impl<R: ReadAt> Filesystem<R> {
    /// Whether an inode has a map of blocks at all: short symbolic links and device nodes keep other things in its place.
    pub(crate) fn has_map(inode: &Inode) -> bool {
        match inode.stat.file_type {
            FileType::Regular | FileType::Directory => true,
            FileType::Symlink => inode.stat.size >= 60,
            _ => false,
        }
    }

    /// Every block that an inode takes for content and map.
    ///
    /// # Errors
    /// Corrupt where the map is wrong, or names blocks that the filesystem does not have.
    pub(crate) fn claims(&self, inode: &Inode) -> Result<Claims, ReadError> {
        let mut collector = Collector {
            filesystem: self,
            inode,
            claims: Claims::default(),
            budget: self.geometry.blocks,
        };
        if Filesystem::<R>::has_map(inode) {
            if inode.has_flag(inode_flags::EXTENTS) {
                let place = Place::Extents {
                    inode: inode.number,
                    block: None,
                };
                let root = Node::parse(inode.block.to_vec(), place)?;
                if root.depth > MAX_DEPTH {
                    return Err(out_of_range(place, "eh_depth", root.depth.into()));
                }
                collector.extents(&root, place)?;
            } else {
                collector.pointers()?;
            }
        }
        Ok(collector.claims)
    }
}

impl<R: ReadAt> Collector<'_, R> {
    fn take(&mut self, first: u64, count: u64, place: Place) -> Result<(), ReadError> {
        let geometry: &Geometry = &self.filesystem.geometry;
        let end = first.checked_add(count);
        if first <= u64::from(geometry.first_data_block) || end.is_none_or(|end| end > geometry.blocks) {
            return Err(out_of_range(place, "a block number", first));
        }
        self.budget = self.budget.checked_sub(count).ok_or_else(|| {
            let fault = Fault::Structure("it maps more blocks than the filesystem has");
            ReadError::corrupt(place, fault)
        })?;
        Ok(())
    }

    fn content(&mut self, logical: u64, first: u64, count: u64, place: Place) -> Result<(), ReadError> {
        self.take(first, count, place)?;
        if let Some((at, start, len)) = self.claims.content.last_mut()
            && at.saturating_add(*len) == logical
            && start.saturating_add(*len) == first
        {
            *len = len.saturating_add(count);
            return Ok(());
        }
        self.claims.content.push((logical, first, count));
        Ok(())
    }

    fn extents(&mut self, node: &Node, place: Place) -> Result<(), ReadError> {
        for entry in 0..node.entries {
            let offset = usize::from(entry).saturating_add(1).saturating_mul(ENTRY);
            if node.depth == 0 {
                let raw: Option<&ExtentLeaf> = view(&node.bytes, offset);
                let run = extent::leaf(raw, place)?;
                let first = raw.map_or(0, |raw| join(raw.ee_start_lo.get(), raw.ee_start_hi.get().into()));
                self.content(run.logical, first, run.blocks, place)?;
                continue;
            }
            let raw: Option<&ExtentIndex> = view(&node.bytes, offset);
            let (_, block) = extent::index(raw, place)?;
            self.take(block, 1, place)?;
            let child = extent::read_node(self.filesystem, self.inode, block)?;
            let below = Place::Extents {
                inode: self.inode.number,
                block: Some(block),
            };
            // Each level is one less deep, so the recursion ends.
            if node.depth.checked_sub(1) != Some(child.depth) {
                return Err(out_of_range(below, "eh_depth", child.depth.into()));
            }
            self.claims.map.push(block);
            self.extents(&child, below)?;
        }
        Ok(())
    }

    fn pointers(&mut self) -> Result<(), ReadError> {
        let place = Place::BlockMap {
            inode: self.inode.number,
            block: None,
        };
        let mut logical = 0_u64;
        let roots = self.inode.block;
        for root in 0..15_usize {
            let number = u32_at(&roots, root.saturating_mul(4)).unwrap_or_default();
            let level = u32::try_from(root.saturating_sub(11)).unwrap_or_default();
            logical = self.pointer(number.into(), level, logical, place)?;
        }
        Ok(())
    }

    /// Follows one number that has `level` levels of indirect blocks below it. Gives the logical block behind it.
    fn pointer(&mut self, number: u64, level: u32, logical: u64, place: Place) -> Result<u64, ReadError> {
        let per_block = u64::from(self.filesystem.geometry.block_size >> 2);
        let behind = logical.saturating_add(per_block.saturating_pow(level));
        if number == 0 {
            return Ok(behind);
        }
        let Some(below) = level.checked_sub(1) else {
            self.content(logical, number, 1, place)?;
            return Ok(behind);
        };
        self.take(number, 1, place)?;
        self.claims.map.push(number);
        let place = Place::BlockMap {
            inode: self.inode.number,
            block: Some(number),
        };
        let bytes = self.filesystem.read_block(number, place)?;
        let mut at = logical;
        for pointer in bytes.chunks_exact(4) {
            let pointer = u32_at(pointer, 0).unwrap_or_default();
            at = self.pointer(pointer.into(), below, at, place)?;
        }
        Ok(behind)
    }
}
