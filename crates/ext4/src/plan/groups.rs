//! The filesystem's length, its block groups and their tables, and which blocks are in use.

use firebrick_tree::Tree;

use super::Plan;
use super::nodes::InodeCounts;
use crate::error::PlanError;
use crate::format::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, EXT4_GOOD_OLD_FIRST_INO, INODES_PER_BLOCK, INODES_PER_GROUP_MAX,
};
use crate::geometry::{Allocator, BLOCKS_MAX, BlockNumber, DESCRIPTOR_BLOCKS, Layout, Run};
use crate::options::{Options, Size};

/// One spare inode for this many free bytes, as `mke2fs` has it by default.
const BYTES_PER_SPARE_INODE: u64 = 16384;
/// Spare inodes at least.
const SPARE_INODES_MIN: u64 = 1024;

/// One block group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) block_bitmap: BlockNumber,
    pub(crate) inode_bitmap: BlockNumber,
    pub(crate) inode_table: BlockNumber,
    pub(crate) free_blocks: u32,
    pub(crate) directories: u32,
}

/// All groups.
#[derive(Debug)]
pub(crate) struct Groups {
    /// Length of the filesystem.
    pub(crate) blocks: u64,
    pub(crate) inodes_per_group: u32,
    pub(crate) list: Vec<Group>,
    pub(crate) used: UsedBlocks,
}

impl Groups {
    pub(crate) fn inode_count(&self) -> u32 {
        self.inodes_per_group * u32::try_from(self.list.len()).expect("at most 8192 groups")
    }

    pub(crate) fn free_blocks(&self) -> u64 {
        self.list.iter().map(|group| u64::from(group.free_blocks)).sum()
    }

    /// Blocks of one group's inode table.
    pub(crate) fn table_blocks(&self) -> u64 {
        u64::from(self.inodes_per_group) / INODES_PER_BLOCK
    }

    fn count_directory(&mut self, inode_number: u32) {
        self.list[((inode_number - 1) / self.inodes_per_group) as usize].directories += 1;
    }
}

/// Decides length and tables.
pub(super) fn size(
    layout: Layout,
    allocator: Allocator,
    inodes: InodeCounts,
    options: &Options,
) -> Result<Groups, PlanError> {
    let limit = BLOCKS_MAX;
    match options.size {
        Size::Bytes(bytes) => {
            let blocks = layout.adjust_length(bytes / BLOCK_SIZE, false);
            if blocks > limit {
                return Err(PlanError::TooLarge {
                    size: bytes,
                    limit: limit * BLOCK_SIZE,
                });
            }
            let content_end = layout.image_end(allocator.position()).0;
            let free = blocks.saturating_sub(content_end) * BLOCK_SIZE;
            let wanted = inodes_wanted(inodes, free, options);
            match tables(layout, allocator, blocks.max(1), wanted) {
                Ok((groups, end)) if end + options.free.div_ceil(BLOCK_SIZE) <= blocks => Ok(groups),
                Ok(_) | Err(PlanError::TooManyInodes { .. }) => {
                    let smallest = Options {
                        size: Size::Auto,
                        ..options.clone()
                    };
                    let needed = size(layout, allocator, inodes, &smallest)?.blocks * BLOCK_SIZE;
                    Err(PlanError::TooSmall { needed, size: bytes })
                }
                Err(error) => Err(error),
            }
        }
        Size::Auto | Size::Least => {
            let wanted = inodes_wanted(inodes, options.free, options);
            let groups_for_inodes = wanted.div_ceil(INODES_PER_GROUP_MAX.into());
            let mut blocks = (groups_for_inodes - 1) * BLOCKS_PER_GROUP + 1;
            // Tables grow with groups and groups with tables; each round only ever adds.
            loop {
                blocks = layout.adjust_length(blocks.max(layout.image_end(allocator.position()).0), true);
                if blocks > limit {
                    return Err(PlanError::TooLarge {
                        size: blocks * BLOCK_SIZE,
                        limit: limit * BLOCK_SIZE,
                    });
                }
                let (groups, end) = tables(layout, allocator, blocks, wanted)?;
                let longer = layout.adjust_length(end + options.free.div_ceil(BLOCK_SIZE), true);
                if longer <= blocks {
                    return Ok(groups);
                }
                blocks = longer;
            }
        }
    }
}

