//! What the caller decides about a filesystem.

use std::fmt;
use std::ops::RangeInclusive;

use firebrick_tree::Timestamp;

/// How contents and metadata are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard, for Linux from 4.14 on.
    #[default]
    Zstd,
    /// Deflate in zlib's form, which every kernel with squashfs reads.
    Gzip,
    /// LZ4: the quickest to read.
    Lz4,
    /// XZ: the smallest, and by far the slowest to read.
    Xz,
}

impl Compression {
    /// All of them.
    pub const ALL: [Compression; 4] = [
        Compression::Zstd,
        Compression::Gzip,
        Compression::Lz4,
        Compression::Xz,
    ];

    /// Its name, as `mksquashfs -comp` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Zstd => "zstd",
            Compression::Gzip => "gzip",
            Compression::Lz4 => "lz4",
            Compression::Xz => "xz",
        }
    }

    /// The levels that it has; `None` where it has none.
    pub fn levels(self) -> Option<RangeInclusive<u32>> {
        match self {
            Compression::Zstd => Some(1..=22),
            Compression::Gzip => Some(1..=9),
            Compression::Lz4 => None,
            Compression::Xz => Some(0..=9),
        }
    }

    /// The level where none is asked for; 0 where there are none.
    pub fn default_level(self) -> u32 {
        match self {
            Compression::Zstd => 15,
            Compression::Gzip => 9,
            Compression::Lz4 => 0,
            Compression::Xz => 6,
        }
    }

    /// Its number in a superblock.
    pub(crate) fn id(self) -> u16 {
        match self {
            Compression::Gzip => 1,
            Compression::Xz => 4,
            Compression::Lz4 => 5,
            Compression::Zstd => 6,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Sizes that a block may have, in bytes: the powers of two between these.
pub const BLOCK_SIZES: RangeInclusive<u32> = 4096..=1 << 20;

/// The block size where none is asked for, that of `mksquashfs`, in bytes.
pub const BLOCK_SIZE_DEFAULT: u32 = 128 << 10;

/// Options of a filesystem. The same options over the same tree and contents give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How everything is compressed.
    pub compression: Compression,
    /// How hard it tries; `None` is [`Compression::default_level`].
    pub level: Option<u32>,
    /// What is compressed at once, in bytes: a power of two in [`BLOCK_SIZES`].
    pub block_size: u32,
    /// Time of making.
    pub created: Timestamp,
    /// How many threads compress. Never changes a byte.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            compression: Compression::default(),
            level: None,
            block_size: BLOCK_SIZE_DEFAULT,
            created: Timestamp::default(),
            threads: 1,
        }
    }
}

impl Options {
    /// The level that is used.
    pub fn effective_level(&self) -> u32 {
        self.level.unwrap_or_else(|| self.compression.default_level())
    }
}
