//! What went wrong first in any of several threads that work on one thing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::StoreError;

/// The first failure of any thread.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    error: Mutex<Option<StoreError>>,
    failed: AtomicBool,
}

impl Failure {
    pub(crate) fn note(&self, error: StoreError) {
        let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        // That somebody had to stop says less than why.
        if first.is_none() || matches!(*first, Some(StoreError::Stopped)) {
            *first = Some(error);
        }
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Whether there is one, so that the others may end.
    pub(crate) fn has(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Gives it, once all threads have ended.
    pub(crate) fn into_result(self) -> Result<(), StoreError> {
        match self.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
