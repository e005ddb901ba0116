//! Where an inode's content lies: [`Runs`] yields its blocks as [`Run`]s, whichever way the inode maps them.
//!
//! A hostile map can name the same blocks over and over. No true one maps more blocks than the filesystem has, so both
//! mapped blocks and visited nodes are counted down from there, and the time that a map takes is bounded by the size of its image.

use super::ReadAt;
use super::blockmap::BlockMap;
use super::error::{Fault, Place, ReadError};
use super::extent::ExtentTree;
use super::inode::Inode;
use super::{Filesystem, out_of_range};
use crate::format::inode_flags;

/// Neighbouring blocks of a file that also lie side by side in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first block's 0-based place in the file.
    pub logical: u64,
    /// How many blocks; not 0.
    pub blocks: u64,
    /// The first block's place in the image; `None` where blocks are set aside but read as zeros.
    pub physical: Option<u64>,
}

impl Run {
    /// The block after the last, in the file.
    pub(super) fn end(&self) -> u64 {
        self.logical.saturating_add(self.blocks)
    }
}

/// The runs of one inode in rising order. What lies between them is a hole.
///
/// After an error it yields nothing but errors, so that what is missing is never taken for a hole.
#[derive(Debug)]
pub struct Runs<'a, R> {
    filesystem: &'a Filesystem<R>,
    inode: &'a Inode,
    map: Map,
    /// The lowest block that may come next.
    next_logical: u64,
    /// How many more blocks may be mapped.
    budget: u64,
    failed: bool,
}

#[derive(Debug)]
enum Map {
    Extents(ExtentTree),
    Blocks(BlockMap),
}

impl<R: ReadAt> Filesystem<R> {
    /// Where the content of an inode lies. For files, directories and long symbolic links; others have none.
    ///
    /// # Errors
    /// Corrupt where the head of the map, which is inside the inode, is wrong.
    pub fn runs<'a>(&'a self, inode: &'a Inode) -> Result<Runs<'a, R>, ReadError> {
        let map = if inode.has_flag(inode_flags::EXTENTS) {
            Map::Extents(ExtentTree::open(inode, &self.geometry)?)
        } else {
            Map::Blocks(BlockMap::open(inode, &self.geometry)?)
        };
        Ok(Runs {
            filesystem: self,
            inode,
            map,
            next_logical: 0,
            budget: self.geometry.blocks,
            failed: false,
        })
    }
}

impl<R: ReadAt> Runs<'_, R> {
    fn advance(&mut self) -> Result<Option<Run>, ReadError> {
        let found = match &mut self.map {
            Map::Extents(tree) => tree.next(self.filesystem, self.inode)?,
            Map::Blocks(map) => map.next(self.filesystem, self.inode)?,
        };
        let Some((run, place)) = found else {
            return Ok(None);
        };
        if run.logical < self.next_logical {
            return Err(out_of_range(place, "ee_block", run.logical));
        }
        let geometry = &self.filesystem.geometry;
        if let Some(first) = run.physical {
            let end = first.checked_add(run.blocks);
            if first <= u64::from(geometry.first_data_block) || end.is_none_or(|end| end > geometry.blocks) {
                return Err(out_of_range(place, "a block number", first));
            }
        }
        self.budget = self.budget.checked_sub(run.blocks).ok_or_else(|| {
            ReadError::corrupt(
                place,
                Fault::Structure("it maps more blocks than the filesystem has"),
            )
        })?;
        self.next_logical = run.end();
        Ok(Some(run))
    }
}

impl<R: ReadAt> Iterator for Runs<'_, R> {
    type Item = Result<Run, ReadError>;

    fn next(&mut self) -> Option<Result<Run, ReadError>> {
        if self.failed {
            let fault = Fault::Structure("its map of blocks could not be read before");
            return Some(Err(ReadError::corrupt(Place::Inode(self.inode.number), fault)));
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}
