//! On-disk structures of ext4, exactly: the kernel's names, little endian, sizes checked at compile time.
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/index.html>; kernel header `fs/ext4/ext4.h`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a block. The only block size that firebrick writes.
pub const BLOCK_SIZE: u64 = 4096;
/// Blocks of a block group: one bit each in a bitmap of one block.
pub const BLOCKS_PER_GROUP: u64 = 32768;
/// Where the superblock lies, in bytes from the start of the filesystem.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Bytes of an inode that firebrick writes.
pub const INODE_SIZE: u16 = 256;
/// Inodes of a group at most: one bit each in a bitmap of one block.
pub const INODES_PER_GROUP_MAX: u32 = 32768;
/// Inodes of one block of an inode table.
pub const INODES_PER_BLOCK: u64 = BLOCK_SIZE / INODE_SIZE as u64;

/// `s_magic`.
pub const EXT4_SUPER_MAGIC: u16 = 0xef53;
/// `eh_magic`.
pub const EXT4_EXT_MAGIC: u16 = 0xf30a;
/// `h_magic` of extended attributes.
pub const EXT4_XATTR_MAGIC: u32 = 0xea02_0000;

/// The root directory's inode number.
pub const EXT4_ROOT_INO: u32 = 2;
/// The resize inode, which owns the blocks that the group descriptors may grow into.
pub const EXT4_RESIZE_INO: u32 = 7;
/// The journal's inode number.
pub const EXT4_JOURNAL_INO: u32 = 8;
/// The first inode number that is not reserved.
pub const EXT4_GOOD_OLD_FIRST_INO: u32 = 11;

/// `s_feature_compat` bits.
pub mod compat {
    pub const HAS_JOURNAL: u32 = 0x4;
    pub const EXT_ATTR: u32 = 0x8;
    pub const RESIZE_INODE: u32 = 0x10;
    pub const DIR_INDEX: u32 = 0x20;
    pub const SPARSE_SUPER2: u32 = 0x200;
}

/// `s_feature_incompat` bits.
pub mod incompat {
    pub const FILETYPE: u32 = 0x2;
    pub const RECOVER: u32 = 0x4;
    pub const JOURNAL_DEV: u32 = 0x8;
    pub const META_BG: u32 = 0x10;
    pub const EXTENTS: u32 = 0x40;
    pub const BIT64: u32 = 0x80;
    pub const FLEX_BG: u32 = 0x200;
    pub const EA_INODE: u32 = 0x400;
    pub const CSUM_SEED: u32 = 0x2000;
    pub const LARGEDIR: u32 = 0x4000;
    pub const INLINE_DATA: u32 = 0x8000;
    pub const ENCRYPT: u32 = 0x10000;
    pub const CASEFOLD: u32 = 0x20000;
}

/// `s_feature_ro_compat` bits.
pub mod ro_compat {
    pub const SPARSE_SUPER: u32 = 0x1;
    pub const LARGE_FILE: u32 = 0x2;
    pub const HUGE_FILE: u32 = 0x8;
    pub const GDT_CSUM: u32 = 0x10;
    pub const DIR_NLINK: u32 = 0x20;
    pub const EXTRA_ISIZE: u32 = 0x40;
    pub const METADATA_CSUM: u32 = 0x400;
}

/// `i_flags` bits.
pub mod inode_flags {
    pub const INDEX: u32 = 0x1000;
    pub const HUGE_FILE: u32 = 0x4_0000;
    pub const EXTENTS: u32 = 0x8_0000;
    pub const EA_INODE: u32 = 0x20_0000;
    pub const INLINE_DATA: u32 = 0x1000_0000;
}

/// `bg_flags` bits.
pub mod group_flags {
    pub const INODE_UNINIT: u16 = 0x1;
    pub const BLOCK_UNINIT: u16 = 0x2;
    pub const INODE_ZEROED: u16 = 0x4;
}

