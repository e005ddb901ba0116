//! Taking inodes, writing them, and giving them back.

use firebrick_tree::{Metadata, Timestamp};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{EditError, Editor, Target, low16, low32, narrow, wide};
use crate::format::{InodeFields, group_flags, inode_flags, mode};
use crate::inode::{EXTRA_ISIZE, time_fields};
use crate::read::bytes::join;
use crate::read::{Fault, Inode, InodeNumber, Place, ReadError};

/// Bytes of the fields of [`InodeFields`].
const FIELDS: usize = size_of::<InodeFields>();
/// Bytes of an inode without the fields behind.
const OLD: usize = 128;

/// An inode's bytes while they are changed: its fields, and what lies behind.
#[derive(Clone, Debug)]
pub(super) struct RawInode {
    pub(super) fields: InodeFields,
    /// What lies behind the fields; empty where inodes have 128 bytes.
    pub(super) rest: Vec<u8>,
}

impl RawInode {
    /// All zeros.
    fn new(inode_len: usize) -> RawInode {
        RawInode {
            fields: zerocopy::FromZeros::new_zeroed(),
            rest: vec![0; inode_len.saturating_sub(FIELDS)],
        }
    }

    fn of(bytes: &[u8]) -> RawInode {
        let mut front = [0; FIELDS];
        front.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        RawInode {
            fields: InodeFields::read_from_bytes(&front)
                .unwrap_or_else(|_| zerocopy::FromZeros::new_zeroed()),
            rest: bytes.get(FIELDS..).unwrap_or_default().to_vec(),
        }
    }

    fn bytes(&self, inode_len: usize) -> Vec<u8> {
        let mut bytes = self.fields.as_bytes().to_vec();
        bytes.extend_from_slice(&self.rest);
        bytes.truncate(inode_len);
        bytes
    }

    pub(super) fn xattr_block(&self) -> u64 {
        join(
            self.fields.i_file_acl_lo.get(),
            self.fields.i_file_acl_high.get().into(),
        )
    }

    pub(super) fn set_xattr_block(&mut self, block: u64) {
        self.fields.i_file_acl_lo = low32(block).into();
        self.fields.i_file_acl_high = low16(block >> 32).into();
    }

    pub(super) fn set_size(&mut self, size: u64) {
        self.fields.i_size_lo = low32(size).into();
        self.fields.i_size_high = low32(size >> 32).into();
    }

    /// Type and permissions.
    pub(super) fn set_mode(&mut self, type_bits: u16, permissions: u16) {
        self.fields.i_mode = (type_bits | permissions & 0o7777).into();
    }

    pub(super) fn set_owner(&mut self, uid: u32, gid: u32) {
        self.fields.i_uid = low16(uid.into()).into();
        self.fields.i_uid_high = low16(u64::from(uid >> 16)).into();
        self.fields.i_gid = low16(gid.into()).into();
        self.fields.i_gid_high = low16(u64::from(gid >> 16)).into();
    }

    /// Sets access and modification, and with `all` also what else an inode has of times.
    pub(super) fn set_times(&mut self, time: Timestamp, all: bool) {
        let (low, extra) = time_fields(time);
        let fields = &mut self.fields;
        fields.i_atime = low.into();
        fields.i_mtime = low.into();
        let has_extra = fields.i_extra_isize.get() >= 16;
        if has_extra {
            fields.i_atime_extra = extra.into();
            fields.i_mtime_extra = extra.into();
        }
        if all {
            fields.i_ctime = low.into();
            if has_extra {
                fields.i_ctime_extra = extra.into();
            }
            if fields.i_extra_isize.get() >= 24 {
                fields.i_crtime = low.into();
                fields.i_crtime_extra = extra.into();
            }
        }
    }
}

impl<T: Target> Editor<T> {
    /// An inode as it is now.
    pub(super) fn inode(&self, number: u32) -> Result<Inode, EditError> {
        let Some(valid) = InodeNumber::new(number) else {
            let count = self.filesystem.geometry.inodes;
            return Err(ReadError::NoSuchInode { number, count }.into());
        };
        Ok(self.filesystem.inode(valid)?)
    }

    pub(super) fn raw_inode(&self, inode: &Inode) -> RawInode {
        RawInode::of(&inode.raw)
    }

    /// An inode for something new.
    pub(super) fn new_inode(&self, type_bits: u16, meta: &Metadata) -> RawInode {
        let mut raw = RawInode::new(self.form.inode_len);
        if self.form.inode_len >= FIELDS {
            raw.fields.i_extra_isize = EXTRA_ISIZE.into();
        }
        raw.set_mode(type_bits, meta.mode);
        raw.set_owner(meta.uid, meta.gid);
        raw.set_times(meta.mtime, true);
        raw.fields.i_links_count = 1.into();
        raw
    }

    /// Counts blocks in an inode. `false` if there are more than it can count.
    #[must_use]
    pub(super) fn set_block_count(&self, raw: &mut RawInode, blocks: u64) -> bool {
        let sectors = blocks.saturating_mul(self.form.block_bytes() >> 9);
        let bits = if self.form.huge_file { 48 } else { 32 };
        if sectors >> bits != 0 {
            return false;
        }
        let in_blocks = raw.fields.i_flags.get() & !inode_flags::HUGE_FILE;
        raw.fields.i_flags = in_blocks.into();
        raw.fields.i_blocks_lo = low32(sectors).into();
        raw.fields.i_blocks_high = low16(sectors >> 32).into();
        true
    }

