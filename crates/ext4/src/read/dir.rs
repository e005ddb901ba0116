//! Directories: blocks of entries, read from first to last whether or not a hash tree stands over them.
//!
//! To a reader that ignores it, the tree looks like empty entries that fill their blocks. Its blocks end in a checksum
//! all the same, in a place of their own.
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/directory.html>

use super::FileType;
use super::ReadAt;
use super::bytes::{part, u16_at, u32_at, view};
use super::error::{Fault, Place, ReadError};
use super::inode::{Inode, InodeNumber};
use super::runs::{Run, Runs};
use super::superblock::Geometry;
use super::{Filesystem, out_of_range};
use crate::checksum::Crc;
use crate::format::{DirEntryHeader, EXT4_ROOT_INO, compat, file_type, incompat, inode_flags};

/// Bytes in front of a name.
const HEADER: usize = size_of::<DirEntryHeader>();
/// Bytes of the pretended entry at the end of a block, its checksum last.
const TAIL: usize = 12;

/// One name of a directory. `.` and `..` are not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// 1 to 255 bytes, without `/` and NUL.
    pub name: Box<[u8]>,
    /// What it names.
    pub inode: InodeNumber,
    /// Its type, where the directory says it.
    pub file_type: Option<FileType>,
}

/// The blocks of one directory, verified, in order.
struct Blocks<'a, R> {
    filesystem: &'a Filesystem<R>,
    inode: &'a Inode,
    runs: Runs<'a, R>,
    /// What is left of the run that the next block lies in.
    run: Option<Run>,
    /// The next block's 0-based place in the directory.
    logical: u64,
    /// The directory's length in blocks.
    end: u64,
}

impl<R: ReadAt> Filesystem<R> {
    /// Reads all names of a directory, in the order in which they lie on disk.
    ///
    /// # Errors
    /// [`ReadError::WrongType`] for anything else; corrupt where one of its blocks is wrong.
    pub fn read_dir(&self, inode: &Inode) -> Result<Vec<DirEntry>, ReadError> {
        let mut entries = Vec::new();
        let mut blocks = self.directory(inode)?;
        while let Some((bytes, place)) = blocks.next()? {
            each_entry(&self.geometry, inode, &bytes, place, |name, number, kind| {
                entries.push(DirEntry {
                    name: name.into(),
                    inode: number,
                    file_type: from_file_type(kind),
                });
            })?;
        }
        Ok(entries)
    }

