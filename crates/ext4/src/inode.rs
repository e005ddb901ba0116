//! An inode as 256 bytes.

use firebrick_tree::{DeviceKind, Kind, Metadata, Timestamp};
use zerocopy::IntoBytes;

use crate::checksum::Crc;
use crate::format::{InodeFields, file_type, inode_flags, mode};
use crate::geometry::BlockNumber;
use crate::xattr::IN_INODE_LEN;

/// Bytes of the fields behind the old 128 (`s_want_extra_isize`).
pub(crate) const EXTRA_ISIZE: u16 = 32;

/// What an inode says, beside what its tree node says.
pub(crate) struct InodeParts<'a> {
    /// File type and permissions.
    pub(crate) mode: u16,
    pub(crate) meta: &'a Metadata,
    pub(crate) size: u64,
    pub(crate) links: u16,
    /// 4096-byte blocks, of content, extent tree and xattrs.
    pub(crate) blocks: u64,
    pub(crate) flags: u32,
    pub(crate) i_block: [u8; 60],
    pub(crate) xattr_block: Option<BlockNumber>,
    pub(crate) in_inode_xattrs: Option<&'a [u8]>,
}

/// The inode's bytes. `crc` is the inode's seed.
pub(crate) fn encode(parts: &InodeParts<'_>, crc: Crc) -> [u8; 256] {
    let meta = parts.meta;
    let (time, time_extra) = time_fields(meta.mtime);
    // `huge_file` counts in 512-byte sectors with 48 bits, enough for all that 2^32 blocks can hold.
    let sectors = parts.blocks * 8;
    let xattr_block = parts.xattr_block.map_or(0, |block| block.0);
    let mut fields = InodeFields {
        i_mode: parts.mode.into(),
        i_uid: (meta.uid as u16).into(),
        i_size_lo: (parts.size as u32).into(),
        i_atime: time.into(),
        i_ctime: time.into(),
        i_mtime: time.into(),
        i_dtime: 0.into(),
        i_gid: (meta.gid as u16).into(),
        i_links_count: parts.links.into(),
        i_blocks_lo: (sectors as u32).into(),
        i_flags: parts.flags.into(),
        i_version_lo: 0.into(),
        i_block: parts.i_block,
        i_generation: 0.into(),
        i_file_acl_lo: (xattr_block as u32).into(),
        i_size_high: ((parts.size >> 32) as u32).into(),
        i_obso_faddr: 0.into(),
        i_blocks_high: ((sectors >> 32) as u16).into(),
        i_file_acl_high: ((xattr_block >> 32) as u16).into(),
        i_uid_high: ((meta.uid >> 16) as u16).into(),
        i_gid_high: ((meta.gid >> 16) as u16).into(),
        i_checksum_lo: 0.into(),
        i_reserved: 0.into(),
        i_extra_isize: EXTRA_ISIZE.into(),
        i_checksum_hi: 0.into(),
        i_ctime_extra: time_extra.into(),
        i_mtime_extra: time_extra.into(),
        i_atime_extra: time_extra.into(),
        i_crtime: time.into(),
        i_crtime_extra: time_extra.into(),
        i_version_hi: 0.into(),
        i_projid: 0.into(),
    };
    let xattrs = parts.in_inode_xattrs.unwrap_or(&[0; IN_INODE_LEN]);
    let checksum = crc.update(fields.as_bytes()).update(xattrs).value();
    fields.i_checksum_lo = (checksum as u16).into();
    fields.i_checksum_hi = ((checksum >> 16) as u16).into();
    let mut bytes = [0; 256];
    bytes[..160].copy_from_slice(fields.as_bytes());
    bytes[160..].copy_from_slice(xattrs);
    bytes
}

