//! A new, empty ext4 on a disk: what the writable layer needs on its first boot, without a `mkfs` in the image.
//!
//! It is small because it writes only what a kernel must find: superblocks and descriptors, the bitmaps of the first and
//! the last group, four inodes, a journal of zeros. All other bitmaps and inode tables are marked as not yet initialised
//! (`GDT_CSUM`), which the kernel does when it has time.
//!
//! ```text
//! group 0   superblock │ descriptors │ 2 bitmaps │ inode table │ / │ /lost+found │ journal │ free
//! group n   (copies of both, in groups 1, 3^n, 5^n, 7^n) │ 2 bitmaps │ inode table │ free
//! ```
//!
//! A format that is cut off must not look like somebody's data: `MARK` stands at the disk's start meanwhile.
//! Layout: <https://docs.kernel.org/filesystems/ext4/>

use alloc::vec;
use alloc::vec::Vec;

use rustix::io::Errno;

/// Stands where a boot sector would, from before the first write of a format until after its last.
pub(super) const MARK: &[u8; 34] = b"firebrick is formatting this disk\n";

const BLOCK: usize = 4096;
const GROUP_BLOCKS: u32 = 32768;
const INODE_BYTES: usize = 256;
/// Names such as these are what a writable layer holds: rather small files.
const BYTES_PER_INODE: u32 = 8192;
/// Below this a journal would take too much of the disk.
const MIN_BLOCKS_WITH_JOURNAL: u32 = 8192;
/// The smallest disk: 1 MiB.
const MIN_BLOCKS: u32 = 256;

const ROOT: u32 = 2;
const JOURNAL: u32 = 8;
const LOST_AND_FOUND: u32 = 11;

const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;

/// Where a format goes.
pub trait Disk {
    /// Writes the bytes there.
    ///
    /// # Errors
    /// The kernel's.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Errno>;
    /// Waits until all that was written stays.
    ///
    /// # Errors
    /// The kernel's.
    fn sync(&mut self) -> Result<(), Errno>;
}

/// What makes one file system differ from another of the same size.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The UUID.
    pub uuid: [u8; 16],
    /// The seed of the hashes of names.
    pub hash_seed: [u8; 16],
    /// When it was made: seconds since 1970.
    pub time: u32,
}

/// Sizes and places of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    blocks: u32,
    groups: u32,
    descriptor_blocks: u32,
    inodes_per_group: u32,
    table_blocks: u32,
    journal_blocks: u32,
}

impl Layout {
    /// The layout for so many bytes; `None` when they are too few.
    fn new(bytes: u64) -> Option<Layout> {
        let blocks = u32::try_from(bytes / BLOCK as u64).unwrap_or(u32::MAX);
        if blocks < MIN_BLOCKS {
            return None;
        }
        let in_group = GROUP_BLOCKS.min(blocks);
        let inodes_per_group = (in_group / (BYTES_PER_INODE / BLOCK as u32)).next_multiple_of(16);
        let mut layout = Layout {
            blocks,
            groups: blocks.div_ceil(GROUP_BLOCKS),
            descriptor_blocks: 0,
            inodes_per_group,
            table_blocks: inodes_per_group / 16,
            journal_blocks: match blocks {
                0..MIN_BLOCKS_WITH_JOURNAL => 0,
                MIN_BLOCKS_WITH_JOURNAL..131_072 => 1024,
                _ => 4096,
            },
        };
        layout.descriptor_blocks = layout.groups.div_ceil(BLOCK as u32 / 32);
        // A last group that could hold little but its own tables is left out.
        let rest = blocks % GROUP_BLOCKS;
        if layout.groups > 1 && rest != 0 && rest < layout.overhead(layout.groups - 1) + 50 {
            layout.blocks -= rest;
            layout.groups -= 1;
            layout.descriptor_blocks = layout.groups.div_ceil(BLOCK as u32 / 32);
        }
        Some(layout)
    }

    fn start(&self, group: u32) -> u32 {
        group * GROUP_BLOCKS
    }

    fn len(&self, group: u32) -> u32 {
        (self.blocks - self.start(group)).min(GROUP_BLOCKS)
    }

    /// The blocks before a group's bitmaps.
    fn copies(&self, group: u32) -> u32 {
        let power_of = |base: u32| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        let has_copy = group <= 1 || [3, 5, 7].into_iter().any(power_of);
        if has_copy { 1 + self.descriptor_blocks } else { 0 }
    }

    fn overhead(&self, group: u32) -> u32 {
        self.copies(group) + 2 + self.table_blocks
    }

    /// The first block of the inode table; the bitmaps lie before it.
    fn table(&self, group: u32) -> u32 {
        self.start(group) + self.copies(group) + 2
    }

    fn root_block(&self) -> u32 {
        self.overhead(0)
    }

    fn journal_start(&self) -> u32 {
        self.root_block() + 2
    }

    /// How many blocks of a group are in use, all at its start.
    fn used(&self, group: u32) -> u32 {
        let more = if group == 0 { 2 + self.journal_blocks } else { 0 };
        self.overhead(group) + more
    }

