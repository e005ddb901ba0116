//! The superblock: checked once into a [`Geometry`], which everything else trusts, and a [`Summary`] to show.

use firebrick_tree::Timestamp;
use zerocopy::FromBytes as _;

use super::bytes::join;
use super::error::{Fault, Place, ReadError};
use super::features::Features;
use crate::checksum::Crc;
use crate::format::{EXT4_GOOD_OLD_FIRST_INO, EXT4_SUPER_MAGIC, Superblock, compat, incompat, ro_compat};

/// What a filesystem says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The volume's name, up to 16 bytes.
    pub label: Box<[u8]>,
    /// Its identity, in the order in which it is printed.
    pub uuid: [u8; 16],
    /// Bytes of a block: 1024 to 65536.
    pub block_size: u32,
    /// How many blocks there are.
    pub blocks: u64,
    /// How many of them are free.
    pub free_blocks: u64,
    /// How many blocks only root may take.
    pub reserved_blocks: u64,
    /// How many inodes there are.
    pub inodes: u32,
    /// How many of them are free.
    pub free_inodes: u32,
    /// Bytes of an inode on disk.
    pub inode_size: u16,
    /// How many block groups there are.
    pub groups: u32,
    /// The feature flags.
    pub features: Features,
    /// What happened to it.
    pub state: State,
    /// When it was made; `None` where that was not written down.
    pub created: Option<Timestamp>,
    /// When it was last written to; `None` for never.
    pub written: Option<Timestamp>,
    /// When it was last mounted; `None` for never.
    pub mounted: Option<Timestamp>,
    /// How often it was mounted since it was last checked.
    pub mount_count: u16,
}

impl Summary {
    /// The UUID in its usual form: 32 hexadecimal digits in five groups.
    pub fn uuid_text(&self) -> String {
        let mut text = String::new();
        for (index, byte) in self.uuid.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

/// The bits of `s_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// It was unmounted properly, or never mounted.
    pub clean: bool,
    /// The kernel found errors in it.
    pub errors: bool,
}

/// What finding anything needs. Every field was checked against the others and against the image's length.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    /// A power of two from 1024 to 65536.
    pub(crate) block_size: u32,
    /// At most what the image has.
    pub(crate) blocks: u64,
    /// 1 where blocks have 1024 bytes, otherwise 0.
    pub(crate) first_data_block: u32,
    /// From 1 to eight times the block size.
    pub(crate) blocks_per_group: u32,
    pub(crate) groups: u32,
    /// From 1 to eight times the block size.
    pub(crate) inodes_per_group: u32,
    /// Exactly what the groups have.
    pub(crate) inodes: u32,
    /// A power of two from 128 to the block size.
    pub(crate) inode_size: u16,
    pub(crate) first_inode: u32,
    /// 32, or a power of two from 64 to 1024.
    pub(crate) descriptor_size: u16,
    pub(crate) first_meta_group: u32,
    pub(crate) backup_groups: [u32; 2],
    pub(crate) features: Features,
    /// `Some` where metadata carries CRC-32C: what every checksum starts from.
    pub(crate) seed: Option<Crc>,
}

impl Geometry {
    /// The block size as the length of a buffer.
    pub(crate) fn block_len(&self) -> usize {
        usize::try_from(self.block_size).unwrap_or(usize::MAX)
    }
}

/// Checks the superblock of an image of `image_bytes` bytes.
pub(crate) fn parse(bytes: &[u8; 1024], image_bytes: u64) -> Result<(Geometry, Summary), ReadError> {
    let Ok(raw) = Superblock::ref_from_bytes(bytes) else {
        return wrong("s_magic", 0);
    };
    if raw.s_magic.get() != EXT4_SUPER_MAGIC {
        return wrong("s_magic", raw.s_magic.get().into());
    }
    let features = match raw.s_rev_level.get() {
        0 => Features::default(),
        1 => Features {
            compat: raw.s_feature_compat.get(),
            incompat: raw.s_feature_incompat.get(),
            ro_compat: raw.s_feature_ro_compat.get(),
        },
        level => {
            return Err(ReadError::Unsupported {
                feature: format!("revision {level}"),
            });
        }
    };
    let seed = checksum_seed(raw, bytes, features)?;
    features.check_readable()?;
    let geometry = geometry(raw, features, seed, image_bytes)?;
    let summary = summary(raw, &geometry);
    Ok((geometry, summary))
}

