//! Inode numbers, link counts and parents.
//!
//! ```text
//! 1 … 16     17 …
//! reserved │ layer 0: directories │ rest      │ layer 1: directories │ rest      │ …
//!          │ each part from a block of 16 of its own, with a little room behind it
//! ```
//!
//! Images that share layers shall share blocks of inode tables. So the number of an inode follows from the layers up
//! to the one that brings it: those above may hide what is below, which leaves numbers free, but does not move the
//! rest. Directories stand apart, because their blocks lie behind all regions and move with every new one.

use firebrick_tree::{InodeId, Tree};

use crate::error::PlanError;
use crate::format::{
    BLOCKS_PER_GROUP, EXT4_GOOD_OLD_FIRST_INO, EXT4_ROOT_INO, INODES_PER_BLOCK, INODES_PER_GROUP_MAX,
};
use crate::geometry::BLOCKS_MAX;

/// Names of a file at most, and of a directory before its count stops meaning anything (`EXT4_LINK_MAX`).
const LINK_MAX: u16 = 65000;

/// Most inodes that a filesystem of the largest size can have.
const INODES_MAX: u64 = BLOCKS_MAX / BLOCKS_PER_GROUP * INODES_PER_GROUP_MAX as u64;

/// The directory that `e2fsck` puts what it rescues into.
pub(crate) const LOST_AND_FOUND: &[u8] = b"lost+found";

/// How numbers are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// So that other layers above leave them as they are.
    Stable,
    /// One after the other, in the same order.
    Dense,
}

/// A number, a link count and, for directories, a parent for each inode that has a name.
pub(crate) struct Numbers {
    /// By [`InodeId::index`]; 0 where no name reaches the inode.
    pub(crate) number: Vec<u32>,
    pub(crate) links: Vec<u16>,
    pub(crate) parent: Vec<u32>,
    /// Whether the tree brings its own `/lost+found`.
    pub(crate) has_lost_and_found: bool,
    /// The inodes that have numbers, lowest number first.
    pub(crate) order: Vec<InodeId>,
}

impl Numbers {
    pub(crate) fn new(tree: &Tree, spacing: Spacing) -> Result<Numbers, PlanError> {
        let slots = tree.inode_slots();
        let mut names = vec![0_u64; slots];
        let mut parent_id = vec![Tree::ROOT; slots];
        let mut pending = vec![Tree::ROOT];
        names[Tree::ROOT.index()] = 1;
        while let Some(id) = pending.pop() {
            for &child in tree
                .directory(id)
                .into_iter()
                .flat_map(|entries| entries.values())
            {
                names[child.index()] += 1;
                if tree.directory(child).is_some() {
                    // `..` is one more name of the parent.
                    names[id.index()] += 1;
                    parent_id[child.index()] = id;
                    pending.push(child);
                }
            }
        }
        let root = tree.directory(Tree::ROOT).expect("the root is a directory");
        let lost_and_found = root.get(LOST_AND_FOUND).copied();
        if lost_and_found.is_some_and(|id| tree.directory(id).is_none()) {
            return Err(PlanError::LostAndFound);
        }
        names[Tree::ROOT.index()] += u64::from(lost_and_found.is_none());
        let (number, order) = hand_out(tree, spacing, &names, lost_and_found)?;
        let mut links = vec![0_u16; slots];
        for &id in &order {
            links[id.index()] = link_count(tree, id, names[id.index()])?;
        }
        let parent = parent_id.iter().map(|id| number[id.index()]).collect();
        Ok(Numbers {
            number,
            links,
            parent,
            has_lost_and_found: lost_and_found.is_some(),
            order,
        })
    }

    pub(crate) fn of(&self, id: InodeId) -> u32 {
        self.number[id.index()]
    }
}

/// The number of each inode that has names, and these inodes in the order of their numbers.
fn hand_out(
    tree: &Tree,
    spacing: Spacing,
    names: &[u64],
    lost_and_found: Option<InodeId>,
) -> Result<(Vec<u32>, Vec<InodeId>), PlanError> {
    let mut number = vec![0_u32; names.len()];
    let mut order = vec![Tree::ROOT];
    number[Tree::ROOT.index()] = EXT4_ROOT_INO;
    if let Some(id) = lost_and_found {
        number[id.index()] = EXT4_GOOD_OLD_FIRST_INO;
        order.push(id);
    }
    let mut next = match spacing {
        Spacing::Stable => INODES_PER_BLOCK + 1,
        Spacing::Dense => u64::from(EXT4_GOOD_OLD_FIRST_INO) + 1,
    };
    for layer in tree.inode_ids_by_layer() {
        let (directories, rest): (Vec<InodeId>, Vec<InodeId>) =
            layer.into_iter().partition(|&id| tree.directory(id).is_some());
        for mut part in [directories, rest] {
            let has_name = |id: &InodeId| names[id.index()] > 0;
            let shown = part.iter().filter(|id| has_name(id)).count();
            // A layer that is mostly hidden would leave more numbers free than are in use.
            let hidden = (part.len() - shown) as u64;
            if spacing == Spacing::Dense || hidden > INODES_PER_BLOCK.max(shown as u64) {
                part.retain(|id| has_name(id) && number[id.index()] == 0);
            }
            for (id, value) in part.iter().zip(next..) {
                if has_name(id) && number[id.index()] == 0 {
                    number[id.index()] = u32::try_from(value).ok().filter(|_| value <= INODES_MAX).ok_or(
                        PlanError::TooManyInodes {
                            inodes: value,
                            limit: INODES_MAX,
                        },
                    )?;
                    order.push(*id);
                }
            }
            next += match spacing {
                Spacing::Stable => room(part.len() as u64),
                Spacing::Dense => part.len() as u64,
            };
        }
    }
    Ok((number, order))
}

