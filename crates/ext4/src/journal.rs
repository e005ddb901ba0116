//! An empty journal.
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/journal.html>; big endian, unlike all else.

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::BLOCK_SIZE;

/// `h_magic`.
const JBD2_MAGIC_NUMBER: u32 = 0xc03b_3998;
/// `h_blocktype` of a superblock with features.
const JBD2_SUPERBLOCK_V2: u32 = 4;

/// The used part of the journal's superblock (`struct journal_superblock_s`).
#[derive(IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)] // big_endian types have alignment 1: no padding, no host byte order
struct JournalSuperblock {
    h_magic: U32,
    h_blocktype: U32,
    h_sequence: U32,
    s_blocksize: U32,
    s_maxlen: U32,
    s_first: U32,
    s_sequence: U32,
    s_start: U32,
    s_errno: U32,
    s_feature_compat: U32,
    s_feature_incompat: U32,
    s_feature_ro_compat: U32,
    s_uuid: [u8; 16],
    s_nr_users: U32,
}
const _: () = assert!(size_of::<JournalSuperblock>() == 68);

/// Journal length in blocks for a filesystem of `blocks` blocks: the steps that `mke2fs` takes.
pub(crate) fn block_count(blocks: u64) -> u64 {
    const STEPS: [(u64, u64); 6] = [
        (1 << 15, 1024),
        (1 << 18, 4096),
        (1 << 19, 8192),
        (1 << 22, 16384),
        (1 << 23, 32768),
        (1 << 24, 65536),
    ];
    STEPS
        .iter()
        .find(|(limit, _)| blocks < *limit)
        .map_or(131_072, |&(_, count)| count)
}

/// The journal's first block; the others are zero.
pub(crate) fn first_block(journal_blocks: u64, uuid: [u8; 16]) -> Vec<u8> {
    let superblock = JournalSuperblock {
        h_magic: JBD2_MAGIC_NUMBER.into(),
        h_blocktype: JBD2_SUPERBLOCK_V2.into(),
        h_sequence: 0.into(),
        s_blocksize: u32::try_from(BLOCK_SIZE).expect("4096").into(),
        s_maxlen: u32::try_from(journal_blocks).expect("at most 131072").into(),
        s_first: 1.into(),
        s_sequence: 1.into(),
        // Nothing to replay.
        s_start: 0.into(),
        s_errno: 0.into(),
        // The kernel turns on what it wants at the first mount.
        s_feature_compat: 0.into(),
        s_feature_incompat: 0.into(),
        s_feature_ro_compat: 0.into(),
        s_uuid: uuid,
        s_nr_users: 1.into(),
    };
    let mut block = superblock.as_bytes().to_vec();
    block.resize(BLOCK_SIZE as usize, 0);
    block
}
