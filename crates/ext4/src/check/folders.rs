//! Folders: blocks of entries, and what each name leads to.

use std::collections::HashSet;

use super::{Checker, Finding, Folder, named, narrow, wide};
use crate::checksum::Crc;
use crate::format::{DirEntryHeader, EXT4_ROOT_INO, file_type, group_flags, incompat};
use crate::read::bytes::{part, u32_at, view};
use crate::read::{FileType, Place, ReadAt, ReadError, from_file_type, record_len};

/// Bytes in front of a name.
const HEADER: usize = size_of::<DirEntryHeader>();
/// Bytes of the pretended entry at the end of a block, its checksum last; also of the shortest entry.
const TAIL: usize = 12;

/// One folder while it is read.
struct Reading {
    number: u32,
    /// Names so far.
    names: HashSet<Vec<u8>>,
}

/// An entry of a block.
struct Entry<'a> {
    /// 0 for one that is not in use.
    inode: u32,
    name: &'a [u8],
    kind: u8,
    /// Whether a NUL follows the name.
    ends: bool,
}

impl<R: ReadAt> Checker<'_, R> {
    /// Reads all folders.
    pub(super) fn folders(&mut self) -> Result<(), ReadError> {
        if !self.folders.contains_key(&EXT4_ROOT_INO) {
            let fault = "it is the root, and no folder";
            self.report.wrong(Place::Inode(named(EXT4_ROOT_INO)), fault);
        }
        for number in self.folders.keys().copied().collect::<Vec<_>>() {
            let Some(folder) = self.folders.get_mut(&number) else {
                continue;
            };
            let indexed = folder.indexed;
            let blocks = std::mem::take(&mut folder.blocks);
            let (length, seed) = (folder.length, folder.seed);
            let mut reading = Reading {
                number,
                names: HashSet::new(),
            };
            if indexed {
                let folder = Folder {
                    blocks,
                    length,
                    seed,
                    ..Folder::default()
                };
                self.indexed(number, &folder, |checker, logical, block, bytes| {
                    checker.block(&mut reading, logical, block, bytes)
                })?;
                continue;
            }
            let mut behind = 0;
            for (logical, block) in &blocks {
                if *logical != behind {
                    let place = place(number, None);
                    self.report.wrong(place, "it has a hole");
                }
                behind = logical.saturating_add(1);
                let place = place(number, Some(*block));
                let bytes = self.filesystem.read_block(*block, place)?;
                self.leaf_sum(number, seed, *block, &bytes);
                self.block(&mut reading, *logical, *block, &bytes);
            }
        }
        Ok(())
    }

    /// The checksum of a block of entries.
    pub(super) fn leaf_sum(&mut self, number: u32, seed: Option<Crc>, block: u64, bytes: &[u8]) {
        let Some(seed) = seed else {
            return;
        };
        let place = place(number, Some(block));
        let tail = bytes.len().saturating_sub(TAIL);
        let header = view::<DirEntryHeader>(bytes, tail).filter(|header| {
            header.inode.get() == 0
                && header.rec_len.get() == 12
                && header.name_len == 0
                && header.file_type == file_type::CHECKSUM
        });
        let at = tail.saturating_add(HEADER);
        match (header, part(bytes, 0, tail), u32_at(bytes, at)) {
            (Some(_), Some(covered), Some(stored)) => {
                let computed = seed.update(covered).value();
                if !self.report.checksum(place, stored, computed) {
                    self.fix_in_block(block, at, computed);
                }
            }
            _ => self.report.wrong(place, "its checksum is missing"),
        }
    }

    /// The entries of one block.
    fn block(&mut self, reading: &mut Reading, logical: u64, block: u64, bytes: &[u8]) {
        let place = place(reading.number, Some(block));
        let mut offset = 0_usize;
        let mut index = 0_u64;
        while offset < bytes.len() {
            let (entry, end) = match parse(bytes, offset) {
                Ok(parsed) => parsed,
                Err(fault) => return self.report.wrong(place, fault),
            };
            offset = end;
            let dots = if logical == 0 { index } else { 2 };
            index = index.saturating_add(1);
            match dots {
                0 => self.dot(reading, &entry, place),
                1 => self.dotdot(reading, &entry, place),
                _ if entry.inode == 0 => {}
                _ => self.name(reading, &entry),
            }
        }
        if logical == 0 && index < 2 {
            self.report.wrong(place, "it does not begin with . and ..");
        }
    }

    fn dot(&mut self, reading: &Reading, entry: &Entry<'_>, place: Place) {
        if entry.name != b"." || !entry.ends {
            self.report.wrong(place, "its first entry is not .");
        } else if entry.inode != reading.number {
            self.report.wrong(place, "its . is another inode");
        }
        self.count(entry.inode);
        self.kind(reading, entry);
    }

    fn dotdot(&mut self, reading: &Reading, entry: &Entry<'_>, place: Place) {
        if entry.name != b".." || !entry.ends {
            self.report.wrong(place, "its second entry is not ..");
        }
        if let Some(folder) = self.folders.get_mut(&reading.number) {
            folder.dotdot = entry.inode;
        }
        self.count(entry.inode);
        self.kind(reading, entry);
    }

    fn name(&mut self, reading: &mut Reading, entry: &Entry<'_>) {
        let geometry = &self.filesystem.geometry;
        let number = entry.inode;
        let reserved = number < geometry.first_inode && number != EXT4_ROOT_INO;
        let quotas = [
            self.superblock.s_usr_quota_inum,
            self.superblock.s_grp_quota_inum,
            self.superblock.s_prj_quota_inum,
        ];
        let reserved = reserved || quotas.iter().any(|quota| quota.get() == number);
        let is_dots = matches!(entry.name, b"." | b"..");
        let fault = if entry.name.is_empty() {
            Some("and has no bytes")
        } else if is_dots {
            Some("and stands where it must not")
        } else if entry.name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            Some("and has a slash or a NUL in it")
        } else if reserved || number > geometry.inodes {
            Some("which no name may have")
        } else if number == EXT4_ROOT_INO {
            Some("which is the root")
        } else if !self.inodes.contains_key(&number) || self.is_orphan_file(number) {
            Some("which is not in use")
        } else if !reading.names.insert(entry.name.to_vec()) {
            Some("and is there twice")
        } else {
            None
        };
        if let Some(fault) = fault {
            return self.bad_name(reading.number, entry, fault);
        }
        if self.is_unused(number) {
            self.bad_name(
                reading.number,
                entry,
                "in a part of its table that is called unused",
            );
        }
        self.kind(reading, entry);
        let known = self.inodes.get(&number).and_then(|known| known.kind);
        if known == Some(FileType::Directory)
            && let Some(folder) = self.folders.get_mut(&number)
        {
            if folder.parent != 0 {
                return self.bad_name(reading.number, entry, "a folder that has a name already");
            }
            folder.parent = reading.number;
        }
        self.count(number);
    }

    /// Whether a group says that an inode was never in use.
    fn is_unused(&self, number: u32) -> bool {
        let index = number.saturating_sub(1);
        let per_group = self.filesystem.geometry.inodes_per_group;
        let group = index.checked_div(per_group).unwrap_or(0);
        let within = index.checked_rem(per_group).unwrap_or(0);
        self.is_lazy()
            && self.groups.get(narrow(group.into())).is_some_and(|group| {
                group.has_flag(group_flags::INODE_UNINIT)
                    || within >= per_group.saturating_sub(group.unused_inodes())
            })
    }

    /// Compares the type that an entry says with that of its inode.
    fn kind(&mut self, reading: &Reading, entry: &Entry<'_>) {
        let says = self.filesystem.geometry.features.incompat(incompat::FILETYPE);
        let Some(known) = self.inodes.get(&entry.inode) else {
            return;
        };
        let right = match known.kind {
            _ if !says => entry.kind == 0,
            // 0 is that nobody knows.
            Some(kind) => entry.kind == 0 || from_file_type(entry.kind) == Some(kind),
            None => true,
        };
        if !right {
            self.bad_name(reading.number, entry, "which has another type than it says");
        }
    }

    /// Counts a name.
    fn count(&mut self, inode: u32) {
        if let Some(known) = self.inodes.get_mut(&inode) {
            known.names = known.names.saturating_add(1);
        }
    }

    fn bad_name(&mut self, folder: u32, entry: &Entry<'_>, fault: &'static str) {
        self.report.add(Finding::Name {
            folder,
            name: entry.name.escape_ascii().to_string(),
            inode: entry.inode,
            fault,
        });
    }
}

