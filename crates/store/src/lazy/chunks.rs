//! Where chunks come from: the cache file, memory, another image of this host, or else the store.
//!
//! ```text
//! reader ─► held? ─► claim ─┬─ lead ──► donor? ─► one request for all that lie near ─► verified ─► cache file ─► all who wait
//!                           └─ follow ──────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use crate::cut::is_zero;
use crate::error::StoreError;
use crate::fetch::{Group, groups};
use crate::id::Id;
use crate::lazy::counts::Found;
use crate::lazy::donors::Donors;
use crate::lazy::flights::{Claim, Flights, Lead, Outcome};
use crate::lazy::keep::Keep;
use crate::lazy::memory::Memory;
use crate::lazy::origin::Origin;
use crate::lazy::permits::{Permits, Urgency};
use crate::lazy::segments::Segments;
use crate::seal::Opener;
use crate::table::Locator;

/// Bytes that are asked for together, at most: who waits for one chunk waits for all of them.
const RANGE_MAX: u64 = 1 << 20;
/// Chunks of the cache file whose places are remembered, of some 100 bytes each.
const KNOWN_MAX: usize = 1 << 18;

/// What a chunk is: its id, and its length in bytes.
pub(super) type Key = (Id, u32);

/// Bytes of a chunk, verified.
pub(super) type Bytes = Arc<[u8]>;

/// A chunk, and where it lies in the image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) offset: u64,
    pub(super) locator: Locator,
}

impl Wanted {
    pub(super) fn key(&self) -> Key {
        (self.locator.id, self.locator.len)
    }
}

/// What this process has.
struct Held {
    memory: Memory,
    /// Where in the image chunks begin that lie in their place in the cache file, and were verified.
    places: HashSet<u64>,
    /// One of those for each chunk.
    known: HashMap<Key, u64>,
}

/// See the module.
pub(super) struct Chunks {
    origin: Arc<Origin>,
    pub(super) segments: Segments,
    pub(super) keep: Keep,
    pub(super) permits: Permits,
    donors: Donors,
    held: Mutex<Held>,
    flights: Flights<Key, Bytes>,
}

type ChunkLead<'a> = Lead<'a, Key, Bytes>;

/// A chunk that somebody must bring.
struct Duty<'a> {
    wanted: Wanted,
    lead: ChunkLead<'a>,
    /// Whether somebody asked for it.
    asked: bool,
}

/// What is fetched with one request.
struct Job<'a> {
    group: Group,
    duties: HashMap<Key, Duty<'a>>,
}

impl Chunks {
    pub(super) fn new(segments: Segments, keep: Keep, donors: Donors, memory_len: usize) -> Chunks {
        let origin = Arc::clone(segments.origin());
        let held = Held {
            memory: Memory::new(memory_len),
            places: HashSet::new(),
            known: HashMap::new(),
        };
        Chunks {
            permits: Permits::new(origin.requests),
            origin,
            segments,
            keep,
            donors,
            held: Mutex::new(held),
            flights: Flights::new(),
        }
    }

    fn stopped(&self) -> bool {
        self.origin.is_stopped()
    }

