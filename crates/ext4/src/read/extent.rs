//! Extent trees: a root of up to four entries inside the inode, below it nodes of a block each.
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/ifork.html>

use super::ReadAt;
use super::bytes::{join, part, u32_at, view};
use super::error::{Fault, Place, ReadError};
use super::inode::Inode;
use super::runs::Run;
use super::superblock::Geometry;
use super::{Filesystem, out_of_range};
use crate::format::{EXT4_EXT_MAGIC, ExtentHeader, ExtentIndex, ExtentLeaf};

/// Levels of nodes below the root, at most (`EXT4_MAX_EXTENT_DEPTH`).
pub(crate) const MAX_DEPTH: u16 = 5;
/// Bytes of the header, and of an entry of either kind.
pub(crate) const ENTRY: usize = size_of::<ExtentHeader>();
/// Longer runs are ones that are not written yet, by how much longer they are.
const MAX_WRITTEN: u16 = 32768;

/// A walk from left to right.
#[derive(Debug)]
pub(crate) struct ExtentTree {
    /// From the root down to where the walk is.
    stack: Vec<Node>,
    /// No entry may begin below.
    next_logical: u64,
    /// How many more nodes may be visited.
    budget: u64,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) bytes: Vec<u8>,
    place: Place,
    /// 0 for a leaf.
    pub(crate) depth: u16,
    pub(crate) entries: u16,
    /// 0-based number of the entry that comes next.
    next: u16,
}

impl ExtentTree {
    pub(crate) fn open(inode: &Inode, geometry: &Geometry) -> Result<ExtentTree, ReadError> {
        let place = Place::Extents {
            inode: inode.number,
            block: None,
        };
        let root = Node::parse(inode.block.to_vec(), place)?;
        if root.depth > MAX_DEPTH {
            return Err(out_of_range(place, "eh_depth", root.depth.into()));
        }
        Ok(ExtentTree {
            stack: vec![root],
            next_logical: 0,
            budget: geometry.blocks,
        })
    }

    /// The next run and the node that names it.
    pub(crate) fn next<R: ReadAt>(
        &mut self,
        filesystem: &Filesystem<R>,
        inode: &Inode,
    ) -> Result<Option<(Run, Place)>, ReadError> {
        while let Some(node) = self.stack.last_mut() {
            if node.next >= node.entries {
                self.stack.pop();
                continue;
            }
            // Within the node: its header was checked to count no more entries than fit.
            let offset = usize::from(node.next).saturating_add(1).saturating_mul(ENTRY);
            node.next = node.next.saturating_add(1);
            let (place, depth) = (node.place, node.depth);
            let Some(child_depth) = depth.checked_sub(1) else {
                let run = leaf(view(&node.bytes, offset), place)?;
                self.rise(run.logical, place)?;
                self.next_logical = run.end();
                return Ok(Some((run, place)));
            };
            let (logical, block) = index(view(&node.bytes, offset), place)?;
            self.rise(logical, place)?;
            self.budget = self.budget.checked_sub(1).ok_or_else(|| {
                ReadError::corrupt(
                    place,
                    Fault::Structure("it has more nodes than the filesystem has blocks"),
                )
            })?;
            let child = read_node(filesystem, inode, block)?;
            if child.depth != child_depth {
                return Err(out_of_range(child.place, "eh_depth", child.depth.into()));
            }
            self.stack.push(child);
        }
        Ok(None)
    }

    fn rise(&mut self, logical: u64, place: Place) -> Result<(), ReadError> {
        if logical < self.next_logical {
            return Err(out_of_range(place, "ee_block", logical));
        }
        self.next_logical = logical;
        Ok(())
    }
}

impl Node {
    /// Checks the header of a node.
    pub(crate) fn parse(bytes: Vec<u8>, place: Place) -> Result<Node, ReadError> {
        let Some(header) = view::<ExtentHeader>(&bytes, 0) else {
            return Err(ReadError::corrupt(place, Fault::Structure("it is cut off")));
        };
        if header.eh_magic.get() != EXT4_EXT_MAGIC {
            return Err(out_of_range(place, "eh_magic", header.eh_magic.get().into()));
        }
        let (max, entries, depth) = (
            header.eh_max.get(),
            header.eh_entries.get(),
            header.eh_depth.get(),
        );
        let end = usize::from(max).saturating_add(1).saturating_mul(ENTRY);
        if end > bytes.len() {
            return Err(out_of_range(place, "eh_max", max.into()));
        }
        if entries > max || (entries == 0 && depth > 0) {
            return Err(out_of_range(place, "eh_entries", entries.into()));
        }
        Ok(Node {
            place,
            depth,
            entries,
            next: 0,
            bytes,
        })
    }

