//! What goes into a build and what comes out.

use std::path::PathBuf;

use firebrick_digest::Digest;
use firebrick_layer::Limits;
use firebrick_source::OciImage;
use firebrick_tree::{Timestamp, Tree};

/// Makes one more layer (an uncompressed tar) from what the layers below it merged to.
pub type Customise<'a> =
    Box<dyn FnOnce(&Tree) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> + 'a>;

/// A build.
pub struct Request<'a> {
    /// The opened OCI image.
    pub image: &'a OciImage,
    /// Makes the layer that comes last; without it the image holds the OCI image's layers alone.
    pub customise: Option<Customise<'a>>,
    /// Where the image file goes. What is there is replaced, at once and whole.
    pub output: PathBuf,
    /// Size, label and so on. `identity` is set from the build key.
    pub ext4: firebrick_ext4::Options,
    /// Bounds on the layers, all together.
    pub limits: Limits,
    /// Time of what no layer describes: `SOURCE_DATE_EPOCH`, or the OCI image's own.
    pub created: Timestamp,
    /// How many layers are decompressed at once: 1 is none ahead. They share one buffer.
    pub layers_at_once: usize,
}

/// What happens during a build, for whoever shows progress. Comes from several threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A layer is being scanned.
    LayerStarted {
        /// Its place, from 0. The layer that firebrick adds counts too.
        layer: usize,
        /// Length as stored, in bytes, if it is known.
        stored_bytes: Option<u64>,
    },
    /// Some more of a layer was read.
    LayerProgress {
        /// Its place, from 0.
        layer: usize,
        /// Bytes read of it as stored.
        stored_bytes: u64,
    },
    /// A layer is scanned, verified and its contents are written.
    LayerFinished {
        /// Its place, from 0.
        layer: usize,
        /// Length of its uncompressed tar, in bytes.
        tar_bytes: u64,
    },
    /// All layers are merged.
    Merged {
        /// Inodes that have a name.
        inodes: u64,
    },
    /// The filesystem is decided.
    Planned {
        /// Its length in bytes.
        size_bytes: u64,
    },
    /// Everything is written; what is left is to make it last.
    Written,
}

/// One layer of the finished image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerReport {
    /// Digest as stored, if the source names one. None for the layer that firebrick adds.
    pub digest: Option<Digest>,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Where its region starts in the image, in bytes.
    pub region_start: u64,
    /// Length of its region in bytes.
    pub region_bytes: u64,
    /// How many entries its tar has.
    pub entries: u64,
    /// Length of its file contents in bytes.
    pub file_bytes: u64,
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Digest of everything that decides the image's bytes.
    pub build_key: Digest,
    /// Length of the image in bytes.
    pub size_bytes: u64,
    /// How much of it the disk holds (the rest are holes), in bytes.
    pub allocated_bytes: u64,
    /// Free space of the filesystem, in bytes.
    pub free_bytes: u64,
    /// Inodes in all.
    pub inodes: u32,
    /// Inodes in use.
    pub inodes_used: u32,
    /// UUID of the filesystem.
    pub uuid: [u8; 16],
    /// The layers, lowest first, firebrick's own last.
    pub layers: Vec<LayerReport>,
    /// Bytes of lower layers that upper ones hide, and that are therefore not in the image.
    pub hidden_bytes: u64,
    /// Extended attributes that ext4 has no namespace for, as `path: name`.
    pub left_out_xattrs: Vec<String>,
}
