//! What is fetched before anybody waits for it: what follows a sequential read, what somebody announced, what an earlier boot used.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::id::Id;

use crate::lazy::chunks::Wanted;

/// Sequential reads at a time that are told from each other.
const STREAMS_MAX: usize = 8;
/// Bytes that a sequential read may jump, since its parts come in any order.
const JUMP_MAX: u64 = 256 << 10;
/// The first window, in bytes.
const WINDOW_MIN: u64 = 128 << 10;
/// Ranges that wait; older ones are given up, for who read there is gone by then.
const RANGES_MAX: usize = 64;
/// Bytes of the image that one thread fetches at a time.
const PIECE_LEN: u64 = 1 << 20;
/// The same for chunks of an earlier boot: the more at once, the more of them lie beside each other.
const BATCH_LEN: u64 = 4 << 20;

/// One sequential read.
#[derive(Debug)]
struct Stream {
    /// Where its next part should begin.
    next: u64,
    /// How far ahead it is fetched.
    window: u64,
    /// Up to where that was done.
    ahead: u64,
}

/// Sequential reads, the one that was seen last at the end.
#[derive(Debug, Default)]
pub(super) struct Streams(VecDeque<Stream>);

impl Streams {
    /// What should be fetched ahead now that `range` is read. A read that follows no other begins with nothing.
    pub(super) fn read(&mut self, range: &Range<u64>, window_max: u64) -> Option<Range<u64>> {
        let follows = |stream: &Stream| range.start.abs_diff(stream.next) <= JUMP_MAX;
        let Some(index) = self.0.iter().rposition(follows) else {
            if self.0.len() >= STREAMS_MAX {
                self.0.pop_front();
            }
            self.0.push_back(Stream {
                next: range.end,
                window: 0,
                ahead: range.end,
            });
            return None;
        };
        let mut stream = self.0.remove(index)?;
        let wanted = stream.advance(range, window_max);
        self.0.push_back(stream);
        wanted
    }
}

impl Stream {
    fn advance(&mut self, range: &Range<u64>, window_max: u64) -> Option<Range<u64>> {
        if range.end <= self.next {
            return None;
        }
        self.next = range.end;
        // While half of the window is there, nothing is done: requests should not be small.
        if self.ahead.saturating_sub(range.end) > self.window / 2 {
            return None;
        }
        self.window = (self.window * 2).max(WINDOW_MIN).min(window_max);
        let wanted = self.ahead.max(range.end)..range.end.saturating_add(self.window);
        self.ahead = wanted.end.max(wanted.start);
        (!wanted.is_empty()).then_some(wanted)
    }
}

/// Something to do for a thread that fetches ahead.
#[derive(Debug)]
pub(super) enum Task {
    /// Fetch the chunks of a range of the image.
    Range(Range<u64>),
    /// Find the chunks with these ids.
    Find(Vec<Id>),
    /// Fetch chunks.
    Chunks(Vec<Wanted>),
}

/// Tasks, ranges first.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    ranges: VecDeque<Range<u64>>,
    find: Option<Vec<Id>>,
    chunks: VecDeque<Wanted>,
    closed: bool,
}

impl Queue {
    /// Tasks for finding and fetching what `trace` names.
    pub(super) fn new(trace: Vec<Id>) -> Queue {
        let waiting = Waiting {
            find: Some(trace).filter(|trace| !trace.is_empty()),
            ..Waiting::default()
        };
        Queue {
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    pub(super) fn add(&self, range: Range<u64>) {
        self.change(|waiting| {
            if waiting.ranges.len() >= RANGES_MAX {
                waiting.ranges.pop_front();
            }
            waiting.ranges.push_back(range);
        });
    }

    pub(super) fn add_chunks(&self, chunks: Vec<Wanted>) {
        self.change(|waiting| waiting.chunks.extend(chunks));
    }

    /// Ends all threads when they ask next.
    pub(super) fn close(&self) {
        self.change(|waiting| waiting.closed = true);
    }

    /// Waits for something to do; nothing at the end.
    pub(super) fn next(&self) -> Option<Task> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(task) = waiting.next() {
                return Some(task);
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Waiting {
    fn next(&mut self) -> Option<Task> {
        if let Some(range) = self.ranges.pop_front() {
            let middle = range.end.min(range.start.saturating_add(PIECE_LEN));
            if middle < range.end {
                self.ranges.push_front(middle..range.end);
            }
            return Some(Task::Range(range.start..middle));
        }
        if let Some(ids) = self.find.take() {
            return Some(Task::Find(ids));
        }
        let mut len = 0;
        let fits = |wanted: &&Wanted| {
            len += u64::from(wanted.locator.len);
            len <= BATCH_LEN
        };
        let count = self.chunks.iter().take_while(fits).count();
        (count > 0).then(|| Task::Chunks(self.chunks.drain(..count).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    #[test]
    fn the_window_grows_while_reads_follow_each_other() {
        let mut streams = Streams::default();
        let mut ahead = 0;
        let mut windows = Vec::new();
        for number in 0..2000 {
            let range = number * 4 * KIB..(number + 1) * 4 * KIB;
            let Some(wanted) = streams.read(&range, 4 << 20) else {
                continue;
            };
            assert!(
                wanted.start == ahead.max(range.end),
                "nothing is left out or asked for twice"
            );
            ahead = wanted.end;
            windows.push((wanted.end - range.end) / KIB);
        }
        assert_eq!(windows[..6], [128, 256, 512, 1024, 2048, 4096]);
        assert!(windows[6..].iter().all(|window| *window == 4096) && windows.len() < 12);
    }

    #[test]
    fn random_reads_fetch_nothing_ahead() {
        let mut streams = Streams::default();
        for number in 0_u64..1000 {
            let start = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 << 12;
            assert_eq!(streams.read(&(start..start + 4096), 4 << 20), None, "{number}");
        }
        assert_eq!(streams.0.len(), STREAMS_MAX);
    }

    #[test]
    fn streams_are_told_apart_and_may_come_in_any_order() {
        let mut streams = Streams::default();
        let far = 1 << 30;
        let mut wanted = 0;
        for number in [1, 0, 3, 2, 5, 4, 7, 6] {
            for base in [0, far] {
                let start = base + number * 128 * KIB;
                let ahead = streams.read(&(start..start + 128 * KIB), 4 << 20);
                wanted += u64::from(ahead.is_some());
            }
        }
        assert!(streams.0.len() == 2 && wanted >= 4, "{wanted}");
        assert_eq!(streams.read(&(0..0), 0), None);
        assert_eq!(Streams::default().read(&(0..4096), 0), None);
    }

    #[test]
    fn no_window_is_no_reading_ahead() {
        let mut streams = Streams::default();
        for number in 0..100 {
            assert_eq!(streams.read(&(number * 4096..(number + 1) * 4096), 0), None);
        }
    }

    #[test]
    fn long_ranges_are_done_in_pieces_and_old_ones_given_up() {
        let queue = Queue::new(vec![Id::of(b"x")]);
        queue.add(0..u64::MAX);
        let next = || match queue.next() {
            Some(Task::Range(range)) => range,
            other => panic!("{other:?}"),
        };
        assert_eq!((next(), next()), (0..PIECE_LEN, PIECE_LEN..2 * PIECE_LEN));
        for number in 0..RANGES_MAX as u64 {
            queue.add(number..number + 1);
        }
        for number in 0..RANGES_MAX as u64 {
            assert_eq!(next(), number..number + 1);
        }
        assert!(matches!(queue.next(), Some(Task::Find(_))));
        queue.close();
        assert!(queue.next().is_none());
    }
}
