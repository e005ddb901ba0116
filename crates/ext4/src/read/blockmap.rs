//! Maps of single blocks, as ext2 and ext3 have them: 12 direct, then one each single, double and triple indirect.
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/ifork.html>

use super::ReadAt;
use super::bytes::u32_at;
use super::error::{Fault, Place, ReadError};
use super::inode::Inode;
use super::runs::Run;
use super::superblock::Geometry;
use super::{Filesystem, out_of_range};

/// Numbers inside the inode: block numbers, then roots of one, two and three levels.
const ROOTS: usize = 15;
const DIRECT: usize = 12;
/// Bytes of a block number.
const NUMBER: usize = 4;

/// A walk from left to right.
#[derive(Debug)]
pub(crate) struct BlockMap {
    place: Place,
    /// `i_block`.
    roots: [u8; 60],
    /// 0-based place in the inode of the number that comes next.
    root: usize,
    /// The indirect blocks from the inode down to where the walk is.
    stack: Vec<Indirect>,
    /// The logical block that the next number stands for.
    logical: u64,
    /// The file's length in blocks; nothing behind is looked at.
    end: u64,
    /// Block numbers in an indirect block; a power of two.
    per_block: u64,
    /// How many more indirect blocks may be visited.
    budget: u64,
    /// Blocks that were found to lie side by side, until one does not.
    pending: Option<(Run, Place)>,
}

#[derive(Debug)]
struct Indirect {
    bytes: Vec<u8>,
    place: Place,
    /// How many levels of indirect blocks lie below.
    level: u32,
    /// 0-based place of the number that comes next.
    next: usize,
}

impl BlockMap {
    pub(crate) fn open(inode: &Inode, geometry: &Geometry) -> Result<BlockMap, ReadError> {
        let place = Place::BlockMap {
            inode: inode.number,
            block: None,
        };
        let end = inode.stat.size.div_ceil(geometry.block_size.into());
        let map = BlockMap {
            place,
            roots: inode.block,
            root: 0,
            stack: Vec::new(),
            logical: 0,
            end,
            per_block: u64::from(geometry.block_size >> 2),
            budget: geometry.blocks,
            pending: None,
        };
        let most = (1..=3).fold(12_u64, |sum, level| sum.saturating_add(map.span(level)));
        if end > most.min(1 << 32) {
            return Err(out_of_range(place, "i_size", inode.stat.size));
        }
        Ok(map)
    }

    /// How many blocks a number stands for that has `level` levels of indirect blocks below it.
    fn span(&self, level: u32) -> u64 {
        self.per_block.saturating_pow(level)
    }

    /// The next run and the block that names its first block.
    pub(crate) fn next<R: ReadAt>(
        &mut self,
        filesystem: &Filesystem<R>,
        inode: &Inode,
    ) -> Result<Option<(Run, Place)>, ReadError> {
        while self.logical < self.end {
            let Some((number, level, place)) = self.number() else {
                break;
            };
            if number == 0 {
                self.logical = self.logical.saturating_add(self.span(level));
            } else if let Some(below) = level.checked_sub(1) {
                self.descend(filesystem, inode, number, below)?;
            } else {
                let done = self.append(number.into(), place);
                self.logical = self.logical.saturating_add(1);
                if done.is_some() {
                    return Ok(done);
                }
            }
        }
        Ok(self.pending.take())
    }

    /// The next number, how many levels of indirect blocks are below it, and what names it.
    fn number(&mut self) -> Option<(u32, u32, Place)> {
        while let Some(top) = self.stack.last_mut() {
            if let Some(number) = u32_at(&top.bytes, top.next) {
                top.next = top.next.saturating_add(NUMBER);
                return Some((number, top.level, top.place));
            }
            self.stack.pop();
        }
        let root = self.root;
        self.root = root.saturating_add(1);
        let level = match root {
            0..DIRECT => 0,
            DIRECT => 1,
            13 => 2,
            14 => 3,
            ROOTS.. => return None,
        };
        Some((
            u32_at(&self.roots, root.saturating_mul(NUMBER))?,
            level,
            self.place,
        ))
    }

    fn descend<R: ReadAt>(
        &mut self,
        filesystem: &Filesystem<R>,
        inode: &Inode,
        number: u32,
        level: u32,
    ) -> Result<(), ReadError> {
        let place = Place::BlockMap {
            inode: inode.number,
            block: Some(number.into()),
        };
        self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            let fault = Fault::Structure("it has more indirect blocks than the filesystem has blocks");
            ReadError::corrupt(place, fault)
        })?;
        self.stack.push(Indirect {
            bytes: filesystem.read_block(number.into(), place)?,
            place,
            level,
            next: 0,
        });
        Ok(())
    }

    /// Takes one more block; gives back the run before it, if it does not continue that.
    fn append(&mut self, physical: u64, place: Place) -> Option<(Run, Place)> {
        if let Some((run, _)) = &mut self.pending {
            let continued = run.physical.and_then(|first| first.checked_add(run.blocks));
            if run.end() == self.logical && continued == Some(physical) {
                run.blocks = run.blocks.saturating_add(1);
                return None;
            }
        }
        let run = Run {
            logical: self.logical,
            blocks: 1,
            physical: Some(physical),
        };
        self.pending.replace((run, place))
    }
}
