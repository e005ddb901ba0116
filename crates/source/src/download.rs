//! Layers that download in the background while readers follow.
//!
//! Each distinct blob has a *slot*. Workers take queued slots, lowest layer first; a reader is given the bytes of its
//! slot as far as they are *released*, waits for more, and finds the end only after the whole blob is verified. A
//! blob that was in the cache, or whose first part an earlier run left, is released only when all of it is verified:
//! if it is damaged nobody has seen it, and it is fetched again.
//!
//! ```text
//! Idle → Queued → Running (released bytes grow) → Done
//!          ↑                 └→ Failed ──┐
//!          └──── next open() ────────────┘
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use firebrick_digest::{Digest, Hasher, Mismatch};

use crate::cache::{Cache, Lookup, Partial, hash_range};
use crate::error::{Part, SourceError};
use crate::image::file_error;
use crate::options::{Event, Options};

/// How often we look whether another process has finished with a blob.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// One blob to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// The lowest layer that has this blob.
    pub(crate) layer: usize,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Job {
    fn mismatch(&self, mismatch: Mismatch) -> SourceError {
        SourceError::Mismatch {
            part: Part::Layer(self.layer),
            promised: self.digest,
            mismatch,
        }
    }
}

/// Takes the bytes of a transfer, in order.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), SourceError> + 'a;