/// Seconds in 34 bits (1901 to 2446; what lies outside becomes the nearest, as the kernel does) and nanoseconds.
///
/// Layout: <https://docs.kernel.org/filesystems/ext4/inodes.html#inode-timestamps>
pub(crate) fn time_fields(time: Timestamp) -> (u32, u32) {
    const MIN: i64 = -(1 << 31);
    const MAX: i64 = (1 << 34) - (1 << 31) - 1;
    let seconds = time.seconds.clamp(MIN, MAX);
    let nanoseconds = if seconds == time.seconds {
        time.nanoseconds
    } else {
        0
    };
    let low = seconds as u32;
    // The low half counts as signed, so the epoch is what is missing to the whole.
    let epoch = (seconds - i64::from(low.cast_signed())) >> 32;
    (low, (epoch as u32 & 3) | (nanoseconds << 2))
}

/// The file type in `i_mode` and in directory entries.
pub(crate) fn type_of(kind: &Kind) -> (u16, u8) {
    match kind {
        Kind::Directory(_) => (mode::S_IFDIR, file_type::DIR),
        Kind::File(_) => (mode::S_IFREG, file_type::REG_FILE),
        Kind::Symlink(_) => (mode::S_IFLNK, file_type::SYMLINK),
        Kind::Device {
            kind: DeviceKind::Char,
            ..
        } => (mode::S_IFCHR, file_type::CHRDEV),
        Kind::Device {
            kind: DeviceKind::Block,
            ..
        } => (mode::S_IFBLK, file_type::BLKDEV),
        Kind::Fifo => (mode::S_IFIFO, file_type::FIFO),
        Kind::Socket => (mode::S_IFSOCK, file_type::SOCK),
    }
}

/// Largest device numbers that Linux has (`MINORBITS` is 20).
const MAJOR_MAX: u32 = (1 << 12) - 1;
const MINOR_MAX: u32 = (1 << 20) - 1;

/// `i_block` of a device node: the old 16-bit form where it fits, else the new one; `None` if Linux has no such number.
pub(crate) fn device_block(major: u32, minor: u32) -> Option<[u8; 60]> {
    if major > MAJOR_MAX || minor > MINOR_MAX {
        return None;
    }
    let mut i_block = [0; 60];
    if major < 256 && minor < 256 {
        i_block[..4].copy_from_slice(&((major << 8) | minor).to_le_bytes());
    } else {
        let new_form = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        i_block[4..8].copy_from_slice(&new_form.to_le_bytes());
    }
    Some(i_block)
}

/// Flags of an inode whose blocks are in an extent tree.
pub(crate) const EXTENTS: u32 = inode_flags::EXTENTS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_four_centuries() {
        // The table in the kernel's documentation of inode timestamps.
        let fields = |seconds| {
            time_fields(Timestamp {
                seconds,
                nanoseconds: 0,
            })
        };
        assert_eq!(fields(-0x8000_0000), (0x8000_0000, 0));
        assert_eq!(fields(-1), (0xffff_ffff, 0));
        assert_eq!(fields(0x7fff_ffff), (0x7fff_ffff, 0));
        assert_eq!(fields(0x8000_0000), (0x8000_0000, 1));
        assert_eq!(fields(0x1_8000_0000), (0x8000_0000, 2));
        assert_eq!(fields(0x3_7fff_ffff), (0x7fff_ffff, 3));
        assert_eq!(fields(i64::MAX), fields(0x3_7fff_ffff));
        assert_eq!(fields(i64::MIN), fields(-0x8000_0000));
        assert_eq!(
            time_fields(Timestamp {
                seconds: 1,
                nanoseconds: 999_999_999
            }),
            (1, 999_999_999 << 2)
        );
    }

    #[test]
    fn device_numbers_of_both_forms() {
        assert_eq!(device_block(1, 3).unwrap()[..4], [3, 1, 0, 0]);
        assert_eq!(
            device_block(0xfff, 0xf_ffff).unwrap()[4..8],
            [0xff, 0xff, 0xff, 0xff]
        );
        assert_eq!(device_block(259, 1).unwrap()[4..8], [1, 3, 1, 0]);
        assert!(device_block(4096, 0).is_none());
        assert!(device_block(0, 1 << 20).is_none());
    }
}
