//! What fills an image, for those whose size is too small.

use std::fmt;

use firebrick_tree::{InodeId, Kind, LayerPath, Tree};

/// How many layers and folders are named.
const NAMED: usize = 5;

/// What takes less than this part of the whole is not named.
const WORTH_NAMING: u64 = 50;

/// What is needed, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fullness {
    /// Size asked for, in bytes.
    pub size: u64,
    /// Smallest size that would do, in bytes.
    pub needed: u64,
    /// The largest layers: place from 0 and length of their region in bytes.
    pub layers: Vec<(usize, u64)>,
    /// The largest folders of the first two levels, with what they hold in bytes.
    pub folders: Vec<(LayerPath, u64)>,
}

impl Fullness {
    pub(crate) fn new(size: u64, needed: u64, regions: &[u64], tree: &Tree) -> Fullness {
        let mut layers: Vec<(usize, u64)> = regions.iter().copied().enumerate().collect();
        layers.sort_by_key(|&(place, bytes)| (std::cmp::Reverse(bytes), place));
        layers.retain(|&(_, bytes)| bytes > needed / WORTH_NAMING);
        layers.truncate(NAMED);
        let mut folders = Vec::new();
        let mut seen = vec![false; tree.inode_slots()];
        measure(tree, &LayerPath::root(), Tree::ROOT, 0, &mut seen, &mut folders);
        folders.retain(|(path, bytes)| !path.is_root() && *bytes > needed / WORTH_NAMING);
        folders.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        folders.truncate(NAMED);
        Fullness {
            size,
            needed,
            layers,
            folders,
        }
    }
}

/// Bytes below a folder; those of the first two levels are noted. Files with several names count once.
fn measure(
    tree: &Tree,
    path: &LayerPath,
    folder: InodeId,
    depth: u32,
    seen: &mut [bool],
    out: &mut Vec<(LayerPath, u64)>,
) -> u64 {
    let mut total = 0;
    // A stack of its own: hostile trees are thousands of folders deep.
    let mut pending = vec![folder];
    while let Some(id) = pending.pop() {
        for (name, &child) in tree.directory(id).into_iter().flatten() {
            match &tree.inode(child).kind {
                Kind::Directory(_) if depth < 2 && id == folder => {
                    total += measure(tree, &path.join(name), child, depth + 1, seen, out);
                }
                Kind::Directory(_) => pending.push(child),
                Kind::File(data) if !std::mem::replace(&mut seen[child.index()], true) => {
                    total += data
                        .segments
                        .iter()
                        .map(|segment| segment.len.next_multiple_of(4096))
                        .sum::<u64>();
                }
                _ => {}
            }
        }
    }
    out.push((path.clone(), total));
    total
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl fmt::Display for Fullness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} are needed, the size is {}",
            mib(self.needed),
            mib(self.size)
        )?;
        let layers: Vec<String> = self
            .layers
            .iter()
            .map(|(place, bytes)| format!("layer {place} ({})", mib(*bytes)))
            .collect();
        let folders: Vec<String> = self
            .folders
            .iter()
            .map(|(path, bytes)| format!("{path} ({})", mib(*bytes)))
            .collect();
        write!(
            f,
            "; largest layers: {}; largest folders: {}",
            layers.join(", "),
            folders.join(", ")
        )
    }
}
