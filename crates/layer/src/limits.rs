//! Bounds on what layers may ask of this machine.

/// How much the layers of an image may hold together. The defaults are above real images and below what hurts a host:
/// a tree of 1,000,000 entries takes some 300 MiB of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most entries, hidden ones included. Directories that entries imply count when layers are merged.
    pub entries: u64,
    /// Most bytes of file contents after decompression.
    pub unpacked_bytes: u64,
    /// Most bytes of paths, link targets, xattrs and maps of sparse files: they are held in memory.
    pub metadata_bytes: u64,
    /// Most bytes that one compressed byte of a layer may become. Counted from 64 MiB of output on, since short runs of zeros
    /// compress extremely well and hurt nobody.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 1_000_000,
            unpacked_bytes: 256 << 30,
            metadata_bytes: 128 << 20,
            ratio: 250,
        }
    }
}
