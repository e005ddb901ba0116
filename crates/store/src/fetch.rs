//! Chunks out of a store, many at a time.
//!
//! Chunks that lie near each other are asked for together. Each is verified before anybody sees it; one that is not right is asked
//! for again, alone, since more goes wrong on the way than in stores.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::backend::Backend;
use crate::error::StoreError;
use crate::failure::Failure;
use crate::name::Name;
use crate::seal::{BadChunk, Opener, Seal};
use crate::table::Locator;

/// Bytes that are asked for together, at most; each thread holds so many.
pub(crate) const RANGE_MAX: u64 = 4 << 20;
/// Bytes between two chunks that are rather fetched for nothing than asked around.
const GAP_MAX: u64 = 64 << 10;
/// How often what is not right is asked for again.
pub(crate) const AGAIN: usize = 2;

/// Where chunks are fetched from, and how.
pub(crate) struct Fetching<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) name: &'a Name,
    pub(crate) seal: &'a Seal,
    /// Requests at a time.
    pub(crate) threads: usize,
    pub(crate) stop: &'a AtomicBool,
    /// Told of bytes that came from the store.
    pub(crate) came: &'a (dyn Fn(u64) + Sync),
}

/// Who takes chunks, in any order and from several threads.
pub(crate) type Each<'a> = dyn Fn(&Locator, &[u8]) -> Result<(), StoreError> + Sync + 'a;

/// Who takes each chunk of a group, or why there is none; what fails here ends the group.
pub(crate) type Take<'a> = dyn FnMut(&Locator, Result<&[u8], StoreError>) -> Result<(), StoreError> + 'a;

/// Chunks of one blob that are asked for together.
#[derive(Debug)]
pub(crate) struct Group {
    /// Bytes of the blob.
    pub(crate) range: Range<u64>,
    pub(crate) chunks: Vec<Locator>,
}

impl Fetching<'_> {
    /// Fetches chunks, and gives each once.
    pub(crate) fn chunks(&self, wanted: Vec<Locator>, each: &Each<'_>) -> Result<(), StoreError> {
        let groups = groups(wanted, RANGE_MAX);
        let next = AtomicUsize::new(0);
        let failure = Failure::default();
        let work = || -> Result<(), StoreError> {
            let mut opener = Opener::new(self.seal)?;
            while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                if failure.has() || self.stop.load(Ordering::Relaxed) {
                    return Err(StoreError::Stopped);
                }
                self.group(group, &mut opener, &mut |locator, chunk| each(locator, chunk?))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.clamp(1, groups.len().max(1)) {
                scope.spawn(|| work().unwrap_or_else(|error| failure.note(error)));
            }
        });
        failure.into_result()
    }

    /// Fetches the chunks of one group. A chunk that is not right concerns no other.
    pub(crate) fn group(
        &self,
        group: &Group,
        opener: &mut Opener<'_>,
        take: &mut Take<'_>,
    ) -> Result<(), StoreError> {
        let Some(first) = group.chunks.first() else {
            return Ok(());
        };
        let bytes = self
            .backend
            .read_blob(self.name, &first.blob, group.range.clone())?;
        (self.came)(bytes.len() as u64);
        for locator in &group.chunks {
            let start = u64::from(locator.offset) - group.range.start;
            let stored = slice(&bytes, start, locator.stored);
            match opener.open(&locator.id, stored, chunk_len(locator)) {
                Ok(chunk) => take(locator, Ok(chunk))?,
                Err(bad) => self.again(locator, bad, opener, take)?,
            }
        }
        Ok(())
    }

    fn again(
        &self,
        locator: &Locator,
        mut bad: BadChunk,
        opener: &mut Opener<'_>,
        take: &mut Take<'_>,
    ) -> Result<(), StoreError> {
        let start = u64::from(locator.offset);
        let range = start..start + u64::from(locator.stored);
        for _ in 0..AGAIN {
            let stored = match self.backend.read_blob(self.name, &locator.blob, range.clone()) {
                Ok(stored) => stored,
                Err(error) => return take(locator, Err(error)),
            };
            (self.came)(stored.len() as u64);
            match opener.open(&locator.id, &stored, chunk_len(locator)) {
                Ok(chunk) => return take(locator, Ok(chunk)),
                Err(error) => bad = error,
            }
        }
        let error = StoreError::Chunk {
            address: self.backend.address().to_owned(),
            blob: locator.blob,
            id: locator.id,
            source: bad,
        };
        take(locator, Err(error))
    }
}

fn chunk_len(locator: &Locator) -> usize {
    usize::try_from(locator.len).expect("a chunk is shorter than memory")
}

/// The stored bytes of a chunk; fewer if the store gave fewer.
fn slice(bytes: &[u8], start: u64, len: u32) -> &[u8] {
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(at(start)..at(start + u64::from(len))).unwrap_or(&[])
}

/// Groups chunks that lie near each other, into ranges of no more than `range_max` bytes or one chunk.
pub(crate) fn groups(mut wanted: Vec<Locator>, range_max: u64) -> Vec<Group> {
    wanted.sort_unstable_by_key(|locator| (locator.blob, locator.offset));
    wanted.dedup();
    let mut groups: Vec<Group> = Vec::new();
    for locator in wanted {
        let range = u64::from(locator.offset)..u64::from(locator.offset) + u64::from(locator.stored);
        let near = |group: &&mut Group| {
            group.chunks.last().is_some_and(|last| last.blob == locator.blob)
                && range.start <= group.range.end + GAP_MAX
                && range.end.max(group.range.end) - group.range.start <= range_max
        };
        match groups.last_mut().filter(near) {
            Some(group) => {
                group.range.end = group.range.end.max(range.end);
                group.chunks.push(locator);
            }
            None => groups.push(Group {
                range,
                chunks: vec![locator],
            }),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebrick_digest::Digest;

    #[test]
    fn what_lies_near_is_asked_for_together() {
        let locator = |blob: u8, offset, stored| Locator {
            blob: Digest::from_bytes([blob; 32]),
            offset,
            stored,
            len: 4096,
            id: crate::id::Id::of(b"x"),
        };
        let far = u32::try_from(GAP_MAX).unwrap();
        let wanted = vec![
            locator(0, 0, 10),
            locator(0, 5, 10),
            locator(0, 15 + far, 10),
            locator(0, 26 + 2 * far, 10),
            locator(1, 26 + 2 * far, 10),
        ];
        let found: Vec<_> = groups(wanted, RANGE_MAX)
            .iter()
            .map(|group| (group.range.clone(), group.chunks.len()))
            .collect();
        let far = u64::from(far);
        let last = 26 + 2 * far..36 + 2 * far;
        assert_eq!(found, [(0..25 + far, 3), (last.clone(), 1), (last, 1)]);
    }
}
