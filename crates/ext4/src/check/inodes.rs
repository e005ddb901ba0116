//! Every inode: its fields, and the blocks that it takes.

use super::{Checker, Finding, Folder, Known, named, narrow, wide};
use crate::checksum::Crc;
use crate::format::{EXT4_ROOT_INO, InodeFields, compat, group_flags, incompat, inode_flags, ro_compat};
use crate::read::bytes::{join, u16_at, view, zero};
use crate::read::{FileType, Place, ReadAt, ReadError, type_of_mode};

/// Bytes of a table that are read at a time.
const PIECE: u64 = 1 << 20;
/// `i_flags`: immutable, and append only.
const IMMUTABLE: u32 = 0x10 | 0x20;
/// `i_flags`: content that is encrypted.
const ENCRYPTED: u32 = 0x800;
/// `i_flags`: for a filesystem of its own (AFS).
const IMAGIC: u32 = 0x2000;
/// `i_flags`: a folder that takes upper and lower case for the same.
const CASEFOLD: u32 = 0x4000_0000;
/// Bytes of `i_block`.
const BLOCK_FIELD: u64 = 60;

/// One inode as it lies in its table.
pub(super) struct Raw<'a> {
    pub(super) number: u32,
    pub(super) fields: InodeFields,
    pub(super) bytes: &'a [u8],
    /// What the checksums of all that belongs to it start from.
    pub(super) seed: Option<Crc>,
}

impl Raw<'_> {
    pub(super) fn has_flag(&self, flag: u32) -> bool {
        self.fields.i_flags.get() & flag != 0
    }

    pub(super) fn size(&self) -> u64 {
        join(self.fields.i_size_lo.get(), self.fields.i_size_high.get())
    }

    pub(super) fn kind(&self) -> Option<FileType> {
        type_of_mode(self.fields.i_mode.get())
    }

    pub(super) fn place(&self) -> Place {
        Place::Inode(named(self.number))
    }
}

/// An inode's checksum as it stands and as it should be.
pub(super) fn inode_sums(bytes: &[u8], seed: Crc) -> (u32, u32) {
    const LOW: usize = std::mem::offset_of!(InodeFields, i_checksum_lo);
    const HIGH: usize = std::mem::offset_of!(InodeFields, i_checksum_hi);
    let extra = u16_at(bytes, std::mem::offset_of!(InodeFields, i_extra_isize)).unwrap_or_default();
    let has_high = bytes.len() > 128 && extra >= 4;
    let mut cleared = bytes.to_vec();
    zero(&mut cleared, LOW, 2);
    let low = u32::from(u16_at(bytes, LOW).unwrap_or_default());
    if !has_high {
        return (low, seed.update(&cleared).value() & 0xffff);
    }
    zero(&mut cleared, HIGH, 2);
    let high = u32::from(u16_at(bytes, HIGH).unwrap_or_default());
    (low | (high << 16), seed.update(&cleared).value())
}

