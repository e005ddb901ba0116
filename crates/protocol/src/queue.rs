//! A byte queue over one allocation: pushed at the end, consumed at the front, always one slice.

use alloc::vec::Vec;

/// Bytes waiting to be read or written.
///
/// Consumed space is reclaimed lazily, so that neither pushing nor consuming moves a byte more than twice.
/// Memory that is no longer needed goes back: of an emptied queue all but 1 KiB, of a long one what was consumed.
#[derive(Debug, Default, Clone)]
pub struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

/// The capacity that an empty queue may keep.
const KEPT_BYTES: usize = 1024;

/// So much consumed space is reclaimed when it is more than what waits.
const RECLAIMED_BYTES: usize = 64 * 1024;

impl Queue {
    /// An empty queue, without memory of its own.
    pub const fn new() -> Queue {
        Queue {
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// The number of bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes waiting, oldest first.
    pub fn front(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Adds `bytes` behind those waiting.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.bytes.len().saturating_add(bytes.len()) > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// As [`Queue::push`], without copying where nothing waits.
    pub fn push_owned(&mut self, bytes: Vec<u8>) {
        if self.is_empty() {
            self.bytes = bytes;
            self.start = 0;
        } else {
            self.push(&bytes);
        }
    }

    /// Drops the `count` oldest bytes, or all when there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count);
        if self.start >= self.bytes.len() {
            self.clear();
        } else if self.start >= RECLAIMED_BYTES && self.start >= self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
            self.bytes.shrink_to_fit();
        }
    }

    /// Drops the newest bytes, so that `len` are left.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start.saturating_add(len));
    }

    /// Moves up to `into.len()` of the oldest bytes out, and says how many.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        let count = self.len().min(into.len());
        into[..count].copy_from_slice(&self.front()[..count]);
        self.consume(count);
        count
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.start = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_across_reclaims() {
        let mut queue = Queue::new();
        let mut expected = 0u8;
        let mut next = 0u8;
        for step in 1..2000usize {
            for _ in 0..step % 7 {
                queue.push(&[next]);
                next = next.wrapping_add(1);
            }
            let mut out = [0; 3];
            let count = queue.take(&mut out);
            for byte in &out[..count] {
                assert_eq!(*byte, expected);
                expected = expected.wrapping_add(1);
            }
        }
        assert!(queue.bytes.capacity() < 64 * 1024);
    }

    #[test]
    fn an_emptied_queue_gives_its_memory_back() {
        let mut queue = Queue::new();
        queue.push(&[7; 100_000]);
        queue.consume(99_999);
        assert_eq!(queue.front(), [7]);
        queue.consume(5);
        assert!(queue.is_empty());
        assert!(queue.bytes.capacity() <= KEPT_BYTES);
        queue.push(&[7; 100_000]);
        queue.consume(100_000);
        assert_eq!(queue.bytes.capacity(), 0);
    }
}
