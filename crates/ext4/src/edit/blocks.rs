//! Taking blocks and giving them back.

use super::groups::{group_blocks, group_start};
use super::{EditError, Editor, Target, low32, narrow, wide};
use crate::format::group_flags;
use crate::read::bytes::join;
use crate::read::{Fault, Place, ReadError, out_of_range};

/// A run of blocks: the first, and how many.
pub(super) type Blocks = (u64, u64);

impl<T: Target> Editor<T> {
    /// How many blocks are free.
    pub(super) fn free_blocks(&self) -> u64 {
        join(
            self.superblock.s_free_blocks_count_lo.get(),
            self.superblock.s_free_blocks_count_hi.get(),
        )
    }

    fn set_free_blocks(&mut self, count: u64) {
        self.superblock.s_free_blocks_count_lo = low32(count).into();
        if self.filesystem.geometry.descriptor_size > 32 {
            self.superblock.s_free_blocks_count_hi = low32(count >> 32).into();
        }
    }

    /// Which group a block is in, and its bit there.
    fn bit_of(&self, block: u64) -> Option<(usize, usize)> {
        let geometry = &self.filesystem.geometry;
        let index = block.checked_sub(geometry.first_data_block.into())?;
        let per_group = u64::from(geometry.blocks_per_group);
        let (group, bit) = (index.checked_div(per_group)?, index.checked_rem(per_group)?);
        Some((narrow(group), narrow(bit)))
    }

    /// Takes `count` blocks: from `goal` on as far as they are free there, else where `whole` of them lie together, else
    /// wherever there are most.
    pub(super) fn take_blocks(
        &mut self,
        count: u64,
        goal: Option<u64>,
        whole: u64,
    ) -> Result<Vec<Blocks>, EditError> {
        let full = |editor: &Editor<T>| EditError::NoSpace {
            needed_bytes: whole.max(count).saturating_mul(editor.form.block_bytes()),
            free_bytes: editor.free_blocks().saturating_mul(editor.form.block_bytes()),
        };
        let mut runs: Vec<Blocks> = Vec::new();
        let mut left = count;
        let mut next = goal;
        while left > 0 {
            let found = match next {
                Some(block) => (block, self.free_run_at(block, left)?),
                None => {
                    let wanted = whole.max(left);
                    self.find_run(wanted)?.ok_or_else(|| full(self))?
                }
            };
            let taken = found.1.min(left);
            // Nothing at the goal: look elsewhere.
            next = (taken > 0).then(|| found.0.saturating_add(taken));
            if taken > 0 {
                self.mark(found.0, taken)?;
                left = left.saturating_sub(taken);
                match runs.last_mut() {
                    Some((start, len)) if start.saturating_add(*len) == found.0 => {
                        *len = len.saturating_add(taken);
                    }
                    _ => runs.push((found.0, taken)),
                }
            }
        }
        Ok(runs)
    }

    /// How many blocks are free from `block` on, within its group and up to `most`.
    fn free_run_at(&mut self, block: u64, most: u64) -> Result<u64, EditError> {
        let Some((group, bit)) = self.bit_of(block).filter(|(group, _)| *group < self.groups.len()) else {
            return Ok(0);
        };
        if self.group(group).is_none_or(|group| group.free_blocks() == 0) {
            return Ok(0);
        }
        let end = narrow(group_blocks(&self.filesystem.geometry, low32(wide(group))));
        let bits = self.block_bits(group)?;
        let free = (bit..end).take_while(|bit| !bits.is_set(*bit));
        Ok(wide(free.take(narrow(most)).count()))
    }

