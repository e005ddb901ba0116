//! Inodes that no name leads to: reserved ones, and the file of orphans.

use super::inodes::Raw;
use super::{Checker, Finding, Known, wide};
use crate::format::{EXT4_JOURNAL_INO, EXT4_RESIZE_INO, compat};
use crate::read::bytes::u32_at;
use crate::read::{FileType, ReadAt, ReadError, has_super};

/// Inodes by number: the list of bad blocks, files of quotas, and the boot loader.
const BAD_BLOCKS: u32 = 1;
const USER_QUOTA: u32 = 3;
const GROUP_QUOTA: u32 = 4;
const BOOT_LOADER: u32 = 5;
/// The double indirect block's place in `i_block`.
const DOUBLE: usize = 13;
/// `h_magic` of the journal, in big endian.
const JOURNAL_MAGIC: u32 = 0xc03b_3998;
/// `s_feature_compat`: there is a file of orphans.
const ORPHAN_FILE: u32 = 0x1000;
/// Where `s_orphan_file_inum` stands in what our superblock keeps as reserved.
const ORPHAN_FILE_FIELD: usize = 12;
/// What `e2fsck` does not look at, and the kernel wants when a mounted filesystem grows.
const CANNOT_GROW: &str =
    "the blocks for more descriptors are not linked as the kernel wants, so it cannot grow";
/// The magic number at the end of each block of the file of orphans.
const ORPHAN_MAGIC: u32 = 0x0b10_ca04;

