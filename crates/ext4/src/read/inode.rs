//! Inodes: an [`Inode`] is one inode's verified bytes, its [`Stat`] what `stat(2)` would say of it.

use std::fmt;
use std::num::NonZeroU32;

use firebrick_reader::{DeviceNumber, FileType};
use firebrick_tree::Timestamp;

use super::ReadAt;
use super::bytes::{join, join16, part, u16_at, u32_at, view, zero};
use super::error::{Fault, Place, ReadError};
use super::{Filesystem, out_of_range};
use crate::checksum::Crc;
use crate::format::{EXT4_ROOT_INO, InodeFields, incompat, inode_flags, mode, ro_compat};

/// The number of an inode on disk: the first is 1, the root directory's is 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeNumber(NonZeroU32);

impl InodeNumber {
    /// The root directory's.
    pub const ROOT: InodeNumber = match NonZeroU32::new(EXT4_ROOT_INO) {
        Some(number) => InodeNumber(number),
        None => panic!("2 is not 0"),
    };

    /// The inode of this number; `None` for 0, which stands for none.
    pub fn new(number: u32) -> Option<InodeNumber> {
        NonZeroU32::new(number).map(InodeNumber)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for InodeNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

pub(crate) fn type_of_mode(bits: u16) -> Option<FileType> {
    Some(match bits & mode::S_IFMT {
        mode::S_IFREG => FileType::Regular,
        mode::S_IFDIR => FileType::Directory,
        mode::S_IFLNK => FileType::Symlink,
        mode::S_IFCHR => FileType::CharDevice,
        mode::S_IFBLK => FileType::BlockDevice,
        mode::S_IFIFO => FileType::Fifo,
        mode::S_IFSOCK => FileType::Socket,
        _ => return None,
    })
}

/// What `stat(2)` says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its inode.
    pub inode: InodeNumber,
    /// What it is.
    pub file_type: FileType,
    /// Permission, set-id and sticky bits: `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of the content in bytes; of the target for symbolic links.
    pub size: u64,
    /// How many names it has. 1 for a directory with more subdirectories than the field can count.
    pub links: u16,
    /// How many bytes of the image hold its content and extended attributes.
    pub allocated_bytes: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// When it was made, where the inode has room for that.
    pub created: Option<Timestamp>,
    /// Of a device node.
    pub device: Option<DeviceNumber>,
    /// `i_flags`.
    pub flags: u32,
}

/// One inode, read and verified.
#[derive(Clone, Debug)]
pub struct Inode {
    pub(crate) number: InodeNumber,
    pub(crate) stat: Stat,
    /// All of it, `s_inode_size` bytes.
    pub(crate) raw: Vec<u8>,
    /// `i_block`: a map of blocks, or a short symbolic link's target.
    pub(crate) block: [u8; 60],
    /// Where a block of extended attributes lies; 0 for nowhere.
    pub(crate) xattr_block: u64,
    /// What the checksums of everything that belongs to the inode start from.
    pub(crate) seed: Option<Crc>,
}

impl Inode {
    /// What `stat(2)` would say of it.
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Its number.
    pub fn number(&self) -> InodeNumber {
        self.number
    }

    /// Fails unless it is of this type.
    pub(crate) fn expect(&self, expected: FileType) -> Result<(), ReadError> {
        if self.stat.file_type == expected {
            return Ok(());
        }
        Err(ReadError::WrongType {
            inode: self.number,
            expected,
            found: self.stat.file_type,
        })
    }

    pub(crate) fn has_flag(&self, flag: u32) -> bool {
        self.stat.flags & flag != 0
    }
}

impl<R: ReadAt> Filesystem<R> {
    /// Reads and verifies an inode.
    ///
    /// # Errors
    /// [`ReadError::NoSuchInode`] beyond the last; corrupt where its checksum or its fields are wrong, or where no
    /// file is in it.
    pub fn inode(&self, number: InodeNumber) -> Result<Inode, ReadError> {
        let offset = self.inode_offset(number)?;
        let mut raw = vec![0; self.geometry.inode_size.into()];
        self.read_bytes(offset, &mut raw, Place::Inode(number))?;
        self.parse_inode(number, raw)
    }

