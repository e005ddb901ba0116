//! Block groups: where each one's inode table lies.

use super::ReadAt;
use super::bytes::{join, u16_at, u32_at, zero};
use super::error::{Fault, Place, ReadError};
use super::superblock::has_super;
use super::{Filesystem, out_of_range};
use crate::format::{GroupDesc, incompat};

impl<R: ReadAt> Filesystem<R> {
    /// The first block of a group's inode table, after its descriptor was found right. 0-based group.
    pub(crate) fn inode_table(&self, group: u32) -> Result<u64, ReadError> {
        let geometry = &self.geometry;
        let place = Place::GroupDescriptor(group);
        let offset = self
            .descriptor_offset(group)
            .ok_or_else(|| out_of_range(place, "s_first_meta_bg", geometry.first_meta_group.into()))?;
        let mut bytes = vec![0; geometry.descriptor_size.into()];
        self.read_bytes(offset, &mut bytes, place)?;
        self.check_descriptor(group, &bytes)?;
        let low = u32_at(&bytes, std::mem::offset_of!(GroupDesc, bg_inode_table_lo));
        let high = u32_at(&bytes, std::mem::offset_of!(GroupDesc, bg_inode_table_hi));
        let table = join(low.unwrap_or_default(), high.unwrap_or_default());
        let table_bytes = u64::from(geometry.inodes_per_group).saturating_mul(geometry.inode_size.into());
        let end = table.checked_add(table_bytes.div_ceil(geometry.block_size.into()));
        if table <= u64::from(geometry.first_data_block) || end.is_none_or(|end| end > geometry.blocks) {
            return Err(out_of_range(place, "bg_inode_table", table));
        }
        Ok(table)
    }

    /// Where a group's descriptor lies, in bytes from the start of the image.
    pub(crate) fn descriptor_offset(&self, group: u32) -> Option<u64> {
        let geometry = &self.geometry;
        let per_block = geometry.block_size.checked_div(geometry.descriptor_size.into())?;
        let (table_block, index) = (group.checked_div(per_block)?, group.checked_rem(per_block)?);
        let first = u64::from(geometry.first_data_block);
        let meta_bg = geometry.features.incompat(incompat::META_BG);
        let block = if meta_bg && table_block >= geometry.first_meta_group {
            let meta_group = table_block.checked_mul(per_block)?;
            u64::from(meta_group)
                .checked_mul(geometry.blocks_per_group.into())?
                .checked_add(first)?
                .checked_add(has_super(geometry, meta_group).into())?
        } else {
            first.checked_add(1)?.checked_add(table_block.into())?
        };
        let inside = u64::from(index).checked_mul(geometry.descriptor_size.into())?;
        block.checked_mul(geometry.block_size.into())?.checked_add(inside)
    }

    fn check_descriptor(&self, group: u32, bytes: &[u8]) -> Result<(), ReadError> {
        let Some(seed) = self.geometry.seed else {
            return Ok(());
        };
        let field = std::mem::offset_of!(GroupDesc, bg_checksum);
        let mut cleared = bytes.to_vec();
        zero(&mut cleared, field, 2);
        let computed = seed.update(&group.to_le_bytes()).update(&cleared).value() & 0xffff;
        let stored = u32::from(u16_at(bytes, field).unwrap_or_default());
        if stored != computed {
            let fault = Fault::Checksum { stored, computed };
            return Err(ReadError::corrupt(Place::GroupDescriptor(group), fault));
        }
        Ok(())
    }
}
