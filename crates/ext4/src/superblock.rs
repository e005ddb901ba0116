//! The superblock and the group descriptors of a plan.

use zerocopy::{FromZeros, IntoBytes};

use crate::checksum::{Crc, SEED};
use crate::dir::HASH_SEED;
use crate::format::{
    BLOCK_SIZE, BLOCKS_PER_GROUP, EXT4_GOOD_OLD_FIRST_INO, EXT4_JOURNAL_INO, EXT4_SUPER_MAGIC, GroupDesc,
    INODE_SIZE, Superblock, compat, group_flags, incompat, ro_compat,
};
use crate::geometry::DESCRIPTOR_BLOCKS;
use crate::inode::EXTRA_ISIZE;
use crate::plan::{Plan, descriptor_blocks_used};

/// `s_flags`: names are hashed as unsigned bytes, on every architecture.
const EXT2_FLAGS_UNSIGNED_HASH: u32 = 0x2;
/// `s_default_mount_opts`: extended attributes and access control lists are on.
const EXT4_DEFM_XATTR_USER_AND_ACL: u32 = 0xc;
/// `s_def_hash_version`: half MD4.
const DX_HASH_HALF_MD4: u8 = 1;
/// `s_log_groups_per_flex`: the kernel spreads new files over bundles of 16 groups.
const LOG_GROUPS_PER_FLEX: u8 = 4;
/// `s_state`: cleanly unmounted.
const EXT4_VALID_FS: u16 = 1;
/// `s_errors`: go on.
const EXT4_ERRORS_CONTINUE: u16 = 1;
/// `s_checksum_type`: CRC-32C.
const EXT4_CRC32C_CHKSUM: u8 = 1;
/// `s_jnl_backup_type`: `s_jnl_blocks` holds the journal inode's `i_block` and size.
const EXT3_JNL_BACKUP_BLOCKS: u8 = 1;

/// The superblock as it stands at the start of group `group`.
///
/// Left zero, and why: everything about errors, quotas, snapshots, encryption, RAID and multi-mount protection (not
/// used), `s_kbytes_written`, mount times and counts (never mounted), `s_overhead_clusters` (the kernel counts it),
/// the second words of counts that fit one.
pub(crate) fn superblock(plan: &Plan, journal: Option<([u8; 60], u64)>, group: u16) -> Superblock {
    let groups = &plan.groups;
    let mut sb = Superblock::new_zeroed();
    let created = u32::try_from(plan.created.seconds.max(0)).unwrap_or(u32::MAX);
    let free = groups.free_blocks();
    let (inode_count, inodes_used) = plan.inodes();
    sb.s_inodes_count = inode_count.into();
    sb.s_blocks_count_lo = (groups.blocks as u32).into();
    sb.s_blocks_count_hi = ((groups.blocks >> 32) as u32).into();
    sb.s_free_blocks_count_lo = (free as u32).into();
    sb.s_free_blocks_count_hi = ((free >> 32) as u32).into();
    sb.s_free_inodes_count = (inode_count - inodes_used).into();
    sb.s_log_block_size = 2.into();
    sb.s_log_cluster_size = 2.into();
    sb.s_blocks_per_group = (BLOCKS_PER_GROUP as u32).into();
    sb.s_clusters_per_group = (BLOCKS_PER_GROUP as u32).into();
    sb.s_inodes_per_group = groups.inodes_per_group.into();
    sb.s_wtime = created.into();
    // Never check because of the number of mounts.
    sb.s_max_mnt_count = u16::MAX.into();
    sb.s_magic = EXT4_SUPER_MAGIC.into();
    sb.s_state = EXT4_VALID_FS.into();
    sb.s_errors = EXT4_ERRORS_CONTINUE.into();
    sb.s_lastcheck = created.into();
    sb.s_rev_level = 1.into();
    sb.s_first_ino = EXT4_GOOD_OLD_FIRST_INO.into();
    sb.s_inode_size = INODE_SIZE.into();
    sb.s_block_group_nr = group.into();
    sb.s_uuid = plan.uuid;
    sb.s_volume_name[..plan.label.len()].copy_from_slice(&plan.label);
    let reserved = DESCRIPTOR_BLOCKS - descriptor_blocks_used(groups.list.len());
    sb.s_reserved_gdt_blocks = (reserved as u16).into();
    sb.s_hash_seed = HASH_SEED.map(Into::into);
    sb.s_def_hash_version = DX_HASH_HALF_MD4;
    sb.s_desc_size = (size_of::<GroupDesc>() as u16).into();
    sb.s_default_mount_opts = EXT4_DEFM_XATTR_USER_AND_ACL.into();
    sb.s_mkfs_time = created.into();
    sb.s_min_extra_isize = EXTRA_ISIZE.into();
    sb.s_want_extra_isize = EXTRA_ISIZE.into();
    sb.s_flags = EXT2_FLAGS_UNSIGNED_HASH.into();
    sb.s_log_groups_per_flex = LOG_GROUPS_PER_FLEX;
    sb.s_checksum_type = EXT4_CRC32C_CHKSUM;
    sb.s_checksum_seed = SEED.into();
    set_features(&mut sb, plan.layout.online_resize);
    if let Some((i_block, size)) = journal {
        set_journal(&mut sb, &i_block, size);
    }
    let checksum = Crc::new().update(&sb.as_bytes()[..1020]).value();
    sb.s_checksum = checksum.into();
    sb
}