fn inodes_wanted(inodes: InodeCounts, free_bytes: u64, options: &Options) -> u64 {
    let spare = (free_bytes / BYTES_PER_SPARE_INODE).max(SPARE_INODES_MIN);
    let wanted = (options.inodes).map_or(u64::from(inodes.used) + spare, u64::from);
    wanted.max(inodes.highest.into())
}

/// Lays the tables of a filesystem of `blocks` blocks. Gives the groups and where the last table ends.
fn tables(
    layout: Layout,
    mut allocator: Allocator,
    blocks: u64,
    inodes: u64,
) -> Result<(Groups, u64), PlanError> {
    let count = blocks.div_ceil(BLOCKS_PER_GROUP);
    let per_group = inodes
        .div_ceil(count)
        .next_multiple_of(INODES_PER_BLOCK)
        .max(INODES_PER_BLOCK);
    if per_group > INODES_PER_GROUP_MAX.into() {
        return Err(PlanError::TooManyInodes {
            inodes,
            limit: count * u64::from(INODES_PER_GROUP_MAX),
        });
    }
    let bitmaps: Vec<BlockNumber> = (0..2 * count).map(|_| allocator.contiguous(1)).collect();
    let list = bitmaps
        .chunks_exact(2)
        .map(|pair| Group {
            block_bitmap: pair[0],
            inode_bitmap: pair[1],
            inode_table: allocator.contiguous(per_group / INODES_PER_BLOCK),
            free_blocks: 0,
            directories: 0,
        })
        .collect();
    let groups = Groups {
        blocks,
        inodes_per_group: u32::try_from(per_group).expect("at most 32768"),
        list,
        used: UsedBlocks::new(blocks),
    };
    Ok((groups, layout.image_end(allocator.position()).0))
}

/// Marks every block that something takes, each once, and counts what is left.
pub(super) fn claim(plan: &mut Plan, tree: &Tree) -> Result<(), PlanError> {
    claim_tables(plan);
    claim_nodes(plan, tree)?;
    let Groups {
        list, used, blocks, ..
    } = &mut plan.groups;
    for (number, group) in list.iter_mut().enumerate() {
        let start = number as u64 * BLOCKS_PER_GROUP;
        let unused = used.unused_runs(Run {
            start: BlockNumber(start),
            count: (*blocks - start).min(BLOCKS_PER_GROUP),
        });
        let free = unused.iter().map(|run| run.count).sum::<u64>();
        group.free_blocks = u32::try_from(free).expect("at most 32768");
    }
    Ok(())
}

/// Marks what belongs to the filesystem itself: superblocks with their reserve, bitmaps, inode tables, journal, `lost+found`.
fn claim_tables(plan: &mut Plan) {
    let layout = plan.layout;
    let table_blocks = plan.groups.table_blocks();
    let Groups {
        list, used, blocks, ..
    } = &mut plan.groups;
    let once = "tables and directories come from one allocator, behind the regions";
    for run in (0..list.len() as u64).filter_map(|group| layout.superblock_run(group)) {
        // The reserve is claimed whole; in a filesystem of less than 1 MiB it would end behind it.
        used.claim(Run {
            count: run.count.min(*blocks - run.start.0),
            ..run
        })
        .expect(once);
    }
    for group in list.iter() {
        used.claim(one(group.block_bitmap)).expect(once);
        used.claim(one(group.inode_bitmap)).expect(once);
        let table = Run {
            start: group.inode_table,
            count: table_blocks,
        };
        used.claim(table).expect(once);
    }
    used.claim(one(plan.resize_block)).expect(once);
    for run in plan.journal.iter().flatten() {
        used.claim(*run).expect(once);
    }
    if let Some(start) = plan.nodes.lost_and_found {
        used.claim(one(start)).expect(once);
        plan.groups.count_directory(EXT4_GOOD_OLD_FIRST_INO);
    }
}

/// Marks what belongs to files, and counts each group's directories.
fn claim_nodes(plan: &mut Plan, tree: &Tree) -> Result<(), PlanError> {
    for node in &plan.nodes.list {
        let content = node.extents.iter().map(|extent| Run {
            start: extent.start,
            count: extent.count.into(),
        });
        let own = node.tree_blocks.iter().chain(&node.xattr_block);
        for run in content.chain(own.map(|&start| one(start))) {
            plan.groups.used.claim(run).ok_or_else(|| PlanError::Segments {
                path: tree.path_of(node.id),
            })?;
        }
        if tree.directory(node.id).is_some() {
            plan.groups.count_directory(node.number);
        }
    }
    Ok(())
}

fn one(start: BlockNumber) -> Run {
    Run { start, count: 1 }
}

