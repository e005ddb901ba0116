//! What can be wrong.

use crate::read::ReadError;

/// One thing that is wrong with a filesystem.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// A structure that holds what it never may, or whose parts do not fit together.
    #[error("{0}")]
    Structure(ReadError),
    /// A checksum that is not that of its bytes, in a structure that is right otherwise.
    #[error("{0}")]
    Checksum(ReadError),
    /// Blocks that two claim.
    #[error("block {block}, which inode {inode} has, is also in use elsewhere")]
    Shared {
        /// The block.
        block: u64,
        /// The inode that was the second to name it.
        inode: u32,
    },
    /// An inode that counts its blocks wrong.
    #[error("inode {inode} says that it has {stored} sectors of 512 bytes, it has {computed}")]
    Sectors {
        /// The inode.
        inode: u32,
        /// What it says.
        stored: u64,
        /// What it has.
        computed: u64,
    },
    /// An inode that counts its names wrong.
    #[error("inode {inode} says that it has {stored} names, it has {computed}")]
    Links {
        /// The inode.
        inode: u32,
        /// What it says.
        stored: u16,
        /// What it has.
        computed: u64,
    },
    /// An inode in use that no name leads to from the root.
    #[error("inode {inode} is in use, but no name leads to it from the root")]
    Unconnected {
        /// The inode.
        inode: u32,
    },
    /// A name that is not right.
    #[error("{name:?} in the folder of inode {folder} names inode {inode}, {fault}")]
    Name {
        /// The folder.
        folder: u32,
        /// The name, escaped where it is not ASCII.
        name: String,
        /// What it names.
        inode: u32,
        /// What is wrong.
        fault: &'static str,
    },
    /// A block of extended attributes that counts its users wrong.
    #[error("the extended attributes in block {block} say that {stored} inodes have them, {computed} do")]
    XattrUsers {
        /// The block.
        block: u64,
        /// What it says.
        stored: u32,
        /// How many there are.
        computed: u32,
    },
    /// A bitmap that is not what is in use.
    #[error("the bitmap of {what} of block group {group} is wrong in {count} places, first for {first}")]
    Bitmap {
        /// `blocks` or `inodes`.
        what: &'static str,
        /// The group.
        group: u32,
        /// How many bits are wrong.
        count: u64,
        /// The first block or inode of them.
        first: u64,
    },
    /// A count that is not what was counted.
    #[error("{whose} says {stored} {what}, there are {computed}")]
    Count {
        /// The superblock, or a group.
        whose: String,
        /// What is counted.
        what: &'static str,
        /// What it says.
        stored: u64,
        /// What there is.
        computed: u64,
    },
}

impl Finding {
    /// Whether what is right follows from the rest: checksums, counts and bitmaps. All others need a decision, and so may these
    /// together ([`Report::is_repairable`](super::Report::is_repairable)).
    pub fn is_repairable(&self) -> bool {
        match self {
            Finding::Checksum(_)
            | Finding::Sectors { .. }
            | Finding::Links { .. }
            | Finding::XattrUsers { .. }
            | Finding::Bitmap { .. }
            | Finding::Count { .. } => true,
            Finding::Structure(_)
            | Finding::Shared { .. }
            | Finding::Unconnected { .. }
            | Finding::Name { .. } => false,
        }
    }
}