/// Reads the entry at `offset`. Gives where the next begins.
fn parse(bytes: &[u8], offset: usize) -> Result<(Entry<'_>, usize), &'static str> {
    let header = view::<DirEntryHeader>(bytes, offset).ok_or("its last entry is cut off")?;
    let len = record_len(header.rec_len.get(), bytes.len());
    let end = offset.saturating_add(len);
    if end > bytes.len() || len < TAIL || !len.is_multiple_of(4) {
        return Err("an entry has a length that does not fit");
    }
    let name_len = usize::from(header.name_len);
    let start = offset.saturating_add(HEADER);
    let name = part(bytes, start, name_len)
        .filter(|_| HEADER.saturating_add(name_len) <= len)
        .ok_or("a name is longer than its entry")?;
    let entry = Entry {
        inode: header.inode.get(),
        name,
        kind: header.file_type,
        ends: bytes.get(start.saturating_add(name_len)) == Some(&0),
    };
    Ok((entry, end))
}

/// A block of a folder, or the whole of it.
pub(super) fn place(number: u32, block: Option<u64>) -> Place {
    Place::Directory {
        inode: named(number),
        block,
    }
}

/// The names of a block that are in use; none behind one that does not fit.
pub(super) fn names_of(bytes: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    let mut offset = 0;
    while let Ok((entry, end)) = parse(bytes, offset) {
        if entry.inode != 0 {
            names.push(entry.name);
        }
        offset = end;
        if wide(offset) >= wide(bytes.len()) {
            break;
        }
    }
    names
}