/// A bit for each block of the filesystem.
#[derive(Debug)]
pub(crate) struct UsedBlocks {
    bits: Vec<u8>,
    blocks: u64,
}

impl UsedBlocks {
    fn new(blocks: u64) -> UsedBlocks {
        UsedBlocks {
            bits: vec![0; usize::try_from(blocks.div_ceil(8)).expect("at most 32 MiB")],
            blocks,
        }
    }

    /// Marks a run. `None` if a part of it is marked already or lies outside.
    fn claim(&mut self, run: Run) -> Option<()> {
        if run.start.0 + run.count > self.blocks {
            return None;
        }
        let (mut block, end) = (run.start.0, run.start.0 + run.count);
        while block < end {
            let byte = &mut self.bits[(block / 8) as usize];
            if block.is_multiple_of(8) && end - block >= 8 {
                if *byte != 0 {
                    return None;
                }
                *byte = 0xff;
                block += 8;
                continue;
            }
            let bit = 1 << (block % 8);
            if *byte & bit != 0 {
                return None;
            }
            *byte |= bit;
            block += 1;
        }
        Some(())
    }

    fn is_used(&self, block: u64) -> bool {
        self.bits[(block / 8) as usize] & (1 << (block % 8)) != 0
    }

    /// The parts of a run that are not marked.
    pub(crate) fn unused_runs(&self, run: Run) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let (mut block, end) = (run.start.0, run.start.0 + run.count);
        while block < end {
            let step = if block.is_multiple_of(8) && end - block >= 8 {
                match self.bits[(block / 8) as usize] {
                    0xff => {
                        block += 8;
                        continue;
                    }
                    0 => 8,
                    _ => 1,
                }
            } else {
                1
            };
            if step == 8 || !self.is_used(block) {
                match runs.last_mut() {
                    Some(last) if last.start.0 + last.count == block => last.count += step,
                    _ => runs.push(Run {
                        start: BlockNumber(block),
                        count: step,
                    }),
                }
            }
            block += step;
        }
        runs
    }

    /// The bitmap of one group as it stands on disk: what lies behind the last block counts as used.
    pub(crate) fn group_bitmap(&self, group: usize) -> Vec<u8> {
        let len = BLOCK_SIZE as usize;
        let start = group * len;
        let mut bitmap = self.bits[start..self.bits.len().min(start + len)].to_vec();
        bitmap.resize(len, 0xff);
        let blocks = self.blocks - group as u64 * BLOCKS_PER_GROUP;
        if blocks < BLOCKS_PER_GROUP && !blocks.is_multiple_of(8) {
            bitmap[(blocks / 8) as usize] |= 0xff << (blocks % 8);
        }
        bitmap
    }
}

/// Blocks in use for group descriptors; the rest of [`DESCRIPTOR_BLOCKS`] is kept for growth.
pub(crate) fn descriptor_blocks_used(groups: usize) -> u64 {
    (groups as u64 * 64).div_ceil(BLOCK_SIZE).min(DESCRIPTOR_BLOCKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, count: u64) -> Run {
        Run {
            start: BlockNumber(start),
            count,
        }
    }

    #[test]
    fn every_block_is_claimed_once() {
        let mut used = UsedBlocks::new(100);
        assert!(used.claim(run(3, 20)).is_some());
        for overlap in [run(3, 1), run(22, 1), run(0, 4), run(16, 8), run(99, 2)] {
            assert!(used.claim(overlap).is_none(), "{overlap:?}");
        }
        assert!(used.claim(run(23, 1)).is_some());
    }

    #[test]
    fn unused_runs_are_what_is_left() {
        let mut used = UsedBlocks::new(100);
        used.claim(run(3, 20)).unwrap();
        used.claim(run(64, 8)).unwrap();
        assert_eq!(
            used.unused_runs(run(0, 100)),
            [run(0, 3), run(23, 41), run(72, 28)]
        );
        assert_eq!(used.unused_runs(run(1, 25)), [run(1, 2), run(23, 3)]);
        assert_eq!(used.unused_runs(run(64, 8)), []);
    }

    #[test]
    fn bits_behind_the_end_are_set() {
        let mut used = UsedBlocks::new(13);
        used.claim(run(0, 1)).unwrap();
        let bitmap = used.group_bitmap(0);
        assert_eq!(bitmap[..3], [0x01, 0b1110_0000, 0xff]);
        assert_eq!(bitmap[4095], 0xff);
    }
}
