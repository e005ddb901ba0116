//! Which blocks inodes take: extent trees, and maps of single blocks.

use std::collections::BTreeMap;

use super::inodes::Raw;
use super::{Checker, Finding, named, wide};
use crate::format::{EXT4_EXT_MAGIC, ExtentHeader, ExtentIndex, ExtentLeaf, inode_flags};
use crate::read::bytes::{join, part, u32_at, view};
use crate::read::{Place, ReadAt, ReadError};

/// Levels of nodes below the root, at most.
const MAX_DEPTH: u16 = 5;
/// Bytes of a header, and of an entry of either kind.
const ENTRY: usize = size_of::<ExtentHeader>();
/// Longer runs are ones that are not written yet.
const MAX_WRITTEN: u16 = 32768;
/// The logical block behind the last that there can be.
const END: u64 = 1 << 32;

/// What an inode's map says.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// Blocks of content and map.
    pub(super) taken: u64,
    /// The last logical block that is written.
    pub(super) last: Option<u64>,
    /// The logical block behind the last one.
    pub(super) behind: u64,
    /// Where logical block 0 lies.
    pub(super) first: Option<u64>,
    /// Of folders: where each logical block lies.
    pub(super) content: BTreeMap<u64, u64>,
}

/// A node of an extent tree that is being read.
#[derive(Clone, Copy)]
struct Node<'a> {
    bytes: &'a [u8],
    place: Place,
    /// What the node above wants; `None` for the root.
    depth: Option<u16>,
    /// Logical blocks that may be below it.
    start: u64,
    end: u64,
}

