//! Block groups in memory: descriptors all, bitmaps as they are needed.

use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{EditError, Editor, Form, Target, low16, low32, narrow, wide};
use crate::checksum::crc16;
use crate::format::{GroupDesc, Superblock, group_flags, incompat};
use crate::read::bytes::{join, join16};
use crate::read::{Fault, Filesystem, Geometry, Place, ReadAt, ReadError, has_super, out_of_range};

/// A block group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) descriptor: GroupDesc,
    /// Where the descriptor lies, in bytes.
    pub(crate) offset: u64,
    changed: bool,
    /// One bit a block, as on disk; `None` until it is needed.
    pub(super) blocks: Option<Bitmap>,
    /// One bit an inode.
    pub(super) inodes: Option<Bitmap>,
}

/// A bitmap as it stands on disk, one block long.
#[derive(Debug)]
pub(super) struct Bitmap {
    pub(super) bits: Vec<u8>,
    pub(super) changed: bool,
}

impl Bitmap {
    pub(super) fn is_set(&self, bit: usize) -> bool {
        let byte = self.bits.get(bit / 8).copied().unwrap_or(0xff);
        (byte >> (bit % 8)) & 1 == 1
    }

    /// Sets or clears a bit.
    pub(super) fn put(&mut self, bit: usize, value: bool) {
        if let Some(byte) = self.bits.get_mut(bit / 8) {
            let mask = 1_u8 << (bit % 8);
            *byte = if value { *byte | mask } else { *byte & !mask };
            self.changed = true;
        }
    }
}

impl Group {
    pub(crate) fn block_bitmap(&self) -> u64 {
        join(
            self.descriptor.bg_block_bitmap_lo.get(),
            self.descriptor.bg_block_bitmap_hi.get(),
        )
    }

    pub(crate) fn inode_bitmap(&self) -> u64 {
        join(
            self.descriptor.bg_inode_bitmap_lo.get(),
            self.descriptor.bg_inode_bitmap_hi.get(),
        )
    }

    pub(crate) fn inode_table(&self) -> u64 {
        join(
            self.descriptor.bg_inode_table_lo.get(),
            self.descriptor.bg_inode_table_hi.get(),
        )
    }

    pub(crate) fn free_blocks(&self) -> u32 {
        join16(
            self.descriptor.bg_free_blocks_count_lo.get(),
            self.descriptor.bg_free_blocks_count_hi.get(),
        )
    }

    pub(super) fn set_free_blocks(&mut self, count: u32) {
        self.descriptor.bg_free_blocks_count_lo = low16(count.into()).into();
        self.descriptor.bg_free_blocks_count_hi = low16(u64::from(count >> 16)).into();
        self.changed = true;
    }

    pub(crate) fn free_inodes(&self) -> u32 {
        join16(
            self.descriptor.bg_free_inodes_count_lo.get(),
            self.descriptor.bg_free_inodes_count_hi.get(),
        )
    }

    pub(super) fn set_free_inodes(&mut self, count: u32) {
        self.descriptor.bg_free_inodes_count_lo = low16(count.into()).into();
        self.descriptor.bg_free_inodes_count_hi = low16(u64::from(count >> 16)).into();
        self.changed = true;
    }

    pub(crate) fn directories(&self) -> u32 {
        join16(
            self.descriptor.bg_used_dirs_count_lo.get(),
            self.descriptor.bg_used_dirs_count_hi.get(),
        )
    }

    pub(super) fn set_directories(&mut self, count: u32) {
        self.descriptor.bg_used_dirs_count_lo = low16(count.into()).into();
        self.descriptor.bg_used_dirs_count_hi = low16(u64::from(count >> 16)).into();
        self.changed = true;
    }

    pub(crate) fn unused_inodes(&self) -> u32 {
        join16(
            self.descriptor.bg_itable_unused_lo.get(),
            self.descriptor.bg_itable_unused_hi.get(),
        )
    }

