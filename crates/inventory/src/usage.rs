//! What takes how much: [`Usage`] counts each inode once, at the first of its names, as `du` does.

use std::collections::HashMap;

use firebrick_reader::FileType;

use crate::{Inventory, Listing, NodeId, PackageId};

/// An amount of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Their lengths: what `du --apparent-size` counts.
    pub apparent: u64,
    /// What they take in the image: what `du` counts.
    pub stored: u64,
    /// How many inodes, directories not among them.
    pub files: u64,
}

impl Bytes {
    /// Adds more.
    pub fn add(&mut self, other: Bytes) {
        self.apparent = self.apparent.saturating_add(other.apparent);
        self.stored = self.stored.saturating_add(other.stored);
        self.files = self.files.saturating_add(other.files);
    }
}

/// Sizes of everything in a [`Listing`].
#[derive(Clone, Debug)]
pub struct Usage {
    /// Of each node with everything below it.
    below: Vec<Bytes>,
}

impl Usage {
    /// Counts.
    pub fn of(listing: &Listing) -> Usage {
        let mut below: Vec<Bytes> = listing.ids().map(|id| own(listing, id)).collect();
        // Backwards, everything below a directory is done before it is added to the one above.
        for id in listing.ids().rev().filter(|id| *id != NodeId::ROOT) {
            let bytes = below.get(id.index()).copied().unwrap_or_default();
            if let Some(parent) = below.get_mut(listing.node(id).parent.index()) {
                parent.add(bytes);
            }
        }
        Usage { below }
    }

    /// A node with everything below it. Another name of an inode that was counted is nothing.
    pub fn below(&self, id: NodeId) -> Bytes {
        self.below.get(id.index()).copied().unwrap_or_default()
    }

    /// Everything.
    pub fn total(&self) -> Bytes {
        self.below(NodeId::ROOT)
    }

    /// What each package takes, the largest first; `None` is what is nobody's, directories among it. Only of what is below `start`.
    ///
    /// An inode with several names is its first owner's.
    pub fn by_package(
        listing: &Listing,
        inventory: &Inventory,
        start: NodeId,
    ) -> Vec<(Option<PackageId>, Bytes)> {
        let mut owner_of: HashMap<u32, PackageId> = HashMap::new();
        for id in listing.below(start) {
            if let Some(owner) = inventory.owner(id) {
                owner_of.entry(listing.entry(id).inode).or_insert(owner);
            }
        }
        let mut sums: HashMap<Option<PackageId>, Bytes> = HashMap::new();
        let mut seen = std::collections::HashSet::new();
        for id in listing.below(start) {
            let entry = listing.entry(id);
            if seen.insert(entry.inode) {
                let owner = owner_of.get(&entry.inode).copied();
                sums.entry(owner).or_default().add(Bytes {
                    apparent: entry.size,
                    stored: entry.stored,
                    files: u64::from(entry.file_type != FileType::Directory),
                });
            }
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(id, bytes)| {
            (
                std::cmp::Reverse(bytes.stored),
                std::cmp::Reverse(bytes.apparent),
                *id,
            )
        });
        sums
    }
}

/// What a node itself takes.
pub(crate) fn own(listing: &Listing, id: NodeId) -> Bytes {
    let entry = listing.entry(id);
    match listing.is_first(id) {
        true => Bytes {
            apparent: entry.size,
            stored: entry.stored,
            files: u64::from(entry.file_type != FileType::Directory),
        },
        false => Bytes::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn an_inode_counts_once() {
        let sample = Sample::new()
            .file("a/one", &[1; 5000])
            .hardlink("b/two", "a/one")
            .file("b/three", b"x")
            .link("b/four", "three");
        let listing = sample.listing();
        let usage = Usage::of(&listing);
        let of = |path: &str| usage.below(listing.find(path.as_bytes()).unwrap());
        let bytes = |apparent, stored, files| Bytes {
            apparent,
            stored,
            files,
        };
        assert_eq!(of("a"), bytes(4096 + 5000, 4096 + 8192, 1));
        assert_eq!(of("b"), bytes(4096 + 1 + 5, 4096 + 4096, 2));
        assert_eq!(of("b/two"), bytes(0, 0, 0));
        assert_eq!(usage.total(), bytes(3 * 4096 + 5006, 3 * 4096 + 12288, 3));
    }
}