    fn with_held<R>(&self, work: impl FnOnce(&mut Held) -> R) -> R {
        work(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies the bytes of a chunk that begin at its byte `from`, if it is here.
    pub(super) fn copy_held(&self, wanted: &Wanted, from: usize, to: &mut [u8]) -> bool {
        let (key, offset) = (wanted.key(), wanted.offset);
        let (memory, verified) =
            self.with_held(|held| (held.memory.get(&key), held.places.contains(&offset)));
        if verified {
            if self.keep.read(to, offset + from as u64) {
                return true;
            }
            self.forget(wanted);
        }
        let whole = memory
            .or_else(|| self.kept(wanted))
            .or_else(|| self.elsewhere(wanted));
        match whole.as_ref().and_then(|bytes| bytes.get(from..from + to.len())) {
            Some(part) => to.copy_from_slice(part),
            None => return false,
        }
        true
    }

    /// Whether a chunk is here.
    pub(super) fn is_held(&self, wanted: &Wanted) -> bool {
        self.is_known(&wanted.key()) || self.kept(wanted).is_some()
    }

    fn is_known(&self, key: &Key) -> bool {
        self.with_held(|held| held.known.contains_key(key) || held.memory.get(key).is_some())
    }

    /// A chunk from its place in the cache file, where nobody in this process has verified it yet.
    fn kept(&self, wanted: &Wanted) -> Option<Bytes> {
        let mut bytes = vec![0; usize::try_from(wanted.locator.len).ok()?];
        let right = self.keep.read(&mut bytes, wanted.offset)
            && !is_zero(&bytes)
            && self.origin.seal.id(&bytes) == wanted.locator.id;
        if right && self.know(wanted) {
            self.origin.counters.chunk(Found::Cache, wanted.locator.len);
        }
        right.then(|| bytes.into())
    }

    /// A chunk that is in the image more than once, from another place in the cache file. It is put in its own place, too, where
    /// other processes look for it.
    fn elsewhere(&self, wanted: &Wanted) -> Option<Bytes> {
        let place = self.with_held(|held| held.known.get(&wanted.key()).copied())?;
        let mut bytes = vec![0; usize::try_from(wanted.locator.len).ok()?];
        if !self.keep.read(&mut bytes, place) {
            self.with_held(|held| held.known.remove(&wanted.key()));
            return None;
        }
        self.settle(wanted, &bytes);
        Some(bytes.into())
    }

    /// Puts a chunk in its place in the cache file, if it is not there and that is possible. Tells whether it is there.
    fn settle(&self, wanted: &Wanted, bytes: &[u8]) -> bool {
        if self.with_held(|held| held.places.contains(&wanted.offset)) {
            return true;
        }
        let written = self.keep.write(bytes, wanted.offset);
        if written {
            self.know(wanted);
        }
        written
    }

    /// Remembers that a chunk lies in its place in the cache file; whether that is news.
    fn know(&self, wanted: &Wanted) -> bool {
        self.with_held(|held| {
            if held.places.len() >= KNOWN_MAX {
                held.places.clear();
                held.known.clear();
            }
            held.known.entry(wanted.key()).or_insert(wanted.offset);
            held.places.insert(wanted.offset)
        })
    }

    /// What was in its place is no longer there: somebody has cut the file.
    fn forget(&self, wanted: &Wanted) {
        self.with_held(|held| {
            held.places.remove(&wanted.offset);
            held.known.remove(&wanted.key());
        });
    }

    /// A whole chunk that is here, or that a donor has.
    fn find(&self, wanted: &Wanted) -> Option<Bytes> {
        let mut bytes = vec![0; usize::try_from(wanted.locator.len).ok()?];
        if self.copy_held(wanted, 0, &mut bytes) {
            return Some(bytes.into());
        }
        let bytes = self.donors.get(&wanted.key(), &self.origin)?;
        Some(self.put(wanted, &bytes, Found::Donor))
    }

    /// Keeps a chunk that has come.
    fn put(&self, wanted: &Wanted, bytes: &[u8], found: Found) -> Bytes {
        self.origin.counters.chunk(found, wanted.locator.len);
        let shared = Bytes::from(bytes);
        if !self.settle(wanted, bytes) {
            self.with_held(|held| held.memory.insert(wanted.key(), Arc::clone(&shared)));
        }
        shared
    }

    /// Gets chunks that are not here. Each is fetched once, whoever else wants it now.
    pub(super) fn get(&self, wanted: &[Wanted]) -> Result<Vec<Bytes>, Arc<StoreError>> {
        let mut got: Vec<Option<Bytes>> = vec![None; wanted.len()];
        loop {
            let mut duties = Vec::new();
            let mut flights = Vec::new();
            for (place, wanted) in got.iter_mut().zip(wanted).filter(|(place, _)| place.is_none()) {
                match self.flights.claim(wanted.key()) {
                    Claim::Follow(flight) => flights.push((place, wanted, flight)),
                    Claim::Lead(lead) => {
                        flights.push((place, wanted, lead.flight()));
                        let wanted = *wanted;
                        let asked = true;
                        duties.push(Duty { wanted, lead, asked });
                    }
                }
            }
            if flights.is_empty() {
                return Ok(got.into_iter().flatten().collect());
            }
            self.bring(duties, Urgency::Now);
            for (place, wanted, flight) in flights {
                match flight.wait(&|| self.stopped()) {
                    Outcome::Landed(bytes) => {
                        self.settle(wanted, &bytes);
                        *place = Some(bytes);
                    }
                    Outcome::Failed(error) => return Err(error),
                    // Somebody fetched it ahead, and could not: now it is for us.
                    Outcome::Abandoned => {}
                }
            }
        }
    }

    /// Fetches chunks that nobody waits for. What goes wrong is for whoever wants them in earnest.
    pub(super) fn get_ahead(&self, wanted: &[Wanted]) {
        let wanted: Vec<&Wanted> = wanted.iter().filter(|one| !self.is_held(one)).collect();
        if wanted.is_empty() {
            return;
        }
        // Before claiming: whoever follows must not wait for those who go before us.
        let permit = self.permits.take(Urgency::Ahead, &|| self.stopped());
        if permit.is_none() {
            return;
        }
        let duty = |wanted: &Wanted| {
            Some(Duty {
                wanted: *wanted,
                lead: self.flights.lead(wanted.key())?,
                asked: false,
            })
        };
        self.bring(wanted.into_iter().filter_map(duty).collect(), Urgency::Ahead);
    }

    /// Brings chunks, or says why not: all duties are done when it returns.
    fn bring(&self, duties: Vec<Duty<'_>>, urgency: Urgency) {
        let mut missing: HashMap<Key, Duty<'_>> = HashMap::new();
        for duty in duties {
            // It may have come between looking and claiming.
            match self.find(&duty.wanted) {
                Some(bytes) => duty.lead.land(bytes),
                None => drop(missing.insert(duty.wanted.key(), duty)),
            }
        }
        let locators = missing.values().map(|duty| duty.wanted.locator).collect();
        let jobs = groups(locators, RANGE_MAX).into_iter().map(|group| {
            let own = |locator: &Locator| missing.remove_entry(&(locator.id, locator.len));
            let duties = group.chunks.iter().filter_map(own).collect();
            Job { group, duties }
        });
        let jobs: Vec<Job<'_>> = jobs.collect();
        let helpers = match urgency {
            Urgency::Now => jobs.len().min(self.origin.requests).saturating_sub(1),
            Urgency::Ahead => 0,
        };
        let jobs = Mutex::new(jobs);
        let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = || {
            while let Some(job) = next() {
                self.work(job, urgency);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                // Without help it takes longer.
                let _ = Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
    }

    /// Does one request, and what follows from it.
    fn work<'a>(&'a self, mut job: Job<'a>, urgency: Urgency) {
        let permit = match urgency {
            Urgency::Now => self.permits.take(urgency, &|| self.stopped()),
            // Whoever fetches ahead has one.
            Urgency::Ahead => None,
        };
        if self.stopped() {
            return give_up(job.duties, StoreError::Stopped);
        }
        self.take_along(&mut job);
        let Job { group, mut duties } = job;
        let fetched = Opener::new(&self.origin.seal).and_then(|mut opener| {
            self.origin
                .fetching()
                .group(&group, &mut opener, &mut |locator, chunk| {
                    let Some(duty) = duties.remove(&(locator.id, locator.len)) else {
                        return Ok(());
                    };
                    match chunk {
                        Ok(bytes) => duty.lead.land(self.put(&duty.wanted, bytes, Found::Store)),
                        Err(error) if duty.asked => duty.lead.fail(Arc::new(error)),
                        Err(_) => {}
                    }
                    Ok(())
                })
        });
        drop(permit);
        if let Err(error) = fetched {
            give_up(duties, error);
        }
    }

    /// Adds chunks that lie between those of a group, and would be fetched for nothing.
    fn take_along<'a>(&'a self, job: &mut Job<'a>) {
        let Job { group, duties } = job;
        let Some(blob) = group.chunks.first().map(|first| first.blob) else {
            return;
        };
        let stored: u64 = group.chunks.iter().map(|chunk| u64::from(chunk.stored)).sum();
        if stored >= group.range.end - group.range.start {
            return;
        }
        let of_duty = |duty: &Duty<'_>| self.segments.held_at(duty.wanted.offset);
        let near: HashMap<u64, _> = duties
            .values()
            .filter_map(of_duty)
            .map(|one| (one.end, one))
            .collect();
        for wanted in near.values().flat_map(|one| one.chunks()) {
            let (locator, key) = (&wanted.locator, wanted.key());
            let start = u64::from(locator.offset);
            let inside = locator.blob == blob
                && group.range.start <= start
                && start + u64::from(locator.stored) <= group.range.end;
            if !inside || duties.contains_key(&key) || self.is_known(&key) {
                continue;
            }
            // It may have come between looking and claiming.
            let lead = self.flights.lead(key);
            let Some(lead) = lead.filter(|_| !self.is_known(&key)) else {
                continue;
            };
            let asked = false;
            group.chunks.push(*locator);
            duties.insert(key, Duty { wanted, lead, asked });
        }
    }
}

/// Tells those who wait for chunks that they do not come.
fn give_up(duties: HashMap<Key, Duty<'_>>, error: StoreError) {
    let error = Arc::new(error);
    for duty in duties.into_values().filter(|duty| duty.asked) {
        duty.lead.fail(Arc::clone(&error));
    }
}