    /// Where an inode's bytes lie, from the start of the image.
    pub(crate) fn inode_offset(&self, number: InodeNumber) -> Result<u64, ReadError> {
        let geometry = &self.geometry;
        let index = number.get().saturating_sub(1);
        let group = index.checked_div(geometry.inodes_per_group);
        let within = index.checked_rem(geometry.inodes_per_group);
        let (Some(group), Some(within)) = (group.filter(|group| *group < geometry.groups), within) else {
            return Err(ReadError::NoSuchInode {
                number: number.get(),
                count: geometry.inodes,
            });
        };
        // Within the image: the table was checked to end there.
        Ok(self
            .inode_table(group)?
            .saturating_mul(geometry.block_size.into())
            .saturating_add(u64::from(within).saturating_mul(geometry.inode_size.into())))
    }

    pub(crate) fn parse_inode(&self, number: InodeNumber, raw: Vec<u8>) -> Result<Inode, ReadError> {
        let place = Place::Inode(number);
        // An old inode of 128 bytes lacks the fields behind; they read as zeros.
        let mut long = [0; size_of::<InodeFields>()];
        long.iter_mut().zip(&raw).for_each(|(to, from)| *to = *from);
        let Some(fields) = view::<InodeFields>(&long, 0) else {
            return Err(ReadError::corrupt(place, Fault::Structure("it is cut off")));
        };
        if fields.i_mode.get() == 0 && fields.i_links_count.get() == 0 {
            return Err(ReadError::corrupt(place, Fault::Structure("it is not in use")));
        }
        let seed = self
            .geometry
            .seed
            .map(|seed| seed.for_inode(number.get(), fields.i_generation.get()));
        check(number, fields, &raw, seed)?;
        let extra = fields.i_extra_isize.get();
        if u64::from(extra).saturating_add(128) > u64::try_from(raw.len()).unwrap_or(0)
            || !extra.is_multiple_of(4)
        {
            return Err(out_of_range(place, "i_extra_isize", extra.into()));
        }
        let stat = self.stat(number, fields)?;
        let wide = self.geometry.features.incompat(incompat::BIT64);
        let xattr_high = if wide { fields.i_file_acl_high.get() } else { 0 };
        Ok(Inode {
            number,
            stat,
            block: fields.i_block,
            xattr_block: join(fields.i_file_acl_lo.get(), xattr_high.into()),
            seed,
            raw,
        })
    }

    fn stat(&self, number: InodeNumber, fields: &InodeFields) -> Result<Stat, ReadError> {
        let place = Place::Inode(number);
        let bits = fields.i_mode.get();
        let flags = fields.i_flags.get();
        let file_type = type_of_mode(bits).ok_or_else(|| out_of_range(place, "i_mode", bits.into()))?;
        if flags & inode_flags::INLINE_DATA != 0 {
            return Err(ReadError::Unsupported {
                feature: format!("inline_data (inode {number})"),
            });
        }
        let large = file_type == FileType::Regular || self.geometry.features.incompat(incompat::LARGEDIR);
        let size_high = if large { fields.i_size_high.get() } else { 0 };
        let extra = fields.i_extra_isize.get();
        let time = |seconds: u32, extra_field: u32, end: u16| {
            let extra = if extra >= end { extra_field } else { 0 };
            timestamp(seconds, extra)
                .ok_or_else(|| out_of_range(place, "a time's nanoseconds", u64::from(extra >> 2)))
        };
        let created = match extra {
            0..20 => None,
            _ => Some(time(fields.i_crtime.get(), fields.i_crtime_extra.get(), 24)?),
        };
        let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
        Ok(Stat {
            inode: number,
            file_type,
            mode: bits & 0o7777,
            uid: join16(fields.i_uid.get(), fields.i_uid_high.get()),
            gid: join16(fields.i_gid.get(), fields.i_gid_high.get()),
            size: join(fields.i_size_lo.get(), size_high),
            links: fields.i_links_count.get(),
            allocated_bytes: self.allocated_bytes(fields),
            atime: time(fields.i_atime.get(), fields.i_atime_extra.get(), 16)?,
            mtime: time(fields.i_mtime.get(), fields.i_mtime_extra.get(), 12)?,
            ctime: time(fields.i_ctime.get(), fields.i_ctime_extra.get(), 8)?,
            created,
            device: is_device.then(|| device(&fields.i_block)),
            flags,
        })
    }

