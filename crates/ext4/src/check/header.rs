//! The superblock and the descriptors.

use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{Checker, Finding, Report};
use crate::checksum::Crc;
use crate::edit::groups::{self, GroupChecksum};
use crate::edit::open::WRITABLE;
use crate::format::{EXT4_SUPER_MAGIC, SUPERBLOCK_OFFSET, Superblock, compat, ro_compat};
use crate::read::{Fault, Features, Place, ReadAt, ReadError, out_of_range};

/// Refuses what would be checked wrong, by name.
pub(super) fn supported(features: Features) -> Result<(), ReadError> {
    let names = features.besides(WRITABLE).names();
    if names.is_empty() {
        return Ok(());
    }
    Err(ReadError::Unsupported {
        feature: names.join(", "),
    })
}

/// Reads the superblock, with its checksum put right.
pub(super) fn read_superblock<R: ReadAt>(image: &R, report: &mut Report) -> Result<Superblock, ReadError> {
    let host = |source| ReadError::Host {
        offset: SUPERBLOCK_OFFSET,
        len: 1024,
        source,
    };
    let claimed = SUPERBLOCK_OFFSET.saturating_mul(2);
    let actual = image.size_bytes().map_err(host)?;
    if actual < claimed {
        let fault = Fault::TooShort { claimed, actual };
        return Err(ReadError::corrupt(Place::Superblock, fault));
    }
    let mut bytes = [0; 1024];
    image.read_exact_at(&mut bytes, SUPERBLOCK_OFFSET).map_err(host)?;
    let mut superblock = Superblock::read_from_bytes(&bytes).unwrap_or_else(|_| {
        // Never: both have 1024 bytes.
        zerocopy::FromZeros::new_zeroed()
    });
    if superblock.s_magic.get() != EXT4_SUPER_MAGIC {
        return Err(out_of_range(
            Place::Superblock,
            "s_magic",
            superblock.s_magic.get().into(),
        ));
    }
    let checksums = superblock.s_feature_ro_compat.get() & ro_compat::METADATA_CSUM != 0;
    if checksums && superblock.s_rev_level.get() != 0 {
        let covered = bytes.get(..std::mem::offset_of!(Superblock, s_checksum));
        let computed = Crc::new().update(covered.unwrap_or_default()).value();
        report.checksum(Place::Superblock, superblock.s_checksum.get(), computed);
        superblock.s_checksum = computed.into();
    }
    Ok(superblock)
}

