//! Requests that wait for a worker, bounded by their number and by the memory that their answers take.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// One reader puts requests in, several workers take them out.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// The most workers.
    workers_max: usize,
    /// The most bytes that may be in work, if it is more than one request's.
    bytes_max: u64,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<(T, u64)>,
    workers: usize,
    /// Workers that wait for a request.
    idle: usize,
    /// What the requests cost that wait or are in work.
    bytes: u64,
    closed: bool,
}

/// A request in a worker's hands; its cost is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a, T> {
    pub(super) request: T,
    cost: u64,
    queue: &'a Queue<T>,
}

impl<T> Queue<T> {
    pub(super) fn new(workers_max: usize, bytes_max: u64) -> Queue<T> {
        let state = State {
            waiting: VecDeque::new(),
            workers: 0,
            idle: 0,
            bytes: 0,
            closed: false,
        };
        Queue {
            state: Mutex::new(state),
            changed: Condvar::new(),
            workers_max: workers_max.max(1),
            bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request in, once there is room. Whether one more worker should be started, which counts as one from then on.
    pub(super) fn push(&self, request: T, cost: u64) -> bool {
        let mut state = self.lock();
        // As many may wait as are in work; and a request that alone costs more than all may is let in when it is alone.
        while state.waiting.len() >= self.workers_max
            || (state.bytes > 0 && state.bytes.saturating_add(cost) > self.bytes_max)
        {
            state = self.wait(state);
        }
        state.waiting.push_back((request, cost));
        state.bytes = state.bytes.saturating_add(cost);
        let more = state.waiting.len() > state.idle && state.workers < self.workers_max;
        if more {
            state.workers = state.workers.saturating_add(1);
        }
        drop(state);
        self.changed.notify_all();
        more
    }

    /// Takes back that a worker was started. How many there are.
    pub(super) fn not_started(&self) -> usize {
        let mut state = self.lock();
        state.workers = state.workers.saturating_sub(1);
        state.workers
    }

    /// Takes the next request out, once there is one; `None` when there will be none.
    pub(super) fn take(&self) -> Option<Taken<'_, T>> {
        let mut state = self.lock();
        loop {
            if let Some((request, cost)) = state.waiting.pop_front() {
                drop(state);
                // There may be room for another.
                self.changed.notify_all();
                return Some(Taken {
                    request,
                    cost,
                    queue: self,
                });
            }
            if state.closed {
                return None;
            }
            state.idle = state.idle.saturating_add(1);
            state = self.wait(state);
            state.idle = state.idle.saturating_sub(1);
        }
    }

    /// Nothing more will be put in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.bytes = state.bytes.saturating_sub(self.cost);
        drop(state);
        self.queue.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    #[test]
    fn workers_are_wanted_as_long_as_none_is_idle() {
        let queue = Queue::new(2, 100);
        assert!(queue.push(1, 0));
        assert!(queue.push(2, 0));
        assert_eq!(queue.not_started(), 1);
        assert_eq!(queue.take().unwrap().request, 1);
        assert!(queue.push(3, 0));
        assert_eq!(queue.take().unwrap().request, 2);
        assert!(!queue.push(4, 0));
        queue.close();
        assert_eq!(queue.take().unwrap().request, 3);
        assert_eq!(queue.take().unwrap().request, 4);
        assert!(queue.take().is_none());
    }

    /// Whether pushing this waits until a request is out of a worker's hands.
    fn waits(queue: &Queue<u32>, cost: u64) -> bool {
        let pushed = AtomicBool::new(false);
        let taken = queue.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                queue.push(9, cost);
                pushed.store(true, Ordering::SeqCst);
            });
            std::thread::sleep(Duration::from_millis(50));
            let waited = !pushed.load(Ordering::SeqCst);
            drop(taken);
            waited
        })
    }

    #[test]
    fn what_is_in_work_is_bounded_by_its_cost() {
        let queue = Queue::new(8, 100);
        queue.push(1, 60);
        assert!(waits(&queue, 41));
        assert!(!waits(&queue, 40));
        drop(queue.take());
        // More than all alone, but alone.
        assert!(queue.push(2, 1000));
        assert!(waits(&queue, 1));
    }

    #[test]
    fn as_many_wait_as_there_may_be_workers() {
        let queue = Queue::new(1, 100);
        queue.push(1, 0);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| queue.push(2, 0));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!second.is_finished());
            drop(queue.take());
            second.join().unwrap();
        });
    }
}