/// File type bits of `i_mode`, as in `stat(2)`.
pub mod mode {
    pub const S_IFMT: u16 = 0o170_000;
    pub const S_IFIFO: u16 = 0o010_000;
    pub const S_IFCHR: u16 = 0o020_000;
    pub const S_IFDIR: u16 = 0o040_000;
    pub const S_IFBLK: u16 = 0o060_000;
    pub const S_IFREG: u16 = 0o100_000;
    pub const S_IFLNK: u16 = 0o120_000;
    pub const S_IFSOCK: u16 = 0o140_000;
}

/// `file_type` of a directory entry.
pub mod file_type {
    pub const REG_FILE: u8 = 1;
    pub const DIR: u8 = 2;
    pub const CHRDEV: u8 = 3;
    pub const BLKDEV: u8 = 4;
    pub const FIFO: u8 = 5;
    pub const SOCK: u8 = 6;
    pub const SYMLINK: u8 = 7;
    /// The pretended entry that holds a directory block's checksum.
    pub const CHECKSUM: u8 = 0xde;
}

macro_rules! on_disk {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)] // little_endian types have alignment 1: no padding, no host byte order
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
    };
}

on_disk! {
    /// The superblock (`struct ext4_super_block`), 1024 bytes from the start.
    ///
    /// Layout: <https://docs.kernel.org/filesystems/ext4/super.html>
    pub struct Superblock {
        pub s_inodes_count: U32,           // 0x00
        pub s_blocks_count_lo: U32,
        pub s_r_blocks_count_lo: U32,
        pub s_free_blocks_count_lo: U32,
        pub s_free_inodes_count: U32,      // 0x10
        pub s_first_data_block: U32,
        pub s_log_block_size: U32,
        pub s_log_cluster_size: U32,
        pub s_blocks_per_group: U32,       // 0x20
        pub s_clusters_per_group: U32,
        pub s_inodes_per_group: U32,
        pub s_mtime: U32,
        pub s_wtime: U32,                  // 0x30
        pub s_mnt_count: U16,
        pub s_max_mnt_count: U16,
        pub s_magic: U16,
        pub s_state: U16,
        pub s_errors: U16,
        pub s_minor_rev_level: U16,
        pub s_lastcheck: U32,              // 0x40
        pub s_checkinterval: U32,
        pub s_creator_os: U32,
        pub s_rev_level: U32,
        pub s_def_resuid: U16,             // 0x50
        pub s_def_resgid: U16,
        pub s_first_ino: U32,
        pub s_inode_size: U16,
        pub s_block_group_nr: U16,
        pub s_feature_compat: U32,
        pub s_feature_incompat: U32,       // 0x60
        pub s_feature_ro_compat: U32,
        pub s_uuid: [u8; 16],              // 0x68
        pub s_volume_name: [u8; 16],       // 0x78
        pub s_last_mounted: [u8; 64],      // 0x88
        pub s_algorithm_usage_bitmap: U32, // 0xc8
        pub s_prealloc_blocks: u8,
        pub s_prealloc_dir_blocks: u8,
        pub s_reserved_gdt_blocks: U16,
        pub s_journal_uuid: [u8; 16],      // 0xd0
        pub s_journal_inum: U32,           // 0xe0
        pub s_journal_dev: U32,
        pub s_last_orphan: U32,
        pub s_hash_seed: [U32; 4],         // 0xec
        pub s_def_hash_version: u8,        // 0xfc
        pub s_jnl_backup_type: u8,
        pub s_desc_size: U16,
        pub s_default_mount_opts: U32,     // 0x100
        pub s_first_meta_bg: U32,
        pub s_mkfs_time: U32,
        pub s_jnl_blocks: [U32; 17],       // 0x10c
        pub s_blocks_count_hi: U32,        // 0x150
        pub s_r_blocks_count_hi: U32,
        pub s_free_blocks_count_hi: U32,
        pub s_min_extra_isize: U16,
        pub s_want_extra_isize: U16,
        pub s_flags: U32,                  // 0x160
        pub s_raid_stride: U16,
        pub s_mmp_interval: U16,
        pub s_mmp_block: U64,
        pub s_raid_stripe_width: U32,      // 0x170
        pub s_log_groups_per_flex: u8,
        pub s_checksum_type: u8,
        pub s_encryption_level: u8,
        pub s_reserved_pad: u8,
        pub s_kbytes_written: U64,         // 0x178
        pub s_snapshot_inum: U32,
        pub s_snapshot_id: U32,
        pub s_snapshot_r_blocks_count: U64,
        pub s_snapshot_list: U32,
        pub s_error_count: U32,            // 0x194
        pub s_error_area: [u8; 104],       // first and last error: all zero in a new filesystem
        pub s_mount_opts: [u8; 64],        // 0x200
        pub s_usr_quota_inum: U32,
        pub s_grp_quota_inum: U32,
        pub s_overhead_clusters: U32,      // 0x248
        pub s_backup_bgs: [U32; 2],        // 0x24c
        pub s_encrypt_algos: [u8; 4],
        pub s_encrypt_pw_salt: [u8; 16],
        pub s_lpf_ino: U32,                // 0x268
        pub s_prj_quota_inum: U32,
        pub s_checksum_seed: U32,          // 0x270
        pub s_reserved: [u8; 392],
        pub s_checksum: U32,               // 0x3fc
    }
}
const _: () = assert!(size_of::<Superblock>() == 1024);
const _: () = assert!(std::mem::offset_of!(Superblock, s_feature_compat) == 0x5c);
const _: () = assert!(std::mem::offset_of!(Superblock, s_hash_seed) == 0xec);
const _: () = assert!(std::mem::offset_of!(Superblock, s_jnl_blocks) == 0x10c);
const _: () = assert!(std::mem::offset_of!(Superblock, s_flags) == 0x160);
const _: () = assert!(std::mem::offset_of!(Superblock, s_kbytes_written) == 0x178);
const _: () = assert!(std::mem::offset_of!(Superblock, s_mount_opts) == 0x200);
const _: () = assert!(std::mem::offset_of!(Superblock, s_backup_bgs) == 0x24c);
const _: () = assert!(std::mem::offset_of!(Superblock, s_checksum_seed) == 0x270);
const _: () = assert!(std::mem::offset_of!(Superblock, s_checksum) == 0x3fc);

