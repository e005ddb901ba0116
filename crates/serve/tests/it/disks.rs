//! Disks that fail, wait, and know what was asked of them.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use firebrick_serve::{Content, Disk, Extent};

/// How large the stripes are; every third one is a hole.
pub(crate) const STRIPE: u64 = 64 << 10;

/// A disk whose bytes follow from their place.
pub(crate) struct TestDisk {
    pub(crate) size_bytes: u64,
    /// Reads of any of these fail.
    pub(crate) lost: Range<u64>,
    /// Reads that begin here wait for the gate.
    pub(crate) held: Range<u64>,
    gate: Gate,
    /// Reads that have begun.
    pub(crate) reads: AtomicUsize,
    /// Reads that are going on, and the most that were at a time.
    reading: AtomicUsize,
    pub(crate) most_reading: AtomicUsize,
    pub(crate) prefetched: Mutex<Vec<Range<u64>>>,
}

#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    changed: Condvar,
    wants_panic: AtomicBool,
}

impl TestDisk {
    pub(crate) fn new(size_bytes: u64) -> TestDisk {
        TestDisk {
            size_bytes,
            lost: 0..0,
            held: 0..0,
            gate: Gate::default(),
            reads: AtomicUsize::new(0),
            reading: AtomicUsize::new(0),
            most_reading: AtomicUsize::new(0),
            prefetched: Mutex::default(),
        }
    }

    /// Lets go whoever waits, from now on.
    pub(crate) fn open(&self) {
        *self.gate.is_open.lock().unwrap() = true;
        self.gate.changed.notify_all();
    }

    /// Makes every read from now on a panic.
    pub(crate) fn break_down(&self) {
        self.gate.wants_panic.store(true, Ordering::SeqCst);
    }

    /// Waits until so many reads have begun.
    pub(crate) fn wait_for_reads(&self, count: usize) {
        crate::harness::until("reads begin", || self.reads.load(Ordering::SeqCst) >= count);
    }

    /// The bytes that are at this place.
    pub(crate) fn bytes(offset: u64, len: u64) -> Vec<u8> {
        (offset..offset + len).map(byte_at).collect()
    }
}

fn is_hole(at: u64) -> bool {
    (at / STRIPE) % 3 == 2
}

fn byte_at(at: u64) -> u8 {
    // Not 0 in data, so that a hole in the wrong place is seen.
    if is_hole(at) {
        0
    } else {
        (at.wrapping_mul(0x9e37_79b9) >> 13) as u8 | 1
    }
}

impl Disk for TestDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        assert!(!buffer.is_empty() && end <= self.size_bytes);
        self.reads.fetch_add(1, Ordering::SeqCst);
        assert!(
            !self.gate.wants_panic.load(Ordering::SeqCst),
            "the disk broke down, as it was told"
        );
        let now = self.reading.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_reading.fetch_max(now, Ordering::SeqCst);
        if self.held.contains(&offset) {
            let is_open = self.gate.is_open.lock().unwrap();
            drop(
                self.gate
                    .changed
                    .wait_while(is_open, |is_open| !*is_open)
                    .unwrap(),
            );
        }
        self.reading.fetch_sub(1, Ordering::SeqCst);
        if offset < self.lost.end && end > self.lost.start {
            return Err(io::Error::other("a chunk is lost"));
        }
        for (byte, at) in buffer.iter_mut().zip(offset..) {
            *byte = byte_at(at);
        }
        Ok(())
    }

    fn extent(&self, range: Range<u64>) -> io::Result<Extent> {
        assert!(!range.is_empty() && range.end <= self.size_bytes);
        let content = if is_hole(range.start) {
            Content::Hole
        } else {
            Content::Data
        };
        let end = (range.start / STRIPE + 1) * STRIPE;
        Ok(Extent { content, end })
    }

    fn prefetch(&self, range: Range<u64>) {
        assert!(!range.is_empty() && range.end <= self.size_bytes);
        self.prefetched.lock().unwrap().push(range);
    }
}
