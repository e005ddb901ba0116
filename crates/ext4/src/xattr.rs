//! Extended attributes: behind the inode's fields where they fit, else in a block of their own.
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/attributes.html>

use firebrick_tree::Xattrs;
use zerocopy::IntoBytes;

use crate::checksum::Crc;
use crate::format::{BLOCK_SIZE, EXT4_XATTR_MAGIC, XATTR_PREFIXES, XattrBlockHeader, XattrEntry};
use crate::geometry::BlockNumber;

/// Bytes behind an inode's fields.
pub(crate) const IN_INODE_LEN: usize = 256 - 160;

/// Where attributes may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Bytes behind an inode's fields.
    pub(crate) in_inode: usize,
    /// Bytes of a block.
    pub(crate) block: usize,
}

/// The room of an inode that firebrick writes.
const OURS: Room = Room {
    in_inode: IN_INODE_LEN,
    block: BLOCK_SIZE as usize,
};

/// Extended attributes as they go to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Those behind the inode's fields.
    pub(crate) in_inode: Option<Vec<u8>>,
    /// Those in a block, without its checksum, which depends on where it lies.
    pub(crate) block: Option<Vec<u8>>,
    /// Names that ext4 has no namespace for. Container tools leave them out, too.
    pub(crate) left_out: Vec<Box<[u8]>>,
}

/// Why attributes cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XattrError {
    /// They do not fit an inode and one block.
    #[error("its extended attributes take {len} bytes, an inode of this filesystem has room for {room}")]
    TooLarge {
        /// Names and values together, in bytes.
        len: usize,
        /// For how many bytes there is room at most.
        room: usize,
    },
    /// An access control list that is not in the kernel's form.
    #[error("its access control list ({len} bytes) is not in the form that getxattr gives")]
    Acl {
        /// Length of the value in bytes.
        len: usize,
    },
}

/// One attribute with its name split into namespace and rest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute<'a> {
    // In the order by which a block must be sorted.
    index: u8,
    name_len: usize,
    name: &'a [u8],
    value: Vec<u8>,
}

