//! From an image's file to bundles in a store and entries of a table.
//!
//! ```text
//! file ─► cut ─► id ─► there already? ─► compress, seal ─► bundle ─► store
//!        (thread)      (threads)                          (here)    (threads)
//! ```
//!
//! Queues between them are short, so that memory stays bounded whatever is slow.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use firebrick_digest::Digest;

use crate::bundle::{Bundler, Place};
use crate::cut::{Cuts, Piece, Window, cut};
use crate::error::StoreError;
use crate::failure::Failure;
use crate::id::Id;
use crate::known::Known;
use crate::seal::{Closer, Seal};
use crate::table::{Entry, Locator};

/// Bundles that are sent at the same time.
const SENDERS: usize = 4;

/// Keeps a bundle in the store, and says whether it was not there.
pub(crate) type Send<'a> = dyn Fn(&Digest, Vec<u8>) -> Result<bool, StoreError> + Sync + 'a;

/// What packing works with.
pub(crate) struct Packing<'a> {
    pub(crate) seal: &'a Seal,
    pub(crate) known: &'a Known,
    /// Threads that compress.
    pub(crate) threads: usize,
    pub(crate) send: &'a Send<'a>,
    /// Told of bytes that are done.
    pub(crate) done: &'a (dyn Fn(u64) + Sync),
    pub(crate) stop: &'a AtomicBool,
}

/// What became of an image.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    pub(crate) entries: Vec<Entry>,
    /// Bundles that were made, with their lengths.
    pub(crate) bundles: Vec<(Digest, u64)>,
    /// Chunks that were sent.
    pub(crate) new_chunks: u64,
    /// Chunks that were in the store before, or earlier in the image.
    pub(crate) known_chunks: u64,
}

/// A piece that was looked at.
enum Ready {
    Hole(u64),
    Known(Locator),
    New { id: Id, len: usize, stored: Vec<u8> },
}

/// Packs the first `len` bytes of a file.
pub(crate) fn pack(file: &File, path: &Path, len: u64, packing: &Packing<'_>) -> Result<Packed, StoreError> {
    run(packing, |windows, room| {
        let mut numbers = 0..;
        cut(
            file,
            len,
            Cuts::PUBLISHED,
            || room.try_recv().ok(),
            |window| {
                packing.check()?;
                let number = numbers.next().unwrap_or(u64::MAX);
                // Nobody takes it any more: then something failed elsewhere.
                windows.send((number, window)).map_err(|_| Halt::Stopped)
            },
        )
        .map_err(|error| match error {
            Halt::Read(source) => StoreError::File {
                action: "read",
                path: path.to_owned(),
                source,
            },
            Halt::Stopped => StoreError::Stopped,
        })
    })
}

/// Packs chunks that are in memory: a table's segments.
pub(crate) fn pack_chunks(chunks: Vec<Vec<u8>>, packing: &Packing<'_>) -> Result<Packed, StoreError> {
    run(packing, |windows, _| {
        let mut numbered = (0..).zip(chunks.into_iter().map(Window::of_chunk));
        let sent = numbered.try_for_each(|window| windows.send(window));
        sent.map_err(|_| StoreError::Stopped)
    })
}

enum Halt {
    Read(io::Error),
    Stopped,
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Halt {
        Halt::Read(error)
    }
}

impl Packing<'_> {
    fn check(&self) -> Result<(), Halt> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Halt::Stopped),
            false => Ok(()),
        }
    }
}

type Numbered<T> = (u64, T);

