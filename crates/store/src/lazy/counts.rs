//! What was read of an image, and what that cost.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was read of an image since it was opened, and where it came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LazyCounts {
    /// Bytes of the image that readers got, holes among them.
    pub read_bytes: u64,
    /// Requests that the store answered for chunks and tables, without the three of opening.
    pub requests: u64,
    /// Bytes that these brought: compressed, with what lay between.
    pub fetched_bytes: u64,
    /// Chunks that were in the cache file.
    pub cache_chunks: u64,
    /// Chunks that other images of this host had.
    pub donor_chunks: u64,
    /// Chunks that came from the store.
    pub store_chunks: u64,
    /// Bytes of the image in those that came from the store.
    pub fetched_data_bytes: u64,
    /// Bytes of the image that are no hole, as its publisher says.
    pub data_bytes: u64,
}

impl LazyCounts {
    /// How much of the image's data came from the store, from 0 to 1.
    pub fn fetched_share(&self) -> f64 {
        if self.data_bytes == 0 {
            return 0.0;
        }
        (self.fetched_data_bytes as f64 / self.data_bytes as f64).min(1.0)
    }
}

/// [`LazyCounts`] that go on.
#[derive(Debug, Default)]
pub(super) struct Counters {
    read_bytes: AtomicU64,
    requests: AtomicU64,
    fetched_bytes: AtomicU64,
    cache_chunks: AtomicU64,
    donor_chunks: AtomicU64,
    store_chunks: AtomicU64,
    fetched_data_bytes: AtomicU64,
}

/// Where a chunk was found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    Cache,
    Donor,
    Store,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn read(&self, len: u64) {
        add(&self.read_bytes, len);
    }

    pub(super) fn request(&self, len: u64) {
        add(&self.requests, 1);
        add(&self.fetched_bytes, len);
    }

    pub(super) fn chunk(&self, found: Found, len: u32) {
        match found {
            Found::Cache => add(&self.cache_chunks, 1),
            Found::Donor => add(&self.donor_chunks, 1),
            Found::Store => {
                add(&self.store_chunks, 1);
                add(&self.fetched_data_bytes, u64::from(len));
            }
        }
    }

    pub(super) fn now(&self, data_bytes: u64) -> LazyCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LazyCounts {
            read_bytes: get(&self.read_bytes),
            requests: get(&self.requests),
            fetched_bytes: get(&self.fetched_bytes),
            cache_chunks: get(&self.cache_chunks),
            donor_chunks: get(&self.donor_chunks),
            store_chunks: get(&self.store_chunks),
            fetched_data_bytes: get(&self.fetched_data_bytes),
            data_bytes,
        }
    }
}