impl Attribute<'_> {
    fn entry_len(&self) -> usize {
        (16 + self.name.len()).next_multiple_of(4)
    }

    fn value_len(&self) -> usize {
        self.value.len().next_multiple_of(4)
    }

    fn len(&self) -> usize {
        self.entry_len() + self.value_len()
    }

    /// `ext4_xattr_hash_entry`.
    fn hash(&self) -> u32 {
        let hash = self
            .name
            .iter()
            .fold(0_u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
        self.value.chunks(4).fold(hash, |hash, chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// Packs attributes for an inode of ours; `None` if there are none.
pub(crate) fn pack(xattrs: &Xattrs) -> Result<Option<Packed>, XattrError> {
    pack_into(xattrs, OURS)
}

/// Packs attributes; `None` if there are none.
pub(crate) fn pack_into(xattrs: &Xattrs, to: Room) -> Result<Option<Packed>, XattrError> {
    if xattrs.is_empty() {
        return Ok(None);
    }
    let mut left_out = Vec::new();
    let mut attributes = Vec::with_capacity(xattrs.len());
    for (full_name, value) in xattrs {
        let Some((index, name)) = split_name(full_name) else {
            left_out.push(full_name.clone());
            continue;
        };
        let value = if matches!(index, 2 | 3) {
            acl_to_disk(value)?
        } else {
            value.to_vec()
        };
        attributes.push(Attribute {
            index,
            name_len: name.len(),
            name,
            value,
        });
    }
    attributes.sort();
    // A header of 4 bytes in front, 4 zero bytes behind the last entry.
    let mut room = to.in_inode.saturating_sub(4 + 4);
    let (inner, outer): (Vec<_>, Vec<_>) = attributes.into_iter().partition(|attribute| {
        let fits = attribute.len() <= room;
        room -= if fits { attribute.len() } else { 0 };
        fits
    });
    let outer_len: usize = outer.iter().map(Attribute::len).sum();
    if outer_len > to.block - 32 - 4 || outer.iter().any(|attribute| attribute.value.len() > to.block) {
        let len = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let room = to.in_inode + to.block;
        return Err(XattrError::TooLarge { len, room });
    }
    Ok(Some(Packed {
        in_inode: (!inner.is_empty()).then(|| in_inode(&inner, to.in_inode)),
        block: (!outer.is_empty()).then(|| block(&outer, to.block)),
        left_out,
    }))
}

/// Puts the checksum of a block that lies at `number` into it. `crc` is the filesystem's seed.
pub(crate) fn seal(block: &mut [u8], number: BlockNumber, crc: Crc) {
    let checksum = crc.update(&number.0.to_le_bytes()).update(block).value();
    block[16..20].copy_from_slice(&checksum.to_le_bytes());
}

fn split_name(full_name: &[u8]) -> Option<(u8, &[u8])> {
    let (index, rest) = XATTR_PREFIXES
        .iter()
        .find_map(|(index, prefix)| Some((*index, full_name.strip_prefix(*prefix)?)))?;
    // The two lists are whole names; of the others something must be left.
    (matches!(index, 2 | 3) == rest.is_empty()).then_some((index, rest))
}

/// Entries from the front, values from the back. Offsets count from `base`.
fn put(area: &mut [u8], base: usize, attributes: &[Attribute<'_>]) -> Vec<u32> {
    let mut entry_at = base;
    let mut value_at = area.len();
    let mut hashes = Vec::with_capacity(attributes.len());
    for attribute in attributes {
        value_at -= attribute.value_len();
        area[value_at..value_at + attribute.value.len()].copy_from_slice(&attribute.value);
        let to_u16 = |value: usize| u16::try_from(value).expect("within a block").into();
        let offset_base = if base == 4 { 4 } else { 0 };
        let hash = attribute.hash();
        let entry = XattrEntry {
            e_name_len: u8::try_from(attribute.name.len()).expect("names have at most 255 bytes"),
            e_name_index: attribute.index,
            e_value_offs: if attribute.value.is_empty() {
                0.into()
            } else {
                to_u16(value_at - offset_base)
            },
            e_value_inum: 0.into(),
            e_value_size: u32::from(u16::try_from(attribute.value.len()).expect("within a block")).into(),
            e_hash: hash.into(),
        };
        area[entry_at..entry_at + 16].copy_from_slice(entry.as_bytes());
        area[entry_at + 16..entry_at + 16 + attribute.name.len()].copy_from_slice(attribute.name);
        entry_at += attribute.entry_len();
        hashes.push(hash);
    }
    hashes
}

fn in_inode(attributes: &[Attribute<'_>], len: usize) -> Vec<u8> {
    let mut area = vec![0; len];
    area[..4].copy_from_slice(&EXT4_XATTR_MAGIC.to_le_bytes());
    put(&mut area, 4, attributes);
    area
}

fn block(attributes: &[Attribute<'_>], len: usize) -> Vec<u8> {
    let mut area = vec![0; len];
    let hashes = put(&mut area, 32, attributes);
    let hash = hashes
        .into_iter()
        .fold(0_u32, |hash, entry| hash.rotate_left(16) ^ entry);
    let header = XattrBlockHeader {
        h_magic: EXT4_XATTR_MAGIC.into(),
        h_refcount: 1.into(),
        h_blocks: 1.into(),
        h_hash: hash.into(),
        h_checksum: 0.into(),
        h_reserved: [0.into(); 3],
    };
    area[..32].copy_from_slice(header.as_bytes());
    area
}

/// From `getxattr`'s form (version 2, 8 bytes an entry) to ext4's (version 1, 4 bytes where there is no id;
/// `fs/ext4/acl.h`).
fn acl_to_disk(value: &[u8]) -> Result<Vec<u8>, XattrError> {
    let error = XattrError::Acl { len: value.len() };
    let Some(entries) = value.strip_prefix(&[2, 0, 0, 0]) else {
        return Err(error);
    };
    if !entries.len().is_multiple_of(8) {
        return Err(error);
    }
    let mut out = vec![1, 0, 0, 0];
    for entry in entries.chunks_exact(8) {
        let has_id = match entry[..2] {
            [0x02 | 0x08, 0] => true,
            [0x01 | 0x04 | 0x10 | 0x20, 0] => false,
            _ => return Err(error),
        };
        out.extend_from_slice(if has_id { entry } else { &entry[..4] });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(list: &[(&str, usize)]) -> Xattrs {
        list.iter()
            .map(|(name, len)| (name.as_bytes().into(), vec![b'v'; *len].into()))
            .collect()
    }

    fn places(list: &[(&str, usize)]) -> (bool, bool) {
        let packed = pack(&xattrs(list)).unwrap().unwrap();
        (packed.in_inode.is_some(), packed.block.is_some())
    }

    #[test]
    fn small_ones_stay_in_the_inode() {
        // 88 bytes of room: 20 for the entry with its name, 68 for the value.
        assert_eq!(places(&[("user.abcd", 68)]), (true, false));
        assert_eq!(places(&[("user.abcd", 69)]), (false, true));
        assert_eq!(
            places(&[("security.capability", 20), ("user.big", 3000)]),
            (true, true)
        );
        assert_eq!(places(&[("user.", 1), ("user.a", 0)]), (true, false));
    }

    #[test]
    fn too_much_is_an_error_and_unknown_namespaces_are_left_out() {
        assert!(matches!(
            pack(&xattrs(&[("user.a", 5000)])),
            Err(XattrError::TooLarge { len: 5006, .. })
        ));
        assert!(pack(&xattrs(&[("user.a", 4096 - 32 - 4 - 20)])).is_ok());
        assert!(pack(&xattrs(&[("user.a", 4096 - 32 - 4 - 19)])).is_err());
        let packed = pack(&xattrs(&[("com.apple.provenance", 11), ("user.", 3)]))
            .unwrap()
            .unwrap();
        assert_eq!(packed.left_out.len(), 2);
        assert_eq!((packed.in_inode, packed.block), (None, None));
    }

    #[test]
    fn acls_change_their_form() {
        let value = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 4, 0, 9, 0, 0, 0],
        ]
        .concat();
        assert_eq!(
            acl_to_disk(&value).unwrap(),
            [1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 9, 0, 0, 0]
        );
        for bad in [
            &b""[..],
            &[1, 0, 0, 0],
            &[2, 0, 0, 0, 1],
            &[2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(acl_to_disk(bad).is_err());
        }
    }
}
