//! Which image is read, and from which store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fetch::Fetching;
use crate::image::{Image, Source};
use crate::lazy::counts::Counters;
use crate::seal::Seal;
use crate::store::Store;

/// An open image, and who counts what is read of it.
pub(super) struct Origin {
    pub(super) store: Arc<Store>,
    pub(super) image: Image,
    pub(super) seal: Seal,
    pub(super) counters: Arc<Counters>,
    /// Requests at a time.
    pub(super) requests: usize,
    came: Box<dyn Fn(u64) + Send + Sync>,
    closing: AtomicBool,
}

impl Origin {
    pub(super) fn new(store: Arc<Store>, image: Image, seal: Seal, requests: usize) -> Origin {
        let counters = Arc::new(Counters::default());
        let count = Arc::clone(&counters);
        Origin {
            store,
            image,
            seal,
            counters,
            requests,
            came: Box::new(move |len| count.request(len)),
            closing: AtomicBool::new(false),
        }
    }

    pub(super) fn source(&self) -> Source<'_> {
        self.store.source()
    }

    pub(super) fn came(&self) -> &(dyn Fn(u64) + Sync) {
        &*self.came
    }

    pub(super) fn fetching(&self) -> Fetching<'_> {
        Fetching {
            backend: self.store.backend(),
            name: &self.image.name,
            seal: &self.seal,
            threads: 1,
            stop: &self.store.stop,
            came: self.came(),
        }
    }

    /// Nobody reads any more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether everything should end.
    pub(super) fn is_stopped(&self) -> bool {
        self.closing.load(Ordering::Relaxed) || self.store.stop.load(Ordering::Relaxed)
    }
}
