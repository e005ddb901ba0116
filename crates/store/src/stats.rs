//! What a store holds, and what its images have in common. Only tables are read.

use std::collections::{BTreeMap, HashMap};

use firebrick_digest::Digest;

use crate::error::StoreError;
use crate::id::Id;
use crate::index::Published;
use crate::known::chunks;
use crate::name::Tagged;
use crate::seal::Seal;
use crate::store::{Progress, Store};

/// One version among others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageStats {
    /// Its names; more than one where names mean the same version.
    pub names: Vec<Tagged>,
    /// Digest of its manifest.
    pub digest: Option<Digest>,
    /// Length of the image in bytes, holes among them.
    pub logical: u64,
    /// Bytes that are no hole.
    pub data: u64,
    /// Bytes of its different chunks.
    pub unique: u64,
    /// Those that no other image has.
    pub own: u64,
    /// Those that another has, too.
    pub shared: u64,
    /// Bytes that its different chunks take in the store.
    pub compressed: u64,
    /// Those that would be free without it.
    pub own_compressed: u64,
}

/// What two images have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharing {
    /// Index of an image, from 0.
    pub a: usize,
    /// Index of one behind it.
    pub b: usize,
    /// Bytes of chunks that both have.
    pub bytes: u64,
}

/// What some versions hold together.
#[derive(Debug, Default)]
pub struct Stats {
    /// In the order in which they were asked for; those that are the same are one.
    pub images: Vec<ImageStats>,
    /// Pairs that have anything in common, in the order of their indices.
    pub sharing: Vec<Sharing>,
    /// Lengths of all images, in bytes.
    pub logical: u64,
    /// Bytes of them that are no hole.
    pub data: u64,
    /// Bytes of all different chunks.
    pub unique: u64,
    /// Bytes that they take in the store; a chunk that lies there twice counts twice.
    pub compressed: u64,
    /// Versions whose tables cannot be read, with the reason.
    pub unread: Vec<(Published, StoreError)>,
}

/// A chunk, and who has it.
struct Chunk {
    len: u64,
    stored: u64,
    /// Indices of images, in order.
    owners: Vec<usize>,
}

impl Store {
    /// Counts what some versions hold: all that there are, or the current ones.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] if somebody asked for an end. A version that cannot be read is told of.
    pub fn stats(&self, versions: &[Published], keys: &Seal) -> Result<Stats, StoreError> {
        let mut stats = Stats::default();
        let mut counter = Counter::default();
        let mut known: HashMap<Digest, usize> = HashMap::new();
        for version in versions {
            if let Some(image) = known
                .get(&version.digest)
                .and_then(|index| stats.images.get_mut(*index))
            {
                if !image.names.contains(&version.tagged) {
                    image.names.push(version.tagged.clone());
                }
                continue;
            }
            (self.progress)(Progress::Table(version));
            match counter.add(self, version, keys, stats.images.len()) {
                Ok(image) => {
                    known.insert(version.digest, stats.images.len());
                    stats.images.push(image);
                }
                Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                Err(error) => stats.unread.push((version.clone(), error)),
            }
        }
        counter.settle(&mut stats);
        Ok(stats)
    }
}

#[derive(Default)]
struct Counter {
    chunks: HashMap<Id, Chunk>,
    /// Bytes at different places of the store.
    places: HashMap<(Digest, u32), u64>,
}

impl Counter {
    fn add(
        &mut self,
        store: &Store,
        version: &Published,
        keys: &Seal,
        index: usize,
    ) -> Result<ImageStats, StoreError> {
        let source = store.source();
        let image = source.image(&version.tagged.name, &version.digest)?;
        let seal = image.seal(keys)?;
        let root = source.root(&image, seal)?;
        let entries = source.segments(&image, &root.segments, seal, &|_| {})?.concat();
        let mut data = 0;
        for locator in chunks(&entries) {
            data += u64::from(locator.len);
            let chunk = self.chunks.entry(locator.id).or_insert(Chunk {
                len: u64::from(locator.len),
                stored: u64::from(locator.stored),
                owners: Vec::new(),
            });
            if chunk.owners.last() != Some(&index) {
                chunk.owners.push(index);
            }
            self.places
                .insert((locator.blob, locator.offset), u64::from(locator.stored));
        }
        Ok(ImageStats {
            names: vec![version.tagged.clone()],
            digest: Some(version.digest),
            logical: root.image_len,
            data,
            ..ImageStats::default()
        })
    }

    fn settle(self, stats: &mut Stats) {
        // Images are few, and so are the sets of images that have a chunk in common.
        let mut sets: BTreeMap<Vec<usize>, (u64, u64)> = BTreeMap::new();
        for chunk in self.chunks.into_values() {
            let (len, stored) = sets.entry(chunk.owners).or_default();
            *len += chunk.len;
            *stored += chunk.stored;
        }
        let mut pairs: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for (owners, (len, stored)) in &sets {
            stats.unique += len;
            for (place, a) in owners.iter().enumerate() {
                if let Some(image) = stats.images.get_mut(*a) {
                    image.unique += len;
                    image.compressed += stored;
                    match owners.len() {
                        1 => {
                            image.own += len;
                            image.own_compressed += stored;
                        }
                        _ => image.shared += len,
                    }
                }
                for b in owners.iter().skip(place + 1) {
                    *pairs.entry((*a, *b)).or_default() += len;
                }
            }
        }
        stats.sharing = pairs
            .into_iter()
            .map(|((a, b), bytes)| Sharing { a, b, bytes })
            .collect();
        stats.compressed = self.places.values().sum();
        // Holes are as long as a table says.
        let lens = stats.images.iter().map(|image| image.logical);
        stats.logical = lens.fold(0, u64::saturating_add);
        stats.data = stats.images.iter().map(|image| image.data).sum();
    }
}
