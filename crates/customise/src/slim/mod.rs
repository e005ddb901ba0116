//! Slimming: what an image can do without is left out of it, rule by rule, and nobody's package database says a word.
//!
//! Decided on the merged tree, written as whiteouts of the firebrick layer, so that the bytes are not in the image at all.
//! A file that a package database lists is taken off that list too ([`packages`]): `dpkg --verify` and `apk audit` judge what
//! is listed, and excluding paths in `dpkg.cfg.d` alone does not silence them. That exclusion is written all the same, so that
//! what is upgraded in the image stays slim. Databases that cannot be edited (RPM's, pacman's) keep what they list.
//!
//! Never removed: licences (`copyright`, `LICENSE`, `COPYING`, `NOTICE`), English and the C locale, folders other than those of
//! translations that became empty, debconf's database.

mod packages;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use firebrick_tree::{Kind, Tree, Xattrs};
use packages::Packages;
use rules::{Fate, fate};
pub use rules::{Rule, UnknownRule};

use crate::image::Image;
use crate::plan::{Entry, EntryKind, Planner};
use crate::settings::SettingError;

/// What slimming did, rule by rule, in the order of the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slimmed {
    /// One row a rule that was asked for.
    pub rows: Vec<Row>,
    /// Package databases that cannot be edited, by name: what they list is kept.
    pub kept_for: Vec<&'static str>,
}

/// What one rule did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The rule.
    pub rule: Rule,
    /// Files (and links and other nodes) that are left out, or emptied.
    pub files: u64,
    /// Bytes of content that are left out with them. A file with several names counts once its last one goes.
    pub bytes: u64,
    /// Files that stay because a database that cannot be edited lists them, or no whiteout can name them.
    pub kept_files: u64,
}

/// Where dpkg reads what it is not to unpack.
const DPKG_EXCLUDES: &str = "etc/dpkg/dpkg.cfg.d/firebrick-slim";

/// Longest name that a whiteout can stand for: it has four bytes more itself.
const NAME_LEN_MAX: usize = 251;

/// Decides what goes, and adds it to the layer.
pub(crate) fn add(
    planner: &mut Planner<'_, '_>,
    rules: &BTreeSet<Rule>,
    image: &Image<'_>,
) -> Result<Slimmed, SettingError> {
    if rules.is_empty() {
        return Ok(Slimmed::default());
    }
    let packages = Packages::read(image)?;
    let mut slimming = Slimming {
        rows: rules.iter().map(|&rule| (rule, Row::new(rule))).collect(),
        removed: BTreeMap::new(),
        emptied: BTreeMap::new(),
    };
    slimming.walk(image.tree, &packages, planner);
    slimming.count(image.tree);
    let gone: BTreeSet<Vec<u8>> = slimming.all_gone(image.tree);
    for (path, meta_of) in &slimming.emptied {
        let meta = &image.tree.inode(*meta_of).meta;
        planner.push_entry(Entry {
            path: path.clone(),
            mode: meta.mode,
            owner: (meta.uid, meta.gid),
            xattrs: meta.xattrs.clone(),
            kind: EntryKind::File(Vec::new().into()),
        });
    }
    for path in topmost(&gone) {
        planner.push_entry(Entry {
            path: path.clone(),
            mode: 0,
            owner: (0, 0),
            xattrs: Xattrs::new(),
            kind: EntryKind::Whiteout,
        });
    }
    packages.forget(planner, image, &gone)?;
    let excludes = rules
        .iter()
        .filter_map(|rule| rule.dpkg_excludes())
        .collect::<String>();
    if packages.has_dpkg() && !excludes.is_empty() {
        let text = format!("# What was slimmed away stays away when packages are upgraded.\n{excludes}");
        // An image without the folder has a dpkg that nobody runs.
        _ = planner.add(DPKG_EXCLUDES, 0o644, EntryKind::File(text.into_bytes().into()));
    }
    Ok(Slimmed {
        rows: slimming.rows.into_values().collect(),
        kept_for: packages.uneditable(),
    })
}