/// The numbers that a part of `count` inodes takes: whole blocks, and between none and 1/32 more, so that another
/// version of a lower layer, with a few inodes more, seldom moves the layers above.
fn room(count: u64) -> u64 {
    let step = (count / 64 + 1).next_power_of_two().max(INODES_PER_BLOCK);
    count.next_multiple_of(step)
}

/// A directory counts its own `.` too, and shows 1 when it has more names than fit (`dir_nlink`).
fn link_count(tree: &Tree, id: InodeId, names: u64) -> Result<u16, PlanError> {
    let is_directory = tree.directory(id).is_some();
    match u16::try_from(names + u64::from(is_directory))
        .ok()
        .filter(|&links| links <= LINK_MAX)
    {
        Some(links) => Ok(links),
        None if is_directory => Ok(1),
        None => Err(PlanError::TooManyLinks {
            path: tree.path_of(id),
            links: names,
        }),
    }
}

#[cfg(test)]
mod tests {
    use firebrick_tree::{Entry, EntryKind, LayerIndex, LayerPath, MergeOptions, Metadata};

    use super::*;

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text.as_bytes()).unwrap()
    }

    /// A layer of pipes, and of what is named in `hidden`.
    fn layer<'a>(pipes: impl IntoIterator<Item = &'a str>, hidden: &[&str]) -> LayerIndex {
        let entry = |name, kind| Entry::new(path(name), Metadata::default(), kind);
        let pipes = pipes.into_iter().map(|name| entry(name, EntryKind::Fifo));
        let hidden = hidden.iter().map(|name| entry(name, EntryKind::Whiteout));
        LayerIndex::new(pipes.chain(hidden).collect())
    }

    fn numbers(layers: &[LayerIndex], spacing: Spacing) -> impl Fn(&str) -> u32 + use<> {
        let tree = Tree::merge(layers.iter().cloned(), &MergeOptions::default()).unwrap();
        let numbers = Numbers::new(&tree, spacing).unwrap();
        let rising: Vec<u32> = numbers.order.iter().map(|&id| numbers.of(id)).collect();
        assert!(rising.is_sorted_by(|one, next| one < next), "{rising:?}");
        move |name| numbers.of(tree.lookup(&path(name)).unwrap())
    }

    #[test]
    fn directories_and_layers_begin_with_blocks_of_their_own() {
        let of = numbers(
            &[layer(["a/x", "b/y"], &[]), layer(["c/z", "a/w"], &[])],
            Spacing::Stable,
        );
        // 17 is the root's place in its layer; its number is another.
        let found = ["", "a", "b", "a/x", "b/y", "c", "c/z", "a/w"].map(of);
        assert_eq!(found, [2, 18, 19, 33, 34, 49, 65, 66]);
    }

    #[test]
    fn what_an_upper_layer_hides_moves_nothing() {
        let base = layer(["a/1", "a/2", "a/3", "b/4"], &[]);
        let app = layer(["app/5", "app/6"], &[]);
        let below = numbers(&[base.clone(), app.clone()], Spacing::Stable);
        let above = numbers(
            &[base, app, layer(["a/2", "new/7"], &["a/1", "app/5"])],
            Spacing::Stable,
        );
        for name in ["a", "a/3", "b", "b/4", "app", "app/6"] {
            assert_eq!(below(name), above(name), "{name}");
        }
        assert!(above("a/2") > above("app/6") && above("new") > above("app/6"));
    }

    #[test]
    fn a_layer_that_is_mostly_hidden_closes_up() {
        let names: Vec<String> = (0..200).map(|n| format!("f{n:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let with = |hidden: usize| {
            let layers = [layer(names.clone(), &[]), layer(["top"], &names[..hidden])];
            numbers(&layers, Spacing::Stable)
        };
        let (half, more) = (with(100), with(101));
        assert_eq!((half("f199"), half("top")), (33 + 199, 33 + 208));
        assert_eq!((more("f199"), more("top")), (33 + 98, 33 + 112));
    }

    #[test]
    fn dense_numbers_follow_each_other() {
        let layers = [layer(["a/1", "a/2"], &[]), layer(["lost+found/x", "3"], &["a/1"])];
        let of = numbers(&layers, Spacing::Dense);
        let found = ["", "lost+found", "a", "a/2", "lost+found/x", "3"].map(of);
        assert_eq!(found, [2, 11, 12, 13, 14, 15]);
    }

    #[test]
    fn room_is_whole_blocks_and_little_more() {
        assert_eq!([0, 1, 16, 17, 1000].map(room), [0, 16, 16, 32, 1008]);
        for count in 1..200_000 {
            assert!(room(count) >= count && room(count).is_multiple_of(16));
            assert!(room(count) < count + 16.max(count / 32 + 1), "{count}");
        }
        // Some inodes more are still in the same room.
        assert_eq!(room(40_000), room(40_400));
    }
}