impl<R: ReadAt> Checker<'_, R> {
    /// An inode below `s_first_ino`, other than the root's.
    pub(super) fn kept_inode(&mut self, raw: &Raw<'_>) -> Result<(), ReadError> {
        let features = self.filesystem.geometry.features;
        let in_use = raw.fields.i_links_count.get() != 0
            || raw.fields.i_blocks_lo.get() != 0
            || raw.fields.i_block.iter().any(|byte| *byte != 0);
        match raw.number {
            BAD_BLOCKS => {
                if raw.fields.i_mode.get() != 0 || in_use {
                    let fault = "it lists bad blocks, which an image has not";
                    self.report.wrong(raw.place(), fault);
                }
                Ok(())
            }
            EXT4_RESIZE_INO if features.compat(compat::RESIZE_INODE) => self.resize_inode(raw),
            EXT4_JOURNAL_INO if self.superblock.s_journal_inum.get() == EXT4_JOURNAL_INO => self.journal(raw),
            EXT4_RESIZE_INO | EXT4_JOURNAL_INO if in_use => {
                let fault = "it is not in use by this filesystem, but is not empty";
                self.report.wrong(raw.place(), fault);
                Ok(())
            }
            BOOT_LOADER if raw.kind() != Some(FileType::Directory) => Ok(()),
            USER_QUOTA | GROUP_QUOTA | EXT4_JOURNAL_INO => Ok(()),
            _ => {
                if raw.fields.i_mode.get() != 0 {
                    self.report
                        .field(raw.place(), "i_mode", raw.fields.i_mode.get().into());
                }
                Ok(())
            }
        }
    }

    /// The journal: a file whose first block says that there is nothing to replay.
    fn journal(&mut self, raw: &Raw<'_>) -> Result<(), ReadError> {
        let place = raw.place();
        if !self.filesystem.geometry.features.compat(compat::HAS_JOURNAL) {
            let fault = "it is a journal, which the filesystem says it has not";
            self.report.wrong(place, fault);
        }
        if raw.kind() != Some(FileType::Regular) || raw.fields.i_links_count.get() == 0 {
            self.report.field(place, "i_mode", raw.fields.i_mode.get().into());
            return Ok(());
        }
        let map = self.map_of(raw, false)?;
        self.sectors(raw, map.taken);
        let block_size = u64::from(self.filesystem.geometry.block_size);
        let Some(first) = map.first.filter(|first| self.is_block(*first)) else {
            self.report.wrong(place, "it is a journal without blocks");
            return Ok(());
        };
        let bytes = self.filesystem.read_block(first, place)?;
        let word = |at: usize| u32_at(&bytes, at).unwrap_or_default().swap_bytes();
        let (magic, kind, size, length, start) = (word(0), word(4), word(12), word(16), word(28));
        if magic != JOURNAL_MAGIC || !(3..=4).contains(&kind) {
            self.report.wrong(place, "it is a journal that has no head");
        } else if u64::from(size) != block_size {
            self.report
                .field(place, "s_blocksize of the journal", size.into());
        } else if u64::from(length) > map.behind {
            self.report.field(place, "s_maxlen of the journal", length.into());
        } else if start != 0 {
            let fault = "its journal has changes, and the filesystem does not say that they must be replayed";
            self.report.wrong(place, fault);
        }
        Ok(())
    }

    /// The inode that holds the blocks that descriptors may grow into: for each such block, its copies in all backups.
    fn resize_inode(&mut self, raw: &Raw<'_>) -> Result<(), ReadError> {
        let place = raw.place();
        let roots = raw.fields.i_block;
        let others = (0..15_usize).filter(|root| *root != DOUBLE);
        let mut numbers = others.map(|root| u32_at(&roots, root.saturating_mul(4)).unwrap_or_default());
        let is_other = numbers.any(|number| number != 0);
        let double = u64::from(u32_at(&roots, DOUBLE.saturating_mul(4)).unwrap_or_default());
        let is_file = raw.kind() == Some(FileType::Regular) && raw.fields.i_links_count.get() != 0;
        if is_other || !is_file || !self.is_block(double) {
            let fault = "it does not hold the blocks for more descriptors";
            self.report.wrong(place, fault);
            return Ok(());
        }
        if !self.mark(double) {
            self.report.add(Finding::Shared {
                block: double,
                inode: raw.number,
            });
        }
        let list = self.filesystem.read_block(double, place)?;
        let mut blocks = 1_u64;
        let mut illegal = false;
        let mut linked = true;
        for (at, number) in (0_u32..).zip(list.chunks_exact(4)) {
            let number = u64::from(u32_at(number, 0).unwrap_or_default());
            if number == 0 {
                linked &= !self.grows_at(at, number);
                continue;
            }
            if !self.is_block(number) {
                illegal = true;
                continue;
            }
            linked &= self.grows_at(at, number);
            blocks = blocks.saturating_add(1);
            let copies = self.filesystem.read_block(number, place)?;
            let copies: Vec<u64> = copies
                .chunks_exact(4)
                .map(|word| u32_at(word, 0).unwrap_or_default().into())
                .filter(|copy| *copy != 0)
                .collect();
            illegal |= copies.iter().any(|copy| !self.is_block(*copy));
            linked &= copies.iter().copied().eq(self.copies_of(number));
            blocks = blocks.saturating_add(wide(copies.len()));
        }
        if illegal {
            let fault = "it names blocks that the filesystem does not have";
            self.report.wrong(place, fault);
        } else if linked {
            self.sectors(raw, blocks);
        } else if !self.has_sectors(raw, blocks) {
            let fault = "it does not hold the blocks for more descriptors, and counts others";
            self.report.wrong(place, fault);
        } else {
            self.report.notes.push(CANNOT_GROW);
        }
        Ok(())
    }

    /// Whether entry `at` of the resize inode's list should name `block`; 0 where it should name one at all.
    fn grows_at(&self, at: u32, block: u64) -> bool {
        let geometry = &self.filesystem.geometry;
        let descriptors = geometry
            .block_size
            .checked_div(geometry.descriptor_size.into())
            .unwrap_or(1);
        let table = geometry.groups.div_ceil(descriptors.max(1));
        let kept = u32::from(self.superblock.s_reserved_gdt_blocks.get());
        let per_block = geometry.block_size / 4;
        let slot = |growth: u32| table.saturating_add(growth).checked_rem(per_block);
        let Some(growth) = (0..kept).find(|growth| slot(*growth) == Some(at)) else {
            return false;
        };
        let expected = u64::from(geometry.first_data_block)
            .saturating_add(1)
            .saturating_add(table.saturating_add(growth).into());
        block == 0 || block == expected
    }

    /// Where the backups have their copies of a block for descriptors.
    fn copies_of(&self, block: u64) -> impl Iterator<Item = u64> {
        let geometry = self.filesystem.geometry.clone();
        (1..geometry.groups)
            .filter(move |group| has_super(&geometry, *group))
            .map({
                let per_group = u64::from(self.filesystem.geometry.blocks_per_group);
                move |group| u64::from(group).saturating_mul(per_group).saturating_add(block)
            })
    }

    /// Whether an inode is the file of orphans.
    pub(super) fn is_orphan_file(&self, number: u32) -> bool {
        self.filesystem.geometry.features.compat(ORPHAN_FILE)
            && u32_at(&self.superblock.s_reserved, ORPHAN_FILE_FIELD) == Some(number)
    }

    /// The file of orphans, which must name none.
    pub(super) fn orphan_file(&mut self, raw: &Raw<'_>) -> Result<(), ReadError> {
        let known = Known {
            kind: None,
            links: 0,
            names: 0,
        };
        self.inodes.insert(raw.number, known);
        if raw.kind() != Some(FileType::Regular) {
            self.report
                .field(raw.place(), "i_mode", raw.fields.i_mode.get().into());
            return Ok(());
        }
        let map = self.map_of(raw, true)?;
        self.sectors(raw, map.taken);
        let block_len = self.filesystem.geometry.block_len();
        for block in map.content.values().copied() {
            let bytes = self.filesystem.read_block(block, raw.place())?;
            let tail = block_len.saturating_sub(8);
            let names = bytes.get(..tail).unwrap_or_default();
            if u32_at(&bytes, tail) != Some(ORPHAN_MAGIC) {
                self.report
                    .wrong(raw.place(), "it is the file of orphans, and a block has no end");
            } else if names.iter().any(|byte| *byte != 0) {
                self.report
                    .wrong(raw.place(), "it names files that were being removed");
            }
            let number = block.to_le_bytes();
            let seed = raw.seed.map(|seed| seed.update(&number).update(names).value());
            if let (Some(computed), Some(stored)) = (seed, u32_at(&bytes, tail.saturating_add(4)))
                && !self.report.checksum(raw.place(), stored, computed)
            {
                self.fix_in_block(block, tail.saturating_add(4), computed);
            }
        }
        Ok(())
    }
}