    fn free_blocks(&self) -> u32 {
        (0..self.groups)
            .map(|group| self.len(group) - self.used(group))
            .sum()
    }
}

/// Whether a disk of so many bytes can hold a file system.
pub fn fits(bytes: u64) -> bool {
    Layout::new(bytes).is_some()
}

/// Makes an empty ext4 of so many bytes, rounded down.
///
/// # Errors
/// [`Errno::NOSPC`] if the disk is too small, and what it says to a write.
pub fn format(disk: &mut dyn Disk, bytes: u64, identity: &Identity) -> Result<(), Errno> {
    let layout = Layout::new(bytes).ok_or(Errno::NOSPC)?;
    disk.write_at(0, MARK)?;
    disk.sync()?;
    let at = |block: u32| u64::from(block) * BLOCK as u64;
    let descriptors = descriptors(&layout, identity);
    for group in (0..layout.groups).filter(|group| layout.copies(*group) > 0) {
        let superblock = superblock(&layout, identity, group);
        let inside = if group == 0 { 1024 } else { 0 };
        disk.write_at(at(layout.start(group)) + inside, &superblock)?;
        disk.write_at(at(layout.start(group) + 1), &descriptors)?;
    }
    for group in [0, layout.groups - 1] {
        let bitmap = bitmap(layout.used(group), layout.len(group));
        disk.write_at(at(layout.table(group) - 2), &bitmap)?;
    }
    disk.write_at(
        at(layout.table(0) - 1),
        &bitmap(LOST_AND_FOUND, layout.inodes_per_group),
    )?;
    disk.write_at(at(layout.table(0)), &first_inodes(&layout, identity))?;
    disk.write_at(at(layout.root_block()), &folders())?;
    let zeros = vec![0; 256 * 1024];
    for block in (0..layout.journal_blocks).step_by(zeros.len() / BLOCK) {
        disk.write_at(at(layout.journal_start() + block), &zeros)?;
    }
    if layout.journal_blocks > 0 {
        disk.write_at(at(layout.journal_start()), &journal_superblock(&layout))?;
    }
    disk.sync()?;
    disk.write_at(0, &[0; MARK.len()])?;
    disk.sync()
}

/// Bytes with little-endian numbers put into them.
struct Bytes(Vec<u8>);

impl Bytes {
    fn new(len: usize) -> Bytes {
        Bytes(vec![0; len])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }
}

/// The superblock (`struct ext4_super_block`, named fields beside their places) as `group` has it.
fn superblock(layout: &Layout, identity: &Identity, group: u32) -> Vec<u8> {
    let has_journal = layout.journal_blocks > 0;
    let inodes = layout.inodes_per_group * layout.groups;
    let mut out = Bytes::new(1024);
    for (at, value) in [
        (0x00, inodes),
        (0x04, layout.blocks),
        (0x0c, layout.free_blocks()),
        (0x10, inodes - LOST_AND_FOUND),
        (0x18, 2), // s_log_block_size
        (0x1c, 2),
        (0x20, GROUP_BLOCKS),
        (0x24, GROUP_BLOCKS),
        (0x28, layout.inodes_per_group),
        (0x30, identity.time), // s_wtime
        (0x40, identity.time), // s_lastcheck
        (0x4c, 1),             // s_rev_level
        (0x54, LOST_AND_FOUND),
        // s_feature_compat: EXT_ATTR, DIR_INDEX, HAS_JOURNAL
        (0x5c, 0x28 | if has_journal { 4 } else { 0 }),
        (0x60, 0x42), // s_feature_incompat: FILETYPE, EXTENTS
        (0x64, 0x7b), // s_feature_ro_compat: SPARSE_SUPER, LARGE_FILE, HUGE_FILE, GDT_CSUM, DIR_NLINK, EXTRA_ISIZE
        (0xe0, if has_journal { JOURNAL } else { 0 }),
        (0x108, identity.time), // s_mkfs_time
        (0x160, 1),             // s_flags: names are hashed as signed bytes
    ] {
        out.u32(at, value);
    }
    for (at, value) in [
        (0x36, u16::MAX), // s_max_mnt_count: never
        (0x38, 0xef53),
        (0x3a, 1), // s_state: clean
        (0x3c, 1), // s_errors: go on
        (0x58, INODE_BYTES as u16),
        (0x5a, group as u16), // s_block_group_nr
        (0x15c, 32),
        (0x15e, 32),
    ] {
        out.u16(at, value);
    }
    out.put(0x68, &identity.uuid);
    out.put(0x78, b"overlay");
    out.put(0xec, &identity.hash_seed);
    out.0[0xfc] = 1; // s_def_hash_version: half MD4
    if has_journal {
        // s_jnl_blocks: what the journal's inode says, for when it is lost.
        let inode = inode(0, layout.journal_start(), layout.journal_blocks, 0, 0);
        out.0[0xfd] = 1;
        out.put(0x10c, &inode[0x28..0x64]);
        out.u32(0x10c + 16 * 4, layout.journal_blocks * BLOCK as u32);
    }
    out.0
}

