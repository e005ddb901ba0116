//! An image's table, segment by segment, as far as somebody asked for it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::StoreError;
use crate::lazy::chunks::Wanted;
use crate::lazy::flights::{Claim, Flights, Lead, Outcome};
use crate::lazy::origin::Origin;
use crate::table::{Entry, Root, Segment};

/// Stored bytes of segments that are fetched with one that lies beside them.
const ALONG_MAX: u64 = 256 << 10;
/// Entries that are held in memory, of 96 bytes each; others are read again from this host's cache.
const ENTRIES_MAX: usize = 1 << 19;

/// One segment of the table.
pub(super) struct Opened {
    /// The first byte of the image that it covers, and of each entry.
    starts: Vec<u64>,
    entries: Vec<Entry>,
    /// The first byte behind it.
    pub(super) end: u64,
}

impl Opened {
    fn new(start: u64, entries: Vec<Entry>) -> Opened {
        let mut end = start;
        let starts = entries.iter().map(|entry| {
            let start = end;
            end += entry.len();
            start
        });
        Opened {
            starts: starts.collect(),
            entries,
            end,
        }
    }

    /// Entries that have bytes in `range`, each with its first byte in the image.
    pub(super) fn within(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &Entry)> {
        let first = self.starts.partition_point(|start| *start <= range.start);
        let from = first.saturating_sub(1);
        let to = self.starts.partition_point(|start| *start < range.end);
        let starts = self.starts.get(from..to).unwrap_or(&[]);
        let entries = self.entries.get(from..to).unwrap_or(&[]);
        starts.iter().copied().zip(entries)
    }

    /// All its chunks.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Wanted> {
        let both = self.starts.iter().zip(&self.entries);
        both.filter_map(|(offset, entry)| match entry {
            Entry::Chunk(locator) => Some(Wanted {
                offset: *offset,
                locator: *locator,
            }),
            Entry::Hole(_) => None,
        })
    }
}

/// What is held, with the moment of the last use.
#[derive(Default)]
struct Held {
    segments: HashMap<usize, (Arc<Opened>, u64)>,
    entries: usize,
    moment: u64,
}

impl Held {
    fn get(&mut self, index: usize) -> Option<Arc<Opened>> {
        self.moment += 1;
        let (opened, used) = self.segments.get_mut(&index)?;
        *used = self.moment;
        Some(Arc::clone(opened))
    }

    fn insert(&mut self, index: usize, opened: &Arc<Opened>, limit: usize) {
        self.moment += 1;
        self.entries += opened.entries.len();
        let new = (Arc::clone(opened), self.moment);
        if let Some((old, _)) = self.segments.insert(index, new) {
            self.entries -= old.entries.len();
        }
        while self.entries > limit && self.segments.len() > 1 {
            let oldest = self.segments.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(index, _)| *index) else {
                return;
            };
            if let Some((old, _)) = self.segments.remove(&oldest) {
                self.entries -= old.entries.len();
            }
        }
    }
}

/// See the module.
pub(super) struct Segments {
    origin: Arc<Origin>,
    root: Root,
    /// The first byte behind each segment.
    ends: Vec<u64>,
    held: Mutex<Held>,
    flights: Flights<usize, Arc<Opened>>,
}

type Leads<'a> = Vec<(usize, Lead<'a, usize, Arc<Opened>>)>;

impl Segments {
    pub(super) fn new(origin: Arc<Origin>, root: Root) -> Segments {
        let mut end = 0;
        let ends = root.segments.iter().map(|segment| {
            end += segment.len;
            end
        });
        Segments {
            origin,
            ends: ends.collect(),
            root,
            held: Mutex::default(),
            flights: Flights::new(),
        }
    }

    /// Length of the image, in bytes.
    pub(super) fn image_len(&self) -> u64 {
        self.root.image_len
    }

    pub(super) fn count(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// The segment that covers a byte of the image, if it is held.
    pub(super) fn held_at(&self, offset: u64) -> Option<Arc<Opened>> {
        self.held(self.ends.partition_point(|end| *end <= offset))
    }

    fn held(&self, index: usize) -> Option<Arc<Opened>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(index)
    }

    /// The segment that covers a byte of the image.
    pub(super) fn at(&self, offset: u64) -> Result<Arc<Opened>, Arc<StoreError>> {
        self.get(self.ends.partition_point(|end| *end <= offset))
    }