    pub(super) fn set_unused_inodes(&mut self, count: u32) {
        self.descriptor.bg_itable_unused_lo = low16(count.into()).into();
        self.descriptor.bg_itable_unused_hi = low16(u64::from(count >> 16)).into();
        self.changed = true;
    }

    pub(crate) fn has_flag(&self, flag: u16) -> bool {
        self.descriptor.bg_flags.get() & flag != 0
    }

    pub(crate) fn clear_flag(&mut self, flag: u16) {
        self.descriptor.bg_flags = (self.descriptor.bg_flags.get() & !flag).into();
        self.changed = true;
    }

    /// Sets free blocks, free inodes and directories.
    pub(crate) fn set_counts(&mut self, blocks: u32, inodes: u32, directories: u32) {
        self.set_free_blocks(blocks);
        self.set_free_inodes(inodes);
        self.set_directories(directories);
    }

    /// Sets the checksum of the bitmap of blocks, if there is one.
    pub(crate) fn set_block_bitmap_sum(&mut self, sum: Option<u32>) {
        if let Some(sum) = sum {
            self.descriptor.bg_block_bitmap_csum_lo = low16(sum.into()).into();
            self.descriptor.bg_block_bitmap_csum_hi = low16(u64::from(sum >> 16)).into();
        }
    }

    /// Sets the checksum of the bitmap of inodes, if there is one.
    pub(crate) fn set_inode_bitmap_sum(&mut self, sum: Option<u32>) {
        if let Some(sum) = sum {
            self.descriptor.bg_inode_bitmap_csum_lo = low16(sum.into()).into();
            self.descriptor.bg_inode_bitmap_csum_hi = low16(u64::from(sum >> 16)).into();
        }
    }

    /// The descriptor's checksum as it should be.
    pub(crate) fn checksum(&self, group: u32, form: &GroupChecksum) -> Option<u16> {
        let mut cleared = self.descriptor;
        cleared.bg_checksum = 0.into();
        let bytes = cleared.as_bytes().get(..form.descriptor_len)?;
        match form.kind {
            ChecksumKind::Crc32c(seed) => {
                let value = seed.update(&group.to_le_bytes()).update(bytes).value();
                Some(low16(value.into()))
            }
            ChecksumKind::Crc16(uuid) => {
                let field = std::mem::offset_of!(GroupDesc, bg_checksum);
                let seed = crc16(crc16(0xffff, &uuid), &group.to_le_bytes());
                let front = crc16(seed, bytes.get(..field).unwrap_or_default());
                Some(crc16(
                    front,
                    bytes.get(field.saturating_add(2)..).unwrap_or_default(),
                ))
            }
            ChecksumKind::None => None,
        }
    }
}

/// How descriptors are checksummed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupChecksum {
    kind: ChecksumKind,
    descriptor_len: usize,
}

#[derive(Clone, Copy, Debug)]
enum ChecksumKind {
    Crc32c(crate::checksum::Crc),
    Crc16([u8; 16]),
    None,
}

impl GroupChecksum {
    pub(crate) fn of(geometry: &Geometry, uuid: [u8; 16], crc16: bool) -> GroupChecksum {
        let kind = match geometry.seed {
            Some(seed) => ChecksumKind::Crc32c(seed),
            None if crc16 => ChecksumKind::Crc16(uuid),
            None => ChecksumKind::None,
        };
        GroupChecksum {
            kind,
            descriptor_len: geometry.descriptor_size.min(64).into(),
        }
    }
}

/// Reads a group's descriptor, without judging it.
pub(crate) fn read_group<R: ReadAt>(filesystem: &Filesystem<R>, index: u32) -> Result<Group, ReadError> {
    let geometry = &filesystem.geometry;
    let place = Place::GroupDescriptor(index);
    let offset = filesystem
        .descriptor_offset(index)
        .ok_or_else(|| out_of_range(place, "s_first_meta_bg", geometry.first_meta_group.into()))?;
    let mut bytes = [0; 64];
    let len = usize::from(geometry.descriptor_size).min(64);
    filesystem.read_bytes(offset, bytes.get_mut(..len).unwrap_or_default(), place)?;
    let descriptor = GroupDesc::read_from_bytes(&bytes).map_err(|_| {
        // Never: both have 64 bytes.
        ReadError::corrupt(place, Fault::Structure("it is cut off"))
    })?;
    Ok(Group {
        descriptor,
        offset,
        changed: false,
        blocks: None,
        inodes: None,
    })
}

