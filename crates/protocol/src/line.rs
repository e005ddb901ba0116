//! Cuts a byte stream into lines of bounded length.

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use alloc::vec::Vec;

/// The longest line the agent takes, newline not counted. Larger data goes in pieces (`put`, `stdin`).
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// A line was longer than the splitter's limit. Its bytes were dropped up to its newline; what follows is intact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {limit_bytes} bytes")]
pub struct LineTooLong {
    /// The limit, newline not counted.
    pub limit_bytes: usize,
}

/// Collects bytes and gives back whole lines.
///
/// Invariant: it never holds more than the limit plus what one [`LineSplitter::push`] brought.
#[derive(Debug)]
pub struct LineSplitter {
    bytes: Vec<u8>,
    /// Where the first line not yet given out starts.
    start: usize,
    /// Up to where no newline was found, from `start` on.
    searched: usize,
    limit_bytes: usize,
    /// Dropping the rest of a line that was too long, already reported.
    dropping: bool,
}

impl LineSplitter {
    /// A splitter for lines of at most `limit_bytes` bytes, newline not counted.
    pub const fn new(limit_bytes: usize) -> LineSplitter {
        LineSplitter {
            bytes: Vec::new(),
            start: 0,
            searched: 0,
            limit_bytes,
            dropping: false,
        }
    }

    /// Takes the next bytes of the stream. Call [`LineSplitter::next_line`] until it gives `None` before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched = self.searched.saturating_sub(self.start);
            self.start = 0;
        }
        // No more than is needed: many clients may each have part of a line here.
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line without its newline, an error in the place of a line that was too long, or `None` when
    /// more bytes are needed.
    pub fn next_line(&mut self) -> Option<Result<&[u8], LineTooLong>> {
        loop {
            let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
            let Some(offset) = memchr::memchr(b'\n', unsearched) else {
                self.searched = self.bytes.len();
                return self.wait_for_more();
            };
            let end = self.searched.saturating_add(offset);
            let start = self.start;
            self.start = end.saturating_add(1);
            self.searched = self.start;
            if core::mem::take(&mut self.dropping) {
                continue;
            }
            if end.saturating_sub(start) > self.limit_bytes {
                return Some(Err(LineTooLong {
                    limit_bytes: self.limit_bytes,
                }));
            }
            return Some(Ok(self.bytes.get(start..end).unwrap_or_default()));
        }
    }

    /// Up to `count` of the bytes that come next, whatever they are: what a line has announced behind it.
    pub fn take_bytes(&mut self, count: usize) -> &[u8] {
        let start = self.start;
        self.start = start.saturating_add(count.min(self.pending_bytes()));
        self.searched = self.start;
        self.bytes.get(start..self.start).unwrap_or_default()
    }

    /// How many bytes of an unfinished line are held.
    pub fn pending_bytes(&self) -> usize {
        self.bytes.len().saturating_sub(self.start)
    }

    fn wait_for_more(&mut self) -> Option<Result<&[u8], LineTooLong>> {
        if self.dropping || self.pending_bytes() > self.limit_bytes {
            self.bytes = Vec::new();
            self.start = 0;
            self.searched = 0;
            if !core::mem::replace(&mut self.dropping, true) {
                return Some(Err(LineTooLong {
                    limit_bytes: self.limit_bytes,
                }));
            }
        } else if self.pending_bytes() == 0 {
            // A client that once sent a long line must not hold its memory for ever.
            self.bytes = Vec::new();
            self.start = 0;
            self.searched = 0;
        } else if self.start > 0 {
            self.bytes.drain(..self.start);
            self.bytes.shrink_to_fit();
            self.start = 0;
            self.searched = self.bytes.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;
    use proptest::prelude::*;

    fn split(limit: usize, chunks: &[&[u8]]) -> Vec<Result<String, ()>> {
        let mut splitter = LineSplitter::new(limit);
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk);
            while let Some(line) = splitter.next_line() {
                lines.push(
                    line.map(|line| String::from_utf8_lossy(line).into_owned())
                        .map_err(|_| ()),
                );
            }
            assert!(splitter.bytes.len() <= limit.saturating_add(chunk.len()));
        }
        lines
    }

    #[test]
    fn gives_whole_lines_only() {
        assert_eq!(
            split(9, &[b"ab\ncd", b"ef\n\ngh"]),
            [Ok("ab".into()), Ok("cdef".into()), Ok("".into())]
        );
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes() {
        assert_eq!(
            split(3, &[b"abc\nabcd\nx\n"]),
            [Ok("abc".into()), Err(()), Ok("x".into())]
        );
    }

    #[test]
    fn a_line_too_long_is_reported_once_and_dropped() {
        assert_eq!(
            split(3, &[b"abcd", b"efgh", b"ij\nok\n"]),
            [Err(()), Ok("ok".into())]
        );
    }

    #[test]
    fn bytes_behind_a_line_are_no_lines() {
        let mut splitter = LineSplitter::new(5);
        splitter.push(b"raw 7\n\n\0");
        assert!(matches!(splitter.next_line(), Some(Ok(b"raw 7"))));
        assert_eq!(splitter.take_bytes(7), b"\n\0");
        assert_eq!(splitter.take_bytes(5), b"");
        splitter.push(b"1234\nx\ny");
        assert_eq!(splitter.take_bytes(5), b"1234\n");
        assert!(matches!(splitter.next_line(), Some(Ok(b"x"))));
        assert!(splitter.next_line().is_none());
        assert_eq!(splitter.pending_bytes(), 1);
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(text in "[ab\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..8)) {
            let bytes = text.as_bytes();
            let whole = split(5, &[bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = vec![];
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            let pieces = split(5, &chunks);
            prop_assert_eq!(pieces, whole);
        }
    }
}
