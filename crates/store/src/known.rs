//! Chunks that a store has already, as the tables of its images tell.

use std::collections::{HashMap, HashSet};

use firebrick_digest::Digest;

use crate::id::Id;
use crate::name::Name;
use crate::table::{Entry, Locator};

/// Where the segments and chunks of an image lie, and how long their blobs are.
#[derive(Debug, Default)]
pub(crate) struct Located {
    pub(crate) locators: Vec<Locator>,
    pub(crate) sizes: Vec<(Digest, u64)>,
}

/// Where chunks lie, by id. Segments of tables are among them.
#[derive(Debug, Default)]
pub(crate) struct Known {
    chunks: HashMap<Id, Locator>,
    /// Lengths of blobs, as manifests tell.
    sizes: HashMap<Digest, u64>,
    /// An image that each blob belongs to.
    owners: HashMap<Digest, Name>,
    /// Blobs that are not there, whatever tables say.
    gone: HashSet<Digest>,
    everything: bool,
}

impl Known {
    /// As if every chunk were there: for who wants to know no more than the ids.
    pub(crate) fn everything() -> Known {
        Known {
            everything: true,
            ..Known::default()
        }
    }

    /// Adds what an image's table tells.
    pub(crate) fn add(&mut self, name: &Name, located: Located) {
        self.sizes.extend(located.sizes);
        for locator in located.locators {
            // What was published first stays: its blobs are those that most images share.
            self.chunks.entry(locator.id).or_insert(locator);
            self.owners.entry(locator.blob).or_insert_with(|| name.clone());
        }
    }

    /// Where a chunk of `len` bytes lies.
    pub(crate) fn find(&self, id: &Id, len: usize) -> Option<Locator> {
        let len = u32::try_from(len).ok()?;
        if self.everything {
            let nowhere = Digest::from_bytes([0; 32]);
            return Some(Locator {
                blob: nowhere,
                offset: 0,
                stored: 0,
                len,
                id: *id,
            });
        }
        let found = self.chunks.get(id)?;
        (found.len == len && !self.gone.contains(&found.blob)).then_some(*found)
    }

    /// An image that has the blob.
    pub(crate) fn owner(&self, blob: &Digest) -> Option<&Name> {
        self.owners.get(blob)
    }

    /// How long a blob must be.
    pub(crate) fn size(&self, blob: &Digest) -> Option<u64> {
        self.sizes.get(blob).copied()
    }

    /// Remembers that a blob is not there, or not whole.
    pub(crate) fn lose(&mut self, blob: Digest) {
        self.gone.insert(blob);
    }
}

/// The chunks among entries.
pub(crate) fn chunks(entries: &[Entry]) -> impl Iterator<Item = Locator> {
    entries.iter().filter_map(|entry| match entry {
        Entry::Chunk(locator) => Some(*locator),
        Entry::Hole(_) => None,
    })
}