/// Blocks of one group's inode table.
pub(crate) fn table_blocks(geometry: &Geometry) -> u64 {
    u64::from(geometry.inodes_per_group)
        .saturating_mul(geometry.inode_size.into())
        .div_ceil(geometry.block_size.into())
}

/// Reads and checks all descriptors.
pub(super) fn load<R: ReadAt>(filesystem: &Filesystem<R>, form: &Form) -> Result<Vec<Group>, EditError> {
    let geometry = &filesystem.geometry;
    let checksums = GroupChecksum::of(geometry, filesystem.summary().uuid, form.crc16);
    let mut groups = Vec::new();
    for index in 0..geometry.groups {
        let place = Place::GroupDescriptor(index);
        let group = read_group(filesystem, index)?;
        let stored = group.descriptor.bg_checksum.get();
        if let Some(computed) = group.checksum(index, &checksums)
            && computed != stored
        {
            let (stored, computed) = (stored.into(), computed.into());
            return Err(ReadError::corrupt(place, Fault::Checksum { stored, computed }).into());
        }
        let within = |block: u64, count: u64| {
            block > u64::from(geometry.first_data_block)
                && block.checked_add(count).is_some_and(|end| end <= geometry.blocks)
        };
        for (field, block, count) in [
            ("bg_block_bitmap", group.block_bitmap(), 1),
            ("bg_inode_bitmap", group.inode_bitmap(), 1),
            ("bg_inode_table", group.inode_table(), table_blocks(geometry)),
        ] {
            if !within(block, count) {
                return Err(out_of_range(place, field, block).into());
            }
        }
        groups.push(group);
    }
    Ok(groups)
}

/// How many blocks at the start of a group hold a superblock and descriptors, used or kept for growth.
fn base_blocks(geometry: &Geometry, superblock: &Superblock, group: u32) -> u64 {
    let per_block = geometry
        .block_size
        .checked_div(geometry.descriptor_size.into())
        .unwrap_or(1);
    let table_blocks = geometry.groups.div_ceil(per_block.max(1));
    let meta_bg = geometry.features.incompat(incompat::META_BG);
    let has_super = has_super(geometry, group);
    let meta_group = group.checked_div(per_block).unwrap_or(0);
    if meta_bg && meta_group >= geometry.first_meta_group {
        let place = group.checked_rem(per_block).unwrap_or(0);
        let has_descriptors = place < 2 || Some(place) == per_block.checked_sub(1);
        return u64::from(has_super).saturating_add(has_descriptors.into());
    }
    if !has_super {
        return 0;
    }
    let table_blocks = if meta_bg {
        geometry.first_meta_group
    } else {
        table_blocks
    };
    1_u64
        .saturating_add(table_blocks.into())
        .saturating_add(superblock.s_reserved_gdt_blocks.get().into())
}

/// The blocks of the filesystem itself, as runs that may overlap: first block, behind the last, and whose they are.
pub(crate) fn system_runs(geometry: &Geometry, superblock: &Superblock, groups: &[Group]) -> Vec<(u64, u64)> {
    let mut runs = Vec::new();
    // With blocks of 1024 bytes, what lies before the superblock belongs to no group.
    runs.push((0, u64::from(geometry.first_data_block)));
    for (index, group) in (0_u32..).zip(groups) {
        let start = group_start(geometry, index);
        let base = base_blocks(geometry, superblock, index);
        runs.push((start, start.saturating_add(base)));
        for block in [group.block_bitmap(), group.inode_bitmap()] {
            runs.push((block, block.saturating_add(1)));
        }
        let table = group.inode_table();
        runs.push((table, table.saturating_add(table_blocks(geometry))));
    }
    runs.retain(|(start, end)| start < end);
    runs
}

