//! Extended attributes of inodes that are there.

use firebrick_tree::Xattrs;
use zerocopy::IntoBytes as _;

use super::inodes::RawInode;
use super::paths::shown;
use super::{EditError, Editor, Target};
use crate::format::{EXT4_XATTR_MAGIC, InodeFields, XattrBlockHeader, compat};
use crate::geometry::BlockNumber;
use crate::inode::EXTRA_ISIZE;
use crate::read::bytes::{u32_at, zero};
use crate::read::{Inode, InodeNumber, Place, out_of_range};
use crate::xattr::{self, Room};

/// Where `h_refcount` stands.
const REFCOUNT: usize = std::mem::offset_of!(XattrBlockHeader, h_refcount);
/// Where `h_checksum` stands.
const CHECKSUM: usize = std::mem::offset_of!(XattrBlockHeader, h_checksum);
/// Where the fields behind an inode's first 128 bytes begin.
const OLD: usize = 128;
/// Bytes of all fields.
const FIELDS: usize = size_of::<InodeFields>();

impl<T: Target> Editor<T> {
    /// Takes an inode's block of attributes from it. Others may have the same block.
    pub(super) fn release_xattr_block(&mut self, inode: &Inode) -> Result<(), EditError> {
        let block = self.raw_inode(inode).xattr_block();
        let place = Place::Xattrs {
            inode: inode.number(),
            block: Some(block),
        };
        let mut bytes = self.filesystem.read_block(block, place)?;
        let magic = u32_at(&bytes, 0).unwrap_or_default();
        if magic != EXT4_XATTR_MAGIC {
            return Err(out_of_range(place, "h_magic", magic.into()).into());
        }
        let count = u32_at(&bytes, REFCOUNT).unwrap_or_default();
        if count <= 1 {
            return self.release_blocks(block, 1, place);
        }
        let left = count.saturating_sub(1).to_le_bytes();
        let field = REFCOUNT..REFCOUNT.saturating_add(4);
        bytes.get_mut(field).unwrap_or_default().copy_from_slice(&left);
        self.put_xattr_block(bytes, block, place)
    }

    fn put_xattr_block(&self, mut bytes: Vec<u8>, block: u64, place: Place) -> Result<(), EditError> {
        zero(&mut bytes, CHECKSUM, 4);
        if let Some(seed) = self.form.seed {
            xattr::seal(&mut bytes, BlockNumber(block), seed);
        }
        self.put_blocks(&bytes, block, place)
    }

    /// Puts attributes into an inode that has none.
    pub(super) fn put_xattrs(
        &mut self,
        path: &[u8],
        number: u32,
        raw: &mut RawInode,
        xattrs: &Xattrs,
    ) -> Result<(), EditError> {
        let start = in_inode_start(raw);
        let in_inode = start
            .and_then(|start| raw.rest.get(start..))
            .map_or(0, <[u8]>::len);
        let room = Room {
            in_inode,
            block: self.form.block_len,
        };
        let packed = xattr::pack_into(xattrs, room).map_err(|source| EditError::Xattr {
            path: shown(path),
            source,
        })?;
        let Some(packed) = packed else {
            return Ok(());
        };
        let said = packed
            .left_out
            .iter()
            .map(|name| format!("{}: {}", path.escape_ascii(), name.escape_ascii()));
        self.changes.left_out_xattrs.extend(said);
        if let Some(bytes) = packed.in_inode {
            let area = raw.rest.get_mut(start.unwrap_or(0)..).unwrap_or_default();
            area.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
        if let Some(bytes) = packed.block {
            let runs = self.take_blocks(1, None, 1)?;
            let block = runs.first().map_or(0, |(first, _)| *first);
            let place = Place::Xattrs {
                inode: InodeNumber::new(number).unwrap_or(InodeNumber::ROOT),
                block: Some(block),
            };
            self.put_xattr_block(bytes, block, place)?;
            raw.set_xattr_block(block);
        }
        let features = self.superblock.s_feature_compat.get() | compat::EXT_ATTR;
        self.superblock.s_feature_compat = features.into();
        Ok(())
    }

    /// Clears attributes behind an inode's fields. Where fewer fields than ours were in use, attributes began among them.
    pub(super) fn clear_xattrs(&self, raw: &mut RawInode) {
        let extra = usize::from(raw.fields.i_extra_isize.get());
        if raw.rest.is_empty() {
            return;
        }
        let used = OLD.saturating_add(extra);
        raw.fields
            .as_mut_bytes()
            .get_mut(used..)
            .unwrap_or_default()
            .fill(0);
        let start = used.saturating_sub(FIELDS);
        raw.rest.get_mut(start..).unwrap_or_default().fill(0);
        raw.fields.i_extra_isize = raw.fields.i_extra_isize.get().max(EXTRA_ISIZE).into();
    }
}

/// Where attributes begin in what lies behind the fields of an inode. `None` where inodes are short, or where the fields
/// that are in use are fewer than ours, so that attributes would begin among them.
fn in_inode_start(raw: &RawInode) -> Option<usize> {
    let extra = usize::from(raw.fields.i_extra_isize.get());
    OLD.saturating_add(extra)
        .checked_sub(FIELDS)
        .filter(|start| *start <= raw.rest.len() && !raw.rest.is_empty())
}