/// One of several threads that take from a queue, until it ends or something failed.
fn take<T>(queue: &Mutex<Receiver<T>>, failure: &Failure) -> Option<T> {
    if failure.has() {
        return None;
    }
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn run(
    packing: &Packing<'_>,
    cutting: impl FnOnce(SyncSender<Numbered<Window>>, Receiver<Vec<u8>>) -> Result<(), StoreError>
    + std::marker::Send,
) -> Result<Packed, StoreError> {
    let failure = Failure::default();
    let threads = packing.threads.max(1);
    let packed = std::thread::scope(|scope| {
        let (windows_to, windows) = sync_channel(threads);
        let (room_to, room) = channel();
        let (ready_to, ready) = sync_channel(threads);
        let (bundles_to, bundles) = sync_channel(1);
        let (sent_to, sent) = channel();
        let failure = &failure;
        scope.spawn(move || cutting(windows_to, room).unwrap_or_else(|error| failure.note(error)));
        let ends = Ends {
            windows,
            room_to,
            ready_to,
        };
        workers(scope, threads, ends, packing, failure);
        senders(scope, bundles, sent_to, packing, failure);
        let packed = assemble(&ready, bundles_to, packing, failure);
        // Senders end when the queue does; only then are all digests known.
        drop(ready);
        let sent: BTreeMap<usize, Sent> = sent.iter().collect();
        packed.map(|assembled| assembled.settle(&sent))
    });
    failure.into_result()?;
    packed.ok_or(StoreError::Stopped)
}

/// The ends of queues that those who look at chunks hold.
struct Ends {
    windows: Receiver<Numbered<Window>>,
    room_to: Sender<Vec<u8>>,
    ready_to: SyncSender<Numbered<Vec<Ready>>>,
}

fn workers<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    threads: usize,
    ends: Ends,
    packing: &'scope Packing<'_>,
    failure: &'scope Failure,
) {
    let windows = Arc::new(Mutex::new(ends.windows));
    for _ in 0..threads {
        let windows = Arc::clone(&windows);
        let (room_to, ready_to) = (ends.room_to.clone(), ends.ready_to.clone());
        scope.spawn(move || {
            let work = || -> Result<(), StoreError> {
                let mut closer = Closer::new(packing.seal)?;
                while let Some((number, window)) = take(&windows, failure) {
                    let ready = window.pieces().map(|piece| look(piece, packing, &mut closer));
                    let ready = ready.collect::<Result<_, _>>()?;
                    // Who cuts may have ended.
                    let _ = room_to.send(window.into_room());
                    if ready_to.send((number, ready)).is_err() {
                        break;
                    }
                }
                Ok(())
            };
            work().unwrap_or_else(|error| failure.note(error));
        });
    }
}

fn look(piece: Piece<'_>, packing: &Packing<'_>, closer: &mut Closer<'_>) -> Result<Ready, StoreError> {
    let bytes = match piece {
        Piece::Hole(len) => return Ok(Ready::Hole(len)),
        Piece::Chunk(bytes) => bytes,
    };
    let id = packing.seal.id(bytes);
    Ok(match packing.known.find(&id, bytes.len()) {
        Some(locator) => Ready::Known(locator),
        None => Ready::New {
            id,
            len: bytes.len(),
            stored: closer.close(&id, bytes)?,
        },
    })
}

/// A bundle that is in the store now.
struct Sent {
    digest: Digest,
    len: u64,
    /// An upload that was ended may have brought it.
    is_new: bool,
}