    fn allocated_bytes(&self, fields: &InodeFields) -> u64 {
        let huge = self.geometry.features.ro_compat(ro_compat::HUGE_FILE);
        let high = if huge { fields.i_blocks_high.get() } else { 0 };
        let in_blocks = huge && fields.i_flags.get() & inode_flags::HUGE_FILE != 0;
        let unit = if in_blocks { self.geometry.block_size } else { 512 };
        join(fields.i_blocks_lo.get(), high.into()).saturating_mul(unit.into())
    }
}

/// Compares the inode's checksum, of which an inode without room behind the first 128 bytes keeps only 16 bits.
fn check(number: InodeNumber, fields: &InodeFields, raw: &[u8], seed: Option<Crc>) -> Result<(), ReadError> {
    const LOW: usize = std::mem::offset_of!(InodeFields, i_checksum_lo);
    const HIGH: usize = std::mem::offset_of!(InodeFields, i_checksum_hi);
    let Some(seed) = seed else {
        return Ok(());
    };
    let wide = raw.len() > 128 && fields.i_extra_isize.get() >= 4;
    let mut cleared = raw.to_vec();
    zero(&mut cleared, LOW, 2);
    let mut stored = u32::from(u16_at(raw, LOW).unwrap_or_default());
    let mut computed = 0xffff;
    if wide {
        zero(&mut cleared, HIGH, 2);
        stored |= u32::from(u16_at(raw, HIGH).unwrap_or_default()) << 16;
        computed = u32::MAX;
    }
    computed &= seed.update(&cleared).value();
    if stored != computed {
        let fault = Fault::Checksum { stored, computed };
        return Err(ReadError::corrupt(Place::Inode(number), fault));
    }
    Ok(())
}

/// `None` where there are more nanoseconds than a second has.
fn timestamp(seconds: u32, extra: u32) -> Option<Timestamp> {
    let epoch = i64::from(extra & 3) << 32;
    let nanoseconds = extra >> 2;
    (nanoseconds < 1_000_000_000).then_some(Timestamp {
        seconds: i64::from(seconds.cast_signed()).saturating_add(epoch),
        nanoseconds,
    })
}

/// The old form in the first word, the new one in the second where the first is 0.
fn device(block: &[u8; 60]) -> DeviceNumber {
    let old = u32_at(block, 0).unwrap_or_default();
    let new = u32_at(block, 4).unwrap_or_default();
    if old != 0 {
        return DeviceNumber {
            major: (old >> 8) & 0xff,
            minor: old & 0xff,
        };
    }
    DeviceNumber {
        major: (new >> 8) & 0xfff,
        minor: (new & 0xff) | ((new >> 12) & 0xf_ff00),
    }
}

impl<R: ReadAt> Filesystem<R> {
    /// Reads the target of a symbolic link: 1 to 4095 bytes.
    ///
    /// # Errors
    /// [`ReadError::WrongType`] for anything else; corrupt where its bytes are wrong.
    pub fn read_link(&self, inode: &Inode) -> Result<Vec<u8>, ReadError> {
        const LONGEST: usize = 4095;
        inode.expect(FileType::Symlink)?;
        let place = Place::Symlink(inode.number);
        let size = inode.stat.size;
        let len = match usize::try_from(size) {
            Ok(len @ 1..=LONGEST) => len,
            _ => return Err(out_of_range(place, "i_size", size)),
        };
        let target = match part(&inode.block, 0, len) {
            Some(target) if len < inode.block.len() => target.to_vec(),
            _ => {
                let mut target = vec![0; len];
                self.read_content(inode, &mut target)?;
                target
            }
        };
        if target.contains(&0) {
            return Err(ReadError::corrupt(
                place,
                Fault::Structure("there is a NUL in its target"),
            ));
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_from_1901_to_2446() {
        let seconds = |low, extra| timestamp(low, extra).unwrap().seconds;
        assert_eq!(seconds(0x8000_0000, 0), -(1 << 31));
        assert_eq!(seconds(u32::MAX, 0), -1);
        assert_eq!(seconds(0x8000_0000, 1), 1 << 31);
        assert_eq!(seconds(0x7fff_ffff, 3), (3 << 32) + 0x7fff_ffff);
        assert_eq!(timestamp(0, 999_999_999 << 2).unwrap().nanoseconds, 999_999_999);
        assert_eq!(timestamp(0, 1_000_000_000 << 2), None);
    }

    #[test]
    fn device_numbers_in_both_forms() {
        let numbers = |first: u32, second: u32| {
            let mut block = [0; 60];
            block[..4].copy_from_slice(&first.to_le_bytes());
            block[4..8].copy_from_slice(&second.to_le_bytes());
            let device = device(&block);
            (device.major, device.minor)
        };
        assert_eq!(numbers(0x0103, 0), (1, 3));
        assert_eq!(
            numbers(0, 0xfff0_00ff | (0xabc << 8)),
            (0xabc, 0xf_ffff & 0xfff_ffff)
        );
        assert_eq!(numbers(0, 0x1_0000), (0x100, 0));
    }
}