/// The seed of all checksums, after the superblock's own was found right.
fn checksum_seed(raw: &Superblock, bytes: &[u8; 1024], features: Features) -> Result<Option<Crc>, ReadError> {
    if !features.ro_compat(ro_compat::METADATA_CSUM) {
        return Ok(None);
    }
    if raw.s_checksum_type != 1 {
        return Err(ReadError::Unsupported {
            feature: format!("checksum type {}", raw.s_checksum_type),
        });
    }
    let covered = bytes.get(..std::mem::offset_of!(Superblock, s_checksum));
    let computed = Crc::new().update(covered.unwrap_or_default()).value();
    let stored = raw.s_checksum.get();
    if stored != computed {
        let fault = Fault::Checksum { stored, computed };
        return Err(ReadError::corrupt(Place::Superblock, fault));
    }
    Ok(Some(if features.incompat(incompat::CSUM_SEED) {
        Crc::from_seed(raw.s_checksum_seed.get())
    } else {
        Crc::new().update(&raw.s_uuid)
    }))
}

fn geometry(
    raw: &Superblock,
    features: Features,
    seed: Option<Crc>,
    image_bytes: u64,
) -> Result<Geometry, ReadError> {
    let log = raw.s_log_block_size.get();
    let block_size = match 1024_u32.checked_shl(log) {
        Some(size @ 1024..=65536) => size,
        _ => return wrong("s_log_block_size", log.into()),
    };
    let wide = features.incompat(incompat::BIT64);
    let blocks_hi = if wide { raw.s_blocks_count_hi.get() } else { 0 };
    let blocks = join(raw.s_blocks_count_lo.get(), blocks_hi);
    let first_data_block = raw.s_first_data_block.get();
    if first_data_block != u32::from(block_size == 1024) {
        return wrong("s_first_data_block", first_data_block.into());
    }
    let claimed = match blocks.checked_mul(block_size.into()) {
        Some(claimed) if blocks > first_data_block.into() => claimed,
        _ => return wrong("s_blocks_count", blocks),
    };
    if claimed > image_bytes {
        let actual = image_bytes;
        let fault = Fault::TooShort { claimed, actual };
        return Err(ReadError::corrupt(Place::Superblock, fault));
    }
    let (inode_size, first_inode) = inode_form(raw, block_size)?;
    let bits = u64::from(block_size).saturating_mul(8);
    let blocks_per_group = raw.s_blocks_per_group.get();
    let inodes_per_group = raw.s_inodes_per_group.get();
    if blocks_per_group == 0 || u64::from(blocks_per_group) > bits {
        return wrong("s_blocks_per_group", blocks_per_group.into());
    }
    if inodes_per_group == 0 || u64::from(inodes_per_group) > bits {
        return wrong("s_inodes_per_group", inodes_per_group.into());
    }
    let groups = blocks
        .saturating_sub(first_data_block.into())
        .div_ceil(blocks_per_group.into());
    let inodes = raw.s_inodes_count.get();
    let table_bytes = u64::from(inodes).saturating_mul(inode_size.into());
    let expected = groups.checked_mul(inodes_per_group.into());
    let Ok(groups) = u32::try_from(groups) else {
        return wrong("s_blocks_per_group", blocks_per_group.into());
    };
    if expected != Some(inodes.into()) || table_bytes > claimed {
        return wrong("s_inodes_count", inodes.into());
    }
    Ok(Geometry {
        block_size,
        blocks,
        first_data_block,
        blocks_per_group,
        groups,
        inodes_per_group,
        inodes,
        inode_size,
        first_inode,
        descriptor_size: descriptor_size(raw, wide)?,
        first_meta_group: raw.s_first_meta_bg.get(),
        backup_groups: raw.s_backup_bgs.map(|group| group.get()),
        features,
        seed,
    })
}

