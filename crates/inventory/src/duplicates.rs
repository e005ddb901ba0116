//! Files of the same content that are not one file: [`Duplicates`]. Hardlinks are one file, and no duplicates.

use std::collections::{BTreeMap, HashMap};

use firebrick_digest::Digest;
use firebrick_reader::FileType;

use crate::{Contents, InventoryError, Listing, NodeId, digest_of, printable};

/// Files of the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Length of each in bytes.
    pub size: u64,
    /// The digest of their content.
    pub digest: Digest,
    /// The first name of each, in order; two or more.
    pub nodes: Vec<NodeId>,
    /// What all but one of them take in the image, in bytes.
    pub wasted: u64,
}

/// All files of the same content.
#[derive(Clone, Debug, Default)]
pub struct Duplicates {
    /// Those that waste most first.
    pub groups: Vec<Group>,
    /// What all of them waste, in bytes.
    pub wasted: u64,
}

impl Duplicates {
    /// Compares all files of one length by the digest of all their bytes.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn find(listing: &Listing, contents: &dyn Contents) -> Result<Duplicates, InventoryError> {
        let mut by_size: HashMap<u64, Vec<NodeId>> = HashMap::new();
        for id in listing.ids() {
            let entry = listing.entry(id);
            if entry.file_type == FileType::Regular && entry.size > 0 && listing.is_first(id) {
                by_size.entry(entry.size).or_default().push(id);
            }
        }
        let mut groups = Vec::new();
        for (size, ids) in by_size.into_iter().filter(|(_, ids)| ids.len() > 1) {
            let mut by_digest: BTreeMap<Digest, Vec<NodeId>> = BTreeMap::new();
            for id in ids {
                let digest =
                    digest_of(contents, listing.entry(id).inode).map_err(|source| InventoryError::Read {
                        path: printable(&listing.path(id)),
                        source,
                    })?;
                by_digest.entry(digest).or_default().push(id);
            }
            let alike = by_digest.into_iter().filter(|(_, nodes)| nodes.len() > 1);
            groups.extend(alike.map(|(digest, nodes)| Group {
                wasted: wasted(listing, &nodes),
                size,
                digest,
                nodes,
            }));
        }
        groups.sort_by(|a, b| (b.wasted, b.size, &a.nodes).cmp(&(a.wasted, a.size, &b.nodes)));
        Ok(Duplicates {
            wasted: groups
                .iter()
                .fold(0, |sum: u64, group| sum.saturating_add(group.wasted)),
            groups,
        })
    }
}

/// What all but the largest take.
fn wasted(listing: &Listing, nodes: &[NodeId]) -> u64 {
    let stored = || nodes.iter().map(|id| listing.entry(*id).stored);
    let sum = stored().fold(0_u64, u64::saturating_add);
    sum.saturating_sub(stored().max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    #[test]
    fn same_content_is_found_and_hardlinks_are_not() {
        let sample = Sample::new()
            .file("a", &[7; 5000])
            .file("b", &[7; 5000])
            .hardlink("c", "a")
            .file("d", &[8; 5000])
            .file("e", b"small")
            .file("f", b"small")
            .file("g", b"small")
            .file("empty1", b"")
            .file("empty2", b"");
        let listing = sample.listing();
        let found = Duplicates::find(&listing, &sample).unwrap();
        let names: Vec<(u64, Vec<String>)> = found
            .groups
            .iter()
            .map(|group| {
                let names = group.nodes.iter().map(|id| printable(&listing.path(*id)));
                (group.wasted, names.collect())
            })
            .collect();
        assert_eq!(
            names,
            [
                (8192, ["a", "b"].map(String::from).to_vec()),
                (8192, ["e", "f", "g"].map(String::from).to_vec()),
            ]
        );
        assert_eq!(found.wasted, 16384);
    }
}
