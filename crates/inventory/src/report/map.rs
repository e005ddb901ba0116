//! The data of the treemap: folders, and the files in them that are large enough to be seen.
//!
//! Smaller ones are added up for each folder, package and layer; what is too small even so goes to the folder above. So the sum of
//! every package and layer stays what it is.

use std::collections::{BTreeMap, HashMap};

use firebrick_reader::FileType;
use serde_json::{Value, json};

use super::{Findings, Page};
use crate::{NodeId, PackageId, printable};

/// Nothing smaller than one of so many parts of the whole is drawn by itself.
const PARTS: u64 = 20_000;

/// Packages that have a name of their own in the map; the rest are one.
const PACKAGES_MAX: usize = 5_000;

/// Longest name, in characters. The tables have them whole.
const NAME_MAX: usize = 120;

/// Whose and of which layer something is.
type Kind = (Option<PackageId>, Option<u16>);

/// Files that are added up.
#[derive(Clone, Copy, Default)]
struct Sum {
    bytes: u64,
    files: u64,
}

/// One entry of the list of files.
struct Leaf {
    folder: NodeId,
    name: Option<String>,
    kind: Kind,
    sum: Sum,
}

/// The data, as JSON that can stand in a script element.
pub(super) fn json(page: &Page<'_>, findings: Findings<'_>) -> String {
    let leaves = leaves(findings);
    let (packages, package_of) = packages(findings, &leaves);
    let mut folders = Folders::default();
    let files: Vec<Value> = leaves
        .iter()
        .map(|leaf| {
            let folder = folders.place(findings, leaf.folder);
            let package = leaf.kind.0.and_then(|id| package_of.get(&id));
            let layer = leaf.kind.1.filter(|_| page.layers.is_some());
            json!([folder, leaf.name, leaf.sum.bytes, package, layer, leaf.sum.files])
        })
        .collect();
    let data = json!({
        "folders": folders.list,
        "files": files,
        "packages": packages,
        "layers": page.layers,
    });
    // A `<` could end the element or open a comment.
    data.to_string().replace('<', "\\u003c").replace('>', "\\u003e")
}

/// What is drawn: large files by themselves, the others together.
fn leaves(findings: Findings<'_>) -> Vec<Leaf> {
    let listing = findings.listing;
    let threshold = findings
        .usage
        .total()
        .stored
        .checked_div(PARTS)
        .unwrap_or(0)
        .max(1);
    let mut leaves = Vec::new();
    let mut small: HashMap<NodeId, BTreeMap<Kind, Sum>> = HashMap::new();
    for id in listing.ids().filter(|id| listing.is_first(*id)) {
        let node = listing.node(id);
        if node.entry.file_type == FileType::Directory || node.entry.stored == 0 {
            continue;
        }
        let kind = (findings.inventory.owner(id), node.entry.layer);
        let sum = Sum {
            bytes: node.entry.stored,
            files: 1,
        };
        match sum.bytes >= threshold {
            true => leaves.push(Leaf {
                folder: node.parent,
                name: Some(cut(&printable(&node.name))),
                kind,
                sum,
            }),
            false => add(small.entry(node.parent).or_default(), kind, sum),
        }
    }
    // Backwards, so that what goes up from below is there before a folder's turn comes.
    for id in listing.ids().rev() {
        for (kind, sum) in small.remove(&id).unwrap_or_default() {
            if sum.bytes >= threshold || id == NodeId::ROOT {
                leaves.push(Leaf {
                    folder: id,
                    name: None,
                    kind,
                    sum,
                });
            } else {
                add(small.entry(listing.node(id).parent).or_default(), kind, sum);
            }
        }
    }
    leaves
}

fn add(sums: &mut BTreeMap<Kind, Sum>, kind: Kind, more: Sum) {
    let sum = sums.entry(kind).or_default();
    sum.bytes = sum.bytes.saturating_add(more.bytes);
    sum.files = sum.files.saturating_add(more.files);
}

fn cut(name: &str) -> String {
    match name.char_indices().nth(NAME_MAX) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

/// The packages that own something in the map, the largest first, and each one's place among them.
fn packages(findings: Findings<'_>, leaves: &[Leaf]) -> (Vec<Value>, HashMap<PackageId, usize>) {
    let mut sums: BTreeMap<PackageId, u64> = BTreeMap::new();
    for leaf in leaves {
        if let Some(id) = leaf.kind.0 {
            let sum = sums.entry(id).or_default();
            *sum = sum.saturating_add(leaf.sum.bytes);
        }
    }
    let mut order: Vec<(PackageId, u64)> = sums.into_iter().collect();
    order.sort_by_key(|(id, bytes)| (std::cmp::Reverse(*bytes), *id));
    let mut list = Vec::new();
    let mut places = HashMap::new();
    for (place, (id, _)) in order.into_iter().enumerate() {
        let place = place.min(PACKAGES_MAX);
        if list.len() <= place {
            let package = findings.inventory.package(id);
            list.push(match place {
                PACKAGES_MAX => json!(["other packages", "", ""]),
                _ => json!([
                    cut(&package.name),
                    cut(&package.version),
                    package.ecosystem.name()
                ]),
            });
        }
        places.insert(id, place);
    }
    (list, places)
}

/// Folders that have something in the map: parent and name of each, parents first, the root without either.
#[derive(Default)]
struct Folders {
    list: Vec<Value>,
    places: HashMap<NodeId, usize>,
}

impl Folders {
    fn place(&mut self, findings: Findings<'_>, folder: NodeId) -> usize {
        let mut missing = vec![folder];
        missing.extend(findings.listing.ancestors(folder));
        for id in missing.into_iter().rev() {
            if self.places.contains_key(&id) {
                continue;
            }
            let node = findings.listing.node(id);
            let parent = self.places.get(&node.parent).copied().unwrap_or(0);
            self.places.insert(id, self.list.len());
            self.list.push(json!([parent, cut(&printable(&node.name))]));
        }
        self.places.get(&folder).copied().unwrap_or(0)
    }
}