/// As [`system_runs`], in rising order and joined.
pub(crate) fn system_blocks(
    geometry: &Geometry,
    superblock: &Superblock,
    groups: &[Group],
) -> Vec<(u64, u64)> {
    let mut runs = system_runs(geometry, superblock, groups);
    runs.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in runs {
        match joined.last_mut() {
            Some((_, last)) if *last >= start => *last = end.max(*last),
            _ => joined.push((start, end)),
        }
    }
    joined
}

/// The first block of a group.
pub(crate) fn group_start(geometry: &Geometry, group: u32) -> u64 {
    u64::from(group)
        .saturating_mul(geometry.blocks_per_group.into())
        .saturating_add(geometry.first_data_block.into())
}

/// How many blocks a group has: the last may be shorter.
pub(crate) fn group_blocks(geometry: &Geometry, group: u32) -> u64 {
    let start = group_start(geometry, group);
    geometry
        .blocks
        .saturating_sub(start)
        .min(geometry.blocks_per_group.into())
}

/// Computes a bitmap's checksum, of which descriptors of 32 bytes keep 16 bits.
pub(crate) fn bitmap_checksum(geometry: &Geometry, bits: &[u8], count: u32) -> Option<u32> {
    let len = narrow(u64::from(count).div_ceil(8));
    let value = geometry.seed?.update(bits.get(..len)?).value();
    Some(match geometry.descriptor_size {
        0..64 => value & 0xffff,
        _ => value,
    })
}

impl<T: Target> Editor<T> {
    /// The bitmap of a group's blocks.
    pub(super) fn block_bits(&mut self, index: usize) -> Result<&mut Bitmap, EditError> {
        let number = low32(wide(index));
        if self.group(index).is_some_and(|group| group.blocks.is_none()) {
            let bits = self.load_block_bits(index, number)?;
            if let Some(group) = self.groups.get_mut(index) {
                group.blocks = Some(Bitmap { bits, changed: false });
            }
        }
        let loaded = self.groups.get_mut(index).and_then(|group| group.blocks.as_mut());
        loaded.ok_or_else(|| no_group(number))
    }

    fn load_block_bits(&self, index: usize, number: u32) -> Result<Vec<u8>, EditError> {
        let Some(group) = self.group(index) else {
            return Err(no_group(number));
        };
        if self.form.lazy_groups() && group.has_flag(group_flags::BLOCK_UNINIT) {
            return Ok(self.fresh_block_bits(number));
        }
        let place = Place::BlockBitmap(number);
        let geometry = &self.filesystem.geometry;
        let bits = self.filesystem.read_block(group.block_bitmap(), place)?;
        let stored = join16(
            group.descriptor.bg_block_bitmap_csum_lo.get(),
            group.descriptor.bg_block_bitmap_csum_hi.get(),
        );
        check_bitmap(geometry, &bits, geometry.blocks_per_group, stored, place)?;
        Ok(bits)
    }

    /// What the bitmap of a group says of which nothing is used but what belongs to the filesystem itself.
    fn fresh_block_bits(&self, number: u32) -> Vec<u8> {
        let geometry = &self.filesystem.geometry;
        let mut bitmap = Bitmap {
            bits: vec![0; self.form.block_len],
            changed: false,
        };
        let start = group_start(geometry, number);
        let blocks = group_blocks(geometry, number);
        let end = start.saturating_add(blocks);
        for (first, behind) in &self.system {
            for block in (*first).max(start)..(*behind).min(end) {
                bitmap.put(narrow(block.saturating_sub(start)), true);
            }
        }
        for bit in narrow(blocks)..self.form.block_len.saturating_mul(8) {
            bitmap.put(bit, true);
        }
        bitmap.bits
    }

