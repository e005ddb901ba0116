//! Checks a filesystem as `e2fsck -fn` does, and repairs what follows from the rest.
//!
//! Everything that is in use is found from the inodes, and from the names in all folders; bitmaps, counts and links are compared
//! with that. The nouns:
//!
//! - a [`Finding`] is one thing that is wrong. Of some the right value follows from the rest (checksums, counts, bitmaps);
//!   all others are for `e2fsck`, which asks;
//! - a [`Report`] is all of them, and what is to be written where to put them right ([`Report::repair`]);
//! - a note is what the superblock says of itself and `e2fsck -fn` does not count as wrong.
//!
//! The order is that of `e2fsck`: superblock and descriptors (`header`), inodes with their blocks and attributes (`inodes`,
//! `maps`, `xattrs`, `kept`), names (`folders`, `index`), links and ways to the root (`links`), bitmaps and counts (`totals`).
//!
//! No byte of the image is believed: each block is followed once only, so that time and memory are bounded by the image's length.
//! Not looked at: backups of the superblock and the descriptors, and what is in the journal behind its first block.
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

mod finding;
mod folders;
mod header;
mod index;
mod inodes;
mod kept;
mod links;
mod maps;
mod repair;
mod totals;
mod xattrs;

use std::collections::BTreeMap;

use zerocopy::IntoBytes as _;

pub use finding::Finding;

use crate::checksum::Crc;
use crate::edit::groups::Group;
use crate::format::Superblock;
use crate::read::{Fault, FileType, Filesystem, InodeNumber, Place, ReadAt, ReadError};
use repair::Fixes;

/// Findings that are kept: of more nobody reads all.
const FINDINGS_MAX: usize = 1000;

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong, in the order in which it was found; at most 1000.
    pub findings: Vec<Finding>,
    /// How many findings there are besides those.
    pub more: u64,
    /// What the superblock says of itself: not unmounted, errors that a kernel met.
    pub notes: Vec<&'static str>,
    /// Inodes that are in use, reserved ones included.
    pub inodes_used: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Blocks that are in use.
    pub blocks_used: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Whether there is something that [`Report::repair`] leaves.
    beyond_repair: bool,
    /// Whether a checksum of something that names blocks, inodes or values is wrong.
    unsure: bool,
    /// Whether a count or a bitmap is wrong.
    miscounted: bool,
    fixes: Fixes,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether [`Report::repair`] puts all of it right.
    ///
    /// Where the checksum of an inode, a map, a folder or a set of attributes is wrong, its bytes may be as well: it is
    /// only believed if all counts and bitmaps agree with it.
    pub fn is_repairable(&self) -> bool {
        let may_be_damage = self.unsure && self.miscounted;
        !self.beyond_repair && !may_be_damage
    }

    fn add(&mut self, finding: Finding) {
        self.beyond_repair |= !finding.is_repairable();
        match &finding {
            Finding::Checksum(error) => self.unsure |= error.place().is_some_and(is_counted_from),
            _ => self.miscounted |= finding.is_repairable(),
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    fn wrong(&mut self, place: Place, fault: &'static str) {
        let error = ReadError::corrupt(place, Fault::Structure(fault));
        self.add(Finding::Structure(error));
    }

    fn field(&mut self, place: Place, field: &'static str, value: u64) {
        let error = ReadError::corrupt(place, Fault::Field { field, value });
        self.add(Finding::Structure(error));
    }

    /// Compares a checksum. `false` if it is wrong.
    fn checksum(&mut self, place: Place, stored: u32, computed: u32) -> bool {
        if stored != computed {
            let fault = Fault::Checksum { stored, computed };
            self.add(Finding::Checksum(ReadError::corrupt(place, fault)));
        }
        stored == computed
    }
}

/// An inode in use, as far as others ask for it.
#[derive(Debug)]
struct Known {
    /// `None` where its mode is none.
    kind: Option<FileType>,
    links: u16,
    /// How many names were found; `.` and `..` are among those of folders.
    names: u64,
}

/// A folder.
#[derive(Debug, Default)]
struct Folder {
    /// The blocks of its content, by their place in it.
    blocks: BTreeMap<u64, u64>,
    /// Blocks that its length comes to.
    length: u64,
    indexed: bool,
    seed: Option<Crc>,
    /// What its `..` names; 0 for nothing.
    dotdot: u32,
    /// The folder that it has a name in; 0 for none.
    parent: u32,
}

/// A filesystem while it is checked.
struct Checker<'a, R> {
    filesystem: &'a Filesystem<&'a R>,
    superblock: Superblock,
    groups: Vec<Group>,
    report: Report,
    /// A bit for each block of the filesystem that something takes.
    blocks: Vec<u8>,
    /// Blocks of the filesystem itself, in rising order: first, and behind the last.
    system: Vec<(u64, u64)>,
    inodes: BTreeMap<u32, Known>,
    folders: BTreeMap<u32, Folder>,
    /// Blocks of extended attributes: how many inodes name them, and how many they say.
    xattr_blocks: BTreeMap<u64, (u32, u32)>,
}