    /// Compares the checksum, which stands behind the last entry that would fit.
    fn check(&self, inode: &Inode) -> Result<(), ReadError> {
        let Some(seed) = inode.seed else {
            return Ok(());
        };
        let max = view::<ExtentHeader>(&self.bytes, 0).map_or(0, |header| header.eh_max.get());
        let tail = usize::from(max).saturating_add(1).saturating_mul(ENTRY);
        let (Some(covered), Some(stored)) = (part(&self.bytes, 0, tail), u32_at(&self.bytes, tail)) else {
            return Err(out_of_range(self.place, "eh_max", max.into()));
        };
        let computed = seed.update(covered).value();
        if stored != computed {
            return Err(ReadError::corrupt(
                self.place,
                Fault::Checksum { stored, computed },
            ));
        }
        Ok(())
    }
}

pub(crate) fn read_node<R: ReadAt>(
    filesystem: &Filesystem<R>,
    inode: &Inode,
    block: u64,
) -> Result<Node, ReadError> {
    let place = Place::Extents {
        inode: inode.number,
        block: Some(block),
    };
    let node = Node::parse(filesystem.read_block(block, place)?, place)?;
    node.check(inode)?;
    Ok(node)
}

pub(crate) fn leaf(entry: Option<&ExtentLeaf>, place: Place) -> Result<Run, ReadError> {
    let Some(entry) = entry else {
        return Err(ReadError::corrupt(place, Fault::Structure("it is cut off")));
    };
    let len = entry.ee_len.get();
    let (blocks, written) = match len.checked_sub(MAX_WRITTEN) {
        None | Some(0) => (len, true),
        Some(unwritten) => (unwritten, false),
    };
    let logical = u64::from(entry.ee_block.get());
    let run = Run {
        logical,
        blocks: blocks.into(),
        physical: written.then_some(join(entry.ee_start_lo.get(), entry.ee_start_hi.get().into())),
    };
    if blocks == 0 || run.end() > 1 << 32 {
        return Err(out_of_range(place, "ee_len", len.into()));
    }
    Ok(run)
}

/// The first logical block below an entry, and the block of the node there.
pub(crate) fn index(entry: Option<&ExtentIndex>, place: Place) -> Result<(u64, u64), ReadError> {
    match entry {
        Some(entry) => Ok((
            entry.ei_block.get().into(),
            join(entry.ei_leaf_lo.get(), entry.ei_leaf_hi.get().into()),
        )),
        None => Err(ReadError::corrupt(place, Fault::Structure("it is cut off"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place::Superblock;

    fn entry(block: u32, len: u16) -> ExtentLeaf {
        ExtentLeaf {
            ee_block: block.into(),
            ee_len: len.into(),
            ee_start_hi: 1.into(),
            ee_start_lo: 7.into(),
        }
    }

    #[test]
    fn lengths_at_the_written_boundary() {
        let run = |len| leaf(Some(&entry(3, len)), PLACE).unwrap();
        assert_eq!((run(1).blocks, run(1).physical), (1, Some(0x1_0000_0007)));
        assert_eq!(
            (run(32768).blocks, run(32768).physical),
            (32768, Some(0x1_0000_0007))
        );
        assert_eq!((run(32769).blocks, run(32769).physical), (1, None));
        assert_eq!((run(65535).blocks, run(65535).physical), (32767, None));
        assert!(leaf(Some(&entry(3, 0)), PLACE).is_err());
        assert!(leaf(Some(&entry(u32::MAX, 1)), PLACE).is_ok());
        assert!(leaf(Some(&entry(u32::MAX, 2)), PLACE).is_err());
    }

    #[test]
    fn headers_that_count_too_much() {
        let node = |max: u16, entries: u16, depth: u16| {
            let mut bytes = vec![0; 60];
            let words = [EXT4_EXT_MAGIC, entries, max, depth];
            for (to, word) in bytes.chunks_exact_mut(2).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            Node::parse(bytes, PLACE)
        };
        assert!(node(4, 4, 0).is_ok());
        assert!(node(5, 4, 0).is_err());
        assert!(node(4, 5, 0).is_err());
        assert!(node(4, 0, 0).is_ok());
        assert!(node(4, 0, 1).is_err());
    }
}
