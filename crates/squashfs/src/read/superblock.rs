//! The superblock: where everything is, if its fields fit together.

use zerocopy::FromBytes as _;

use super::error::{ReadError, corrupt};
use crate::format::{SQUASHFS_INVALID_BLK, SQUASHFS_MAGIC, Superblock};
use crate::options::{BLOCK_SIZES, Compression};

const WHAT: &str = "the superblock";

/// What there is to show of a filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How it is compressed.
    pub compression: Compression,
    /// What is compressed at once, in bytes.
    pub block_size: u32,
    /// How many inodes it has.
    pub inodes: u32,
    /// How many blocks hold tails of files.
    pub fragments: u32,
    /// How many different owners and groups it has.
    pub ids: u16,
    /// Its length without what fills the image up, in bytes.
    pub bytes_used: u64,
    /// When it was made, in seconds since 1970.
    pub made_unix: u32,
    /// Whether files of the same content were looked for.
    pub shares_duplicates: bool,
    /// Whether it has extended attributes.
    pub has_xattrs: bool,
}

/// Where everything is, in bytes from the start of the image.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) compression: Compression,
    pub(super) block_size: u32,
    pub(super) bytes_used: u64,
    pub(super) root: u64,
    pub(super) inode_table: u64,
    pub(super) directory_table: u64,
    /// What comes behind the directories.
    pub(super) directory_end: u64,
    pub(super) fragment_table: u64,
    pub(super) fragments: u32,
    pub(super) id_table: u64,
    pub(super) id_count: u16,
    pub(super) xattr_table: Option<u64>,
    pub(super) inodes: u32,
}

impl Geometry {
    /// More bytes of directory listings than any filesystem of this length has: what their table may decompress to, and three
    /// for each directory, which count as `.` and `..`.
    pub(super) fn listing_bytes_max(&self) -> u64 {
        let stored = self.directory_end.saturating_sub(self.directory_table);
        let blocks = stored / 3;
        let inodes = u64::from(self.inodes).saturating_mul(3);
        blocks
            .saturating_add(1)
            .saturating_mul(8192)
            .saturating_add(inodes)
    }
}

fn compression(number: u16) -> Result<Compression, ReadError> {
    let known = Compression::ALL.into_iter().find(|known| known.id() == number);
    known.ok_or_else(|| ReadError::Unsupported {
        feature: match number {
            2 => "lzma compression".to_owned(),
            3 => "lzo compression".to_owned(),
            other => format!("compression number {other}"),
        },
    })
}

pub(super) fn parse(bytes: &[u8; 96], image_bytes: u64) -> Result<(Geometry, Summary), ReadError> {
    let wrong = |fault| corrupt(WHAT, 0, fault);
    let fields = Superblock::ref_from_bytes(bytes).map_err(|_| wrong("it is cut off"))?;
    if fields.s_magic.get() != SQUASHFS_MAGIC {
        return Err(wrong("its magic number is not that of squashfs"));
    }
    let (major, minor) = (fields.s_major.get(), fields.s_minor.get());
    if (major, minor) != (4, 0) {
        return Err(ReadError::Unsupported {
            feature: format!("version {major}.{minor} of squashfs"),
        });
    }
    let compression = compression(fields.compression.get())?;
    let block_size = fields.block_size.get();
    if !BLOCK_SIZES.contains(&block_size)
        || !block_size.is_power_of_two()
        || u32::from(fields.block_log.get()) != block_size.trailing_zeros()
    {
        return Err(wrong("its block size is none"));
    }
    let bytes_used = fields.bytes_used.get();
    if bytes_used > image_bytes {
        return Err(wrong("the image ends before the filesystem does"));
    }
    let (inode_table, directory_table) = (fields.inode_table_start.get(), fields.directory_table_start.get());
    let tables = [fields.fragment_table_start.get(), fields.id_table_start.get()];
    if inode_table < 96
        || directory_table <= inode_table
        || tables.iter().any(|table| *table < directory_table)
    {
        return Err(wrong("its tables are not in order"));
    }
    if directory_table >= bytes_used || fields.id_table_start.get() >= bytes_used {
        return Err(wrong("its tables lie behind the end"));
    }
    if fields.no_ids.get() == 0 || fields.inodes.get() == 0 {
        return Err(wrong("it has no inodes, or they have no owners"));
    }
    let xattr_table = Some(fields.xattr_id_table_start.get()).filter(|start| *start != SQUASHFS_INVALID_BLK);
    let geometry = Geometry {
        compression,
        block_size,
        bytes_used,
        root: fields.root_inode.get(),
        inode_table,
        directory_table,
        directory_end: bytes_used.min(fields.id_table_start.get()),
        fragment_table: fields.fragment_table_start.get(),
        fragments: fields.fragments.get(),
        id_table: fields.id_table_start.get(),
        id_count: fields.no_ids.get(),
        xattr_table,
        inodes: fields.inodes.get(),
    };
    let summary = Summary {
        compression,
        block_size,
        inodes: geometry.inodes,
        fragments: geometry.fragments,
        ids: geometry.id_count,
        bytes_used,
        made_unix: fields.mkfs_time.get(),
        shares_duplicates: fields.flags.get() & crate::format::flags::DUPLICATES != 0,
        has_xattrs: xattr_table.is_some(),
    };
    Ok((geometry, summary))
}
