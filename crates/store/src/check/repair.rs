//! Making blobs again: the same bytes, or nothing.
//!
//! A bundle is its chunks' stored bytes, one behind the other. What can still be read of it is taken, and each chunk in it that is not
//! right is put in its place again: as it is stored elsewhere, or closed anew from an image file of this host, which gives the
//! same bytes as long as it is the same zstd. The digest says whether all of it is right.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use firebrick_digest::Digest;

use super::blob::{Openers, Piece};
use super::{Check, Fault, Pieces, Target, read};
use crate::cache::TableCache;
use crate::error::StoreError;
use crate::id::Id;
use crate::seal::{Closer, Seal};
use crate::table::BUNDLE_MAX;

/// Bytes of a damaged blob that are read at a time: what lies on a bad sector is lost alone.
const RANGE_LEN: usize = 64 << 10;

/// Chunks in image files of this host.
type Here<'a> = HashMap<Id, Vec<(&'a File, u64, u32)>>;

impl Check<'_> {
    /// Makes again what can be. A blob that is mended may give chunks to others, so it is tried until nothing changes.
    pub(super) fn repair(&self, pieces: &Pieces, targets: &[Target]) -> Result<(), StoreError> {
        let mut here: Here<'_> = HashMap::new();
        for image in self.options.local {
            for chunk in &image.chunks {
                here.entry(chunk.id)
                    .or_default()
                    .push((&image.file, chunk.offset, chunk.len));
            }
        }
        loop {
            let bad: Vec<&Target> = targets
                .iter()
                .filter(|target| self.is_open(&target.digest))
                .collect();
            let wanted: HashSet<Id> = bad
                .iter()
                .flat_map(|target| pieces.of(&target.digest))
                .map(|piece| piece.at.id)
                .collect();
            let copies = pieces.find(&wanted);
            let mut mended = false;
            for target in bad {
                self.check_stop()?;
                mended |= self.mend(target, pieces, &copies, &here)?;
            }
            if !mended {
                return Ok(());
            }
        }
    }

    /// Whether a blob is damaged or missing still.
    fn is_open(&self, blob: &Digest) -> bool {
        let found = self.found();
        let fault = found
            .get(blob)
            .filter(|finding| !finding.repaired)
            .map(|finding| &finding.fault);
        matches!(
            fault,
            Some(Fault::Missing | Fault::Length { .. } | Fault::Damaged { .. } | Fault::Unreadable(_))
        )
    }

    fn mend(
        &self,
        target: &Target,
        pieces: &Pieces,
        copies: &BTreeMap<Id, Vec<Piece>>,
        here: &Here<'_>,
    ) -> Result<bool, StoreError> {
        let Some(bytes) = self.make(target, pieces.of(&target.digest), copies, here)? else {
            return Ok(false);
        };
        // A store that does not take it leaves it as it was; that is no reason to leave the rest.
        let backend = self.store.backend();
        let written = backend.write_blob(&target.name, &target.digest, bytes);
        let there = written.and_then(|()| backend.blob_size(&target.name, &target.digest));
        let done = matches!(there, Ok(Some(size)) if size == target.size);
        if done {
            self.repaired(&target.digest);
        }
        Ok(done)
    }

    /// The bytes of a blob, if they can be had.
    fn make(
        &self,
        target: &Target,
        pieces: &[Piece],
        copies: &BTreeMap<Id, Vec<Piece>>,
        here: &Here<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if target.size > BUNDLE_MAX {
            return Ok(None);
        }
        let cache: Option<&TableCache> = self.store.source().cache;
        if let Some(bytes) = cache.and_then(|cache| cache.get(&target.digest.hex(), target.size))
            && Digest::of(&bytes) == target.digest
        {
            return Ok(Some(bytes));
        }
        let Ok(size) = usize::try_from(target.size) else {
            return Ok(None);
        };
        let mut bytes = vec![0; size];
        let mut start = 0;
        for part in bytes.chunks_mut(RANGE_LEN) {
            let range = start..start + part.len() as u64;
            start = range.end;
            if let Ok(found) = self
                .store
                .backend()
                .read_blob(&target.name, &target.digest, range)
            {
                part.copy_from_slice(&found);
            }
        }
        let mut openers = Openers::new(self.options.keys)?;
        for piece in pieces {
            let start = usize::try_from(piece.at.offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(piece.at.stored).unwrap_or(usize::MAX));
            let Some(place) = bytes.get_mut(start..end) else {
                return Ok(None);
            };
            if openers.open(piece, place).is_some() {
                continue;
            }
            match self.stored(piece, target, copies, here, &mut openers)? {
                Some(stored) => place.copy_from_slice(&stored),
                None => return Ok(None),
            }
        }
        Ok((Digest::of(&bytes) == target.digest).then_some(bytes))
    }

    /// A chunk as it is stored, from wherever it can be had.
    fn stored(
        &self,
        piece: &Piece,
        target: &Target,
        copies: &BTreeMap<Id, Vec<Piece>>,
        here: &Here<'_>,
        openers: &mut Openers<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        const PLAIN: &Seal = &Seal::PLAIN;
        let seal = if piece.sealed { self.options.keys } else { PLAIN };
        let close = |bytes: &[u8]| -> Result<Option<Vec<u8>>, StoreError> {
            let stored = Closer::new(seal)?.close(&piece.at.id, bytes)?;
            Ok((stored.len() as u64 == u64::from(piece.at.stored)).then_some(stored))
        };
        let len = usize::try_from(piece.at.len).unwrap_or(usize::MAX);
        let others = copies.get(&piece.at.id).into_iter().flatten();
        for other in others.filter(|other| other.at != piece.at && other.at.len == piece.at.len) {
            let Ok(stored) = read(self.store.backend(), &target.name, &other.at) else {
                continue;
            };
            let Some(bytes) = openers.open(other, &stored) else {
                continue;
            };
            if stored.len() as u64 == u64::from(piece.at.stored) {
                return Ok(Some(stored));
            }
            if let Some(stored) = close(bytes)? {
                return Ok(Some(stored));
            }
        }
        for (file, offset, _) in here
            .get(&piece.at.id)
            .into_iter()
            .flatten()
            .filter(|(_, _, have)| *have == piece.at.len)
        {
            let mut bytes = vec![0; len];
            if file.read_exact_at(&mut bytes, *offset).is_ok()
                && seal.id(&bytes) == piece.at.id
                && let Some(stored) = close(&bytes)?
            {
                return Ok(Some(stored));
            }
        }
        // Tables are kept on this host.
        let kept = self
            .store
            .source()
            .cache
            .and_then(|cache| cache.get(&piece.at.id.hex(), u64::from(piece.at.len)));
        match kept.filter(|bytes| bytes.len() == len && seal.id(bytes) == piece.at.id) {
            Some(bytes) => close(&bytes),
            None => Ok(None),
        }
    }
}
