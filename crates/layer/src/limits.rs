//! Bounds on what a layer may ask of this machine.

/// How much one layer may hold. The defaults are far above any real image and far below what hurts a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most entries in one layer.
    pub entries: u64,
    /// Most bytes of one layer after decompression.
    pub unpacked_bytes: u64,
    /// Most bytes of paths, link targets and xattrs in one layer: they are held in memory.
    pub metadata_bytes: u64,
    /// Most bytes that one compressed byte may become. Counted from 64 MiB of output on, since short runs of zeros
    /// compress extremely well and hurt nobody.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 5_000_000,
            unpacked_bytes: 256 << 30,
            metadata_bytes: 1 << 30,
            ratio: 250,
        }
    }
}