    /// Looks for one name in a directory.
    pub(crate) fn find(&self, inode: &Inode, wanted: &[u8]) -> Result<Option<InodeNumber>, ReadError> {
        let mut blocks = self.directory(inode)?;
        let mut found = None;
        while let Some((bytes, place)) = blocks.next()? {
            each_entry(&self.geometry, inode, &bytes, place, |name, number, _| {
                if found.is_none() && name == wanted {
                    found = Some(number);
                }
            })?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// What the `..` of a directory names.
    pub(crate) fn parent_of(&self, inode: &Inode) -> Result<InodeNumber, ReadError> {
        let place = Place::Directory {
            inode: inode.number,
            block: None,
        };
        let Some((bytes, place)) = self.directory(inode)?.next()? else {
            return Err(ReadError::corrupt(place, Fault::Structure("it is empty")));
        };
        let dot = u16_at(&bytes, 4).map_or(0, |raw| record_len(raw, bytes.len()));
        let name = part(&bytes, dot.saturating_add(HEADER), 2);
        let length = bytes.get(dot.saturating_add(6)).copied();
        match u32_at(&bytes, dot).and_then(InodeNumber::new) {
            Some(parent) if name == Some(b"..") && length == Some(2) => Ok(parent),
            _ => Err(ReadError::corrupt(
                place,
                Fault::Structure("its second entry is not .."),
            )),
        }
    }

    fn directory<'a>(&'a self, inode: &'a Inode) -> Result<Blocks<'a, R>, ReadError> {
        inode.expect(FileType::Directory)?;
        Ok(Blocks {
            filesystem: self,
            inode,
            runs: self.runs(inode)?,
            run: None,
            logical: 0,
            end: self.directory_blocks(inode)?,
        })
    }

    /// How many blocks a directory has.
    pub(crate) fn directory_blocks(&self, inode: &Inode) -> Result<u64, ReadError> {
        let size = inode.stat.size;
        let block_size = u64::from(self.geometry.block_size);
        let blocks = size.div_ceil(block_size);
        if size == 0 || blocks.checked_mul(block_size) != Some(size) || blocks > self.geometry.blocks {
            let place = Place::Directory {
                inode: inode.number,
                block: None,
            };
            return Err(out_of_range(place, "i_size", size));
        }
        Ok(blocks)
    }
}

impl<R: ReadAt> Blocks<'_, R> {
    fn next(&mut self) -> Result<Option<(Vec<u8>, Place)>, ReadError> {
        if self.logical >= self.end {
            return Ok(None);
        }
        let place = |block| Place::Directory {
            inode: self.inode.number,
            block,
        };
        let run = match self.run.take().filter(|run| run.blocks > 0) {
            Some(run) => Some(run),
            None => self.runs.next().transpose()?,
        };
        let Some((mut run, block)) = run
            .filter(|run| run.logical == self.logical)
            .and_then(|run| Some((run, run.physical?)))
        else {
            return Err(ReadError::corrupt(place(None), Fault::Structure("it has a hole")));
        };
        let bytes = self.filesystem.read_block(block, place(Some(block)))?;
        check(
            &self.filesystem.geometry,
            self.inode,
            self.logical,
            &bytes,
            place(Some(block)),
        )?;
        self.logical = self.logical.saturating_add(1);
        run.logical = self.logical;
        run.physical = block.checked_add(1);
        run.blocks = run.blocks.saturating_sub(1);
        self.run = Some(run);
        Ok(Some((bytes, place(Some(block)))))
    }
}

/// Calls `take` with name, inode number and `file_type` of every entry in use, but for `.` and `..`.
fn each_entry(
    geometry: &Geometry,
    directory: &Inode,
    bytes: &[u8],
    place: Place,
    mut take: impl FnMut(&[u8], InodeNumber, u8),
) -> Result<(), ReadError> {
    let mut offset = 0_usize;
    while offset < bytes.len() {
        let Some(header) = view::<DirEntryHeader>(bytes, offset) else {
            return Err(ReadError::corrupt(
                place,
                Fault::Structure("its last entry is cut off"),
            ));
        };
        let len = record_len(header.rec_len.get(), bytes.len());
        let name_len = usize::from(header.name_len);
        let end = offset.checked_add(len).filter(|end| *end <= bytes.len());
        let Some(end) = end.filter(|_| len >= TAIL && len.is_multiple_of(4)) else {
            return Err(out_of_range(place, "rec_len", header.rec_len.get().into()));
        };
        if let Some(number) = InodeNumber::new(header.inode.get()) {
            let name = offset
                .checked_add(HEADER)
                .and_then(|start| part(bytes, start, name_len));
            let fits = name_len.saturating_add(HEADER) <= len;
            let Some(name) = name.filter(|name| fits && !name.is_empty()) else {
                return Err(out_of_range(place, "name_len", header.name_len.into()));
            };
            if !geometry.features.incompat(incompat::FILETYPE) && header.file_type != 0 {
                return Err(out_of_range(
                    place,
                    "the upper byte of name_len",
                    header.file_type.into(),
                ));
            }
            match name {
                b"." if number != directory.number => {
                    return Err(ReadError::corrupt(
                        place,
                        Fault::Structure("its . is another inode"),
                    ));
                }
                b"." | b".." => {}
                _ => {
                    check_entry(geometry, name, number, place)?;
                    take(name, number, header.file_type);
                }
            }
        }
        offset = end;
    }
    Ok(())
}

fn check_entry(geometry: &Geometry, name: &[u8], number: InodeNumber, place: Place) -> Result<(), ReadError> {
    if name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        let fault = Fault::Structure("a name has a slash or a NUL in it");
        return Err(ReadError::corrupt(place, fault));
    }
    let number = number.get();
    let reserved = number < geometry.first_inode && number != EXT4_ROOT_INO;
    if reserved || number > geometry.inodes {
        return Err(out_of_range(place, "an entry's inode", number.into()));
    }
    Ok(())
}

