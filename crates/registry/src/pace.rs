//! Bodies that come too slowly to be of use to anybody.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// So many bytes come in each stretch of time, at least.
const LEAST: u64 = 64 << 10;

/// A body that fails once fewer bytes than [`LEAST`] came in a stretch of time, however short its pauses are.
pub(crate) struct Paced<R> {
    inner: R,
    stretch: Duration,
    began: Instant,
    /// In this stretch.
    bytes: u64,
}

impl<R> Paced<R> {
    pub(crate) fn new(inner: R, stretch: Duration) -> Paced<R> {
        Paced {
            inner,
            stretch,
            began: Instant::now(),
            bytes: 0,
        }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        if len > 0 && self.began.elapsed() >= self.stretch {
            if self.bytes < LEAST {
                let problem = format!("only {} bytes came in {} s", self.bytes, self.stretch.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
            (self.began, self.bytes) = (Instant::now(), 0);
        }
        Ok(len)
    }
}