/// The group descriptor table.
fn descriptors(layout: &Layout, identity: &Identity) -> Vec<u8> {
    let mut out = Bytes::new(layout.descriptor_blocks as usize * BLOCK);
    for group in 0..layout.groups {
        let at = group as usize * 32;
        let table = layout.table(group);
        let last = group == layout.groups - 1;
        let inodes = if group == 0 { LOST_AND_FOUND } else { 0 };
        let free_inodes = (layout.inodes_per_group - inodes) as u16;
        out.u32(at, table - 2);
        out.u32(at + 4, table - 1);
        out.u32(at + 8, table);
        out.u16(at + 0xc, (layout.len(group) - layout.used(group)) as u16);
        out.u16(at + 0xe, free_inodes);
        out.u16(at + 0x10, if group == 0 { 2 } else { 0 });
        let flags = match (group, last) {
            (0, _) => 0,
            (_, true) => INODE_UNINIT, // its bitmap ends in padding, which the kernel would not make
            _ => INODE_UNINIT | BLOCK_UNINIT,
        };
        out.u16(at + 0x12, flags);
        out.u16(at + 0x1c, free_inodes); // bg_itable_unused
        let crc = [&identity.uuid[..], &group.to_le_bytes(), &out.0[at..at + 0x1e]]
            .into_iter()
            .fold(u16::MAX, crc16);
        out.u16(at + 0x1e, crc);
    }
    out.0
}

/// CRC-16 as the kernel's `crc16` has it.
fn crc16(start: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xa001 } else { 0 }
        })
    })
}

/// A block of bits: the first `used` are set, and those behind `len`, which stand for nothing.
fn bitmap(used: u32, len: u32) -> Vec<u8> {
    let mut bytes = vec![0u8; BLOCK];
    for bit in (0..used).chain(len..BLOCK as u32 * 8) {
        bytes[bit as usize / 8] |= 1 << (bit % 8);
    }
    bytes
}

/// An inode whose data are `count` blocks in one piece.
fn inode(mode: u16, start: u32, count: u32, links: u16, time: u32) -> Vec<u8> {
    let mut out = Bytes::new(INODE_BYTES);
    out.u16(0, mode);
    out.u32(4, count * BLOCK as u32);
    for at in [0x8, 0xc, 0x10, 0x90] {
        out.u32(at, time);
    }
    out.u16(0x1a, links);
    out.u32(0x1c, count * (BLOCK as u32 / 512));
    out.u32(0x20, 0x8_0000); // EXTENTS_FL
    out.u16(0x28, 0xf30a); // the header of a tree of extents: magic, one of at most four
    out.u16(0x2a, 1);
    out.u16(0x2c, 4);
    out.u16(0x38, count as u16);
    out.u32(0x3c, start);
    out.u16(0x80, 32); // i_extra_isize
    out.0
}

/// The block of the inode table that holds all there are.
fn first_inodes(layout: &Layout, identity: &Identity) -> Vec<u8> {
    let mut out = Bytes::new(BLOCK);
    let mut put = |number: u32, inode: Vec<u8>| out.put((number as usize - 1) * INODE_BYTES, &inode);
    let (root, time) = (layout.root_block(), identity.time);
    put(ROOT, inode(0o040_755, root, 1, 3, time));
    put(LOST_AND_FOUND, inode(0o040_700, root + 1, 1, 2, time));
    if layout.journal_blocks > 0 {
        let journal = inode(0o100_600, layout.journal_start(), layout.journal_blocks, 1, time);
        put(JOURNAL, journal);
    }
    out.0
}

/// The blocks of `/` and `/lost+found`.
fn folders() -> Vec<u8> {
    let mut out = Bytes::new(2 * BLOCK);
    let mut entry = |at: usize, number: u32, len: usize, name: &[u8]| {
        out.u32(at, number);
        out.u16(at + 4, len as u16);
        out.put(at + 6, &[name.len() as u8, 2]); // a folder
        out.put(at + 8, name);
    };
    entry(0, ROOT, 12, b".");
    entry(12, ROOT, 12, b"..");
    entry(24, LOST_AND_FOUND, BLOCK - 24, b"lost+found");
    entry(BLOCK, LOST_AND_FOUND, 12, b".");
    entry(BLOCK + 12, ROOT, BLOCK - 12, b"..");
    out.0
}

/// The journal's own superblock, in big-endian numbers: an empty log.
fn journal_superblock(layout: &Layout) -> Vec<u8> {
    let mut out = Bytes::new(BLOCK);
    for (at, value) in [
        (0x00, 0xc03b_3998_u32),
        (0x04, 4), // a superblock, second version
        (0x0c, BLOCK as u32),
        (0x10, layout.journal_blocks),
        (0x14, 1), // where the log begins
        (0x18, 1), // the first number expected in it
        (0x40, 1), // users
    ] {
        out.put(at, &value.to_be_bytes());
    }
    out.0
}

#[cfg(test)]
#[path = "mkfs_tests.rs"]
mod tests;