    /// Counts the blocks of an inode that has none but that of its extended attributes.
    #[must_use]
    pub(super) fn count_xattr_block(&self, raw: &mut RawInode) -> bool {
        let blocks = u64::from(raw.xattr_block() != 0);
        self.set_block_count(raw, blocks)
    }

    /// Writes an inode with its checksum.
    pub(super) fn put_inode(&self, number: u32, mut raw: RawInode) -> Result<(), EditError> {
        let Some(valid) = InodeNumber::new(number) else {
            let count = self.filesystem.geometry.inodes;
            return Err(ReadError::NoSuchInode { number, count }.into());
        };
        let len = self.form.inode_len;
        if self.form.seed.is_some() {
            let wide_checksum = len > OLD && raw.fields.i_extra_isize.get() >= 4;
            raw.fields.i_checksum_lo = 0.into();
            if wide_checksum {
                raw.fields.i_checksum_hi = 0.into();
            }
            let seed = self.form.inode_seed(number, raw.fields.i_generation.get());
            let checksum = u64::from(seed.update(&raw.bytes(len)).value());
            raw.fields.i_checksum_lo = low16(checksum).into();
            if wide_checksum {
                raw.fields.i_checksum_hi = low16(checksum >> 16).into();
            }
        }
        let offset = self.filesystem.inode_offset(valid)?;
        self.put(&raw.bytes(len), offset, Place::Inode(valid))
    }

    /// Takes a free inode, in the group of `near` if there is one.
    pub(super) fn take_inode(&mut self, near: u32, is_directory: bool) -> Result<u32, EditError> {
        let geometry = self.filesystem.geometry.clone();
        let per_group = geometry.inodes_per_group;
        let count = self.groups.len();
        let first = near.saturating_sub(1).checked_div(per_group).unwrap_or(0);
        for step in 0..count {
            let index = narrow(first.into())
                .saturating_add(step)
                .checked_rem(count)
                .unwrap_or(0);
            if self.group(index).is_none_or(|group| group.free_inodes() == 0) {
                continue;
            }
            let reserved = if index == 0 {
                geometry.first_inode.saturating_sub(1)
            } else {
                0
            };
            let bits = self.inode_bits(index)?;
            let mut places = narrow(reserved.into())..narrow(per_group.into());
            let Some(bit) = places.find(|bit| !bits.is_set(*bit)) else {
                continue;
            };
            bits.put(bit, true);
            let used = low32(wide(bit)).saturating_add(1);
            if let Some(group) = self.groups.get_mut(index) {
                group.set_free_inodes(group.free_inodes().saturating_sub(1));
                group.clear_flag(group_flags::INODE_UNINIT);
                group.set_unused_inodes(group.unused_inodes().min(per_group.saturating_sub(used)));
                if is_directory {
                    group.set_directories(group.directories().saturating_add(1));
                }
            }
            let free = self.superblock.s_free_inodes_count.get().saturating_sub(1);
            self.superblock.s_free_inodes_count = free.into();
            self.changes.made = self.changes.made.saturating_add(1);
            return Ok(low32(wide(index)).saturating_mul(per_group).saturating_add(used));
        }
        Err(EditError::NoInodes {
            count: geometry.inodes,
        })
    }

    /// Gives an inode back, with all that belongs to it, and writes zeros over it.
    pub(super) fn release_inode(&mut self, inode: &Inode) -> Result<(), EditError> {
        self.release_content(inode)?;
        let raw = self.raw_inode(inode);
        if raw.xattr_block() != 0 {
            self.release_xattr_block(inode)?;
        }
        let number = inode.number.get();
        let per_group = self.filesystem.geometry.inodes_per_group;
        let index = number.saturating_sub(1);
        let bit = narrow(index.checked_rem(per_group).unwrap_or(0).into());
        let index = narrow(index.checked_div(per_group).unwrap_or(0).into());
        let bits = self.inode_bits(index)?;
        if !bits.is_set(bit) {
            let fault = Fault::Structure("it counts as free, but has a name");
            return Err(ReadError::corrupt(Place::Inode(inode.number), fault).into());
        }
        bits.put(bit, false);
        if let Some(group) = self.groups.get_mut(index) {
            group.set_free_inodes(group.free_inodes().saturating_add(1));
            if raw.fields.i_mode.get() & mode::S_IFMT == mode::S_IFDIR {
                group.set_directories(group.directories().saturating_sub(1));
            }
        }
        let free = self.superblock.s_free_inodes_count.get().saturating_add(1);
        self.superblock.s_free_inodes_count = free.into();
        self.changes.removed = self.changes.removed.saturating_add(1);
        self.folders.remove(&number);
        // As `mke2fs` leaves inodes that were never used. Their checksum does not count.
        let zeros = vec![0; self.form.inode_len];
        let offset = self.filesystem.inode_offset(inode.number)?;
        self.put(&zeros, offset, Place::Inode(inode.number))
    }

    /// Gives back the blocks of an inode's content and of its map.
    pub(super) fn release_content(&mut self, inode: &Inode) -> Result<(), EditError> {
        let claims = self.filesystem.claims(inode)?;
        let place = Place::Inode(inode.number);
        for (_, first, count) in &claims.content {
            self.release_blocks(*first, *count, place)?;
        }
        for block in &claims.map {
            self.release_blocks(*block, 1, place)?;
        }
        Ok(())
    }

    /// Changes fields of an inode.
    pub(super) fn change_inode(
        &self,
        inode: &Inode,
        change: impl FnOnce(&mut RawInode),
    ) -> Result<(), EditError> {
        let mut raw = self.raw_inode(inode);
        change(&mut raw);
        self.put_inode(inode.number.get(), raw)
    }
}
