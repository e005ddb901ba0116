//! A published image that is read without being fetched first: what is asked for is fetched, verified and kept.
//!
//! - an *origin* is the image in its store; its table is opened *segment* by segment;
//! - *chunks* come from the cache file (*keep*), another image of this host (*donor*) or the store, each once (*flights*);
//! - *ahead* are threads that fetch what will probably be wanted. Readers come first (*permits*).
//!
//! Opening reads manifest, config and the root of the table. How it works as a whole is in `docs/lazy.md`.

mod ahead;
mod chunks;
mod counts;
mod donors;
mod flights;
mod keep;
mod memory;
mod origin;
mod permits;
mod segments;
mod trace;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::error::StoreError;
use crate::id::Id;
use crate::index::Published;
use crate::manifest::Config;
use crate::seal::Seal;
use crate::store::{Progress, Store};
use crate::table::Entry;
use ahead::{Queue, Streams, Task};
use chunks::{Chunks, Wanted};
pub use counts::LazyCounts;
use donors::Donors;
use keep::Keep;
use origin::Origin;
use segments::{Opened, Segments};
use trace::{TRACE_MAX, Trace};

/// Bytes of the image that one read gets at a time; each reader holds so many.
const PIECE_LEN: u64 = 4 << 20;

/// How an image is read without fetching it first.
#[derive(Debug, Clone)]
pub struct LazyOptions {
    /// Where what was fetched is kept. Any file there may be removed at any time. `None`: in memory only.
    pub cache_folder: Option<PathBuf>,
    /// Requests at a time. At most half of them fetch ahead, and none while a reader waits for his turn.
    pub requests: usize,
    /// Bytes of the image that are fetched ahead of a sequential read, at most; 0 for none.
    pub readahead_bytes: u64,
    /// Bytes of chunks that are held in memory, where they cannot be kept in a file.
    pub memory_bytes: usize,
    /// Other images of this host. Those whose content is remembered are asked before the store.
    pub donors: Vec<PathBuf>,
    /// Chunks to fetch in the background, as [`Lazy::trace`] gave them for an earlier boot of this image or one like it.
    pub trace: Vec<Id>,
}

impl Default for LazyOptions {
    fn default() -> LazyOptions {
        LazyOptions {
            cache_folder: None,
            requests: 8,
            readahead_bytes: 4 << 20,
            memory_bytes: 32 << 20,
            donors: Vec::new(),
            trace: Vec::new(),
        }
    }
}

/// Bytes beside each other that are all of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Whether they are zeros that are kept nowhere.
    pub is_hole: bool,
    /// The first byte behind them, counted from the image's beginning.
    pub end: u64,
}

/// A published image, read as if it were here.
///
/// All methods may be called by many threads at once. Dropping it ends its own threads, once the requests that they are in have
/// ended.
pub struct Lazy {
    config: Config,
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

struct Inner {
    origin: Arc<Origin>,
    chunks: Chunks,
    streams: Mutex<Streams>,
    queue: Queue,
    trace: Trace,
    readahead_bytes: u64,
    memory_bytes: usize,
}

impl fmt::Debug for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy")
            .field("image", &self.inner.origin.image.digest)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a version of an image for reading without fetching it first. `keys` is the key, if the image has one.
    ///
    /// A cache file that cannot be made or written is told once as [`Progress::Uncached`], and done without.
    ///
    /// # Errors
    /// [`StoreError`] if manifest, config or root cannot be had, or the key is not the image's.
    pub fn lazy(
        self: &Arc<Store>,
        version: &Published,
        keys: &Seal,
        options: LazyOptions,
    ) -> Result<Lazy, StoreError> {
        let image = self.open(version)?;
        let seal = image.seal(keys)?.clone();
        let config = self.source().config(&image, &seal)?;
        let root = self.source().root(&image, &seal)?;
        let requests = options.requests.max(1);
        let store = Arc::clone(self);
        let warn = Box::new(move |path: &std::path::Path, error: &std::io::Error| {
            (store.progress)(Progress::Uncached(path, error));
        });
        let folder = options.cache_folder.as_deref();
        let keep = Keep::open(folder, &image.digest, root.image_len, warn);
        let origin = Arc::new(Origin::new(Arc::clone(self), image, seal, requests));
        let donors = Donors::open(&origin, &options.donors);
        let segments = Segments::new(Arc::clone(&origin), root);
        let mut trace = options.trace;
        trace.truncate(TRACE_MAX);
        let inner = Arc::new(Inner {
            chunks: Chunks::new(segments, keep, donors, options.memory_bytes),
            origin,
            streams: Mutex::default(),
            queue: Queue::new(trace),
            trace: Trace::default(),
            readahead_bytes: options.readahead_bytes,
            memory_bytes: options.memory_bytes,
        });
        let threads = (0..requests.div_ceil(2)).filter_map(|_| {
            let inner = Arc::clone(&inner);
            // Without threads nothing is fetched ahead, and all else works.
            Builder::new().spawn(move || inner.run_ahead()).ok()
        });
        Ok(Lazy {
            config,
            threads: threads.collect(),
            inner,
        })
    }
}

