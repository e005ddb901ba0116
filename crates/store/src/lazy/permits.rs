//! How many requests go on at a time, and who comes first: readers before those who fetch ahead.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How often who waits looks whether he should still.
const LOOK: Duration = Duration::from_millis(100);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody waits for the bytes.
    Now,
    /// Nobody does yet.
    Ahead,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Permits {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Readers that wait.
    urgent: usize,
}

impl Permits {
    pub(super) fn new(count: usize) -> Permits {
        let state = State {
            free: count.max(1),
            urgent: 0,
        };
        Permits {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Waits for one; nothing if `stopped` first.
    pub(super) fn take(&self, urgency: Urgency, stopped: &dyn Fn() -> bool) -> Option<Permit<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = urgency == Urgency::Now;
        state.urgent += usize::from(now);
        let taken = loop {
            if stopped() {
                break None;
            }
            if state.free > 0 && (now || state.urgent == 0) {
                state.free -= 1;
                break Some(Permit(self));
            }
            let woken = self.changed.wait_timeout(state, LOOK);
            (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        };
        state.urgent -= usize::from(now);
        drop(state);
        // Who fetches ahead may have waited for the last reader to be served.
        self.changed.notify_all();
        taken
    }
}

/// The right to one request at a time, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free += 1;
        drop(state);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;

    fn never() -> bool {
        false
    }

    #[test]
    fn readers_come_first() {
        let permits = Permits::new(1);
        let held = permits.take(Urgency::Ahead, &never).unwrap();
        let (order_to, order) = channel();
        std::thread::scope(|scope| {
            for (urgency, others) in [(Urgency::Ahead, 0), (Urgency::Now, 0), (Urgency::Now, 1)] {
                let (order_to, permits) = (order_to.clone(), &permits);
                scope.spawn(move || {
                    let _permit = permits.take(urgency, &never).unwrap();
                    order_to.send(urgency).unwrap();
                });
                while urgency == Urgency::Now && permits.state.lock().unwrap().urgent <= others {
                    std::thread::yield_now();
                }
            }
            drop(held);
        });
        drop(order_to);
        let order: Vec<Urgency> = order.iter().collect();
        assert_eq!(order, [Urgency::Now, Urgency::Now, Urgency::Ahead]);
        assert_eq!(permits.state.lock().unwrap().free, 1);
    }

    #[test]
    fn who_waits_can_be_stopped() {
        let permits = Permits::new(1);
        let _held = permits.take(Urgency::Now, &never);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                permits
                    .take(Urgency::Now, &|| stop.load(Ordering::Relaxed))
                    .is_none()
            });
            stop.store(true, Ordering::Relaxed);
            assert!(waiter.join().unwrap());
        });
        assert_eq!(permits.state.lock().unwrap().urgent, 0);
    }
}