    /// A segment by its number. If it must be fetched, others that lie beside it in the store come with it.
    pub(super) fn get(&self, index: usize) -> Result<Arc<Opened>, Arc<StoreError>> {
        loop {
            if let Some(opened) = self.held(index) {
                return Ok(opened);
            }
            let flight = match self.flights.claim(index) {
                Claim::Follow(flight) => flight,
                Claim::Lead(lead) => {
                    let flight = lead.flight();
                    self.bring(index, lead);
                    flight
                }
            };
            match flight.wait(&|| self.origin.is_stopped()) {
                Outcome::Landed(opened) => return Ok(opened),
                Outcome::Failed(error) => return Err(error),
                Outcome::Abandoned => {}
            }
        }
    }

    fn bring<'a>(&'a self, index: usize, lead: Lead<'a, usize, Arc<Opened>>) {
        // It may have come between looking and claiming.
        if let Some(opened) = self.held(index) {
            return lead.land(opened);
        }
        let mut along = self.along(index);
        if !along.is_empty() {
            let indexes: Vec<usize> = std::iter::once(index)
                .chain(along.iter().map(|(index, _)| *index))
                .collect();
            if let Ok(all) = self.fetch(&indexes) {
                let mut all = all.into_iter();
                if let Some(opened) = all.next() {
                    lead.land(opened);
                }
                return along
                    .drain(..)
                    .zip(all)
                    .for_each(|((_, lead), opened)| lead.land(opened));
            }
            // What is wrong with others is no concern of this one.
            drop(along);
        }
        match self.fetch(&[index]).map(|all| all.into_iter().next()) {
            Ok(Some(opened)) => lead.land(opened),
            Ok(None) => drop(lead),
            Err(error) => lead.fail(Arc::new(error)),
        }
    }

    /// Segments beside one that lie in the same blob, and are not here or on their way.
    fn along(&self, index: usize) -> Leads<'_> {
        let segments = &self.root.segments;
        let (before, rest) = segments.split_at(index.min(segments.len()));
        let Some((wanted, behind)) = rest.split_first() else {
            return Vec::new();
        };
        let mut room = ALONG_MAX;
        let mut fits = |segment: &Segment| {
            let left = room.checked_sub(u64::from(segment.at.stored));
            room = left.unwrap_or(0);
            segment.at.blob == wanted.at.blob && left.is_some()
        };
        let behind = behind.iter().take_while(|segment| fits(segment)).count();
        let before = before.iter().rev().take_while(|segment| fits(segment)).count();
        let others = (index + 1..=index + behind).chain(index - before..index);
        others
            .filter(|other| self.held(*other).is_none())
            .filter_map(|other| Some((other, self.flights.lead(other)?)))
            .collect()
    }

    /// Fetches segments, or takes them from this host's cache, and holds them.
    fn fetch(&self, indexes: &[usize]) -> Result<Vec<Arc<Opened>>, StoreError> {
        let get = |index: &usize| self.root.segments.get(*index).copied();
        let segments: Vec<Segment> = indexes.iter().filter_map(get).collect();
        let Origin { image, seal, .. } = &*self.origin;
        let source = self.origin.source();
        let all = source.segments(image, &segments, seal, self.origin.came())?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = |(index, entries): (&usize, Vec<Entry>)| {
            let start = index.checked_sub(1).and_then(|before| self.ends.get(before));
            let opened = Arc::new(Opened::new(start.copied().unwrap_or(0), entries));
            held.insert(*index, &opened, ENTRIES_MAX);
            opened
        };
        Ok(indexes.iter().zip(all).map(hold).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_a_range() {
        let opened = Opened::new(100, vec![Entry::Hole(10), Entry::Hole(20), Entry::Hole(5)]);
        assert_eq!(opened.end, 135);
        let within = |range| -> Vec<u64> { opened.within(&range).map(|(start, _)| start).collect() };
        assert_eq!(within(100..135), [100, 110, 130]);
        assert_eq!(within(109..110), [100]);
        assert_eq!(within(110..111), [110]);
        assert_eq!(within(129..131), [110, 130]);
        assert_eq!(within(134..200), [130]);
    }

    #[test]
    fn segments_that_were_not_used_for_long_are_let_go() {
        let mut held = Held::default();
        let opened = Arc::new(Opened::new(0, vec![Entry::Hole(1); 10]));
        for index in 0..3 {
            held.insert(index, &opened, 30);
        }
        assert!(held.get(0).is_some());
        held.insert(3, &opened, 30);
        held.insert(3, &opened, 30);
        let there: Vec<bool> = (0..4).map(|index| held.get(index).is_some()).collect();
        assert_eq!((there, held.entries), (vec![true, false, true, true], 30));
        // One is held however large it is.
        held.insert(4, &opened, 5);
        assert_eq!((held.segments.len(), held.entries), (1, 10));
        assert!(held.get(4).is_some());
    }
}
