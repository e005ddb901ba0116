//! Where things may lie: block numbers, groups, and the stretches kept for group descriptors.
//!
//! ```text
//! block 0      1 … 128                129 … 255   256 …
//! superblock │ group descriptors     │ free      │ data space: layer regions, metadata, free space
//!            │ and room to grow      │           │
//! ```
//!
//! *Data space* is a line of blocks without interruptions. By default it is the image from block 256 on. With
//! online resize, classic backups of superblock and descriptors lie at the start of some groups; data space steps
//! over 1 MiB there, so that what is aligned to 1 MiB in data space is aligned to 1 MiB in the image.

use crate::format::{BLOCK_SIZE, BLOCKS_PER_GROUP};

/// A block's number, from 0 at the start of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockNumber(pub u64);

/// A block's place in data space, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataBlock(pub u64);

/// A run of blocks of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its first block.
    pub start: BlockNumber,
    /// How many blocks, at least 1.
    pub count: u64,
}

/// Regions start on multiples of this many blocks (1 MiB) of data space.
pub const REGION_ALIGN_BLOCKS: u64 = 256;

/// Blocks kept at the image's start, and for each classic backup.
const RESERVED_BLOCKS: u64 = REGION_ALIGN_BLOCKS;

/// Blocks for group descriptors, used or kept for growth: 8192 groups of 64 bytes, enough for 1 TiB.
pub const DESCRIPTOR_BLOCKS: u64 = 128;

/// Largest filesystem, in blocks: what [`DESCRIPTOR_BLOCKS`] can describe.
pub const BLOCKS_MAX: u64 = DESCRIPTOR_BLOCKS * (BLOCK_SIZE / 64) * BLOCKS_PER_GROUP;

/// How data space lies in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Lay classic `sparse_super` backups, which Linux needs to grow a mounted filesystem.
    pub online_resize: bool,
}

impl Layout {
    /// Whether group `group` starts with a superblock and descriptors (the primary ones in group 0).
    pub fn has_superblock(self, group: u64) -> bool {
        group == 0
            || (self.online_resize && (group == 1 || [3, 5, 7].iter().any(|&base| is_power(group, base))))
    }

    /// The groups with classic backups, in rising order: they go on for ever.
    fn backup_groups(self) -> impl Iterator<Item = u64> {
        let groups = BLOCKS_MAX / BLOCKS_PER_GROUP;
        (1..groups).filter(move |&group| self.has_superblock(group))
    }

    /// The run of the image that starts at a block of data space, and at most `count` long.
    fn run(self, data: DataBlock, count: u64) -> Run {
        let mut start = data.0 + RESERVED_BLOCKS;
        let mut end = u64::MAX;
        if self.online_resize {
            for reserved in self.backup_groups().map(|group| group * BLOCKS_PER_GROUP) {
                if start < reserved {
                    end = reserved;
                    break;
                }
                start += RESERVED_BLOCKS;
            }
        }
        Run {
            start: BlockNumber(start),
            count: count.min(end - start),
        }
    }

    /// Where `count` blocks of data space lie in the image.
    pub fn runs(self, data: DataBlock, count: u64) -> Vec<Run> {
        let mut runs = Vec::with_capacity(1);
        let mut done = 0;
        while done < count {
            let run = self.run(DataBlock(data.0 + done), count - done);
            done += run.count;
            runs.push(run);
        }
        runs
    }

    /// The image block behind the last of data space's first `data_blocks`.
    pub fn image_end(self, data_blocks: u64) -> BlockNumber {
        match data_blocks.checked_sub(1) {
            None => BlockNumber(RESERVED_BLOCKS),
            Some(last) => BlockNumber(self.run(DataBlock(last), 1).start.0 + 1),
        }
    }

    /// The blocks at the start of `group` that hold superblock and descriptors, used or kept for growth.
    pub fn superblock_run(self, group: u64) -> Option<Run> {
        self.has_superblock(group).then_some(Run {
            start: BlockNumber(group * BLOCKS_PER_GROUP),
            count: 1 + DESCRIPTOR_BLOCKS,
        })
    }

