//! What goes into a build and what comes out.

use std::fmt;
use std::io;
use std::path::PathBuf;

use firebrick_digest::Digest;
use firebrick_layer::Limits;
use firebrick_source::OciImage;
use firebrick_tree::{FileData, Timestamp, Tree};

/// Makes one more layer (an uncompressed tar) from what the layers below it merged to.
pub type Customise<'a> =
    Box<dyn FnOnce(&Merged<'_>) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> + 'a>;

/// What the layers so far merged to, and where they lie. Stands for its tree wherever one is wanted.
#[derive(Clone, Copy)]
pub struct Merged<'a> {
    /// The merged tree.
    pub tree: &'a Tree,
    /// The layers, lowest first. Those of an image that is going to be compressed have no place.
    pub layers: &'a [LayerReport],
    /// Where the region of the next layer starts in the image, in bytes; `None` as for the others.
    pub next_region: Option<u64>,
    pub(crate) read: &'a dyn Fn(&FileData) -> io::Result<Vec<u8>>,
}

impl Merged<'_> {
    /// What a file of the tree holds, in memory: ask only for files that are known to be short.
    ///
    /// In a build whose content does not fit, and which will say so, contents that were not written read as zeros.
    ///
    /// # Errors
    /// What reading the unfinished image gives.
    pub fn read(&self, data: &FileData) -> io::Result<Vec<u8>> {
        (self.read)(data)
    }
}

impl fmt::Debug for Merged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merged")
            .field("tree", &self.tree)
            .field("layers", &self.layers)
            .field("next_region", &self.next_region)
            .finish_non_exhaustive()
    }
}

impl std::ops::Deref for Merged<'_> {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        self.tree
    }
}

/// The filesystem of an image, and its options. Times in them are set from [`Request::created`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filesystem {
    /// Can be written to. `identity` is set from the build key.
    Ext4(firebrick_ext4::Options),
    /// Compressed and read-only.
    Squashfs(firebrick_squashfs::Options),
}

impl Default for Filesystem {
    fn default() -> Filesystem {
        Filesystem::Ext4(firebrick_ext4::Options::default())
    }
}

impl Filesystem {
    /// Its name, as the kernel has it.
    pub fn name(&self) -> &'static str {
        match self {
            Filesystem::Ext4(_) => "ext4",
            Filesystem::Squashfs(_) => "squashfs",
        }
    }
}

/// A build.
pub struct Request<'a> {
    /// The opened OCI image.
    pub image: &'a OciImage,
    /// Makes the layer that comes last; without it the image holds the OCI image's layers alone.
    pub customise: Option<Customise<'a>>,
    /// Where the image file goes. What is there is replaced, at once and whole.
    pub output: PathBuf,
    /// What the image becomes: size, label, compression and so on.
    pub filesystem: Filesystem,
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
    /// What a read-only filesystem holds is decided; its contents are being compressed.
    Compressing {
        /// Their length in bytes.
        content_bytes: u64,
    },
    /// Some more of the contents was compressed.
    CompressProgress {
        /// Bytes read of them.
        read_bytes: u64,
        /// Their length in bytes.
        content_bytes: u64,
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
    /// Where its region starts in the image, in bytes. None where regions were compressed or moved together.
    pub region_start: Option<u64>,
    /// Length of its region in bytes, before compression.
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
    /// UUID of the filesystem, if it has one.
    pub uuid: Option<[u8; 16]>,
    /// The layers, lowest first, firebrick's own last.
    pub layers: Vec<LayerReport>,
    /// Bytes of lower layers that upper ones hide, and that are therefore not in the image.
    pub hidden_bytes: u64,
    /// Extended attributes that the filesystem has no place for, as `path: name`.
    pub left_out_xattrs: Vec<String>,
    /// How many times the filesystem cannot say; it has the nearest ones instead.
    pub clamped_times: u64,
    /// Files whose content is that of another, and is stored once.
    pub duplicates: u64,
}
