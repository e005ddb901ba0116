//! Extended attributes: behind the inode's fields, and in a block of their own where there was not enough room.
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/attributes.html>

use firebrick_tree::Xattrs;

use super::FileType;
use super::ReadAt;
use super::bytes::{part, u16_at, u32_at, view, zero};
use super::error::{Fault, Place, ReadError};
use super::inode::{Inode, InodeNumber};
use super::{Filesystem, out_of_range};
use crate::format::{EXT4_XATTR_MAGIC, XATTR_PREFIXES, XattrBlockHeader, XattrEntry, incompat, inode_flags};

/// Bytes of a value at most (`XATTR_SIZE_MAX`): no system call takes more.
const VALUE_MAX: u32 = 65536;
/// Where the fields behind an inode's first 128 bytes begin.
const OLD_INODE: usize = 128;
/// The names whose values are POSIX ACLs.
const ACLS: [u8; 2] = [2, 3];

impl<R: ReadAt> Filesystem<R> {
    /// Reads all extended attributes of an inode, by full name. Values are as `getxattr(2)` gives them, also those of
    /// POSIX ACLs, which ext4 keeps in a form of its own.
    ///
    /// # Errors
    /// Corrupt where they are wrong; unsupported where a name has a prefix that is not known.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs, ReadError> {
        let mut xattrs = Xattrs::new();
        // What is in the block goes first: the kernel looks into the inode before it, so that is what counts.
        if inode.xattr_block != 0 {
            let place = Place::Xattrs {
                inode: inode.number,
                block: Some(inode.xattr_block),
            };
            let bytes = self.xattr_block(inode, place)?;
            self.parse_xattrs(&bytes, size_of::<XattrBlockHeader>(), place, &mut xattrs)?;
        }
        let place = Place::Xattrs {
            inode: inode.number,
            block: None,
        };
        if let Some(bytes) = in_inode(&inode.raw) {
            self.parse_xattrs(bytes, 0, place, &mut xattrs)?;
        }
        Ok(xattrs)
    }

    fn xattr_block(&self, inode: &Inode, place: Place) -> Result<Vec<u8>, ReadError> {
        let bytes = self.read_block(inode.xattr_block, place)?;
        let Some(header) = view::<XattrBlockHeader>(&bytes, 0) else {
            return Err(ReadError::corrupt(place, Fault::Structure("it is cut off")));
        };
        if header.h_magic.get() != EXT4_XATTR_MAGIC {
            return Err(out_of_range(place, "h_magic", header.h_magic.get().into()));
        }
        if header.h_blocks.get() != 1 {
            return Err(out_of_range(place, "h_blocks", header.h_blocks.get().into()));
        }
        if let Some(seed) = self.geometry.seed {
            let mut cleared = bytes.clone();
            zero(
                &mut cleared,
                std::mem::offset_of!(XattrBlockHeader, h_checksum),
                4,
            );
            let number = inode.xattr_block.to_le_bytes();
            let computed = seed.update(&number).update(&cleared).value();
            let stored = header.h_checksum.get();
            if stored != computed {
                return Err(ReadError::corrupt(place, Fault::Checksum { stored, computed }));
            }
        }
        Ok(bytes)
    }

    /// Reads the entries from `start` on, up to four zeros; values lie at offsets from the start of `bytes`.
    fn parse_xattrs(
        &self,
        bytes: &[u8],
        start: usize,
        place: Place,
        xattrs: &mut Xattrs,
    ) -> Result<(), ReadError> {
        let mut offset = start;
        while u32_at(bytes, offset) != Some(0) {
            let names = offset.saturating_add(size_of::<XattrEntry>());
            let entry = view::<XattrEntry>(bytes, offset);
            let name = entry.and_then(|entry| part(bytes, names, entry.e_name_len.into()));
            let (Some(entry), Some(name)) = (entry, name) else {
                return Err(ReadError::corrupt(
                    place,
                    Fault::Structure("its list of names has no end"),
                ));
            };
            let full_name = full_name(entry.e_name_index, name, place)?;
            let value = self.value(bytes, entry, place)?;
            let value = if ACLS.contains(&entry.e_name_index) {
                acl(&value).ok_or_else(|| {
                    ReadError::corrupt(
                        place,
                        Fault::Structure("it has an access control list of no known form"),
                    )
                })?
            } else {
                value
            };
            xattrs.insert(full_name.into(), value.into());
            offset = names.saturating_add(name.len().next_multiple_of(4));
        }
        Ok(())
    }

    fn value(&self, bytes: &[u8], entry: &XattrEntry, place: Place) -> Result<Vec<u8>, ReadError> {
        let size = entry.e_value_size.get();
        let len = match usize::try_from(size) {
            Ok(len) if size <= VALUE_MAX => len,
            _ => return Err(out_of_range(place, "e_value_size", size.into())),
        };
        if let Some(number) = InodeNumber::new(entry.e_value_inum.get()) {
            return self.value_in_inode(number, len, place);
        }
        let offset = usize::from(entry.e_value_offs.get());
        match part(bytes, offset, len) {
            Some(value) => Ok(value.to_vec()),
            None if len == 0 => Ok(Vec::new()),
            None => Err(out_of_range(
                place,
                "e_value_offs",
                entry.e_value_offs.get().into(),
            )),
        }
    }

    /// A value that is too large for the block has an inode of its own (feature `ea_inode`).
    fn value_in_inode(&self, number: InodeNumber, len: usize, place: Place) -> Result<Vec<u8>, ReadError> {
        if !self.geometry.features.incompat(incompat::EA_INODE) {
            return Err(out_of_range(place, "e_value_inum", number.get().into()));
        }
        let inode = self.inode(number)?;
        let is_value = inode.has_flag(inode_flags::EA_INODE) && inode.stat.file_type == FileType::Regular;
        if !is_value || usize::try_from(inode.stat.size) != Ok(len) {
            return Err(out_of_range(place, "e_value_inum", number.get().into()));
        }
        let mut value = vec![0; len];
        self.read_content(&inode, &mut value)?;
        Ok(value)
    }
}

