//! What is to be written where, so that what follows from the rest is right.

use std::collections::BTreeMap;

use zerocopy::IntoBytes as _;

use super::inodes::inode_sums;
use super::totals::Truth;
use super::{Checker, Report, named, narrow, wide};
use crate::edit::groups::{self, bitmap_checksum};
use crate::edit::{EditError, Target};
use crate::format::{InodeFields, SUPERBLOCK_OFFSET, XattrBlockHeader, group_flags};
use crate::read::bytes::u32_at;
use crate::read::{Place, ReadAt, ReadError};

/// What is wrong and how it should be, and then the bytes of it.
#[derive(Debug, Default)]
pub(super) struct Fixes {
    /// Inodes of which the checksum is wrong, or more.
    inodes: BTreeMap<u32, InodeFix>,
    /// Blocks of attributes, and how many inodes have them where they say another number.
    pub(super) xattr_blocks: BTreeMap<u64, Option<u32>>,
    pub(super) free_blocks: u64,
    pub(super) free_inodes: u32,
    /// Bytes by their offset in the image.
    patches: Vec<(u64, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct InodeFix {
    links: Option<u16>,
    /// `i_blocks`, in its own unit.
    sectors: Option<u64>,
}

impl Fixes {
    pub(super) fn inode(&mut self, number: u32) {
        self.inodes.entry(number).or_default();
    }

    pub(super) fn links(&mut self, number: u32, links: u16) {
        self.inodes.entry(number).or_default().links = Some(links);
    }

    pub(super) fn sectors(&mut self, number: u32, value: u64) {
        self.inodes.entry(number).or_default().sectors = Some(value);
    }
}

impl Report {
    /// Puts right all that was found. `target` is a copy of the image that was checked.
    ///
    /// # Errors
    /// [`EditError::Beyond`] where something was found that needs a decision: nothing is written then;
    /// [`EditError::Write`] where the host fails.
    pub fn repair<T: Target>(&self, target: &T) -> Result<(), EditError> {
        if !self.is_repairable() {
            return Err(EditError::Beyond);
        }
        for (offset, bytes) in &self.fixes.patches {
            let written = target.write_all_at(bytes, *offset);
            written.map_err(|source| EditError::Write {
                offset: *offset,
                len: wide(bytes.len()),
                source,
            })?;
        }
        Ok(())
    }
}

impl<R: ReadAt> Checker<'_, R> {
    fn patch(&mut self, offset: u64, bytes: &[u8]) {
        self.report.fixes.patches.push((offset, bytes.to_vec()));
    }

    fn block_offset(&self, block: u64) -> u64 {
        block.saturating_mul(self.filesystem.geometry.block_size.into())
    }

    /// Notes a checksum of four bytes within a block.
    pub(super) fn fix_in_block(&mut self, block: u64, at: usize, checksum: u32) {
        let offset = self.block_offset(block).saturating_add(wide(at));
        self.patch(offset, &checksum.to_le_bytes());
    }

    /// Notes the bitmaps and the counts of a group.
    pub(super) fn fix_group(&mut self, number: u32, truth: &Truth) {
        let geometry = self.filesystem.geometry.clone();
        let lazy = self.is_lazy();
        let sum = |bits: &[u8], count| bitmap_checksum(&geometry, bits, count);
        let block_sum = sum(&truth.blocks, geometry.blocks_per_group);
        let inode_sum = sum(&truth.inodes, geometry.inodes_per_group);
        let Some(group) = self.groups.get_mut(narrow(number.into())) else {
            return;
        };
        group.set_counts(truth.free_blocks, truth.free_inodes, truth.directories);
        let mut blocks = Vec::new();
        // An unwritten bitmap that says too little must be written; one that is right may stay unwritten: so it is only
        // written where it was, or where blocks of the group are in use.
        group.clear_flag(group_flags::BLOCK_UNINIT);
        group.set_block_bitmap_sum(block_sum);
        blocks.push((group.block_bitmap(), &truth.blocks));
        if !lazy || !group.has_flag(group_flags::INODE_UNINIT) {
            group.set_inode_bitmap_sum(inode_sum);
            blocks.push((group.inode_bitmap(), &truth.inodes));
        }
        for (block, bits) in blocks {
            self.patch(self.block_offset(block), bits);
        }
    }

    /// Makes the bytes of all that is to be written, once everything is known.
    pub(super) fn fixes(&mut self) -> Result<(), ReadError> {
        if !self.report.is_repairable() || self.report.is_clean() {
            self.report.fixes = Fixes::default();
            return Ok(());
        }
        for (number, fix) in std::mem::take(&mut self.report.fixes.inodes) {
            self.inode_bytes(number, &fix)?;
        }
        for (block, users) in std::mem::take(&mut self.report.fixes.xattr_blocks) {
            self.xattr_bytes(block, users)?;
        }
        let checksums = self.group_checksum();
        let len = usize::from(self.filesystem.geometry.descriptor_size).min(64);
        let mut descriptors = Vec::new();
        for (number, group) in (0_u32..).zip(&mut self.groups) {
            if let Some(checksum) = group.checksum(number, &checksums) {
                group.descriptor.bg_checksum = checksum.into();
            }
            let bytes = group.descriptor.as_bytes().get(..len).unwrap_or_default();
            descriptors.push((group.offset, bytes.to_vec()));
        }
        self.report.fixes.patches.append(&mut descriptors);
        let mut superblock = self.superblock;
        let free = self.report.fixes.free_blocks;
        superblock.s_free_blocks_count_lo = u32::try_from(free & 0xffff_ffff).unwrap_or_default().into();
        if self.filesystem.geometry.descriptor_size > 32 {
            superblock.s_free_blocks_count_hi = u32::try_from(free >> 32).unwrap_or_default().into();
        }
        superblock.s_free_inodes_count = self.report.fixes.free_inodes.into();
        let superblock = self.sealed_superblock(superblock);
        self.patch(SUPERBLOCK_OFFSET, superblock.as_bytes());
        Ok(())
    }

    fn inode_bytes(&mut self, number: u32, fix: &InodeFix) -> Result<(), ReadError> {
        const HIGH: usize = std::mem::offset_of!(InodeFields, i_checksum_hi);
        let geometry = &self.filesystem.geometry;
        let index = number.saturating_sub(1);
        let group = index.checked_div(geometry.inodes_per_group).unwrap_or(0);
        let within = index.checked_rem(geometry.inodes_per_group).unwrap_or(0);
        let Some(table) = self
            .groups
            .get(narrow(group.into()))
            .map(groups::Group::inode_table)
        else {
            return Ok(()); // never: it was read there
        };
        let inode_bytes = u64::from(geometry.inode_size);
        let offset = self
            .block_offset(table)
            .saturating_add(u64::from(within).saturating_mul(inode_bytes));
        let mut bytes = vec![0; geometry.inode_size.into()];
        let place = Place::Inode(named(number));
        self.filesystem.read_bytes(offset, &mut bytes, place)?;
        if let Some(links) = fix.links {
            let field = std::mem::offset_of!(InodeFields, i_links_count);
            put(&mut bytes, field, &links.to_le_bytes());
        }
        if let Some(sectors) = fix.sectors {
            let [a, b, c, d, e, f, ..] = sectors.to_le_bytes();
            put(
                &mut bytes,
                std::mem::offset_of!(InodeFields, i_blocks_lo),
                &[a, b, c, d],
            );
            put(
                &mut bytes,
                std::mem::offset_of!(InodeFields, i_blocks_high),
                &[e, f],
            );
        }
        if let Some(seed) = geometry.seed {
            let generation = u32_at(&bytes, std::mem::offset_of!(InodeFields, i_generation));
            let seed = seed.for_inode(number, generation.unwrap_or_default());
            let (_, computed) = inode_sums(&bytes, seed);
            let [a, b, c, d] = computed.to_le_bytes();
            put(
                &mut bytes,
                std::mem::offset_of!(InodeFields, i_checksum_lo),
                &[a, b],
            );
            let extra = u32_at(&bytes, std::mem::offset_of!(InodeFields, i_extra_isize));
            if bytes.len() > 128 && extra.unwrap_or_default() & 0xffff >= 4 {
                put(&mut bytes, HIGH, &[c, d]);
            }
        }
        self.patch(offset, &bytes);
        Ok(())
    }

    fn xattr_bytes(&mut self, block: u64, users: Option<u32>) -> Result<(), ReadError> {
        let mut bytes = self.filesystem.read_block(block, Place::Superblock)?;
        if let Some(users) = users {
            let field = std::mem::offset_of!(XattrBlockHeader, h_refcount);
            put(&mut bytes, field, &users.to_le_bytes());
        }
        if let Some(checksum) = self.xattr_sum(&bytes, block) {
            let field = std::mem::offset_of!(XattrBlockHeader, h_checksum);
            put(&mut bytes, field, &checksum.to_le_bytes());
        }
        self.patch(self.block_offset(block), &bytes);
        Ok(())
    }
}

/// Overwrites bytes at an offset, as far as they are there.
fn put(bytes: &mut [u8], offset: usize, new: &[u8]) {
    let field = offset..offset.saturating_add(new.len());
    if let Some(field) = bytes.get_mut(field) {
        field.copy_from_slice(new);
    }
}