/// Checks the filesystem of an image.
///
/// # Errors
/// [`ReadError::Unsupported`] and [`ReadError::NeedsRecovery`] for what is not checked; [`ReadError::Host`] where the host fails. Whatever is
/// wrong is a finding, also where the superblock is.
pub fn check<R: ReadAt>(image: &R) -> Result<Report, ReadError> {
    let mut report = Report::default();
    let superblock = match header::read_superblock(image, &mut report) {
        Ok(superblock) => superblock,
        Err(error @ ReadError::Corrupt { .. }) => {
            report.add(Finding::Structure(error));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let bytes = superblock.as_bytes().first_chunk().unwrap_or(&[0; 1024]);
    let filesystem = match Filesystem::with_superblock(image, bytes) {
        Ok(filesystem) => filesystem,
        Err(error @ ReadError::Corrupt { .. }) => {
            report.add(Finding::Structure(error));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    header::supported(filesystem.geometry.features)?;
    let geometry = &filesystem.geometry;
    report.inodes = geometry.inodes.into();
    report.blocks = geometry.blocks;
    let mut checker = Checker {
        filesystem: &filesystem,
        superblock,
        groups: Vec::new(),
        report,
        blocks: vec![0; usize::try_from(geometry.blocks.div_ceil(8)).unwrap_or(0)],
        system: Vec::new(),
        inodes: BTreeMap::new(),
        folders: BTreeMap::new(),
        xattr_blocks: BTreeMap::new(),
    };
    checker.superblock();
    if checker.descriptors()? {
        checker.inodes()?;
        checker.folders()?;
        checker.links();
        checker.totals()?;
        checker.fixes()?;
    }
    Ok(checker.report)
}

impl<R: ReadAt> Checker<'_, R> {
    /// Marks a block as in use; `false` if it was already, or is not there.
    fn mark(&mut self, block: u64) -> bool {
        let byte = usize::try_from(block / 8)
            .ok()
            .and_then(|at| self.blocks.get_mut(at));
        let mask = 1_u8 << (block % 8);
        match byte {
            Some(byte) if *byte & mask == 0 => {
                *byte |= mask;
                true
            }
            _ => false,
        }
    }

    fn is_system(&self, block: u64) -> bool {
        let at = self.system.partition_point(|(_, end)| *end <= block);
        self.system.get(at).is_some_and(|(first, _)| *first <= block)
    }

    /// Whether there is such a block, for content or map of an inode.
    fn is_block(&self, block: u64) -> bool {
        let geometry = &self.filesystem.geometry;
        block > u64::from(geometry.first_data_block) && block < geometry.blocks
    }

    /// Takes a block for an inode. `false` if it is taken, or not there, which is said.
    fn take(&mut self, inode: u32, block: u64, place: Place) -> bool {
        if !self.is_block(block) {
            self.report.field(place, "a block number", block);
            return false;
        }
        let free = self.mark(block);
        if !free {
            self.report.add(Finding::Shared { block, inode });
        }
        free
    }
}

/// Whether bitmaps and counts follow from what is there.
fn is_counted_from(place: Place) -> bool {
    match place {
        Place::Superblock | Place::GroupDescriptor(_) | Place::BlockBitmap(_) | Place::InodeBitmap(_) => {
            false
        }
        Place::Inode(_)
        | Place::Extents { .. }
        | Place::BlockMap { .. }
        | Place::Directory { .. }
        | Place::Xattrs { .. }
        | Place::Symlink(_) => true,
    }
}

/// An inode's number, for places in reports.
fn named(number: u32) -> InodeNumber {
    InodeNumber::new(number).unwrap_or(InodeNumber::ROOT)
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn narrow(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
