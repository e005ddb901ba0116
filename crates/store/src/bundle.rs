//! Bundles: blobs of chunks beside each other, as long as stores like them.
//!
//! A bundle ends behind a chunk whose id says so, so that two uploads of the same new bytes make the same blobs.

use crate::id::Id;
use crate::table::chance;

/// Bytes of a bundle: no shorter but the last, on the average a little longer, no longer.
const LEN_MIN: usize = 4 << 20;
const ONE_IN: u32 = 128;
const LEN_MAX: usize = 16 << 20;

/// Where a chunk lies among bundles that have no digest yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which bundle, from 0.
    pub(crate) bundle: usize,
    /// First byte in it.
    pub(crate) offset: u32,
}

/// Puts chunks into bundles.
#[derive(Debug, Default)]
pub(crate) struct Bundler {
    bytes: Vec<u8>,
    closed: usize,
}

impl Bundler {
    /// Adds a chunk's stored bytes, and gives the bundle before it or that it ends, if that is full now.
    pub(crate) fn add(&mut self, id: &Id, stored: &[u8]) -> (Place, Vec<Vec<u8>>) {
        let mut full = Vec::new();
        if self.bytes.len() + stored.len() > LEN_MAX {
            full.extend(self.close());
        }
        let place = Place {
            bundle: self.closed,
            offset: u32::try_from(self.bytes.len()).expect("a bundle is shorter than 4 GiB"),
        };
        self.bytes.extend_from_slice(stored);
        if self.bytes.len() >= LEN_MIN && chance(id) < u32::MAX / ONE_IN {
            full.extend(self.close());
        }
        (place, full)
    }

    /// Ends the bundle, if there is anything in it.
    pub(crate) fn close(&mut self) -> Option<Vec<u8>> {
        if self.bytes.is_empty() {
            return None;
        }
        self.closed += 1;
        Some(std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebrick_digest::Digest;

    fn bundles(chunks: std::ops::Range<u32>) -> Vec<Vec<u8>> {
        let mut bundler = Bundler::default();
        let mut all = Vec::new();
        for number in chunks {
            let stored = Digest::of(&number.to_le_bytes()).as_bytes().repeat(500);
            let (place, full) = bundler.add(&Id::of(&stored), &stored);
            assert!(place.bundle <= all.len() + full.len());
            all.extend(full);
        }
        all.extend(bundler.close());
        all
    }

    #[test]
    fn equal_chunks_come_into_equal_bundles() {
        let all = bundles(0..8000);
        assert!(all.len() > 10 && all.iter().all(|bundle| bundle.len() <= LEN_MAX));
        assert_eq!(all.concat().len(), 8000 * 32 * 500);
        // The ends meet after a few bundles, and never part again.
        let later = bundles(30..8000);
        assert!(later.ends_with(&all[all.len() / 2..]));
    }
}