fn senders<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    bundles: Receiver<(usize, Vec<u8>)>,
    sent_to: Sender<(usize, Sent)>,
    packing: &'scope Packing<'_>,
    failure: &'scope Failure,
) {
    let bundles = Arc::new(Mutex::new(bundles));
    for _ in 0..SENDERS {
        let (bundles, sent_to) = (Arc::clone(&bundles), sent_to.clone());
        scope.spawn(move || {
            while let Some((number, bytes)) = take(&bundles, failure) {
                let (digest, len) = (Digest::of(&bytes), bytes.len() as u64);
                match (packing.send)(&digest, bytes) {
                    Err(error) => return failure.note(error),
                    Ok(is_new) => {
                        let sent = Sent { digest, len, is_new };
                        if sent_to.send((number, sent)).is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }
}

/// Entries whose bundles have no digests yet.
#[derive(Default)]
struct Assembled {
    entries: Vec<Unsettled>,
    /// Chunks of each bundle.
    new_chunks: BTreeMap<usize, u64>,
    known_chunks: u64,
}

#[derive(Clone, Copy)]
enum Unsettled {
    Entry(Entry),
    New {
        id: Id,
        len: u32,
        stored: u32,
        place: Place,
    },
}

/// Puts what is ready into order, and new chunks into bundles. Nothing if something failed.
fn assemble(
    ready: &Receiver<Numbered<Vec<Ready>>>,
    bundles_to: SyncSender<(usize, Vec<u8>)>,
    packing: &Packing<'_>,
    failure: &Failure,
) -> Option<Assembled> {
    let mut early: BTreeMap<u64, Vec<Ready>> = BTreeMap::new();
    let mut next = 0;
    let mut bundler = Bundler::default();
    let mut bundles = 0;
    let mut placed: HashMap<Id, Unsettled> = HashMap::new();
    let mut assembled = Assembled::default();
    let mut send = |full: Vec<Vec<u8>>| {
        full.into_iter().try_for_each(|bytes| {
            bundles += 1;
            bundles_to.send((bundles - 1, bytes)).ok()
        })
    };
    for (number, batch) in ready {
        if failure.has() {
            return None;
        }
        early.insert(number, batch);
        while let Some(batch) = early.remove(&next) {
            next += 1;
            for one in batch {
                let (entry, full) = assembled.put(one, &mut bundler, &mut placed);
                send(full)?;
                let len = match entry {
                    Unsettled::Entry(entry) => entry.len(),
                    Unsettled::New { len, .. } => u64::from(len),
                };
                (packing.done)(len);
                assembled.entries.push(entry);
            }
        }
    }
    send(bundler.close().into_iter().collect())?;
    Some(assembled)
}

impl Assembled {
    fn put(
        &mut self,
        ready: Ready,
        bundler: &mut Bundler,
        placed: &mut HashMap<Id, Unsettled>,
    ) -> (Unsettled, Vec<Vec<u8>>) {
        match ready {
            Ready::Hole(len) => (Unsettled::Entry(Entry::Hole(len)), Vec::new()),
            Ready::Known(locator) => {
                self.known_chunks += 1;
                (Unsettled::Entry(Entry::Chunk(locator)), Vec::new())
            }
            Ready::New { id, .. } if placed.contains_key(&id) => {
                self.known_chunks += 1;
                (placed[&id], Vec::new())
            }
            Ready::New { id, len, stored } => {
                let (place, full) = bundler.add(&id, &stored);
                *self.new_chunks.entry(place.bundle).or_default() += 1;
                let short = |len: usize| u32::try_from(len).expect("a chunk is shorter than 4 GiB");
                let new = Unsettled::New {
                    id,
                    len: short(len),
                    stored: short(stored.len()),
                    place,
                };
                placed.insert(id, new);
                (new, full)
            }
        }
    }

    fn settle(self, sent: &BTreeMap<usize, Sent>) -> Packed {
        let settle = |one| match one {
            Unsettled::Entry(entry) => Some(entry),
            Unsettled::New {
                id,
                len,
                stored,
                place,
            } => Some(Entry::Chunk(Locator {
                blob: sent.get(&place.bundle)?.digest,
                offset: place.offset,
                stored,
                len,
                id,
            })),
        };
        let is_new = |bundle: &usize| sent.get(bundle).is_some_and(|bundle| bundle.is_new);
        let all_new: u64 = self.new_chunks.values().sum();
        let new = self.new_chunks.iter().filter(|(bundle, _)| is_new(bundle));
        let new_chunks: u64 = new.map(|(_, count)| count).sum();
        // A bundle without a digest was not sent; then there is a failure, and nobody looks at this.
        Packed {
            entries: self.entries.into_iter().filter_map(settle).collect(),
            bundles: sent.values().map(|bundle| (bundle.digest, bundle.len)).collect(),
            new_chunks,
            known_chunks: self.known_chunks + all_new - new_chunks,
        }
    }
}
