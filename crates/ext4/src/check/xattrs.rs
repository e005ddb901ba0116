//! Extended attributes: entries and values that fit, do not overlap, and have the hashes that they say.

use std::ops::Range;

use super::inodes::{Raw, xattr_block};
use super::{Checker, Finding, named};
use crate::format::{EXT4_XATTR_MAGIC, XattrBlockHeader, XattrEntry};
use crate::read::bytes::{part, u32_at, view, zero};
use crate::read::{Place, ReadAt, ReadError};

/// Bytes of an entry without its name.
const ENTRY: usize = size_of::<XattrEntry>();
/// Bytes in front of the entries of a block.
const HEADER: usize = size_of::<XattrBlockHeader>();

/// Where attributes stand.
#[derive(Clone, Copy)]
struct Area<'a> {
    bytes: &'a [u8],
    /// Where the entries begin.
    start: usize,
    /// What offsets of values count from.
    base: usize,
    /// Whether a hash of 0 stands for none.
    may_lack_hash: bool,
    place: Place,
}

impl<R: ReadAt> Checker<'_, R> {
    /// The attributes of one inode.
    pub(super) fn xattrs_of(&mut self, raw: &Raw<'_>) -> Result<(), ReadError> {
        let extra = usize::from(raw.fields.i_extra_isize.get());
        let inside = 128_usize
            .checked_add(extra)
            .and_then(|start| raw.bytes.get(start..));
        if let Some(bytes) = inside.filter(|_| extra > 0)
            && u32_at(bytes, 0) == Some(EXT4_XATTR_MAGIC)
        {
            let inode = named(raw.number);
            self.entries(Area {
                bytes,
                start: 4,
                base: 4,
                may_lack_hash: true,
                place: Place::Xattrs { inode, block: None },
            });
        }
        let block = xattr_block(&self.filesystem.geometry, raw);
        if block == 0 {
            return Ok(());
        }
        let place = Place::Xattrs {
            inode: named(raw.number),
            block: Some(block),
        };
        if let Some((users, _)) = self.xattr_blocks.get_mut(&block) {
            *users = users.saturating_add(1);
            return Ok(());
        }
        if !self.take(raw.number, block, place) {
            return Ok(());
        }
        let bytes = self.filesystem.read_block(block, place)?;
        let Some(header) = view::<XattrBlockHeader>(&bytes, 0) else {
            return Ok(()); // never: blocks are longer
        };
        self.xattr_blocks.insert(block, (1, header.h_refcount.get()));
        if header.h_magic.get() != EXT4_XATTR_MAGIC {
            self.report.field(place, "h_magic", header.h_magic.get().into());
            return Ok(());
        }
        if header.h_blocks.get() != 1 {
            self.report.field(place, "h_blocks", header.h_blocks.get().into());
        }
        let stored = header.h_checksum.get();
        if let Some(computed) = self.xattr_sum(&bytes, block)
            && !self.report.checksum(place, stored, computed)
        {
            self.report.fixes.xattr_blocks.insert(block, None);
        }
        self.entries(Area {
            bytes: &bytes,
            start: HEADER,
            base: 0,
            may_lack_hash: false,
            place,
        });
        Ok(())
    }

    /// The checksum that a block of attributes should have.
    pub(super) fn xattr_sum(&self, bytes: &[u8], block: u64) -> Option<u32> {
        let mut cleared = bytes.to_vec();
        zero(
            &mut cleared,
            std::mem::offset_of!(XattrBlockHeader, h_checksum),
            4,
        );
        let seed = self.filesystem.geometry.seed?.update(&block.to_le_bytes());
        Some(seed.update(&cleared).value())
    }

    /// Compares how many inodes have each block with what it says.
    pub(super) fn xattr_users(&mut self) {
        for (block, (computed, stored)) in std::mem::take(&mut self.xattr_blocks) {
            if stored != computed {
                self.report.fixes.xattr_blocks.insert(block, Some(computed));
                self.report.add(Finding::XattrUsers {
                    block,
                    stored,
                    computed,
                });
            }
        }
    }

    fn entries(&mut self, area: Area<'_>) {
        let mut taken = Vec::new();
        take(&mut taken, 0..area.start);
        let mut at = area.start;
        while u32_at(area.bytes, at).is_some_and(|word| word != 0) {
            match entry(area, at, &mut taken) {
                Ok(next) => at = next,
                Err(fault) => return self.report.wrong(area.place, fault),
            }
        }
        let end = at.saturating_add(4);
        if end > area.bytes.len() || !take(&mut taken, at..end) {
            let fault = "its list of names has no end";
            self.report.wrong(area.place, fault);
        }
    }
}

/// Checks one entry with its value. Gives where the next begins.
fn entry(area: Area<'_>, at: usize, taken: &mut Vec<Range<usize>>) -> Result<usize, &'static str> {
    let raw = view::<XattrEntry>(area.bytes, at).ok_or("an entry is cut off")?;
    let names = at.saturating_add(ENTRY);
    let len = usize::from(raw.e_name_len);
    let name = part(area.bytes, names, len).ok_or("a name is cut off")?;
    let next = names.saturating_add(len.next_multiple_of(4));
    if next > area.bytes.len() || !take(taken, at..next) {
        return Err("an entry lies over something else");
    }
    if raw.e_value_inum.get() != 0 {
        return Err("a value lies in another inode, which the filesystem does not allow");
    }
    let size = usize::try_from(raw.e_value_size.get()).unwrap_or(usize::MAX);
    let start = usize::from(raw.e_value_offs.get()).saturating_add(area.base);
    let mut value: &[u8] = &[];
    if size > 0 {
        value = part(area.bytes, start, size).ok_or("a value is cut off")?;
        // Values are padded.
        let end = start.saturating_add(size.next_multiple_of(4));
        if end > area.bytes.len() || !take(taken, start..end) {
            return Err("a value lies over something else");
        }
        value = part(area.bytes, start, size.next_multiple_of(4)).unwrap_or(value);
    }
    let stored = raw.e_hash.get();
    let is_right = hash(name, value, false) == stored || hash(name, value, true) == stored;
    let is_absent = area.may_lack_hash && stored == 0;
    if !is_right && !is_absent {
        return Err("the hash of an entry is not that of its name and value");
    }
    Ok(next)
}

/// Notes bytes as taken; `false` if some are already.
fn take(taken: &mut Vec<Range<usize>>, range: Range<usize>) -> bool {
    let free = taken
        .iter()
        .all(|other| other.end <= range.start || range.end <= other.start);
    taken.push(range);
    free
}

/// `ext4_xattr_hash_entry`; names in old kernels counted as signed bytes.
fn hash(name: &[u8], value: &[u8], signed: bool) -> u32 {
    let number = |byte: u8| match signed {
        true => i32::from(byte.cast_signed()).cast_unsigned(),
        false => u32::from(byte),
    };
    let hash = name
        .iter()
        .fold(0_u32, |hash, &byte| hash.rotate_left(5) ^ number(byte));
    value.chunks(4).fold(hash, |hash, chunk| {
        hash.rotate_left(16) ^ u32_at(chunk, 0).unwrap_or_default()
    })
}