    /// The nearest possible filesystem length, in blocks: one whose last group can hold its own superblock.
    pub fn adjust_length(self, blocks: u64, grow: bool) -> u64 {
        let last_group = blocks.saturating_sub(1) / BLOCKS_PER_GROUP;
        let start = last_group * BLOCKS_PER_GROUP;
        if last_group > 0 && self.has_superblock(last_group) && blocks - start < RESERVED_BLOCKS {
            return if grow { start + RESERVED_BLOCKS } else { start };
        }
        blocks
    }
}

fn is_power(mut value: u64, base: u64) -> bool {
    while value > 1 && value.is_multiple_of(base) {
        value /= base;
    }
    value == 1
}

/// Hands out blocks of data space in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocator {
    layout: Layout,
    next: u64,
}

impl Allocator {
    pub(crate) fn new(layout: Layout, next: DataBlock) -> Allocator {
        Allocator { layout, next: next.0 }
    }

    /// The blocks handed out so far, counted from the start of data space.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// `count` blocks in as few runs as possible.
    pub(crate) fn runs(&mut self, count: u64) -> Vec<Run> {
        let runs = self.layout.runs(DataBlock(self.next), count);
        self.next += count;
        runs
    }

    /// `count` blocks in one run. What is skipped to find them stays free.
    pub(crate) fn contiguous(&mut self, count: u64) -> BlockNumber {
        let run = self.layout.run(DataBlock(self.next), count);
        if run.count < count {
            self.next += run.count;
        }
        let run = self.layout.run(DataBlock(self.next), count);
        debug_assert_eq!(
            run.count, count,
            "what lies between two backups is longer than any table"
        );
        self.next += count;
        run.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Layout = Layout { online_resize: false };
    const ONLINE: Layout = Layout { online_resize: true };

    #[test]
    fn backups_stand_where_sparse_super_wants_them() {
        let groups: Vec<u64> = (0..130).filter(|&group| ONLINE.has_superblock(group)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
        assert_eq!((0..130).filter(|&group| PLAIN.has_superblock(group)).count(), 1);
    }

    #[test]
    fn plain_data_space_is_one_run() {
        let run = Run {
            start: BlockNumber(256 + 5),
            count: 1 << 20,
        };
        assert_eq!(PLAIN.runs(DataBlock(5), 1 << 20), [run]);
        assert_eq!(PLAIN.image_end(0), BlockNumber(256));
        assert_eq!(PLAIN.image_end(10), BlockNumber(266));
    }

    #[test]
    fn online_data_space_steps_over_backups_and_keeps_alignment() {
        let first = BLOCKS_PER_GROUP - 256;
        let expected = [
            Run {
                start: BlockNumber(BLOCKS_PER_GROUP - 1),
                count: 1,
            },
            Run {
                start: BlockNumber(BLOCKS_PER_GROUP + 256),
                count: 9,
            },
        ];
        assert_eq!(ONLINE.runs(DataBlock(first - 1), 10), expected);
        // Every block of four groups is met once, in order, except the kept ones.
        let all = ONLINE.runs(DataBlock(0), 3 * BLOCKS_PER_GROUP);
        for pair in all.windows(2) {
            assert_eq!(pair[0].start.0 + pair[0].count + 256, pair[1].start.0);
            assert!(pair[1].start.0.is_multiple_of(256));
        }
    }

    #[test]
    fn contiguous_never_straddles_a_backup() {
        let mut allocator = Allocator::new(ONLINE, DataBlock(BLOCKS_PER_GROUP - 256 - 3));
        assert_eq!(allocator.contiguous(2), BlockNumber(BLOCKS_PER_GROUP - 3));
        assert_eq!(allocator.contiguous(512), BlockNumber(BLOCKS_PER_GROUP + 256));
    }

    #[test]
    fn a_last_group_too_short_for_its_backup_is_avoided() {
        let short = BLOCKS_PER_GROUP + 100;
        assert_eq!(ONLINE.adjust_length(short, true), BLOCKS_PER_GROUP + 256);
        assert_eq!(ONLINE.adjust_length(short, false), BLOCKS_PER_GROUP);
        assert_eq!(PLAIN.adjust_length(short, false), short);
    }
}
