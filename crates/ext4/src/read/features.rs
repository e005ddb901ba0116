//! The names of the feature flags, and which of them this reader understands.

use super::error::ReadError;
use crate::format::{compat, incompat, ro_compat};

/// The three feature words of a superblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `s_feature_compat`: may be ignored.
    pub compat: u32,
    /// `s_feature_incompat`: who does not know one must not read.
    pub incompat: u32,
    /// `s_feature_ro_compat`: who does not know one must not write.
    pub ro_compat: u32,
}

/// Incompatible features that change nothing for a reader, or that it follows.
const READABLE: u32 = incompat::FILETYPE
    | incompat::META_BG
    | incompat::EXTENTS
    | incompat::BIT64
    | MMP
    | incompat::FLEX_BG
    | incompat::EA_INODE
    | incompat::CSUM_SEED
    | incompat::LARGEDIR;

/// Features that only forbid writing, but whose block counts do not mean what they mean elsewhere.
const UNREADABLE_RO: u32 = BIGALLOC | SHARED_BLOCKS;

const MMP: u32 = 0x100;
const BIGALLOC: u32 = 0x200;
const SHARED_BLOCKS: u32 = 0x4000;

impl Features {
    /// Whether all of the bits of `mask` are set in `s_feature_incompat`.
    pub(crate) fn incompat(self, mask: u32) -> bool {
        self.incompat & mask == mask
    }

    /// Whether all of the bits of `mask` are set in `s_feature_ro_compat`.
    pub(crate) fn ro_compat(self, mask: u32) -> bool {
        self.ro_compat & mask == mask
    }

    /// Whether all of the bits of `mask` are set in `s_feature_compat`.
    pub(crate) fn compat(self, mask: u32) -> bool {
        self.compat & mask == mask
    }

    /// Those that are not among others.
    pub(crate) fn besides(self, others: Features) -> Features {
        Features {
            compat: self.compat & !others.compat,
            incompat: self.incompat & !others.incompat,
            ro_compat: self.ro_compat & !others.ro_compat,
        }
    }

    /// The names, in the order and spelling of `dumpe2fs`.
    pub fn names(self) -> Vec<String> {
        [
            named(self.compat, &COMPAT, 'C'),
            named(self.incompat, &INCOMPAT, 'I'),
            named(self.ro_compat, &RO_COMPAT, 'R'),
        ]
        .concat()
    }

    /// Refuses what this reader would get wrong, by name.
    pub(crate) fn check_readable(self) -> Result<(), ReadError> {
        let unknown = Features {
            compat: 0,
            incompat: self.incompat & !(READABLE | incompat::RECOVER),
            ro_compat: self.ro_compat & UNREADABLE_RO,
        }
        .names();
        if !unknown.is_empty() {
            return Err(ReadError::Unsupported {
                feature: unknown.join(", "),
            });
        }
        if self.incompat(incompat::RECOVER) {
            return Err(ReadError::NeedsRecovery);
        }
        Ok(())
    }
}

fn named(word: u32, names: &[(u32, &str)], letter: char) -> Vec<String> {
    let bits = (0_u32..32).filter(|bit| (word >> bit) & 1 == 1);
    bits.map(
        |bit| match names.iter().find(|(mask, _)| mask.trailing_zeros() == bit) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("FEATURE_{letter}{bit}"),
        },
    )
    .collect()
}

const COMPAT: [(u32, &str); 11] = [
    (0x1, "dir_prealloc"),
    (0x2, "imagic_inodes"),
    (compat::HAS_JOURNAL, "has_journal"),
    (compat::EXT_ATTR, "ext_attr"),
    (compat::RESIZE_INODE, "resize_inode"),
    (compat::DIR_INDEX, "dir_index"),
    (0x100, "snapshot_bitmap"),
    (compat::SPARSE_SUPER2, "sparse_super2"),
    (0x400, "fast_commit"),
    (0x800, "stable_inodes"),
    (0x1000, "orphan_file"),
];

const INCOMPAT: [(u32, &str); 16] = [
    (0x1, "compression"),
    (incompat::FILETYPE, "filetype"),
    (incompat::RECOVER, "needs_recovery"),
    (incompat::JOURNAL_DEV, "journal_dev"),
    (incompat::META_BG, "meta_bg"),
    (incompat::EXTENTS, "extent"),
    (incompat::BIT64, "64bit"),
    (MMP, "mmp"),
    (incompat::FLEX_BG, "flex_bg"),
    (incompat::EA_INODE, "ea_inode"),
    (0x1000, "dirdata"),
    (incompat::CSUM_SEED, "metadata_csum_seed"),
    (incompat::LARGEDIR, "large_dir"),
    (incompat::INLINE_DATA, "inline_data"),
    (incompat::ENCRYPT, "encrypt"),
    (incompat::CASEFOLD, "casefold"),
];

const RO_COMPAT: [(u32, &str); 16] = [
    (ro_compat::SPARSE_SUPER, "sparse_super"),
    (ro_compat::LARGE_FILE, "large_file"),
    (ro_compat::HUGE_FILE, "huge_file"),
    (ro_compat::GDT_CSUM, "uninit_bg"),
    (ro_compat::DIR_NLINK, "dir_nlink"),
    (ro_compat::EXTRA_ISIZE, "extra_isize"),
    (0x80, "snapshot"),
    (0x100, "quota"),
    (BIGALLOC, "bigalloc"),
    (ro_compat::METADATA_CSUM, "metadata_csum"),
    (0x800, "replica"),
    (0x1000, "read-only"),
    (0x2000, "project"),
    (SHARED_BLOCKS, "shared_blocks"),
    (0x8000, "verity"),
    (0x10000, "orphan_present"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_belongs_to_one_bit() {
        for table in [&COMPAT[..], &INCOMPAT, &RO_COMPAT] {
            assert!(table.iter().all(|(mask, _)| mask.is_power_of_two()));
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0), "{table:?}");
        }
    }

    #[test]
    fn unknown_features_are_refused_by_name() {
        let features = |incompat, ro_compat| Features {
            compat: u32::MAX,
            incompat,
            ro_compat,
        };
        assert!(features(READABLE, !UNREADABLE_RO).check_readable().is_ok());
        let refused = |incompat, ro| features(incompat, ro).check_readable().unwrap_err().to_string();
        assert!(refused(0x8000, 0).contains("inline_data"));
        assert!(refused(0x2_0000, 0x200).contains("casefold, bigalloc"));
        assert!(refused(0x8000_0000, 0).contains("FEATURE_I31"));
        assert!(matches!(
            features(incompat::RECOVER, 0).check_readable(),
            Err(ReadError::NeedsRecovery)
        ));
    }
}