fn set_features(sb: &mut Superblock, online_resize: bool) {
    let compatible = compat::EXT_ATTR | compat::DIR_INDEX | compat::RESIZE_INODE;
    let readable = ro_compat::LARGE_FILE
        | ro_compat::HUGE_FILE
        | ro_compat::DIR_NLINK
        | ro_compat::EXTRA_ISIZE
        | ro_compat::METADATA_CSUM;
    // With SPARSE_SUPER2 and no group named in `s_backup_bgs`, there are no backups.
    let (sparse_super2, sparse_super) = if online_resize {
        (0, ro_compat::SPARSE_SUPER)
    } else {
        (compat::SPARSE_SUPER2, 0)
    };
    sb.s_feature_compat = (compatible | sparse_super2).into();
    let needed =
        incompat::FILETYPE | incompat::EXTENTS | incompat::BIT64 | incompat::FLEX_BG | incompat::CSUM_SEED;
    sb.s_feature_incompat = needed.into();
    sb.s_feature_ro_compat = (readable | sparse_super).into();
}

fn set_journal(sb: &mut Superblock, i_block: &[u8; 60], size: u64) {
    sb.s_feature_compat = (sb.s_feature_compat.get() | compat::HAS_JOURNAL).into();
    sb.s_journal_inum = EXT4_JOURNAL_INO.into();
    sb.s_jnl_backup_type = EXT3_JNL_BACKUP_BLOCKS;
    for (word, bytes) in sb.s_jnl_blocks.iter_mut().zip(i_block.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().expect("chunks of 4")).into();
    }
    sb.s_jnl_blocks[15] = ((size >> 32) as u32).into();
    sb.s_jnl_blocks[16] = (size as u32).into();
}

/// The group descriptor table, filled up to whole blocks. `bitmaps` gives a group's block and inode bitmap.
pub(crate) fn descriptors(plan: &Plan, bitmaps: impl Fn(usize) -> (Vec<u8>, Vec<u8>)) -> Vec<u8> {
    let groups = &plan.groups;
    let per_group = groups.inodes_per_group;
    let mut table = Vec::new();
    for (number, group) in groups.list.iter().enumerate() {
        let group_number = u32::try_from(number).expect("at most 8192 groups");
        let (block_bitmap, inode_bitmap) = bitmaps(number);
        let inode_bits = &inode_bitmap[..(per_group / 8) as usize];
        let block_csum = Crc::ours().update(&block_bitmap).value();
        let inode_csum = Crc::ours().update(inode_bits).value();
        let inodes_used = inode_bits.iter().map(|byte| byte.count_ones()).sum::<u32>();
        // What stands behind the last inode in use was never used.
        let unused = inode_bits.iter().rev().take_while(|&&byte| byte == 0).count() as u32 * 8;
        let mut flags = group_flags::INODE_ZEROED;
        if inodes_used == 0 {
            flags |= group_flags::INODE_UNINIT;
        }
        let mut desc = GroupDesc::new_zeroed();
        desc.bg_block_bitmap_lo = (group.block_bitmap.0 as u32).into();
        desc.bg_block_bitmap_hi = ((group.block_bitmap.0 >> 32) as u32).into();
        desc.bg_inode_bitmap_lo = (group.inode_bitmap.0 as u32).into();
        desc.bg_inode_bitmap_hi = ((group.inode_bitmap.0 >> 32) as u32).into();
        desc.bg_inode_table_lo = (group.inode_table.0 as u32).into();
        desc.bg_inode_table_hi = ((group.inode_table.0 >> 32) as u32).into();
        // None of these counts passes 32768, so their second halves stay zero.
        desc.bg_free_blocks_count_lo = (group.free_blocks as u16).into();
        desc.bg_free_inodes_count_lo = ((per_group - inodes_used) as u16).into();
        desc.bg_used_dirs_count_lo = (group.directories as u16).into();
        desc.bg_itable_unused_lo = (unused as u16).into();
        desc.bg_flags = flags.into();
        desc.bg_block_bitmap_csum_lo = (block_csum as u16).into();
        desc.bg_block_bitmap_csum_hi = ((block_csum >> 16) as u16).into();
        desc.bg_inode_bitmap_csum_lo = (inode_csum as u16).into();
        desc.bg_inode_bitmap_csum_hi = ((inode_csum >> 16) as u16).into();
        let checksum = Crc::ours()
            .update(&group_number.to_le_bytes())
            .update(desc.as_bytes())
            .value();
        desc.bg_checksum = (checksum as u16).into();
        table.extend_from_slice(desc.as_bytes());
    }
    table.resize(table.len().next_multiple_of(BLOCK_SIZE as usize), 0);
    table
}

/// The inode bitmap of one group: numbers that have an inode, and what lies behind the group's last inode.
pub(crate) fn inode_bitmap(plan: &Plan, group: usize) -> Vec<u8> {
    let per_group = plan.groups.inodes_per_group;
    let group = u32::try_from(group).expect("at most 8192 groups");
    let first = group * per_group + 1;
    let nodes = plan.nodes.of_group(group, per_group);
    let own = (1..=EXT4_GOOD_OLD_FIRST_INO).filter(|_| group == 0);
    let mut bitmap = vec![0; BLOCK_SIZE as usize];
    for number in own.chain(nodes.iter().map(|node| node.number)) {
        let place = (number - first) as usize;
        bitmap[place / 8] |= 1 << (place % 8);
    }
    bitmap[per_group as usize / 8..].fill(0xff);
    bitmap
}