/// An entry's length. Blocks of 64 KiB need a 17th bit, which they keep in the lowest two.
pub(crate) fn record_len(raw: u16, block_len: usize) -> usize {
    match raw {
        0 | u16::MAX if block_len == 65536 => block_len,
        _ => usize::from(raw & 0xfffc) | (usize::from(raw & 3) << 16),
    }
}

pub(crate) fn from_file_type(kind: u8) -> Option<FileType> {
    Some(match kind {
        file_type::REG_FILE => FileType::Regular,
        file_type::DIR => FileType::Directory,
        file_type::CHRDEV => FileType::CharDevice,
        file_type::BLKDEV => FileType::BlockDevice,
        file_type::FIFO => FileType::Fifo,
        file_type::SOCK => FileType::Socket,
        file_type::SYMLINK => FileType::Symlink,
        _ => return None,
    })
}

/// Compares a block's checksum.
fn check(
    geometry: &Geometry,
    inode: &Inode,
    logical: u64,
    bytes: &[u8],
    place: Place,
) -> Result<(), ReadError> {
    let Some(seed) = inode.seed else {
        return Ok(());
    };
    let indexed = inode.has_flag(inode_flags::INDEX) && geometry.features.compat(compat::DIR_INDEX);
    let node = u32_at(bytes, 0) == Some(0)
        && u16_at(bytes, 4).is_some_and(|raw| record_len(raw, bytes.len()) == bytes.len());
    // Where a node of the hash tree counts its entries: behind `.`, `..` and 8 bytes of its own, or one empty entry.
    let (computed, stored) = match (indexed, logical, node) {
        (true, 0, _) => hash_node(seed, bytes, 0x20, place)?,
        (true, _, true) => hash_node(seed, bytes, 8, place)?,
        _ => leaf(seed, bytes, place)?,
    };
    if stored != computed {
        return Err(ReadError::corrupt(place, Fault::Checksum { stored, computed }));
    }
    Ok(())
}

/// Computed and stored checksum of a block of entries, which ends in an entry that looks unused.
fn leaf(seed: Crc, bytes: &[u8], place: Place) -> Result<(u32, u32), ReadError> {
    let tail = bytes.len().saturating_sub(TAIL);
    let header = view::<DirEntryHeader>(bytes, tail).filter(|header| {
        header.inode.get() == 0
            && header.rec_len.get() == 12
            && header.name_len == 0
            && header.file_type == file_type::CHECKSUM
    });
    match (
        header,
        part(bytes, 0, tail),
        u32_at(bytes, tail.saturating_add(HEADER)),
    ) {
        (Some(_), Some(covered), Some(stored)) => Ok((seed.update(covered).value(), stored)),
        _ => Err(ReadError::corrupt(
            place,
            Fault::Structure("its checksum is missing"),
        )),
    }
}

/// Computed and stored checksum of a node of the hash tree. It is covered as far as its entries are in use; its checksum stands behind the last that would fit.
fn hash_node(seed: Crc, bytes: &[u8], counts: usize, place: Place) -> Result<(u32, u32), ReadError> {
    let number = |offset: usize| u16_at(bytes, offset).unwrap_or_default();
    let (limit, count) = (number(counts), number(counts.saturating_add(2)));
    let after = |entries: u16| counts.saturating_add(usize::from(entries).saturating_mul(8));
    if count > limit {
        return Err(out_of_range(place, "count of the hash tree", count.into()));
    }
    // The tail: four reserved bytes, then the checksum, which counts as four zeros.
    let tail = after(limit);
    match (
        part(bytes, 0, after(count)),
        part(bytes, tail, 4),
        u32_at(bytes, tail.saturating_add(4)),
    ) {
        (Some(covered), Some(reserved), Some(stored)) => {
            let computed = seed.update(covered).update(reserved).update(&[0; 4]).value();
            Ok((computed, stored))
        }
        _ => Err(out_of_range(place, "limit of the hash tree", limit.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_lengths() {
        assert_eq!(record_len(12, 1024), 12);
        assert_eq!(record_len(1024, 1024), 1024);
        assert_eq!(record_len(u16::MAX, 65536), 65536);
        assert_eq!(record_len(0, 65536), 65536);
        assert_eq!(record_len(0, 4096), 0);
        assert_eq!(record_len(65532, 65536), 65532);
    }
}
