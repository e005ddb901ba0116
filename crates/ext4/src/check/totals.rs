//! Bitmaps and counts, against what was found in use.

use super::{Checker, Finding, narrow};
use crate::edit::groups::{bitmap_checksum, group_blocks, group_start};
use crate::format::group_flags;
use crate::read::bytes::{join, join16};
use crate::read::{FileType, Place, ReadAt, ReadError};

/// What a group's bitmaps and counts should be.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) blocks: Vec<u8>,
    pub(super) inodes: Vec<u8>,
    pub(super) free_blocks: u32,
    pub(super) free_inodes: u32,
    pub(super) directories: u32,
}

/// One of a group's two bitmaps.
struct Which<'a> {
    what: &'static str,
    place: Place,
    group: u32,
    /// Where it lies; `None` where it was never written.
    block: Option<u64>,
    /// Bits that count.
    count: u32,
    checksum: u32,
    expected: &'a [u8],
    /// What it would say of a group that nothing is used of.
    unwritten: &'a [u8],
    /// Number of the first block or inode.
    first: u64,
}

impl<R: ReadAt> Checker<'_, R> {
    /// Compares every group, and then the superblock.
    pub(super) fn totals(&mut self) -> Result<(), ReadError> {
        let (mut free_blocks, mut free_inodes) = (0_u64, 0_u64);
        for number in 0..self.filesystem.geometry.groups {
            let truth = self.truth_of(number);
            free_blocks = free_blocks.saturating_add(truth.free_blocks.into());
            free_inodes = free_inodes.saturating_add(truth.free_inodes.into());
            self.group(number, &truth)?;
        }
        let geometry = &self.filesystem.geometry;
        let high = match geometry.descriptor_size {
            0..64 => 0,
            _ => self.superblock.s_free_blocks_count_hi.get(),
        };
        let stored_blocks = join(self.superblock.s_free_blocks_count_lo.get(), high);
        let stored_inodes = u64::from(self.superblock.s_free_inodes_count.get());
        self.report.blocks_used = geometry.blocks.saturating_sub(free_blocks);
        self.report.inodes_used = u64::from(geometry.inodes).saturating_sub(free_inodes);
        let whose = "the superblock";
        self.compare(whose, "free blocks", stored_blocks, free_blocks);
        self.compare(whose, "free inodes", stored_inodes, free_inodes);
        self.report.fixes.free_blocks = free_blocks;
        self.report.fixes.free_inodes = u32::try_from(free_inodes).unwrap_or(u32::MAX);
        Ok(())
    }

    fn compare(&mut self, whose: &str, what: &'static str, stored: u64, computed: u64) -> bool {
        if stored != computed {
            self.report.add(Finding::Count {
                whose: whose.to_owned(),
                what,
                stored,
                computed,
            });
        }
        stored == computed
    }

    /// What a group's bitmaps and counts should be.
    fn truth_of(&self, group: u32) -> Truth {
        let geometry = &self.filesystem.geometry;
        let len = geometry.block_len();
        let bits = u64::from(geometry.block_size).saturating_mul(8);
        let mut truth = Truth {
            blocks: vec![0; len],
            inodes: vec![0; len],
            ..Truth::default()
        };
        let (start, blocks) = (group_start(geometry, group), group_blocks(geometry, group));
        for bit in 0..bits {
            let block = start.saturating_add(bit);
            let byte = self.blocks.get(narrow(block / 8)).copied().unwrap_or(0xff);
            let used = bit >= blocks || byte & (1 << (block % 8)) != 0;
            set(&mut truth.blocks, bit, used, &mut truth.free_blocks);
        }
        let per_group = u64::from(geometry.inodes_per_group);
        let first = group.saturating_mul(geometry.inodes_per_group).saturating_add(1);
        let behind = first.saturating_add(geometry.inodes_per_group);
        for bit in 0..bits {
            let number = u64::from(first).saturating_add(bit);
            let used = bit >= per_group || number < u64::from(geometry.first_inode);
            set(&mut truth.inodes, bit, used, &mut truth.free_inodes);
        }
        for (number, known) in self.inodes.range(first..behind) {
            let bit = u64::from(number.saturating_sub(first));
            if *number >= geometry.first_inode
                && let Some(byte) = truth.inodes.get_mut(narrow(bit / 8))
                && *byte & (1 << (bit % 8)) == 0
            {
                *byte |= 1 << (bit % 8);
                truth.free_inodes = truth.free_inodes.saturating_sub(1);
            }
            if known.kind == Some(FileType::Directory) {
                truth.directories = truth.directories.saturating_add(1);
            }
        }
        truth
    }

    /// What the bitmap of blocks says where it was never written.
    fn unwritten(&self, group: u32) -> Vec<u8> {
        let geometry = &self.filesystem.geometry;
        let mut bits = vec![0; geometry.block_len()];
        let (start, blocks) = (group_start(geometry, group), group_blocks(geometry, group));
        let mut ignored = 0;
        for bit in 0..u64::from(geometry.block_size).saturating_mul(8) {
            let used = bit >= blocks || self.is_system(start.saturating_add(bit));
            set(&mut bits, bit, used, &mut ignored);
        }
        bits
    }

    fn group(&mut self, number: u32, truth: &Truth) -> Result<(), ReadError> {
        let Some(group) = self.groups.get(narrow(number.into())) else {
            return Ok(());
        };
        let geometry = &self.filesystem.geometry;
        let lazy = self.is_lazy();
        let descriptor = &group.descriptor;
        let unwritten = match lazy && group.has_flag(group_flags::BLOCK_UNINIT) {
            true => self.unwritten(number),
            false => Vec::new(),
        };
        let mut no_inodes = vec![0; geometry.block_len()];
        let mut ignored = 0;
        for bit in 0..u64::from(geometry.block_size).saturating_mul(8) {
            let used = bit >= geometry.inodes_per_group.into();
            set(&mut no_inodes, bit, used, &mut ignored);
        }
        let written = |flag: u16, block: u64| (!lazy || !group.has_flag(flag)).then_some(block);
        let blocks = Which {
            what: "blocks",
            place: Place::BlockBitmap(number),
            group: number,
            block: written(group_flags::BLOCK_UNINIT, group.block_bitmap()),
            count: geometry.blocks_per_group,
            checksum: join16(
                descriptor.bg_block_bitmap_csum_lo.get(),
                descriptor.bg_block_bitmap_csum_hi.get(),
            ),
            expected: &truth.blocks,
            unwritten: &unwritten,
            first: group_start(geometry, number),
        };
        let inodes = Which {
            what: "inodes",
            place: Place::InodeBitmap(number),
            group: number,
            block: written(group_flags::INODE_UNINIT, group.inode_bitmap()),
            count: geometry.inodes_per_group,
            checksum: join16(
                descriptor.bg_inode_bitmap_csum_lo.get(),
                descriptor.bg_inode_bitmap_csum_hi.get(),
            ),
            expected: &truth.inodes,
            unwritten: &no_inodes,
            first: u64::from(number)
                .saturating_mul(geometry.inodes_per_group.into())
                .saturating_add(1),
        };
        let counts = [
            ("free blocks", group.free_blocks(), truth.free_blocks),
            ("free inodes", group.free_inodes(), truth.free_inodes),
            ("folders", group.directories(), truth.directories),
        ];
        let mut right = self.bitmap(&blocks)?;
        right &= self.bitmap(&inodes)?;
        let whose = format!("block group {number}");
        for (what, stored, computed) in counts {
            right &= self.compare(&whose, what, stored.into(), computed.into());
        }
        if !right {
            self.fix_group(number, truth);
        }
        Ok(())
    }

    /// Compares a bitmap with what is in use. `false` if it is wrong.
    fn bitmap(&mut self, which: &Which<'_>) -> Result<bool, ReadError> {
        let read = match which.block {
            None => None,
            Some(block) => Some(self.filesystem.read_block(block, which.place)?),
        };
        let mut right = true;
        let geometry = &self.filesystem.geometry;
        if let Some(bits) = &read
            && let Some(computed) = bitmap_checksum(geometry, bits, which.count)
        {
            let stored = match geometry.descriptor_size {
                0..64 => which.checksum & 0xffff,
                _ => which.checksum,
            };
            right &= self.report.checksum(which.place, stored, computed);
        }
        let bits = read.as_deref().unwrap_or(which.unwritten);
        let mut count = 0_u64;
        let mut first = None;
        for (at, (stored, expected)) in (0_u64..).zip(bits.iter().zip(which.expected)) {
            let wrong = stored ^ expected;
            if wrong != 0 {
                count = count.saturating_add(wrong.count_ones().into());
                let bit = at.saturating_mul(8).saturating_add(wrong.trailing_zeros().into());
                first.get_or_insert(which.first.saturating_add(bit));
            }
        }
        if let Some(first) = first {
            self.report.add(Finding::Bitmap {
                what: which.what,
                group: which.group,
                count,
                first,
            });
        }
        Ok(right && first.is_none())
    }
}

fn set(bits: &mut [u8], bit: u64, used: bool, free: &mut u32) {
    match bits.get_mut(narrow(bit / 8)) {
        Some(byte) if used => *byte |= 1 << (bit % 8),
        _ => *free = free.saturating_add(1),
    }
}