/// How long an inode is, and which number is the first that is not reserved.
fn inode_form(raw: &Superblock, block_size: u32) -> Result<(u16, u32), ReadError> {
    if raw.s_rev_level.get() == 0 {
        return Ok((128, EXT4_GOOD_OLD_FIRST_INO));
    }
    let size = raw.s_inode_size.get();
    if size < 128 || u32::from(size) > block_size || !size.is_power_of_two() {
        return wrong("s_inode_size", size.into());
    }
    let first = raw.s_first_ino.get();
    if first < EXT4_GOOD_OLD_FIRST_INO {
        return wrong("s_first_ino", first.into());
    }
    Ok((size, first))
}

fn descriptor_size(raw: &Superblock, wide: bool) -> Result<u16, ReadError> {
    let size = raw.s_desc_size.get();
    match size {
        _ if !wide => Ok(32),
        64..=1024 if size.is_power_of_two() => Ok(size),
        _ => wrong("s_desc_size", size.into()),
    }
}

fn summary(raw: &Superblock, geometry: &Geometry) -> Summary {
    let wide = geometry.features.incompat(incompat::BIT64);
    let high = |high: u32| if wide { high } else { 0 };
    let label = raw.s_volume_name.split(|byte| *byte == 0).next();
    let state = raw.s_state.get();
    // s_wtime_hi, s_mtime_hi, s_mkfs_time_hi: the upper 8 bits of 40.
    let [written_hi, mounted_hi, created_hi, ..] = raw.s_reserved;
    Summary {
        label: label.unwrap_or_default().into(),
        uuid: raw.s_uuid,
        block_size: geometry.block_size,
        blocks: geometry.blocks,
        free_blocks: join(
            raw.s_free_blocks_count_lo.get(),
            high(raw.s_free_blocks_count_hi.get()),
        ),
        reserved_blocks: join(raw.s_r_blocks_count_lo.get(), high(raw.s_r_blocks_count_hi.get())),
        inodes: geometry.inodes,
        free_inodes: raw.s_free_inodes_count.get(),
        inode_size: geometry.inode_size,
        groups: geometry.groups,
        features: geometry.features,
        state: State {
            clean: state & 1 != 0,
            errors: state & 2 != 0,
        },
        created: time(raw.s_mkfs_time.get(), created_hi),
        written: time(raw.s_wtime.get(), written_hi),
        mounted: time(raw.s_mtime.get(), mounted_hi),
        mount_count: raw.s_mnt_count.get(),
    }
}

fn time(low: u32, high: u8) -> Option<Timestamp> {
    let seconds = i64::try_from(join(low, high.into())).ok()?;
    (seconds != 0).then_some(Timestamp {
        seconds,
        nanoseconds: 0,
    })
}

/// Whether a group begins with a copy of the superblock. 0-based.
pub(crate) fn has_super(geometry: &Geometry, group: u32) -> bool {
    let power_of = |base: u32| {
        let mut power = base;
        while power < group {
            power = power.saturating_mul(base);
        }
        power == group
    };
    if group == 0 {
        return true;
    }
    if geometry.features.compat(compat::SPARSE_SUPER2) {
        return geometry.backup_groups.contains(&group);
    }
    if !geometry.features.ro_compat(ro_compat::SPARSE_SUPER) {
        return true;
    }
    group == 1 || power_of(3) || power_of(5) || power_of(7)
}

fn wrong<T>(field: &'static str, value: u64) -> Result<T, ReadError> {
    Err(ReadError::corrupt(
        Place::Superblock,
        Fault::Field { field, value },
    ))
}