/// Fetches blobs from where they lie.
pub(crate) trait Transfer: Send + Sync {
    /// Gives all bytes from `start` on to `sink`, across broken connections.
    fn transfer(&self, job: &Job, start: u64, sink: &mut Sink<'_>) -> Result<(), SourceError>;
}

/// The downloads of one image. When the last layer and reader of it are gone, they stop.
pub(crate) struct Downloads {
    shared: Arc<Shared>,
    /// The slot of each layer; equal layers share one.
    slots: Vec<usize>,
}

struct Shared {
    jobs: Vec<Job>,
    state: Mutex<State>,
    changed: Condvar,
    cancelled: AtomicBool,
    transfer: Box<dyn Transfer>,
    cache: Option<Cache>,
    temp_dir: PathBuf,
    parallel: usize,
    events: Arc<dyn Fn(Event) + Send + Sync>,
}

struct State {
    slots: Vec<Slot>,
    workers: usize,
}

struct Slot {
    phase: Phase,
    /// Counts tries; a reader of an earlier try must not go on with the bytes of a later one.
    generation: u32,
    last_error: Option<Arc<SourceError>>,
}

enum Phase {
    Idle,
    Queued,
    Running {
        file: Option<Arc<File>>,
        released: u64,
    },
    Done(Arc<File>),
    /// `told`: someone has been given the error, so the next open tries again.
    Failed {
        told: bool,
    },
}

impl std::fmt::Debug for Downloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downloads")
            .field("jobs", &self.shared.jobs)
            .finish_non_exhaustive()
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Downloads {
    /// Prepares the downloads of layers given as digest and size, lowest first. Nothing is fetched yet.
    pub(crate) fn new(layers: &[(Digest, u64)], transfer: Box<dyn Transfer>, options: &Options) -> Downloads {
        let mut jobs: Vec<Job> = Vec::new();
        let mut by_digest = HashMap::new();
        let mut slots = Vec::new();
        for (layer, &(digest, size)) in layers.iter().enumerate() {
            let slot = *by_digest.entry((digest, size)).or_insert_with(|| {
                jobs.push(Job { layer, digest, size });
                jobs.len() - 1
            });
            slots.push(slot);
        }
        let state = State {
            slots: jobs
                .iter()
                .map(|_| Slot {
                    phase: Phase::Idle,
                    generation: 0,
                    last_error: None,
                })
                .collect(),
            workers: 0,
        };
        let shared = Shared {
            jobs,
            state: Mutex::new(state),
            changed: Condvar::new(),
            cancelled: AtomicBool::new(false),
            transfer,
            cache: options.cache.clone(),
            temp_dir: options.temp_dir.clone(),
            parallel: options.registry.parallel.max(1),
            events: Arc::clone(&options.events),
        };
        Downloads {
            shared: Arc::new(shared),
            slots,
        }
    }

    /// Queues every layer that nobody has asked for yet.
    pub(crate) fn start_all(&self) {
        let mut state = self.shared.lock();
        for slot in &mut state.slots {
            if matches!(slot.phase, Phase::Idle) {
                slot.phase = Phase::Queued;
            }
        }
        self.spawn_workers(&mut state);
    }

    /// Opens a layer's bytes; starts all downloads if they have not been started.
    pub(crate) fn open(self: &Arc<Self>, layer: usize) -> Result<Follower, SourceError> {
        self.start_all();
        let slot = self.slots[layer];
        let mut state = self.shared.lock();
        let entry = &mut state.slots[slot];
        if let Phase::Failed { told } = &mut entry.phase {
            if let (false, Some(error)) = (*told, &entry.last_error) {
                *told = true;
                return Err(SourceError::Shared(Arc::clone(error)));
            }
            entry.phase = Phase::Queued;
            entry.generation += 1;
        }
        let generation = entry.generation;
        self.spawn_workers(&mut state);
        Ok(Follower {
            downloads: Arc::clone(self),
            slot,
            generation,
            position: 0,
        })
    }

    fn spawn_workers(&self, state: &mut State) {
        let queued = state
            .slots
            .iter()
            .filter(|slot| matches!(slot.phase, Phase::Queued))
            .count();
        // Workers that run may be about to take what is queued; one too many ends at once.
        let wanted = queued.min(self.shared.parallel.saturating_sub(state.workers));
        for _ in 0..wanted {
            let shared = Arc::clone(&self.shared);
            let spawned = thread::Builder::new()
                .name("firebrick-fetch".to_owned())
                .spawn(move || shared.work());
            match spawned {
                Ok(_) => state.workers += 1,
                // The machine gives us no thread. Those that run do the work; without any, say so.
                Err(source) if state.workers == 0 => {
                    let error = Arc::new(file_error("start a thread for", &self.shared.temp_dir, source));
                    for slot in state
                        .slots
                        .iter_mut()
                        .filter(|slot| matches!(slot.phase, Phase::Queued))
                    {
                        slot.phase = Phase::Failed { told: false };
                        slot.last_error = Some(Arc::clone(&error));
                    }
                    self.shared.changed.notify_all();
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves every slot in one of its phases; there is nothing half done to fear.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let slot = {
                let mut state = self.lock();
                let next = state
                    .slots
                    .iter()
                    .position(|slot| matches!(slot.phase, Phase::Queued));
                let Some(slot) = next.filter(|_| !self.is_cancelled()) else {
                    state.workers -= 1;
                    return;
                };
                state.slots[slot].phase = Phase::Running {
                    file: None,
                    released: 0,
                };
                slot
            };
            // A panic must not leave readers waiting for ever.
            let job = &self.jobs[slot];
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.obtain(slot, job)));
            let result = result.unwrap_or_else(|_| Err(SourceError::Cancelled { layer: job.layer }));
            let mut state = self.lock();
            let entry = &mut state.slots[slot];
            match result {
                Ok(file) => entry.phase = Phase::Done(Arc::new(file)),
                Err(error) => {
                    entry.phase = Phase::Failed { told: false };
                    entry.last_error = Some(Arc::new(error));
                }
            }
            self.changed.notify_all();
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Gets one blob, verified, from the cache or by download.
    fn obtain(&self, slot: usize, job: &Job) -> Result<File, SourceError> {
        let Some(cache) = &self.cache else {
            let error = |source| file_error("make a temporary file in", &self.temp_dir, source);
            let file = tempfile::tempfile_in(&self.temp_dir).map_err(error)?;
            let copy = file.try_clone().map_err(error)?;
            return match self.download(slot, job, copy, 0)? {
                Ok(()) => Ok(file),
                Err(error) => Err(error),
            };
        };
        let mut told = false;
        loop {
            match cache.lookup(job.digest, Some(job.size))? {
                Lookup::Found(file) => {
                    self.tell(Event::Cached {
                        layer: job.layer,
                        digest: job.digest,
                        size_bytes: job.size,
                    });
                    return Ok(file);
                }
                Lookup::Dropped => self.tell(Event::CorruptCacheEntry { digest: job.digest }),
                Lookup::Absent => {}
            }
            match cache.lock_partial(job.digest)? {
                // Another process may have finished between our look and our lock.
                Some(partial) if cache.contains(job.digest) => partial.discard()?,
                Some(partial) => return self.download_partial(slot, job, partial),
                None => {
                    if !std::mem::replace(&mut told, true) {
                        self.tell(Event::WaitingForOther { layer: job.layer });
                    }
                    if self.is_cancelled() {
                        return Err(SourceError::Cancelled { layer: job.layer });
                    }
                    thread::sleep(LOCK_PAUSE);
                }
            }
        }
    }

    /// Goes on with a partial download; from the start if what was there proves damaged.
    fn download_partial(&self, slot: usize, job: &Job, partial: Partial) -> Result<File, SourceError> {
        let path = partial.path().to_owned();
        let error = |source| file_error("use the partial download", &path, source);
        let file = partial.file().map_err(error)?;
        let mut start = file.metadata().map_err(error)?.len();
        if start > job.size {
            start = 0;
        }
        loop {
            file.set_len(start).map_err(error)?;
            match self.download(slot, job, file.try_clone().map_err(error)?, start)? {
                Ok(()) => {
                    partial.commit()?;
                    return Ok(file);
                }
                Err(_) if start > 0 => start = 0,
                Err(mismatch) => {
                    partial.discard()?;
                    return Err(mismatch);
                }
            }
        }
    }

    /// Downloads from `start` on. The inner result says whether the whole blob is what was promised.
    fn download(
        &self,
        slot: usize,
        job: &Job,
        file: File,
        start: u64,
    ) -> Result<Result<(), SourceError>, SourceError> {
        let write = |source| {
            file_error(
                "write the download of",
                &PathBuf::from(job.digest.to_string()),
                source,
            )
        };
        let file = Arc::new(file);
        let mut hasher = hash_range(&file, start).map_err(write)?;
        // What an earlier run left is not shown to anybody before all of it is verified.
        let follow = start == 0;
        self.publish(slot, &file, 0);
        self.tell(Event::DownloadStarted {
            layer: job.layer,
            digest: job.digest,
            size_bytes: job.size,
            resumed_bytes: start,
        });
        let mut position = start;
        let mismatch = |mismatch| job.mismatch(mismatch);
        let mut sink = |bytes: &[u8]| {
            if self.is_cancelled() {
                return Err(SourceError::Cancelled { layer: job.layer });
            }
            file.write_all_at(bytes, position).map_err(write)?;
            hasher.update(bytes);
            position += bytes.len() as u64;
            if position > job.size {
                return Err(mismatch(Mismatch::Length {
                    expected: job.size,
                    actual: position,
                    at_least: true,
                }));
            }
            if follow {
                self.publish(slot, &file, position);
            }
            self.tell(Event::Downloaded {
                layer: job.layer,
                done_bytes: position,
                size_bytes: job.size,
            });
            Ok(())
        };
        if start < job.size {
            match self.transfer.transfer(job, start, &mut sink) {
                Ok(()) => {}
                Err(error @ SourceError::Mismatch { .. }) => return Ok(Err(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(self
            .verdict(job, position, hasher)
            .map_err(mismatch)
            .inspect(|()| {
                self.tell(Event::DownloadFinished {
                    layer: job.layer,
                    fetched_bytes: position - start,
                });
            }))
    }

    fn verdict(&self, job: &Job, len: u64, hasher: Hasher) -> Result<(), Mismatch> {
        if len != job.size {
            return Err(Mismatch::Length {
                expected: job.size,
                actual: len,
                at_least: false,
            });
        }
        let actual = hasher.finish();
        if actual != job.digest {
            return Err(Mismatch::Digest {
                expected: job.digest,
                actual,
            });
        }
        Ok(())
    }

    fn publish(&self, slot: usize, of: &Arc<File>, bytes: u64) {
        if let Phase::Running { file, released } = &mut self.lock().slots[slot].phase {
            if file.is_none() {
                *file = Some(Arc::clone(of));
            }
            *released = bytes;
        }
        self.changed.notify_all();
    }

    fn tell(&self, event: Event) {
        (self.events)(event);
    }
}

/// Reads a blob as it downloads.
pub(crate) struct Follower {
    downloads: Arc<Downloads>,
    slot: usize,
    generation: u32,
    position: u64,
}

impl Follower {
    /// Waits until there is something to read: the file, and how far it may be read. At the end that is `position`.
    fn wait(&self) -> Result<(Arc<File>, u64), SourceError> {
        let shared = &self.downloads.shared;
        let mut state = shared.lock();
        loop {
            let slot = &mut state.slots[self.slot];
            let failed = |slot: &Slot| match &slot.last_error {
                Some(error) => SourceError::Shared(Arc::clone(error)),
                None => SourceError::Cancelled {
                    layer: shared.jobs[self.slot].layer,
                },
            };
            if slot.generation != self.generation {
                return Err(failed(slot));
            }
            match &mut slot.phase {
                Phase::Running {
                    file: Some(file),
                    released,
                } if *released > self.position => return Ok((Arc::clone(file), *released)),
                Phase::Done(file) => return Ok((Arc::clone(file), shared.jobs[self.slot].size)),
                Phase::Failed { told } => {
                    *told = true;
                    return Err(failed(slot));
                }
                Phase::Idle | Phase::Queued | Phase::Running { .. } => {
                    state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let (file, end) = self.wait().map_err(SourceError::into_io)?;
        let want = usize::try_from(end - self.position)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let len = file.read_at(&mut buffer[..want], self.position)?;
        if len == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the downloaded file became shorter while it was read",
            ));
        }
        self.position += len as u64;
        Ok(len)
    }
}
