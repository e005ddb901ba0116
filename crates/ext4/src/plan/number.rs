//! Inode numbers, link counts and parents.

use firebrick_tree::{InodeId, Tree};

use crate::error::PlanError;
use crate::format::{EXT4_GOOD_OLD_FIRST_INO, EXT4_ROOT_INO};

/// Names of a file at most, and of a directory before its count stops meaning anything (`EXT4_LINK_MAX`).
const LINK_MAX: u16 = 65000;

/// The directory that `e2fsck` puts what it rescues into.
pub(crate) const LOST_AND_FOUND: &[u8] = b"lost+found";

/// A number, a link count and, for directories, a parent for each inode that has a name.
///
/// Numbers follow [`InodeId`]s, which follow layers: inodes of lower layers have the same numbers whatever stands
/// above them, as long as nothing above hides them.
pub(crate) struct Numbers {
    /// By [`InodeId::index`]; 0 where no name reaches the inode.
    pub(crate) number: Vec<u32>,
    pub(crate) links: Vec<u16>,
    pub(crate) parent: Vec<u32>,
    /// Whether the tree brings its own `/lost+found`.
    pub(crate) has_lost_and_found: bool,
    /// The first number that no inode has.
    pub(crate) next: u32,
}

impl Numbers {
    pub(crate) fn new(tree: &Tree) -> Result<Numbers, PlanError> {
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
        let mut number = vec![0_u32; slots];
        let mut links = vec![0_u16; slots];
        let mut next = EXT4_GOOD_OLD_FIRST_INO + 1;
        for id in tree.inode_ids().filter(|id| names[id.index()] > 0) {
            number[id.index()] = if id == Tree::ROOT {
                EXT4_ROOT_INO
            } else if lost_and_found == Some(id) {
                EXT4_GOOD_OLD_FIRST_INO
            } else {
                next += 1;
                next - 1
            };
            links[id.index()] = link_count(tree, id, names[id.index()])?;
        }
        let parent = parent_id.iter().map(|id| number[id.index()]).collect();
        Ok(Numbers {
            number,
            links,
            parent,
            has_lost_and_found: lost_and_found.is_some(),
            next,
        })
    }

    pub(crate) fn of(&self, id: InodeId) -> u32 {
        self.number[id.index()]
    }
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
