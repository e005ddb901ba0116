//! Folders with an index: a tree of hashes whose leaves are the blocks of names.

use std::collections::BTreeSet;

use super::folders::{names_of, place};
use super::{Checker, Folder, wide};
use crate::format::{compat, incompat};
use crate::hash::{Signs, half_md4};
use crate::read::bytes::{part, u16_at, u32_at};
use crate::read::{Place, ReadAt, ReadError, record_len};

/// Where the root's own fields stand, behind `.` and `..`.
const INFO: usize = 24;
/// Where entries begin in the root, if its own fields are as long as they say.
const ROOT_ENTRIES: usize = 32;
/// Where they begin in other nodes, behind one empty entry.
const NODE_ENTRIES: usize = 8;
/// The highest hash.
const LAST: u32 = u32::MAX;
/// `s_flags`: names are hashed as unsigned bytes.
const UNSIGNED_HASH: u32 = 0x2;

/// How names of one folder are hashed; `None` for hashes that are not computed here.
type Hash = Option<Signs>;

/// A block of the tree that comes next: its logical block, levels below it, and the hashes that may be there.
#[derive(Clone, Copy)]
struct Step {
    logical: u64,
    levels: u8,
    low: u32,
    high: u32,
}

impl<R: ReadAt> Checker<'_, R> {
    /// Follows the index, and gives each block that holds names to `names`.
    pub(super) fn indexed(
        &mut self,
        number: u32,
        folder: &Folder,
        mut names: impl FnMut(&mut Self, u64, u64, &[u8]),
    ) -> Result<(), ReadError> {
        let whole = place(number, None);
        if wide(folder.blocks.len()) != folder.length {
            self.report.wrong(whole, "it has a hole");
            return Ok(());
        }
        let Some(root) = folder.blocks.get(&0).copied() else {
            self.report.wrong(whole, "it is empty");
            return Ok(());
        };
        let at = place(number, Some(root));
        let bytes = self.filesystem.read_block(root, at)?;
        names(self, 0, root, &bytes);
        self.node_sum(number, folder, root, &bytes, ROOT_ENTRIES);
        let Some((hash, levels)) = self.root(&bytes, at) else {
            return Ok(());
        };
        let mut seen = BTreeSet::from([0]);
        let mut pending = self.steps(&bytes, ROOT_ENTRIES, (0, LAST), levels, at);
        while let Some(step) = pending.pop() {
            let Some(block) = folder.blocks.get(&step.logical).copied() else {
                self.report.field(whole, "a block of its index", step.logical);
                continue;
            };
            if !seen.insert(step.logical) {
                let fault = "its index names a block twice";
                self.report.wrong(whole, fault);
                continue;
            }
            let at = place(number, Some(block));
            let bytes = self.filesystem.read_block(block, at)?;
            if let Some(levels) = step.levels.checked_sub(1) {
                self.node_sum(number, folder, block, &bytes, NODE_ENTRIES);
                let is_node = u32_at(&bytes, 0) == Some(0)
                    && u16_at(&bytes, 4).map(|raw| record_len(raw, bytes.len())) == Some(bytes.len());
                if !is_node {
                    self.report
                        .wrong(at, "it is no node of the index, and should be one");
                    continue;
                }
                let range = (step.low, step.high);
                pending.extend(self.steps(&bytes, NODE_ENTRIES, range, levels, at));
                continue;
            }
            self.leaf_sum(number, folder.seed, block, &bytes);
            names(self, step.logical, block, &bytes);
            self.hashes(&bytes, hash, step, at);
        }
        if wide(seen.len()) != folder.length {
            let fault = "it has blocks that its index does not name";
            self.report.wrong(whole, fault);
        }
        Ok(())
    }

    /// The checksum of a node: it covers entries in use, and stands behind the last that would fit.
    fn node_sum(&mut self, number: u32, folder: &Folder, block: u64, bytes: &[u8], counts: usize) {
        let Some(seed) = folder.seed else {
            return;
        };
        let number16 = |offset: usize| u16_at(bytes, offset).unwrap_or_default();
        let (limit, count) = (number16(counts), number16(counts.saturating_add(2)));
        let after = |entries: u16| counts.saturating_add(usize::from(entries).saturating_mul(8));
        let at = place(number, Some(block));
        let tail = after(limit);
        let field = tail.saturating_add(4);
        match (
            part(bytes, 0, after(count)),
            part(bytes, tail, 4),
            u32_at(bytes, field),
        ) {
            (Some(covered), Some(reserved), Some(stored)) if count <= limit => {
                let computed = seed.update(covered).update(reserved).update(&[0; 4]).value();
                if !self.report.checksum(at, stored, computed) {
                    self.fix_in_block(block, field, computed);
                }
            }
            _ => self.report.field(at, "limit of the index", limit.into()),
        }
    }

    /// How names are hashed, and levels of nodes below the root.
    fn root(&mut self, bytes: &[u8], at: Place) -> Option<(Hash, u8)> {
        let info = part(bytes, INFO, 8)?;
        let &[_, _, _, _, version, len, levels, flags] = info else {
            return None;
        };
        let features = self.filesystem.geometry.features;
        let deepest = if features.incompat(incompat::LARGEDIR) {
            2
        } else {
            1
        };
        let fault = if u32_at(info, 0) != Some(0) || len != 8 {
            "the root of its index has no known form"
        } else if version > 2 {
            "its index has a hash that is not known"
        } else if flags & 1 != 0 {
            "its index has flags that are not known"
        } else if levels > deepest {
            "its index has too many levels"
        } else {
            let unsigned = self.superblock.s_flags.get() & UNSIGNED_HASH != 0;
            let signs = if unsigned { Signs::Unsigned } else { Signs::Signed };
            return Some(((version == 1).then_some(signs), levels));
        };
        self.report.wrong(at, fault);
        None
    }

    /// The entries of a node, as what comes next.
    fn steps(
        &mut self,
        bytes: &[u8],
        start: usize,
        (low, high): (u32, u32),
        levels: u8,
        at: Place,
    ) -> Vec<Step> {
        let number16 = |offset: usize| u16_at(bytes, offset).unwrap_or_default();
        let (limit, count) = (number16(start), number16(start.saturating_add(2)));
        let checksum = if self.filesystem.geometry.seed.is_some() {
            8
        } else {
            0
        };
        let room = bytes.len().saturating_sub(start).saturating_sub(checksum) / 8;
        if usize::from(limit) != room {
            self.report.field(at, "limit of the index", limit.into());
            return Vec::new();
        }
        if count > limit || count == 0 {
            self.report.field(at, "count of the index", count.into());
            return Vec::new();
        }
        let mut steps: Vec<Step> = Vec::new();
        for entry in 0..count {
            let offset = start.saturating_add(usize::from(entry).saturating_mul(8));
            // In place of the first hash stand limit and count: it begins where the node does.
            let hash = match entry {
                0 => low,
                _ => u32_at(bytes, offset).unwrap_or_default(),
            };
            let logical = u32_at(bytes, offset.saturating_add(4)).unwrap_or_default();
            if let Some(last) = steps.last_mut() {
                if hash < last.low || hash > high || (hash == last.low && entry > 1) {
                    self.report.wrong(at, "the hashes of its index do not rise");
                }
                last.high = hash;
            }
            steps.push(Step {
                logical: u64::from(logical & 0x0fff_ffff),
                levels,
                low: hash,
                high,
            });
        }
        steps
    }

    /// Compares the hashes of a leaf's names with those of the index.
    fn hashes(&mut self, bytes: &[u8], hash: Hash, step: Step, at: Place) {
        let Some(signs) = hash else {
            return;
        };
        let seed = self.superblock.s_hash_seed.map(|word| word.get());
        let range = (step.low & !1)..=step.high;
        let wrong = names_of(bytes)
            .into_iter()
            .any(|name| !range.contains(&half_md4(name, seed, signs).major));
        if wrong && self.filesystem.geometry.features.compat(compat::DIR_INDEX) {
            self.report
                .wrong(at, "it has names with hashes that belong elsewhere");
        }
    }
}