impl Lazy {
    /// Length of the image, in bytes.
    pub fn size(&self) -> u64 {
        self.inner.chunks.segments.image_len()
    }

    /// What the image is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Fills `buffer` with the bytes of the image that begin at byte `offset`, and says how many there were: fewer only at the
    /// image's end.
    ///
    /// # Errors
    /// [`StoreError`] if not all of them can be had; the next read tries again. It is shared with others who wanted the same.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Arc<StoreError>> {
        let left = self.size().saturating_sub(offset);
        let len = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        self.inner.read(offset..offset + len as u64, &mut buffer[..len])?;
        self.inner.origin.counters.read(len as u64);
        Ok(len)
    }

    /// What `range` begins with; it ends in `range`. The next may be of the same kind. Behind the image there is a hole.
    ///
    /// # Errors
    /// [`StoreError`] if that part of the table cannot be had.
    pub fn extent(&self, range: Range<u64>) -> Result<Extent, Arc<StoreError>> {
        if range.start >= self.size() {
            let (is_hole, end) = (true, range.end);
            return Ok(Extent { is_hole, end });
        }
        let opened = self.inner.chunks.segments.at(range.start)?;
        let mut found = None;
        for (start, entry) in opened.within(&range) {
            let is_hole = matches!(entry, Entry::Hole(_));
            match found {
                Some(Extent { is_hole: before, .. }) if before != is_hole => break,
                _ => {
                    let end = range.end.min(start + entry.len());
                    found = Some(Extent { is_hole, end });
                }
            }
        }
        let end = range.end;
        Ok(found.unwrap_or(Extent { is_hole: false, end }))
    }

    /// Hears that somebody will soon read these bytes. They are fetched in the background, if there is time for it.
    pub fn prefetch(&self, range: Range<u64>) {
        self.inner.add_ahead(range);
    }

    /// The chunks that were read, in the order of first use; the first 65,536 of them. What was only fetched ahead is none.
    pub fn trace(&self) -> Vec<Id> {
        self.inner.trace.list()
    }

    /// What was read until now, and what that cost.
    pub fn counts(&self) -> LazyCounts {
        self.inner.origin.counters.now(self.config().data)
    }
}

