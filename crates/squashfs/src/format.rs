//! What lies on disk, with the kernel's names: squashfs 4.0, little-endian.
//!
//! Layout: <https://docs.kernel.org/filesystems/squashfs.html>; structures: `fs/squashfs/squashfs_fs.h`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `hsqs` as a little-endian number.
pub const SQUASHFS_MAGIC: u32 = 0x7371_7368;
/// Uncompressed bytes of a metadata block.
pub const SQUASHFS_METADATA_SIZE: usize = 8192;
/// In a metadata block's length: stored as it is.
pub const METADATA_UNCOMPRESSED: u16 = 1 << 15;
/// In a data block's length: stored as it is.
pub const DATA_UNCOMPRESSED: u32 = 1 << 24;
/// A file without a tail in a fragment.
pub const SQUASHFS_INVALID_FRAG: u32 = u32::MAX;
/// An inode without extended attributes.
pub const SQUASHFS_INVALID_XATTR: u32 = u32::MAX;
/// A table that is not there.
pub const SQUASHFS_INVALID_BLK: u64 = u64::MAX;

/// Bits of `flags` in the superblock.
pub mod flags {
    /// Files of the same content share blocks.
    pub const DUPLICATES: u16 = 1 << 6;
    /// There is a table of inodes by number.
    pub const EXPORTABLE: u16 = 1 << 7;
    /// There are no extended attributes.
    pub const NO_XATTRS: u16 = 1 << 9;
    /// Options of the compressor follow the superblock.
    pub const COMPRESSOR_OPTIONS: u16 = 1 << 10;
}

/// Types of inodes; the extended form of each is 7 more.
pub mod inode_type {
    pub const DIR: u16 = 1;
    pub const REG: u16 = 2;
    pub const SYMLINK: u16 = 3;
    pub const BLKDEV: u16 = 4;
    pub const CHRDEV: u16 = 5;
    pub const FIFO: u16 = 6;
    pub const SOCKET: u16 = 7;
    /// What makes a type extended.
    pub const LONG: u16 = 7;
}

/// Prefixes of extended attributes by their number.
pub const XATTR_PREFIXES: [(u16, &[u8]); 3] = [(0, b"user."), (1, b"trusted."), (2, b"security.")];
/// In an attribute's type: the value lies elsewhere, and its place stands here.
pub const SQUASHFS_XATTR_VALUE_OOL: u16 = 1 << 8;

macro_rules! on_disk {
    ($(#[$doc:meta])* $name:ident, $size:literal, { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub struct $name { $(pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}

on_disk!(/// `struct squashfs_super_block`.
    Superblock, 96, {
    s_magic: U32, inodes: U32, mkfs_time: U32, block_size: U32, fragments: U32,
    compression: U16, block_log: U16, flags: U16, no_ids: U16, s_major: U16, s_minor: U16,
    root_inode: U64, bytes_used: U64, id_table_start: U64, xattr_id_table_start: U64,
    inode_table_start: U64, directory_table_start: U64, fragment_table_start: U64, lookup_table_start: U64,
});
on_disk!(/// What every inode starts with, `struct squashfs_base_inode`.
    InodeHeader, 16, {
    inode_type: U16, mode: U16, uid: U16, guid: U16, mtime: U32, inode_number: U32,
});
on_disk!(/// `struct squashfs_dir_inode`.
    DirInode, 16, { start_block: U32, nlink: U32, file_size: U16, offset: U16, parent_inode: U32 });
on_disk!(/// `struct squashfs_ldir_inode`.
    LongDirInode, 24, {
    nlink: U32, file_size: U32, start_block: U32, parent_inode: U32, i_count: U16, offset: U16, xattr: U32,
});
on_disk!(/// `struct squashfs_dir_index`; the name follows, one byte longer than `size`.
    DirIndex, 12, { index: U32, start_block: U32, size: U32 });
on_disk!(/// `struct squashfs_reg_inode`; the lengths of the blocks follow.
    FileInode, 16, { start_block: U32, fragment: U32, offset: U32, file_size: U32 });
on_disk!(/// `struct squashfs_lreg_inode`; the lengths of the blocks follow.
    LongFileInode, 40, {
    start_block: U64, file_size: U64, sparse: U64, nlink: U32, fragment: U32, offset: U32, xattr: U32,
});
on_disk!(/// `struct squashfs_symlink_inode`; the target follows, and in the extended form the attributes' number.
    SymlinkInode, 8, { nlink: U32, symlink_size: U32 });
on_disk!(/// `struct squashfs_dev_inode`; in the extended form the attributes' number follows.
    DeviceInode, 8, { nlink: U32, rdev: U32 });
on_disk!(/// `struct squashfs_ipc_inode`; in the extended form the attributes' number follows.
    IpcInode, 4, { nlink: U32 });
on_disk!(/// `struct squashfs_dir_header`: `count` is one less than the entries that follow.
    DirHeader, 12, { count: U32, start_block: U32, inode_number: U32 });
on_disk!(/// `struct squashfs_dir_entry`; the name follows, one byte longer than `size`. `inode_number` is signed.
    DirEntry, 8, { offset: U16, inode_number: U16, entry_type: U16, size: U16 });
on_disk!(/// `struct squashfs_fragment_entry`.
    FragmentEntry, 16, { start_block: U64, size: U32, unused: U32 });
on_disk!(/// `struct squashfs_xattr_entry`; the name without its prefix follows.
    XattrEntry, 4, { entry_type: U16, size: U16 });
on_disk!(/// `struct squashfs_xattr_id`.
    XattrId, 16, { xattr: U64, count: U32, size: U32 });
on_disk!(/// `struct squashfs_xattr_id_table`.
    XattrIdTable, 16, { xattr_table_start: U64, xattr_ids: U32, unused: U32 });