impl Row {
    fn new(rule: Rule) -> Row {
        Row {
            rule,
            files: 0,
            bytes: 0,
            kept_files: 0,
        }
    }
}

struct Slimming {
    rows: BTreeMap<Rule, Row>,
    /// Files that go, and why.
    removed: BTreeMap<Vec<u8>, (Rule, firebrick_tree::InodeId)>,
    /// Files that stay without their content.
    emptied: BTreeMap<Vec<u8>, firebrick_tree::InodeId>,
}

impl Slimming {
    fn walk(&mut self, tree: &Tree, packages: &Packages, planner: &Planner<'_, '_>) {
        for (path, id) in tree.walk() {
            let kind = &tree.inode(id).kind;
            if matches!(kind, Kind::Directory(_)) || planner.made(path.as_bytes()).is_some() {
                continue;
            }
            let Some((rule, fate)) = fate(path.as_bytes(), self.rows.keys().copied()) else {
                continue;
            };
            let Some(row) = self.rows.get_mut(&rule) else {
                continue;
            };
            let name_len = path.names().next_back().map_or(0, <[u8]>::len);
            if name_len > NAME_LEN_MAX || packages.pins(path.as_bytes(), rule) {
                row.kept_files += 1;
                continue;
            }
            let is_file = matches!(kind, Kind::File(_));
            if fate == Fate::Emptied && is_file && !packages.lists(path.as_bytes()) {
                if matches!(kind, Kind::File(data) if data.size > 0) {
                    row.files += 1;
                    row.bytes += held(kind);
                    self.emptied.insert(path.as_bytes().to_vec(), id);
                }
            } else if fate == Fate::Removed {
                row.files += 1;
                self.removed.insert(path.as_bytes().to_vec(), (rule, id));
            }
        }
    }

    /// Bytes of files all of whose names go.
    fn count(&mut self, tree: &Tree) {
        let mut names = vec![0_u64; tree.inode_slots()];
        for (_, id) in tree.walk() {
            names[id.index()] += 1;
        }
        for (rule, id) in self.removed.values() {
            let left = &mut names[id.index()];
            *left -= 1;
            if *left == 0
                && let Some(row) = self.rows.get_mut(rule)
            {
                row.bytes += held(&tree.inode(*id).kind);
            }
        }
    }

    /// The files that go, and the folders that go with the last of them.
    fn all_gone(&self, tree: &Tree) -> BTreeSet<Vec<u8>> {
        let mut gone: BTreeSet<Vec<u8>> = self.removed.keys().cloned().collect();
        let touched: BTreeSet<&[u8]> = self.removed.keys().flat_map(|path| folders_of(path)).collect();
        // Deeper ones first: a path comes before what is below it.
        for folder in touched.into_iter().rev() {
            let id = firebrick_tree::LayerPath::parse(folder)
                .ok()
                .and_then(|path| tree.lookup(&path));
            let names = id.and_then(|id| tree.directory(id));
            let is_empty = names.is_some_and(|names| {
                names
                    .keys()
                    .all(|name| gone.contains(&[folder, b"/", name.as_bytes()].concat()))
            });
            if is_empty && rules::folder_may_go(folder) {
                gone.insert(folder.to_vec());
            }
        }
        gone
    }
}

/// The folders that a path is in, outermost first, without the root.
fn folders_of(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.filter_map(|(at, _)| path.get(..at))
}

/// Those that are in no folder that goes itself.
fn topmost(gone: &BTreeSet<Vec<u8>>) -> impl Iterator<Item = &Vec<u8>> {
    gone.iter()
        .filter(|path| !folders_of(path).any(|folder| gone.contains(folder)))
}

/// Bytes of content, without holes.
fn held(kind: &Kind) -> u64 {
    match kind {
        Kind::File(data) => data.segments.iter().map(|segment| segment.len).sum(),
        _ => 0,
    }
}
