//! Which chunks readers used, in the order of first use: what the next boot will want.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::id::Id;

/// Chunks that are remembered, of some 100 bytes each; they are the first, and there are seldom so many.
pub(super) const TRACE_MAX: usize = 1 << 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trace(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    seen: HashSet<Id>,
    order: Vec<Id>,
}

impl Trace {
    pub(super) fn note(&self, id: &Id) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.order.len() < TRACE_MAX && noted.seen.insert(*id) {
            noted.order.push(*id);
        }
    }

    pub(super) fn list(&self) -> Vec<Id> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.order.clone()
    }
}
