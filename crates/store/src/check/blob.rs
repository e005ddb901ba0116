//! One blob, read from its beginning to its end: its digest, and the chunks in it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;

use firebrick_digest::{Digest, Hasher};

use super::{Check, Fault, Target, words};
use crate::error::StoreError;
use crate::image::Image;
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
    segments: HashMap<Digest, Vec<Locator>>,
}

impl Pieces {
    pub(super) fn add_root(&mut self, image: &Image, root: &Root) {
        let config = &image.config;
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
    pub(super) fn copies(&self, id: &Digest) -> impl Iterator<Item = Locator> {
        self.segments.get(id).into_iter().flatten().copied()
    }

    pub(super) fn of(&self, blob: &Digest) -> &[Piece] {
        self.blobs.get(blob).map_or(&[], Vec::as_slice)
    }

    /// Where some chunks lie, in all blobs.
    pub(super) fn find(&self, wanted: &HashSet<Digest>) -> BTreeMap<Digest, Vec<Piece>> {
        let mut found: BTreeMap<Digest, Vec<Piece>> = BTreeMap::new();
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

impl Check<'_> {
    /// Reads a blob, notes what is wrong with it, and says whether it came.
    pub(super) fn read_blob(
        &self,
        target: &Target,
        pieces: &super::Pieces,
        of: u64,
    ) -> Result<bool, StoreError> {
        let pieces = pieces.of(&target.digest);
        // What is noted already is missing or has another length.
        if self.has(&target.digest) {
            let missing = self
                .found()
                .get(&target.digest)
                .is_some_and(|found| found.fault == Fault::Missing);
            if missing {
                self.found().remove(&target.digest);
                self.note_chunks(target.digest, Fault::Missing, pieces);
            }
            return Ok(false);
        }
        let mut openers = Openers::new(self.options.keys)?;
        let mut hasher = Hasher::new();
        let mut bad = Vec::new();
        let mut left = pieces;
        let (mut held, mut held_from) = (Vec::new(), 0_u64);
        let mut position = 0;
        while position < target.size {
            self.check_stop()?;
            let end = position.saturating_add(RANGE_LEN).min(target.size);
            match self
                .store
                .backend()
                .read_blob(&target.name, &target.digest, position..end)
            {
                Ok(bytes) => {
                    hasher.update(&bytes);
                    held.extend_from_slice(&bytes);
                }
                Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                Err(error) => {
                    bad.extend_from_slice(left);
                    self.note_chunks(target.digest, Fault::Unreadable(words(&error)), &bad);
                    return Ok(false);
                }
            }
            self.tell(end - position, of);
            position = end;
            while let Some((piece, rest)) = left.split_first() {
                let start = u64::from(piece.at.offset);
                let stop = start + u64::from(piece.at.stored);
                if stop > position {
                    break;
                }
                let stored = slice(&held, start - held_from, stop - held_from);
                match openers.open(piece, stored) {
                    Some(_) => self.chunks.fetch_add(1, Ordering::Relaxed),
                    None => {
                        bad.push(*piece);
                        0
                    }
                };
                left = rest;
            }
            // What no later piece needs goes.
            let keep = left.first().map_or(position, |piece| {
                u64::from(piece.at.offset).clamp(held_from, position)
            });
            let gone = usize::try_from(keep - held_from)
                .unwrap_or(usize::MAX)
                .min(held.len());
            held.drain(..gone);
            held_from = keep;
        }
        bad.extend_from_slice(left);
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
