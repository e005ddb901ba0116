//! One blob, read from its beginning to its end: its digest, and the chunks in it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;

use firebrick_digest::{Digest, Hasher};

use super::{Check, Fault, Target, words};
use crate::error::StoreError;
use crate::id::Id;
use crate::image::Image;
use crate::manifest::Config;
use crate::seal::{Opener, Seal};
use crate::store::Progress;
use crate::table::{Locator, Root};

/// Bytes that are read at a time.
const RANGE_LEN: u64 = 4 << 20;

/// A chunk that a table promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: Locator,
    /// Whether it is sealed with the key.
    pub(super) sealed: bool,
}

/// What tables promise of each blob. A table's root is a chunk, too: all of its blob.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    blobs: HashMap<Digest, Vec<Piece>>,
    segments: HashMap<Id, Vec<Locator>>,
}

impl Pieces {
    pub(super) fn add_root(&mut self, image: &Image, config: &Config, root: &Root) {
        let lens = image.manifest.layers.first().and_then(|blob| {
            let len = u32::try_from(config.table_len).ok()?;
            Some((blob.digest, u32::try_from(blob.size).ok()?, len))
        });
        let own = lens.map(|(blob, stored, len)| Locator {
            blob,
            offset: 0,
            stored,
            len,
            id: config.table_id,
        });
        let segments: Vec<Locator> = root.segments.iter().map(|segment| segment.at).collect();
        for at in &segments {
            let copies = self.segments.entry(at.id).or_default();
            if !copies.contains(at) {
                copies.push(*at);
            }
        }
        self.add(image, own.into_iter().chain(segments));
    }

    pub(super) fn add(&mut self, image: &Image, locators: impl Iterator<Item = Locator>) {
        let sealed = image.config.key.is_some();
        for at in locators {
            self.blobs.entry(at.blob).or_default().push(Piece { at, sealed });
        }
    }

    /// Brings the pieces of each blob into the order in which they lie.
    pub(super) fn settle(&mut self) {
        for pieces in self.blobs.values_mut() {
            pieces.sort_by_key(|piece| (piece.at.offset, piece.at.stored, piece.at.id));
            pieces.dedup();
        }
    }

    /// Where a segment lies.
    pub(super) fn copies(&self, id: &Id) -> impl Iterator<Item = Locator> {
        self.segments.get(id).into_iter().flatten().copied()
    }

    pub(super) fn of(&self, blob: &Digest) -> &[Piece] {
        self.blobs.get(blob).map_or(&[], Vec::as_slice)
    }

    /// Where some chunks lie, in all blobs.
    pub(super) fn find(&self, wanted: &HashSet<Id>) -> BTreeMap<Id, Vec<Piece>> {
        let mut found: BTreeMap<Id, Vec<Piece>> = BTreeMap::new();
        for piece in self.blobs.values().flatten() {
            if wanted.contains(&piece.at.id) {
                found.entry(piece.at.id).or_default().push(*piece);
            }
        }
        found
    }
}

/// Opens chunks of either kind.
pub(super) struct Openers<'a> {
    plain: Opener<'a>,
    sealed: Opener<'a>,
}

impl<'a> Openers<'a> {
    pub(super) fn new(keys: &'a Seal) -> Result<Openers<'a>, StoreError> {
        const PLAIN: &Seal = &Seal::PLAIN;
        Ok(Openers {
            plain: Opener::new(PLAIN)?,
            sealed: Opener::new(keys)?,
        })
    }

    /// The bytes of a chunk, if these stored bytes are it.
    pub(super) fn open(&mut self, piece: &Piece, stored: &[u8]) -> Option<&[u8]> {
        let len = usize::try_from(piece.at.len).ok()?;
        let opener = if piece.sealed {
            &mut self.sealed
        } else {
            &mut self.plain
        };
        opener.open(&piece.at.id, stored, len).ok()
    }
}

/// The part of a blob that is held while chunks in it are opened.
struct Window<'a> {
    held: Vec<u8>,
    from: u64,
    /// Pieces that were not opened yet, in the order in which they lie.
    left: &'a [Piece],
    bad: Vec<Piece>,
    opened: u64,
}

impl Window<'_> {
    /// Adds the next bytes, opens the pieces that are whole now, and lets go of what no later piece needs.
    fn add(&mut self, bytes: &[u8], openers: &mut Openers<'_>) {
        self.held.extend_from_slice(bytes);
        let end = self.from + self.held.len() as u64;
        while let Some((piece, rest)) = self.left.split_first() {
            let start = u64::from(piece.at.offset);
            let stop = start + u64::from(piece.at.stored);
            if stop > end {
                break;
            }
            let stored = slice(&self.held, start - self.from, stop - self.from);
            match openers.open(piece, stored) {
                Some(_) => self.opened += 1,
                None => self.bad.push(*piece),
            }
            self.left = rest;
        }
        let next = self.left.first().map_or(end, |piece| u64::from(piece.at.offset));
        let keep = next.clamp(self.from, end);
        let gone = usize::try_from(keep - self.from).unwrap_or(usize::MAX);
        self.held.drain(..gone.min(self.held.len()));
        self.from = keep;
    }

    /// What is not right, and what did not come.
    fn finish(mut self) -> Vec<Piece> {
        self.bad.extend_from_slice(self.left);
        self.bad
    }
}

impl Check<'_> {
    /// Reads a blob, notes what is wrong with it, and says whether it came.
    pub(super) fn read_blob(&self, target: &Target, pieces: &Pieces, of: u64) -> Result<bool, StoreError> {
        let pieces = pieces.of(&target.digest);
        let noted = self
            .found()
            .get(&target.digest)
            .map(|finding| finding.fault.clone());
        match noted {
            None => {}
            Some(Fault::Missing) => {
                self.found().remove(&target.digest);
                self.note_chunks(target.digest, Fault::Missing, pieces);
                return Ok(false);
            }
            Some(_) => return Ok(false),
        }
        let mut openers = Openers::new(self.options.keys)?;
        let mut hasher = Hasher::new();
        let mut window = Window {
            held: Vec::new(),
            from: 0,
            left: pieces,
            bad: Vec::new(),
            opened: 0,
        };
        let mut position = 0;
        while position < target.size {
            self.check_stop()?;
            let end = position.saturating_add(RANGE_LEN).min(target.size);
            let bytes = match self
                .store
                .backend()
                .read_blob(&target.name, &target.digest, position..end)
            {
                Ok(bytes) => bytes,
                Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                Err(error) => {
                    self.note_chunks(target.digest, Fault::Unreadable(words(&error)), &window.finish());
                    return Ok(false);
                }
            };
            hasher.update(&bytes);
            window.add(&bytes, &mut openers);
            self.tell(end - position, of);
            position = end;
        }
        self.chunks.fetch_add(window.opened, Ordering::Relaxed);
        let bad = window.finish();
        match hasher.finish() {
            found if found != target.digest => {
                self.note_chunks(target.digest, Fault::Damaged { found }, &bad)
            }
            _ if !bad.is_empty() => self.note_chunks(target.digest, Fault::Chunks, &bad),
            _ => {}
        }
        Ok(true)
    }

    fn tell(&self, len: u64, of: u64) {
        let done = self.done.fetch_add(len, Ordering::Relaxed) + len;
        (self.store.progress)(Progress::Check { done, of });
    }
}

/// A part of what is held; nothing where that is not held.
fn slice(held: &[u8], start: u64, end: u64) -> &[u8] {
    let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
    held.get(at(start)..at(end)).unwrap_or(&[])
}
