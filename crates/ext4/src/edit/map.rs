//! Writing an inode's map of blocks: an extent tree, or where the filesystem has none, indirect blocks.

use super::inodes::RawInode;
use super::{EditError, Editor, Target, low32, narrow, wide};
use crate::extent::{self, push_run, tree_block_count};
use crate::format::inode_flags;
use crate::geometry::{BlockNumber, Run};
use crate::read::{InodeNumber, Place};

/// Part of a file: its first block's place in the file, the first block, and how many.
pub(super) type Part = (u64, u64, u64);

impl<T: Target> Editor<T> {
    /// Maps the parts of a file, which are in rising order, and counts all blocks into the inode, with those of extended
    /// attributes. `false` if it cannot count so many.
    pub(super) fn put_map(
        &mut self,
        number: u32,
        raw: &mut RawInode,
        parts: &[Part],
    ) -> Result<bool, EditError> {
        let content = parts
            .iter()
            .fold(0_u64, |sum, (_, _, count)| sum.saturating_add(*count));
        let goal = parts.last().map(|(_, first, count)| first.saturating_add(*count));
        let map_blocks = if self.form.extents {
            self.put_extents(number, raw, parts, goal)?
        } else {
            self.put_pointers(number, raw, parts)?
        };
        let blocks = content
            .saturating_add(map_blocks)
            .saturating_add((raw.xattr_block() != 0).into());
        Ok(self.set_block_count(raw, blocks))
    }

    /// Gives how many blocks the tree takes.
    fn put_extents(
        &mut self,
        number: u32,
        raw: &mut RawInode,
        parts: &[Part],
        goal: Option<u64>,
    ) -> Result<u64, EditError> {
        let mut extents = Vec::new();
        for (at, first, count) in parts {
            let run = Run {
                start: BlockNumber(*first),
                count: *count,
            };
            push_run(&mut extents, low32(*at), run);
        }
        let tree_blocks = tree_block_count(extents.len(), self.form.nodes);
        let runs = self.take_blocks(tree_blocks, goal, tree_blocks)?;
        let blocks: Vec<BlockNumber> = runs
            .iter()
            .flat_map(|(first, count)| *first..first.saturating_add(*count))
            .map(BlockNumber)
            .collect();
        let seed = self.form.inode_seed(number, raw.fields.i_generation.get());
        let encoded = extent::encode(&extents, &blocks, self.form.nodes, seed);
        for (block, bytes) in &encoded.nodes {
            let place = Place::Extents {
                inode: InodeNumber::new(number).unwrap_or(InodeNumber::ROOT),
                block: Some(block.0),
            };
            self.put_blocks(bytes, block.0, place)?;
        }
        raw.fields.i_block = encoded.i_block;
        raw.fields.i_flags = (raw.fields.i_flags.get() | inode_flags::EXTENTS).into();
        Ok(tree_blocks)
    }

    fn put_pointers(&mut self, number: u32, raw: &mut RawInode, parts: &[Part]) -> Result<u64, EditError> {
        let blocks: Vec<(u64, u64)> = parts
            .iter()
            .flat_map(|(at, first, count)| {
                (0..*count).map(|n| (at.saturating_add(n), first.saturating_add(n)))
            })
            .collect();
        let per_block = wide(self.form.block_len / 4);
        let mut map_blocks = 0;
        let mut i_block = [0; 60];
        let mut logical = 0_u64;
        for (root, bytes) in i_block.chunks_exact_mut(4).enumerate() {
            let level = low32(wide(root.saturating_sub(11)));
            let pointer = self.put_pointer(number, level, logical, &blocks, &mut map_blocks)?;
            bytes.copy_from_slice(&low32(pointer).to_le_bytes());
            logical = logical.saturating_add(per_block.saturating_pow(level));
        }
        raw.fields.i_block = i_block;
        raw.fields.i_flags = (raw.fields.i_flags.get() & !inode_flags::EXTENTS).into();
        Ok(map_blocks)
    }

    /// The number that stands for the file's blocks from `logical` on, below `level` levels of indirect blocks; 0 for a hole.
    fn put_pointer(
        &mut self,
        number: u32,
        level: u32,
        logical: u64,
        blocks: &[(u64, u64)],
        map_blocks: &mut u64,
    ) -> Result<u64, EditError> {
        let per_block = wide(self.form.block_len / 4);
        let end = logical.saturating_add(per_block.saturating_pow(level));
        let from = blocks.partition_point(|(at, _)| *at < logical);
        let until = blocks.partition_point(|(at, _)| *at < end);
        let Some(within @ [(_, first), ..]) = blocks.get(from..until) else {
            return Ok(0);
        };
        let Some(below) = level.checked_sub(1) else {
            return Ok(*first);
        };
        let taken = self.take_blocks(1, Some(first.saturating_add(1)), 1)?;
        let block = taken.first().map_or(0, |(first, _)| *first);
        *map_blocks = map_blocks.saturating_add(1);
        let step = per_block.saturating_pow(below);
        let mut bytes = Vec::with_capacity(self.form.block_len);
        for place in 0..per_block {
            let at = logical.saturating_add(place.saturating_mul(step));
            let pointer = self.put_pointer(number, below, at, within, map_blocks)?;
            bytes.extend_from_slice(&low32(pointer).to_le_bytes());
        }
        bytes.truncate(narrow(self.form.block_bytes()));
        let place = Place::BlockMap {
            inode: InodeNumber::new(number).unwrap_or(InodeNumber::ROOT),
            block: Some(block),
        };
        self.put_blocks(&bytes, block, place)?;
        Ok(block)
    }
}