impl<R: ReadAt> Checker<'_, R> {
    /// Looks at every inode that a group does not call unused.
    pub(super) fn inodes(&mut self) -> Result<(), ReadError> {
        let geometry = self.filesystem.geometry.clone();
        let inode_bytes = u64::from(geometry.inode_size);
        for index in 0..geometry.groups {
            let Some(group) = self.groups.get(narrow(index.into())) else {
                continue;
            };
            let mut count = geometry.inodes_per_group;
            if self.is_lazy() {
                count = count.saturating_sub(group.unused_inodes());
                if group.has_flag(group_flags::INODE_UNINIT) {
                    count = 0;
                }
            }
            let first = index.saturating_mul(geometry.inodes_per_group).saturating_add(1);
            let start = group.inode_table().saturating_mul(geometry.block_size.into());
            let len = u64::from(count).saturating_mul(inode_bytes);
            let mut at = 0;
            let mut numbers = first..first.saturating_add(count);
            while at < len {
                let piece = PIECE.min(len.saturating_sub(at));
                let mut table = vec![0; narrow(piece)];
                let place = Place::GroupDescriptor(index);
                self.filesystem
                    .read_bytes(start.saturating_add(at), &mut table, place)?;
                for (raw, number) in table.chunks_exact(geometry.inode_size.into()).zip(&mut numbers) {
                    self.inode(number, raw)?;
                }
                at = at.saturating_add(piece);
            }
        }
        self.xattr_users();
        Ok(())
    }

    fn inode(&mut self, number: u32, bytes: &[u8]) -> Result<(), ReadError> {
        let mut long = [0; size_of::<InodeFields>()];
        long.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let Some(fields) = view::<InodeFields>(&long, 0).copied() else {
            return Ok(()); // never: it is as long
        };
        let seed = self.filesystem.geometry.seed;
        let raw = Raw {
            number,
            fields,
            bytes,
            seed: seed.map(|seed| seed.for_inode(number, fields.i_generation.get())),
        };
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        if let Some(seed) = raw.seed.filter(|_| !is_zero) {
            let (stored, computed) = inode_sums(bytes, seed);
            if !self.report.checksum(raw.place(), stored, computed) {
                self.report.fixes.inode(number);
            }
        }
        // Such a time of deletion is the next inode of the list of those that are being removed.
        let removed = fields.i_dtime.get();
        if removed != 0 && removed < self.filesystem.geometry.inodes {
            self.report.field(raw.place(), "i_dtime", removed.into());
        }
        if number < self.filesystem.geometry.first_inode && number != EXT4_ROOT_INO {
            return self.kept_inode(&raw);
        }
        if fields.i_links_count.get() == 0 {
            if fields.i_mode.get() != 0 && fields.i_dtime.get() == 0 {
                self.report
                    .wrong(raw.place(), "it has no name and was never deleted");
            }
            return Ok(());
        }
        if self.is_orphan_file(number) {
            return self.orphan_file(&raw);
        }
        if removed >= self.filesystem.geometry.inodes {
            self.report.field(raw.place(), "i_dtime", removed.into());
        }
        let known = Known {
            kind: raw.kind(),
            links: fields.i_links_count.get(),
            names: 0,
        };
        self.inodes.insert(number, known);
        self.fields_of(&raw);
        self.xattrs_of(&raw)?;
        self.content_of(&raw)
    }

    /// Fields that have no other place.
    fn fields_of(&mut self, raw: &Raw<'_>) {
        let fields = &raw.fields;
        let features = self.filesystem.geometry.features;
        let place = raw.place();
        let Some(kind) = raw.kind() else {
            self.report.field(place, "i_mode", fields.i_mode.get().into());
            return;
        };
        let extra = usize::from(fields.i_extra_isize.get());
        let room = raw.bytes.len().saturating_sub(128);
        if room > 0 && extra != 0 && (extra < 4 || extra > room || !extra.is_multiple_of(4)) {
            self.report.field(place, "i_extra_isize", wide(extra));
        }
        if fields.i_obso_faddr.get() != 0 {
            self.report
                .field(place, "i_faddr", fields.i_obso_faddr.get().into());
        }
        let is_folder = kind == FileType::Directory;
        if is_folder && fields.i_size_high.get() != 0 && !features.incompat(incompat::LARGEDIR) {
            self.report
                .field(place, "i_size_high", fields.i_size_high.get().into());
        }
        if !features.incompat(incompat::BIT64) && fields.i_file_acl_high.get() != 0 {
            self.report
                .field(place, "i_file_acl_high", fields.i_file_acl_high.get().into());
        }
        let huge = features.ro_compat(ro_compat::HUGE_FILE);
        if !huge && fields.i_blocks_high.get() != 0 {
            self.report
                .field(place, "i_blocks_high", fields.i_blocks_high.get().into());
        }
        let unsupported = inode_flags::INLINE_DATA | ENCRYPTED | IMAGIC | CASEFOLD;
        if raw.has_flag(unsupported) {
            self.report.field(place, "i_flags", fields.i_flags.get().into());
        }
        if raw.has_flag(inode_flags::INDEX) && (!is_folder || !features.compat(compat::DIR_INDEX)) {
            let fault = "it has the flag of an index, but is no folder that may have one";
            self.report.wrong(place, fault);
        }
        if raw.has_flag(inode_flags::EXTENTS) && !features.incompat(incompat::EXTENTS) {
            let fault = "it has extents, which the filesystem has not";
            self.report.wrong(place, fault);
        }
        let special = !matches!(kind, FileType::Regular | FileType::Directory | FileType::Symlink);
        if special {
            self.special(raw);
        }
    }

    /// Devices, FIFOs and sockets.
    fn special(&mut self, raw: &Raw<'_>) {
        if raw.size() != 0 {
            self.report.field(raw.place(), "i_size", raw.size());
        }
        if raw.has_flag(inode_flags::EXTENTS | inode_flags::INDEX) {
            let fault = "it is a device, FIFO or socket, and has a map of blocks";
            self.report.wrong(raw.place(), fault);
        }
        if raw.has_flag(IMMUTABLE) {
            let fault = "it is a device, FIFO or socket that must not change";
            self.report.wrong(raw.place(), fault);
        }
    }

    fn content_of(&mut self, raw: &Raw<'_>) -> Result<(), ReadError> {
        let block_bytes = u64::from(self.filesystem.geometry.block_size);
        let size = raw.size();
        let is_folder = raw.kind() == Some(FileType::Directory);
        let short_link = raw.kind() == Some(FileType::Symlink) && size < BLOCK_FIELD;
        let has_map = match raw.kind() {
            Some(FileType::Regular | FileType::Directory) => true,
            Some(FileType::Symlink) => !short_link,
            _ => false,
        };
        if short_link {
            self.short_link(raw);
        }
        let mut blocks = u64::from(xattr_block(&self.filesystem.geometry, raw) != 0);
        if has_map {
            let map = self.map_of(raw, is_folder)?;
            blocks = blocks.saturating_add(map.taken);
            let behind = map.last.map_or(0, |last| last.saturating_add(1));
            if is_folder {
                let length = size.checked_div(block_bytes).unwrap_or(0);
                if map.content.is_empty() {
                    self.report.wrong(raw.place(), "it is a folder without content");
                } else if !size.is_multiple_of(block_bytes) || length != map.behind {
                    self.report.field(raw.place(), "i_size", size);
                }
                let folder = Folder {
                    blocks: map.content,
                    length,
                    indexed: raw.has_flag(inode_flags::INDEX),
                    seed: raw.seed,
                    ..Folder::default()
                };
                self.folders.insert(raw.number, folder);
            } else if behind > 0 && behind.saturating_sub(1).saturating_mul(block_bytes) > size {
                let fault = "it has blocks behind its end";
                self.report.wrong(raw.place(), fault);
            } else if raw.kind() == Some(FileType::Symlink) {
                self.long_link(raw, map.first)?;
            }
            if size.div_ceil(block_bytes) > self.longest(raw) {
                self.report.field(raw.place(), "i_size", size);
            }
        }
        self.sectors(raw, blocks);
        Ok(())
    }

    /// How many blocks an inode may have at most.
    fn longest(&self, raw: &Raw<'_>) -> u64 {
        if raw.has_flag(inode_flags::EXTENTS) {
            return 1 << 32;
        }
        let per_block = u64::from(self.filesystem.geometry.block_size >> 2);
        (1..=3).fold(12_u64, |sum, level| {
            sum.saturating_add(per_block.saturating_pow(level))
        })
    }

    /// Compares `i_blocks` with what was found.
    pub(super) fn sectors(&mut self, raw: &Raw<'_>, blocks: u64) {
        let (stored, in_blocks) = self.said_sectors(raw);
        let computed = blocks.saturating_mul(self.sectors_per_block());
        if stored != computed {
            let value = if in_blocks { blocks } else { computed };
            self.report.fixes.sectors(raw.number, value);
            self.report.add(Finding::Sectors {
                inode: raw.number,
                stored,
                computed,
            });
        }
    }

    /// Whether an inode counts as many blocks.
    pub(super) fn has_sectors(&self, raw: &Raw<'_>, blocks: u64) -> bool {
        self.said_sectors(raw).0 == blocks.saturating_mul(self.sectors_per_block())
    }

    fn sectors_per_block(&self) -> u64 {
        u64::from(self.filesystem.geometry.block_size / 512)
    }

    /// How many sectors an inode says it has, and whether it says that in blocks.
    fn said_sectors(&self, raw: &Raw<'_>) -> (u64, bool) {
        let huge = self.filesystem.geometry.features.ro_compat(ro_compat::HUGE_FILE);
        let high = if huge { raw.fields.i_blocks_high.get() } else { 0 };
        let said = join(raw.fields.i_blocks_lo.get(), high.into());
        match huge && raw.has_flag(inode_flags::HUGE_FILE) {
            true => (said.saturating_mul(self.sectors_per_block()), true),
            false => (said, false),
        }
    }

    fn short_link(&mut self, raw: &Raw<'_>) {
        let place = Place::Symlink(named(raw.number));
        let size = raw.size();
        let len = raw.fields.i_block.iter().position(|byte| *byte == 0);
        if raw.has_flag(inode_flags::EXTENTS | inode_flags::INDEX) {
            let fault = "it is short, and has the flags of a map of blocks";
            self.report.wrong(place, fault);
        } else if size == 0 || len.map(wide) != Some(size) {
            self.report.field(place, "i_size", size);
        }
    }

    fn long_link(&mut self, raw: &Raw<'_>, block: Option<u64>) -> Result<(), ReadError> {
        let place = Place::Symlink(named(raw.number));
        let size = raw.size();
        let Some(block) = block.filter(|_| size < self.filesystem.geometry.block_size.into()) else {
            self.report.field(place, "i_size", size);
            return Ok(());
        };
        let bytes = self.filesystem.read_block(block, place)?;
        if bytes.iter().position(|byte| *byte == 0).map(wide) != Some(size) {
            self.report.field(place, "i_size", size);
        }
        Ok(())
    }
}

/// Where an inode says that its attributes are; 0 for nowhere.
pub(super) fn xattr_block(geometry: &crate::read::Geometry, raw: &Raw<'_>) -> u64 {
    let high = match geometry.features.incompat(incompat::BIT64) {
        true => raw.fields.i_file_acl_high.get(),
        false => 0,
    };
    join(raw.fields.i_file_acl_lo.get(), high.into())
}