/// The part of an inode that holds attributes, if there are any: what lies behind the magic number behind the fields.
fn in_inode(raw: &[u8]) -> Option<&[u8]> {
    let extra = usize::from(u16_at(raw, OLD_INODE)?);
    let magic = OLD_INODE.checked_add(extra)?;
    if extra == 0 || u32_at(raw, magic)? != EXT4_XATTR_MAGIC {
        return None;
    }
    raw.get(magic.checked_add(4)?..)
}

fn full_name(index: u8, name: &[u8], place: Place) -> Result<Vec<u8>, ReadError> {
    let Some((_, prefix)) = XATTR_PREFIXES.iter().find(|(number, _)| *number == index) else {
        return Err(ReadError::Unsupported {
            feature: format!("e_name_index {index} ({place})"),
        });
    };
    // A prefix that ends in a dot needs a name behind it, the others are whole.
    if name.is_empty() == prefix.ends_with(b".") {
        let len = u64::try_from(name.len()).unwrap_or(u64::MAX);
        return Err(out_of_range(place, "e_name_len", len));
    }
    if name.contains(&0) {
        return Err(ReadError::corrupt(
            place,
            Fault::Structure("there is a NUL in a name"),
        ));
    }
    Ok([*prefix, name].concat())
}

/// Turns an ACL into the form that system calls have: version 2, every entry with an ID.
///
/// Forms: `fs/ext4/acl.h` and `include/uapi/linux/posix_acl_xattr.h` in the kernel.
fn acl(disk: &[u8]) -> Option<Vec<u8>> {
    const USER: u16 = 2;
    const GROUP: u16 = 8;
    /// The owner, the owning group, the mask and all others: ext4 keeps no ID with them.
    const WITHOUT_ID: [u16; 4] = [1, 4, 0x10, 0x20];
    if u32_at(disk, 0)? != 1 {
        return None;
    }
    let mut calls = 2_u32.to_le_bytes().to_vec();
    let mut rest = disk.get(4..)?;
    while !rest.is_empty() {
        let tag = u16_at(rest, 0)?;
        calls.extend_from_slice(part(rest, 0, 4)?);
        let len = match tag {
            USER | GROUP => {
                calls.extend_from_slice(part(rest, 4, 4)?);
                8
            }
            _ if WITHOUT_ID.contains(&tag) => {
                calls.extend_from_slice(&u32::MAX.to_le_bytes());
                4
            }
            _ => return None,
        };
        rest = rest.get(len..)?;
    }
    Some(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_access_in_the_form_of_system_calls() {
        let disk = [
            1, 0, 0, 0, // version
            1, 0, 6, 0, // owner: rw
            2, 0, 4, 0, 0xe8, 3, 0, 0, // user 1000: r
            0x20, 0, 0, 0, // others: nothing
        ];
        let calls = [
            2, 0, 0, 0, // version
            1, 0, 6, 0, 255, 255, 255, 255, //
            2, 0, 4, 0, 0xe8, 3, 0, 0, //
            0x20, 0, 0, 0, 255, 255, 255, 255,
        ];
        assert_eq!(acl(&disk).unwrap(), calls);
        for end in [0, 3, 6, 11, 15] {
            assert_eq!(acl(&disk[..end]), None, "{end}");
        }
        assert_eq!(acl(&[2, 0, 0, 0]), None);
        assert_eq!(acl(&[1, 0, 0, 0, 3, 0, 0, 0]), None);
    }

    #[test]
    fn names_in_full() {
        let name = |index, name: &[u8]| full_name(index, name, Place::Superblock).ok();
        assert_eq!(name(1, b"mime").unwrap(), b"user.mime");
        assert_eq!(name(2, b"").unwrap(), b"system.posix_acl_access");
        assert_eq!(name(6, b"capability").unwrap(), b"security.capability");
        assert_eq!(name(2, b"x"), None);
        assert_eq!(name(1, b""), None);
        assert_eq!(name(0, b"x"), None);
    }
}