impl<R: ReadAt> Checker<'_, R> {
    /// Takes all blocks of an inode's content and map.
    pub(super) fn map_of(&mut self, raw: &Raw<'_>, is_folder: bool) -> Result<Map, ReadError> {
        let mut map = Map::default();
        if raw.has_flag(inode_flags::EXTENTS) {
            let place = Place::Extents {
                inode: named(raw.number),
                block: None,
            };
            let root = Node {
                bytes: &raw.fields.i_block,
                place,
                depth: None,
                start: 0,
                end: END,
            };
            self.extents(raw, root, &mut map, is_folder)?;
        } else {
            self.pointers(raw, &mut map, is_folder)?;
        }
        Ok(map)
    }

    /// Entries and levels of a node, if its header is right.
    fn header(&mut self, node: Node<'_>) -> Option<(u16, u16)> {
        let header = view::<ExtentHeader>(node.bytes, 0)?;
        let (entries, max, depth) = (
            header.eh_entries.get(),
            header.eh_max.get(),
            header.eh_depth.get(),
        );
        let room = wide((node.bytes.len() / ENTRY).saturating_sub(1));
        let wrong = if header.eh_magic.get() != EXT4_EXT_MAGIC {
            Some(("eh_magic", header.eh_magic.get()))
        } else if u64::from(max) > room || u64::from(max).saturating_add(2) < room {
            Some(("eh_max", max))
        } else if entries > max || (entries == 0 && node.depth.is_some()) {
            Some(("eh_entries", entries))
        } else if (depth > MAX_DEPTH && entries > 0) || node.depth.is_some_and(|wanted| wanted != depth) {
            Some(("eh_depth", depth))
        } else {
            None
        };
        if let Some((field, value)) = wrong {
            self.report.field(node.place, field, value.into());
            return None;
        }
        Some((entries, depth))
    }

    fn extents(
        &mut self,
        raw: &Raw<'_>,
        node: Node<'_>,
        map: &mut Map,
        is_folder: bool,
    ) -> Result<(), ReadError> {
        let Some((entries, depth)) = self.header(node) else {
            return Ok(());
        };
        let mut next = node.start;
        for entry in 0..entries {
            let offset = usize::from(entry).saturating_add(1).saturating_mul(ENTRY);
            let Some(child_depth) = depth.checked_sub(1) else {
                let Some(leaf) = view::<ExtentLeaf>(node.bytes, offset) else {
                    break; // never: the header was found right
                };
                next = self.extent(raw, node, leaf, next, map, is_folder);
                continue;
            };
            let at = |offset| view::<ExtentIndex>(node.bytes, offset);
            let Some(index) = at(offset) else {
                break;
            };
            let block = join(index.ei_leaf_lo.get(), index.ei_leaf_hi.get().into());
            let start = u64::from(index.ei_block.get());
            let behind = at(offset.saturating_add(ENTRY)).filter(|_| entry.saturating_add(1) < entries);
            let end = behind.map_or(node.end, |behind| behind.ei_block.get().into());
            if start < next || end <= start {
                self.report.field(node.place, "ei_block", start);
            }
            map.taken = map.taken.saturating_add(1);
            next = end;
            // A node that something else has too is not followed: so this ends.
            if self.take(raw.number, block, node.place) {
                self.child(raw, block, (child_depth, start, end), map, is_folder)?;
            }
        }
        Ok(())
    }

    fn child(
        &mut self,
        raw: &Raw<'_>,
        block: u64,
        (depth, start, end): (u16, u64, u64),
        map: &mut Map,
        is_folder: bool,
    ) -> Result<(), ReadError> {
        let place = Place::Extents {
            inode: named(raw.number),
            block: Some(block),
        };
        let bytes = self.filesystem.read_block(block, place)?;
        let node = Node {
            bytes: &bytes,
            place,
            depth: Some(depth),
            start,
            end,
        };
        if let Some(header) = view::<ExtentHeader>(&bytes, 0)
            && let Some(seed) = raw.seed
            && header.eh_magic.get() == EXT4_EXT_MAGIC
        {
            let tail = usize::from(header.eh_max.get())
                .saturating_add(1)
                .saturating_mul(ENTRY);
            if let (Some(covered), Some(stored)) = (part(&bytes, 0, tail), u32_at(&bytes, tail)) {
                let computed = seed.update(covered).value();
                if !self.report.checksum(place, stored, computed) {
                    self.fix_in_block(block, tail, computed);
                }
            } else {
                self.report.field(place, "eh_max", header.eh_max.get().into());
            }
        }
        // The first entry of either kind begins with its logical block.
        let first = u32_at(&bytes, ENTRY).map(u64::from);
        if first != Some(start) {
            self.report.field(place, "ee_block", first.unwrap_or_default());
        }
        self.extents(raw, node, map, is_folder)
    }

    /// One run. Gives the lowest logical block that may come next.
    fn extent(
        &mut self,
        raw: &Raw<'_>,
        node: Node<'_>,
        leaf: &ExtentLeaf,
        next: u64,
        map: &mut Map,
        is_folder: bool,
    ) -> u64 {
        let len = leaf.ee_len.get();
        let (count, written) = match len.checked_sub(MAX_WRITTEN) {
            None | Some(0) => (u64::from(len), true),
            Some(unwritten) => (unwritten.into(), false),
        };
        let logical = u64::from(leaf.ee_block.get());
        let end = logical.saturating_add(count);
        let first = join(leaf.ee_start_lo.get(), leaf.ee_start_hi.get().into());
        let behind = first.saturating_add(count);
        if count == 0 {
            self.report.field(node.place, "ee_len", len.into());
            return next;
        }
        if logical < next || end > node.end {
            self.report.field(node.place, "ee_block", logical);
            return next;
        }
        if !self.is_block(first) || behind > self.filesystem.geometry.blocks {
            self.report.field(node.place, "ee_start", first);
            return end;
        }
        if is_folder && !written {
            let fault = "a folder has blocks that were never written";
            self.report.wrong(node.place, fault);
        }
        self.content(raw, (logical, first, count), map, is_folder);
        map.taken = map.taken.saturating_add(count);
        map.behind = end;
        if written {
            map.last = end.checked_sub(1);
        }
        end
    }

    /// Takes a run of content.
    fn content(
        &mut self,
        raw: &Raw<'_>,
        (logical, first, count): (u64, u64, u64),
        map: &mut Map,
        is_folder: bool,
    ) {
        if logical == 0 {
            map.first = Some(first);
        }
        for at in 0..count {
            let block = first.saturating_add(at);
            if !self.mark(block) {
                // The first says enough, and the rest would cost more than the image's length.
                let inode = raw.number;
                self.report.add(Finding::Shared { block, inode });
                return;
            }
            if is_folder {
                map.content.insert(logical.saturating_add(at), block);
            }
        }
    }

    fn pointers(&mut self, raw: &Raw<'_>, map: &mut Map, is_folder: bool) -> Result<(), ReadError> {
        let place = Place::BlockMap {
            inode: named(raw.number),
            block: None,
        };
        let roots = raw.fields.i_block;
        let mut logical = 0_u64;
        for root in 0..15_usize {
            let number = u32_at(&roots, root.saturating_mul(4)).unwrap_or_default();
            let level = u32::try_from(root.saturating_sub(11)).unwrap_or_default();
            self.pointer(raw, (number.into(), level, logical), place, map, is_folder)?;
            logical = logical.saturating_add(self.span(level));
        }
        Ok(())
    }

    /// How many logical blocks a number stands for that has `level` levels of indirect blocks below it.
    fn span(&self, level: u32) -> u64 {
        u64::from(self.filesystem.geometry.block_size >> 2).saturating_pow(level)
    }

    /// Follows one number.
    fn pointer(
        &mut self,
        raw: &Raw<'_>,
        (number, level, logical): (u64, u32, u64),
        place: Place,
        map: &mut Map,
        is_folder: bool,
    ) -> Result<(), ReadError> {
        if number == 0 {
            return Ok(());
        }
        if !self.is_block(number) {
            self.report.field(place, "a block number", number);
            return Ok(());
        }
        map.taken = map.taken.saturating_add(1);
        let Some(below) = level.checked_sub(1) else {
            self.content(raw, (logical, number, 1), map, is_folder);
            map.last = Some(logical);
            map.behind = logical.saturating_add(1);
            return Ok(());
        };
        if !self.take(raw.number, number, place) {
            return Ok(());
        }
        let place = Place::BlockMap {
            inode: named(raw.number),
            block: Some(number),
        };
        let bytes = self.filesystem.read_block(number, place)?;
        let mut at = logical;
        for pointer in bytes.chunks_exact(4) {
            let pointer = u32_at(pointer, 0).unwrap_or_default();
            self.pointer(raw, (pointer.into(), below, at), place, map, is_folder)?;
            at = at.saturating_add(self.span(below));
        }
        Ok(())
    }
}
