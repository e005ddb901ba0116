//! Opening: what may be changed at all, and what everything looks like.

use zerocopy::FromBytes as _;

use super::groups::{self, Group};
use super::{Changes, EditError, Editor, Form, Target, wide};
use crate::dir::DirForm;
use crate::extent::NodeForm;
use crate::format::{SUPERBLOCK_OFFSET, Superblock, compat, incompat, ro_compat};
use crate::hash::Signs;
use crate::read::{Features, Filesystem, Place, ReadAt, Summary};

/// Features that changes keep right, or that have nothing to do with them.
pub(crate) const WRITABLE: Features = Features {
    // `dir_prealloc`, `imagic_inodes`, `fast_commit`, `stable_inodes`, `orphan_file`
    compat: 0x1
        | 0x2
        | compat::HAS_JOURNAL
        | compat::EXT_ATTR
        | compat::RESIZE_INODE
        | compat::DIR_INDEX
        | compat::SPARSE_SUPER2
        | 0x400
        | 0x800
        | 0x1000,
    incompat: incompat::FILETYPE
        | incompat::META_BG
        | incompat::EXTENTS
        | incompat::BIT64
        | incompat::FLEX_BG
        | incompat::CSUM_SEED
        | incompat::LARGEDIR,
    ro_compat: ro_compat::SPARSE_SUPER
        | ro_compat::LARGE_FILE
        | ro_compat::HUGE_FILE
        | ro_compat::GDT_CSUM
        | ro_compat::DIR_NLINK
        | ro_compat::EXTRA_ISIZE
        | ro_compat::METADATA_CSUM
        | ORPHAN_PRESENT,
};

/// The orphan file is not empty (`s_feature_ro_compat`).
const ORPHAN_PRESENT: u32 = 0x10000;

/// `s_flags`: names are hashed as signed, or as unsigned bytes.
const SIGNED_HASH: u32 = 0x1;
const UNSIGNED_HASH: u32 = 0x2;

impl<T: Target> Editor<T> {
    /// Opens a filesystem for changes. `target` is a copy: if anything fails, it is of no more use.
    ///
    /// # Errors
    /// [`EditError::Unsupported`] for what changes would break, [`EditError::Unclean`] for what must be repaired first, and
    /// [`EditError::Read`] for what cannot even be read.
    pub fn open(target: T) -> Result<Editor<T>, EditError> {
        let filesystem = Filesystem::open(target)?;
        let superblock = superblock_of(&filesystem)?;
        check_features(filesystem.geometry.features)?;
        check_state(filesystem.summary(), &superblock)?;
        let form = form(&filesystem, &superblock)?;
        let groups = groups::load(&filesystem, &form)?;
        let system = groups::system_blocks(&filesystem.geometry, &superblock, &groups);
        Ok(Editor {
            filesystem,
            superblock,
            groups,
            form,
            system,
            folders: std::collections::BTreeMap::new(),
            released: Vec::new(),
            changes: Changes::default(),
        })
    }

    pub(super) fn group(&self, index: usize) -> Option<&Group> {
        self.groups.get(index)
    }
}

/// Makes sure that a filesystem is as its last user meant it to be: what is made of the files of another may have half of them.
///
/// # Errors
/// [`EditError::Unclean`] for what must be repaired first, [`EditError::Read`] for what cannot even be read.
pub fn ensure_clean<R: ReadAt>(filesystem: &Filesystem<R>) -> Result<(), EditError> {
    check_state(filesystem.summary(), &superblock_of(filesystem)?)
}

fn superblock_of<R: ReadAt>(filesystem: &Filesystem<R>) -> Result<Superblock, EditError> {
    let mut bytes = [0; 1024];
    filesystem.read_bytes(SUPERBLOCK_OFFSET, &mut bytes, Place::Superblock)?;
    Ok(Superblock::read_from_bytes(&bytes).unwrap_or_else(|_| {
        // Never: both have 1024 bytes.
        zerocopy::FromZeros::new_zeroed()
    }))
}

fn check_features(features: Features) -> Result<(), EditError> {
    let names = features.besides(WRITABLE).names();
    if names.is_empty() {
        return Ok(());
    }
    Err(EditError::Unsupported {
        feature: names.join(", "),
    })
}

fn check_state(summary: &Summary, superblock: &Superblock) -> Result<(), EditError> {
    let reason = if summary.state.errors {
        "has errors that the kernel found"
    } else if !summary.state.clean {
        "was not unmounted cleanly"
    } else if superblock.s_last_orphan.get() != 0 || summary.features.ro_compat(ORPHAN_PRESENT) {
        "has files that were being removed when it was last in use"
    } else {
        return Ok(());
    };
    Err(EditError::Unclean { reason })
}

fn form<T: Target>(filesystem: &Filesystem<T>, superblock: &Superblock) -> Result<Form, EditError> {
    let geometry = &filesystem.geometry;
    let features = geometry.features;
    let unsupported = |feature: String| Err(EditError::Unsupported { feature });
    if geometry.block_size > 4096 {
        return unsupported(format!("blocks of {} bytes", geometry.block_size));
    }
    if geometry.descriptor_size > 64 {
        return unsupported(format!("group descriptors of {} bytes", geometry.descriptor_size));
    }
    let block_len = geometry.block_len();
    let checksums = geometry.seed.is_some();
    let signs = match superblock.s_flags.get() & (SIGNED_HASH | UNSIGNED_HASH) {
        UNSIGNED_HASH => Some(Signs::Unsigned),
        SIGNED_HASH => Some(Signs::Signed),
        _ => None,
    };
    // Another hash than the usual one is not worth its code: folders without an index are right, too.
    let indexes = features.compat(compat::DIR_INDEX) && superblock.s_def_hash_version == 1;
    let seed = superblock.s_hash_seed.map(|word| word.get());
    Ok(Form {
        block_len,
        inode_len: geometry.inode_size.into(),
        seed: geometry.seed,
        crc16: !checksums && features.ro_compat(ro_compat::GDT_CSUM),
        extents: features.incompat(incompat::EXTENTS),
        huge_file: features.ro_compat(ro_compat::HUGE_FILE),
        folders: DirForm {
            block_len,
            checksums,
            file_types: features.incompat(incompat::FILETYPE),
            index: signs.filter(|_| indexes).map(|signs| (signs, seed)),
        },
        nodes: NodeForm { block_len, checksums },
    })
}

impl Form {
    /// How many bytes of content an inode may have.
    pub(super) fn file_limit(&self) -> u64 {
        let block = self.block_bytes();
        if self.extents {
            return u64::from(u32::MAX).saturating_mul(block);
        }
        let per_block = wide(self.block_len / 4);
        let blocks = (1..=3).fold(12_u64, |sum, level| {
            sum.saturating_add(per_block.saturating_pow(level))
        });
        // Counts of 512-byte sectors have 32 bits there.
        blocks.saturating_mul(block).min(u64::from(u32::MAX) << 8)
    }
}