on_disk! {
    /// One entry of the group descriptor table in its 64-byte form (`struct ext4_group_desc`).
    ///
    /// Layout: <https://docs.kernel.org/filesystems/ext4/group_descr.html>
    pub struct GroupDesc {
        pub bg_block_bitmap_lo: U32,       // 0x00
        pub bg_inode_bitmap_lo: U32,
        pub bg_inode_table_lo: U32,
        pub bg_free_blocks_count_lo: U16,
        pub bg_free_inodes_count_lo: U16,
        pub bg_used_dirs_count_lo: U16,    // 0x10
        pub bg_flags: U16,
        pub bg_exclude_bitmap_lo: U32,
        pub bg_block_bitmap_csum_lo: U16,
        pub bg_inode_bitmap_csum_lo: U16,
        pub bg_itable_unused_lo: U16,
        pub bg_checksum: U16,              // 0x1e
        pub bg_block_bitmap_hi: U32,       // 0x20
        pub bg_inode_bitmap_hi: U32,
        pub bg_inode_table_hi: U32,
        pub bg_free_blocks_count_hi: U16,
        pub bg_free_inodes_count_hi: U16,
        pub bg_used_dirs_count_hi: U16,    // 0x30
        pub bg_itable_unused_hi: U16,
        pub bg_exclude_bitmap_hi: U32,
        pub bg_block_bitmap_csum_hi: U16,
        pub bg_inode_bitmap_csum_hi: U16,
        pub bg_reserved: U32,
    }
}
const _: () = assert!(size_of::<GroupDesc>() == 64);
const _: () = assert!(std::mem::offset_of!(GroupDesc, bg_checksum) == 0x1e);