    /// The first run of `wanted` free blocks, or else the longest there is.
    fn find_run(&mut self, wanted: u64) -> Result<Option<Blocks>, EditError> {
        let mut best: Option<Blocks> = None;
        for index in 0..self.groups.len() {
            let longest = best.map_or(0, |(_, len)| len);
            // A group cannot have a longer run than it has free blocks.
            if self
                .group(index)
                .is_none_or(|group| u64::from(group.free_blocks()) <= longest)
            {
                continue;
            }
            let geometry = &self.filesystem.geometry;
            let number = low32(wide(index));
            let start = group_start(geometry, number);
            let end = narrow(group_blocks(geometry, number));
            let bits = self.block_bits(index)?;
            let mut bit = 0_usize;
            while bit < end {
                if bit.is_multiple_of(8) && bits.bits.get(bit / 8) == Some(&0xff) {
                    bit = bit.saturating_add(8);
                    continue;
                }
                let first = bit;
                while bit < end && !bits.is_set(bit) {
                    bit = bit.saturating_add(1);
                }
                let run = (start.saturating_add(wide(first)), wide(bit.saturating_sub(first)));
                if run.1 >= wanted {
                    return Ok(Some(run));
                }
                if run.1 > best.map_or(0, |(_, len)| len) {
                    best = Some(run);
                }
                bit = bit.saturating_add(1);
            }
        }
        Ok(best)
    }

    /// Marks blocks of one group, which are free, as taken.
    fn mark(&mut self, first: u64, count: u64) -> Result<(), EditError> {
        let (index, bit) = self.bit_of(first).unwrap_or_default();
        let bits = self.block_bits(index)?;
        for bit in bit..bit.saturating_add(narrow(count)) {
            bits.put(bit, true);
        }
        if let Some(group) = self.groups.get_mut(index) {
            let free = group.free_blocks().saturating_sub(low32(count));
            group.set_free_blocks(free);
            group.clear_flag(group_flags::BLOCK_UNINIT);
        }
        self.set_free_blocks(self.free_blocks().saturating_sub(count));
        Ok(())
    }

    /// Gives blocks back. What is in them is gone when the image is finished.
    pub(super) fn release_blocks(&mut self, first: u64, count: u64, place: Place) -> Result<(), EditError> {
        let end = first.saturating_add(count);
        let at = self.system.partition_point(|(_, behind)| *behind <= first);
        if self.system.get(at).is_some_and(|(start, _)| *start < end) {
            return Err(out_of_range(place, "a block of the filesystem itself", first).into());
        }
        for block in first..end {
            let Some((index, bit)) = self.bit_of(block) else {
                return Err(out_of_range(place, "a block number", block).into());
            };
            let bits = self.block_bits(index)?;
            if !bits.is_set(bit) {
                let fault =
                    Fault::Structure("it names a block that is free, or that something else names too");
                return Err(ReadError::corrupt(place, fault).into());
            }
            bits.put(bit, false);
            if let Some(group) = self.groups.get_mut(index) {
                let free = group.free_blocks().saturating_add(1);
                group.set_free_blocks(free);
            }
        }
        self.set_free_blocks(self.free_blocks().saturating_add(count));
        self.released.push((first, count));
        Ok(())
    }

    /// Discards what is in blocks that became free and stayed so.
    pub(super) fn discard_released(&mut self) -> Result<(), EditError> {
        let mut released = std::mem::take(&mut self.released);
        released.sort_unstable();
        let block_bytes = self.form.block_bytes();
        let mut pending: Option<Blocks> = None;
        let mut runs: Vec<Blocks> = Vec::new();
        for block in released
            .into_iter()
            .flat_map(|(first, count)| first..first.saturating_add(count))
        {
            let (index, bit) = self.bit_of(block).unwrap_or_default();
            if self.block_bits(index)?.is_set(bit) {
                continue;
            }
            match &mut pending {
                // Given back twice, and taken in between.
                Some((first, count)) if block < first.saturating_add(*count) => {}
                Some((first, count)) if first.saturating_add(*count) == block => {
                    *count = count.saturating_add(1);
                }
                _ => runs.extend(pending.replace((block, 1))),
            }
        }
        runs.extend(pending);
        for (first, count) in runs {
            let (offset, len) = (
                first.saturating_mul(block_bytes),
                count.saturating_mul(block_bytes),
            );
            let discarded = self.filesystem.source.discard(offset, len);
            discarded.map_err(|source| EditError::Write { offset, len, source })?;
        }
        Ok(())
    }
}