impl Drop for Lazy {
    fn drop(&mut self) {
        self.inner.origin.close();
        self.inner.queue.close();
        for thread in self.threads.drain(..) {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// Bytes that may be fetched ahead: not so many that they would push each other out of memory.
    fn window_max(&self) -> u64 {
        match self.chunks.keep.is_writable() {
            true => self.readahead_bytes,
            false => self.readahead_bytes.min(self.memory_bytes as u64 / 8),
        }
    }

    fn add_ahead(&self, range: Range<u64>) {
        let end = range.end.min(self.chunks.segments.image_len());
        if range.start < end {
            self.queue.add(range.start..end);
        }
    }

    fn read(&self, range: Range<u64>, mut buffer: &mut [u8]) -> Result<(), Arc<StoreError>> {
        let ahead = {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.read(&range, self.window_max())
        };
        if let Some(ahead) = ahead {
            self.add_ahead(ahead);
        }
        let mut at = range.start;
        while at < range.end {
            let opened = self.chunks.segments.at(at)?;
            let end = range.end.min(opened.end).min(at + PIECE_LEN);
            let (piece, rest) = buffer.split_at_mut(index(end - at));
            self.read_piece(&opened, &(at..end), piece)?;
            (at, buffer) = (end, rest);
        }
        Ok(())
    }

    /// Reads a range that one segment covers.
    fn read_piece(
        &self,
        opened: &Opened,
        range: &Range<u64>,
        buffer: &mut [u8],
    ) -> Result<(), Arc<StoreError>> {
        let mut missing = Vec::new();
        let mut places = Vec::new();
        for (start, entry) in opened.within(range) {
            let (from, to) = (range.start.max(start), range.end.min(start + entry.len()));
            let place = index(from - range.start)..index(to - range.start);
            let Entry::Chunk(locator) = entry else {
                buffer[place].fill(0);
                continue;
            };
            self.trace.note(&locator.id);
            let wanted = Wanted {
                offset: start,
                locator: *locator,
            };
            let skip = index(from - start);
            if !self.chunks.copy_held(&wanted, skip, &mut buffer[place.clone()]) {
                missing.push(wanted);
                places.push((place, skip));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let got = self.chunks.get(&missing)?;
        for (bytes, (place, skip)) in got.iter().zip(places) {
            let len = place.len();
            buffer[place].copy_from_slice(&bytes[skip..skip + len]);
        }
        Ok(())
    }

    fn run_ahead(&self) {
        while let Some(task) = self.queue.next() {
            match task {
                Task::Range(range) => self.fetch_ahead(range),
                Task::Find(ids) => self.queue.add_chunks(self.find(&ids)),
                // In memory they would only push out what is used now.
                Task::Chunks(_) if !self.chunks.keep.is_writable() => {}
                Task::Chunks(chunks) => self.chunks.get_ahead(&chunks),
            }
        }
    }

    fn fetch_ahead(&self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end && !self.origin.is_stopped() {
            // Who reads there hears what is wrong.
            let Ok(opened) = self.chunks.segments.at(at) else {
                return;
            };
            let piece = at..range.end.min(opened.end);
            let chunks = opened.within(&piece).filter_map(|(offset, entry)| match entry {
                Entry::Chunk(locator) => Some(Wanted {
                    offset,
                    locator: *locator,
                }),
                Entry::Hole(_) => None,
            });
            let chunks: Vec<Wanted> = chunks.collect();
            self.chunks.get_ahead(&chunks);
            at = piece.end;
        }
    }

    /// Where chunks lie, as far as the image has them, in the order of `ids`.
    fn find(&self, ids: &[Id]) -> Vec<Wanted> {
        let mut found: HashMap<Id, Option<Wanted>> = ids.iter().map(|id| (*id, None)).collect();
        let mut left = found.len();
        for index in 0..self.chunks.segments.count() {
            if left == 0 || self.origin.is_stopped() {
                break;
            }
            let Ok(opened) = self.chunks.segments.get(index) else {
                continue;
            };
            for wanted in opened.chunks() {
                if let Some(place @ None) = found.get_mut(&wanted.locator.id) {
                    *place = Some(wanted);
                    left -= 1;
                }
            }
        }
        ids.iter().filter_map(|id| found.remove(id).flatten()).collect()
    }
}

/// A position in a buffer, which is shorter than memory.
fn index(position: u64) -> usize {
    usize::try_from(position).expect("it lies in a buffer")
}