impl<R: ReadAt> Checker<'_, R> {
    /// What the superblock says of itself.
    fn notes(&mut self) {
        let state = self.filesystem.summary().state;
        if state.errors {
            self.report.notes.push("a kernel met errors in it");
        }
        if !state.clean {
            self.report.notes.push("it was not unmounted cleanly");
        }
        if self.superblock.s_last_orphan.get() != 0 {
            let note = "files were being removed when it was last in use";
            self.report.notes.push(note);
        }
    }

    /// Fields of the superblock that nothing else depends on.
    pub(super) fn superblock(&mut self) {
        self.notes();
        let superblock = self.superblock;
        let geometry = &self.filesystem.geometry;
        let cluster_as_block = superblock.s_log_cluster_size == superblock.s_log_block_size;
        let reserved = self.filesystem.summary().reserved_blocks;
        let groups_per_cluster = superblock.s_clusters_per_group == superblock.s_blocks_per_group;
        let in_future_revision = superblock.s_rev_level.get() > 1;
        let wrong = [
            (
                "s_log_cluster_size",
                u64::from(superblock.s_log_cluster_size.get()),
                cluster_as_block,
            ),
            (
                "s_clusters_per_group",
                superblock.s_clusters_per_group.get().into(),
                groups_per_cluster,
            ),
            (
                "s_r_blocks_count",
                reserved,
                reserved <= geometry.blocks.div_ceil(2),
            ),
            (
                "s_rev_level",
                superblock.s_rev_level.get().into(),
                !in_future_revision,
            ),
            (
                "s_reserved_gdt_blocks",
                superblock.s_reserved_gdt_blocks.get().into(),
                u32::from(superblock.s_reserved_gdt_blocks.get()) <= geometry.block_size / 4,
            ),
            (
                "s_log_groups_per_flex",
                superblock.s_log_groups_per_flex.into(),
                superblock.s_log_groups_per_flex < 32,
            ),
            (
                "s_first_ino",
                geometry.first_inode.into(),
                geometry.first_inode <= geometry.inodes,
            ),
            (
                "s_blocks_per_group",
                geometry.blocks_per_group.into(),
                geometry.blocks_per_group.is_multiple_of(8) && geometry.blocks_per_group >= 64,
            ),
            (
                "s_inodes_per_group",
                geometry.inodes_per_group.into(),
                geometry.inodes_per_group.is_multiple_of(8),
            ),
        ];
        for (field, value, right) in wrong {
            if !right {
                self.report.field(Place::Superblock, field, value);
            }
        }
        let no_resize = !geometry.features.compat(compat::RESIZE_INODE);
        if no_resize && superblock.s_reserved_gdt_blocks.get() != 0 && !self.has_meta_bg() {
            let fault = "it keeps blocks for descriptors to grow into without the feature resize_inode";
            self.report.wrong(Place::Superblock, fault);
        }
    }

    fn has_meta_bg(&self) -> bool {
        self.filesystem
            .geometry
            .features
            .incompat(crate::format::incompat::META_BG)
    }

    /// Whether groups may say that their tables were never written.
    pub(super) fn is_lazy(&self) -> bool {
        let features = self.filesystem.geometry.features;
        features.ro_compat(ro_compat::METADATA_CSUM) || features.ro_compat(ro_compat::GDT_CSUM)
    }

    pub(super) fn group_checksum(&self) -> GroupChecksum {
        let geometry = &self.filesystem.geometry;
        let crc16 = geometry.seed.is_none() && geometry.features.ro_compat(ro_compat::GDT_CSUM);
        GroupChecksum::of(geometry, self.filesystem.summary().uuid, crc16)
    }

    /// Reads all descriptors. `false` if they cannot be used.
    pub(super) fn descriptors(&mut self) -> Result<bool, ReadError> {
        let geometry = &self.filesystem.geometry;
        let checksums = self.group_checksum();
        let mut good = true;
        let mut sums = 0_u32;
        for index in 0..geometry.groups {
            let place = Place::GroupDescriptor(index);
            let group = match groups::read_group(self.filesystem, index) {
                Ok(group) => group,
                Err(error @ ReadError::Corrupt { .. }) => {
                    self.report.add(Finding::Structure(error));
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
            let stored = u32::from(group.descriptor.bg_checksum.get());
            if let Some(computed) = group.checksum(index, &checksums).map(u32::from)
                && !self.report.checksum(place, stored, computed)
            {
                sums = sums.saturating_add(1);
            }
            let table = groups::table_blocks(geometry);
            for (field, block, count) in [
                ("bg_block_bitmap", group.block_bitmap(), 1),
                ("bg_inode_bitmap", group.inode_bitmap(), 1),
                ("bg_inode_table", group.inode_table(), table),
            ] {
                let end = block.checked_add(count);
                let inside = block > u64::from(geometry.first_data_block)
                    && end.is_some_and(|end| end <= geometry.blocks);
                if !inside || !self.is_in_its_group(index, block, count) {
                    self.report.field(place, field, block);
                    good = false;
                }
            }
            if self.is_lazy() && group.unused_inodes() > geometry.inodes_per_group {
                self.report
                    .field(place, "bg_itable_unused", group.unused_inodes().into());
                good = false;
            }
            self.groups.push(group);
        }
        if sums > 0 && sums == geometry.groups && geometry.groups > 1 {
            let fault =
                "all descriptors of block groups have wrong checksums: what these start from is wrong";
            self.report.wrong(Place::Superblock, fault);
        }
        if good {
            self.take_system();
        }
        Ok(good)
    }

    /// Without `flex_bg`, a group's own blocks lie in it.
    fn is_in_its_group(&self, group: u32, block: u64, count: u64) -> bool {
        let geometry = &self.filesystem.geometry;
        if geometry.features.incompat(crate::format::incompat::FLEX_BG) {
            return true;
        }
        let start = groups::group_start(geometry, group);
        let end = start.saturating_add(groups::group_blocks(geometry, group));
        block >= start && block.saturating_add(count) <= end
    }

    /// Marks what belongs to the filesystem itself. Two descriptors that name the same are wrong.
    fn take_system(&mut self) {
        let geometry = &self.filesystem.geometry;
        let mut runs = groups::system_runs(geometry, &self.superblock, &self.groups);
        runs.sort_unstable();
        if runs.iter().zip(runs.iter().skip(1)).any(|(a, b)| b.0 < a.1) {
            let fault = "two structures of the filesystem itself lie in the same blocks";
            self.report.wrong(Place::Superblock, fault);
        }
        self.system = groups::system_blocks(geometry, &self.superblock, &self.groups);
        for (first, end) in self.system.clone() {
            for block in first..end {
                self.mark(block);
            }
        }
    }

    /// The superblock as it should be, with its checksum.
    pub(super) fn sealed_superblock(&self, mut superblock: Superblock) -> Superblock {
        if self.filesystem.geometry.seed.is_some() {
            let covered = superblock
                .as_bytes()
                .get(..std::mem::offset_of!(Superblock, s_checksum));
            superblock.s_checksum = Crc::new().update(covered.unwrap_or_default()).value().into();
        }
        superblock
    }
}