on_disk! {
    /// The fixed part of an inode (`struct ext4_inode`), with the fields behind the old 128 bytes.
    ///
    /// Layout: <https://docs.kernel.org/filesystems/ext4/inodes.html>
    pub struct InodeFields {
        pub i_mode: U16,                   // 0x00
        pub i_uid: U16,
        pub i_size_lo: U32,
        pub i_atime: U32,
        pub i_ctime: U32,
        pub i_mtime: U32,                  // 0x10
        pub i_dtime: U32,
        pub i_gid: U16,
        pub i_links_count: U16,
        pub i_blocks_lo: U32,
        pub i_flags: U32,                  // 0x20
        pub i_version_lo: U32,
        pub i_block: [u8; 60],             // 0x28
        pub i_generation: U32,             // 0x64
        pub i_file_acl_lo: U32,
        pub i_size_high: U32,
        pub i_obso_faddr: U32,
        pub i_blocks_high: U16,            // 0x74
        pub i_file_acl_high: U16,
        pub i_uid_high: U16,
        pub i_gid_high: U16,
        pub i_checksum_lo: U16,            // 0x7c
        pub i_reserved: U16,
        pub i_extra_isize: U16,            // 0x80
        pub i_checksum_hi: U16,
        pub i_ctime_extra: U32,
        pub i_mtime_extra: U32,
        pub i_atime_extra: U32,
        pub i_crtime: U32,                 // 0x90
        pub i_crtime_extra: U32,
        pub i_version_hi: U32,
        pub i_projid: U32,
    }
}
const _: () = assert!(size_of::<InodeFields>() == 160);
const _: () = assert!(std::mem::offset_of!(InodeFields, i_checksum_lo) == 0x7c);
const _: () = assert!(std::mem::offset_of!(InodeFields, i_crtime) == 0x90);

on_disk! {
    /// In front of a node of an extent tree (`struct ext4_extent_header`).
    pub struct ExtentHeader {
        pub eh_magic: U16,
        pub eh_entries: U16,
        pub eh_max: U16,
        pub eh_depth: U16,
        pub eh_generation: U32,
    }
}
const _: () = assert!(size_of::<ExtentHeader>() == 12);

on_disk! {
    /// A run of a file's blocks (`struct ext4_extent`).
    pub struct ExtentLeaf {
        pub ee_block: U32,
        pub ee_len: U16,
        pub ee_start_hi: U16,
        pub ee_start_lo: U32,
    }
}
const _: () = assert!(size_of::<ExtentLeaf>() == 12);

on_disk! {
    /// Points at a node one level further down (`struct ext4_extent_idx`).
    pub struct ExtentIndex {
        pub ei_block: U32,
        pub ei_leaf_lo: U32,
        pub ei_leaf_hi: U16,
        pub ei_unused: U16,
    }
}
const _: () = assert!(size_of::<ExtentIndex>() == 12);

on_disk! {
    /// In front of each name of a directory block (`struct ext4_dir_entry_2`).
    pub struct DirEntryHeader {
        pub inode: U32,
        pub rec_len: U16,
        pub name_len: u8,
        pub file_type: u8,
    }
}
const _: () = assert!(size_of::<DirEntryHeader>() == 8);

on_disk! {
    /// In front of a block of extended attributes (`struct ext4_xattr_header`).
    pub struct XattrBlockHeader {
        pub h_magic: U32,
        pub h_refcount: U32,
        pub h_blocks: U32,
        pub h_hash: U32,
        pub h_checksum: U32,
        pub h_reserved: [U32; 3],
    }
}
const _: () = assert!(size_of::<XattrBlockHeader>() == 32);

on_disk! {
    /// One extended attribute (`struct ext4_xattr_entry`), its name behind it.
    pub struct XattrEntry {
        pub e_name_len: u8,
        pub e_name_index: u8,
        pub e_value_offs: U16,
        pub e_value_inum: U32,
        pub e_value_size: U32,
        pub e_hash: U32,
    }
}
const _: () = assert!(size_of::<XattrEntry>() == 16);

/// Name prefixes of extended attributes and the number that stands for each on disk (`fs/ext4/xattr.h`).
///
/// The two that are whole names come before the `system.` that they start with.
pub const XATTR_PREFIXES: [(u8, &[u8]); 6] = [
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
    (7, b"system."),
];