    /// The bitmap of a group's inodes.
    pub(super) fn inode_bits(&mut self, index: usize) -> Result<&mut Bitmap, EditError> {
        let number = low32(wide(index));
        let per_group = self.filesystem.geometry.inodes_per_group;
        if self.group(index).is_some_and(|group| group.inodes.is_none()) {
            let bits = self.load_inode_bits(index, number, per_group)?;
            if let Some(group) = self.groups.get_mut(index) {
                group.inodes = Some(Bitmap { bits, changed: false });
            }
        }
        let loaded = self.groups.get_mut(index).and_then(|group| group.inodes.as_mut());
        loaded.ok_or_else(|| no_group(number))
    }

    fn load_inode_bits(&self, index: usize, number: u32, per_group: u32) -> Result<Vec<u8>, EditError> {
        let Some(group) = self.group(index) else {
            return Err(no_group(number));
        };
        if self.form.lazy_groups() && group.has_flag(group_flags::INODE_UNINIT) {
            let mut bitmap = Bitmap {
                bits: vec![0; self.form.block_len],
                changed: false,
            };
            for bit in narrow(per_group.into())..self.form.block_len.saturating_mul(8) {
                bitmap.put(bit, true);
            }
            return Ok(bitmap.bits);
        }
        let place = Place::InodeBitmap(number);
        let bits = self.filesystem.read_block(group.inode_bitmap(), place)?;
        let stored = join16(
            group.descriptor.bg_inode_bitmap_csum_lo.get(),
            group.descriptor.bg_inode_bitmap_csum_hi.get(),
        );
        check_bitmap(&self.filesystem.geometry, &bits, per_group, stored, place)?;
        Ok(bits)
    }

    /// Writes bitmaps and descriptors that changed.
    pub(super) fn flush_groups(&mut self) -> Result<(), EditError> {
        let geometry = self.filesystem.geometry.clone();
        let checksums = GroupChecksum::of(&geometry, self.filesystem.summary().uuid, self.form.crc16);
        let mut groups = std::mem::take(&mut self.groups);
        for (number, group) in (0_u32..).zip(&mut groups) {
            if let Some(bitmap) = group.blocks.as_ref().filter(|bitmap| bitmap.changed) {
                self.put_blocks(&bitmap.bits, group.block_bitmap(), Place::BlockBitmap(number))?;
                let sum = bitmap_checksum(&geometry, &bitmap.bits, geometry.blocks_per_group);
                group.set_block_bitmap_sum(sum);
            }
            if let Some(bitmap) = group.inodes.as_ref().filter(|bitmap| bitmap.changed) {
                self.put_blocks(&bitmap.bits, group.inode_bitmap(), Place::InodeBitmap(number))?;
                let sum = bitmap_checksum(&geometry, &bitmap.bits, geometry.inodes_per_group);
                group.set_inode_bitmap_sum(sum);
            }
            if group.changed {
                if let Some(checksum) = group.checksum(number, &checksums) {
                    group.descriptor.bg_checksum = checksum.into();
                }
                let len = usize::from(geometry.descriptor_size).min(64);
                let bytes = group.descriptor.as_bytes().get(..len).unwrap_or_default();
                self.put(bytes, group.offset, Place::GroupDescriptor(number))?;
            }
        }
        self.groups = groups;
        Ok(())
    }
}

fn no_group(number: u32) -> EditError {
    out_of_range(Place::GroupDescriptor(number), "a group number", number.into()).into()
}

fn check_bitmap(
    geometry: &Geometry,
    bits: &[u8],
    count: u32,
    stored: u32,
    place: Place,
) -> Result<(), ReadError> {
    let stored = match geometry.descriptor_size {
        0..64 => stored & 0xffff,
        _ => stored,
    };
    match bitmap_checksum(geometry, bits, count) {
        Some(computed) if computed != stored => {
            Err(ReadError::corrupt(place, Fault::Checksum { stored, computed }))
        }
        _ => Ok(()),
    }
}
