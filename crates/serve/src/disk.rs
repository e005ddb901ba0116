//! What is served: a [`Disk`], and the [`Extent`]s of it that hold something.

use std::io;
use std::ops::Range;

/// A disk that never changes.
///
/// All methods are called by many threads at once, and may block for as long as the bytes need to come: whoever else asks is not
/// kept waiting by it. They are called with ranges that lie inside the disk, and are not empty.
pub trait Disk: Send + Sync {
    /// How large it is, in bytes; the same at each call.
    fn size_bytes(&self) -> u64;

    /// Fills `buffer` with the bytes that begin at byte `offset`; a hole's are zeros.
    ///
    /// # Errors
    /// Where not all of them can be had. The client that asked is told that this read failed, and may ask again.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The extent that `range` begins in. Two that lie beside each other may hold the same.
    ///
    /// It must not end before `range` begins; it may end behind `range`.
    ///
    /// # Errors
    /// Where that cannot be told.
    fn extent(&self, range: Range<u64>) -> io::Result<Extent>;

    /// Hears that somebody will soon read these bytes. It may return before they are there, or do nothing.
    fn prefetch(&self, range: Range<u64>);
}

/// Bytes beside each other that are all of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// What they are.
    pub content: Content,
    /// The first byte behind them, counted from the disk's beginning.
    pub end: u64,
}

/// What an extent holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes that have to be read to be known.
    Data,
    /// Zeros that are kept nowhere.
    Hole,
}

/// Calls `each` with the parts of `range` that differ from what is beside them, in order, until it answers `false`.
///
/// # Errors
/// What the disk says, and [`io::ErrorKind::InvalidData`] if it gives an extent that is behind where it was asked.
pub(crate) fn runs(
    disk: &dyn Disk,
    range: Range<u64>,
    mut each: impl FnMut(Content, Range<u64>) -> bool,
) -> io::Result<()> {
    let mut at = range.start;
    let mut run: Option<(Content, u64)> = None;
    while at < range.end {
        let extent = disk.extent(at..range.end)?;
        if extent.end <= at {
            let text = format!("an extent at byte {at} of the disk ends at byte {}", extent.end);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        match run {
            Some((content, _)) if content == extent.content => {}
            Some((content, start)) => {
                if !each(content, start..at) {
                    return Ok(());
                }
                run = Some((extent.content, at));
            }
            None => run = Some((extent.content, at)),
        }
        at = extent.end.min(range.end);
    }
    if let Some((content, start)) = run {
        each(content, start..at);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Extents in order, each with its end.
    struct Listed(Vec<Extent>);

    impl Disk for Listed {
        fn size_bytes(&self) -> u64 {
            self.0.last().unwrap().end
        }

        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            unreachable!("only extents are asked for")
        }

        fn extent(&self, range: Range<u64>) -> io::Result<Extent> {
            assert!(!range.is_empty());
            let found = self.0.iter().find(|extent| extent.end > range.start);
            Ok(*found.unwrap_or(&self.0[0]))
        }

        fn prefetch(&self, _: Range<u64>) {}
    }

    fn listed(ends: &[(Content, u64)]) -> Listed {
        Listed(
            ends.iter()
                .map(|&(content, end)| Extent { content, end })
                .collect(),
        )
    }

    fn all(disk: &Listed, range: Range<u64>) -> Vec<(Content, Range<u64>)> {
        let mut all = Vec::new();
        runs(disk, range, |content, range| {
            all.push((content, range));
            true
        })
        .unwrap();
        all
    }

    #[test]
    fn what_is_alike_is_joined_and_cut_to_the_range() {
        use Content::{Data, Hole};
        let disk = listed(&[(Data, 10), (Data, 20), (Hole, 30), (Hole, 35), (Data, 100)]);
        assert_eq!(
            all(&disk, 0..100),
            [(Data, 0..20), (Hole, 20..35), (Data, 35..100)]
        );
        assert_eq!(all(&disk, 5..33), [(Data, 5..20), (Hole, 20..33)]);
        assert_eq!(all(&disk, 20..21), [(Hole, 20..21)]);
        assert_eq!(all(&disk, 7..7), []);
    }

    #[test]
    fn it_ends_when_told() {
        let disk = listed(&[(Content::Data, 10), (Content::Hole, 20), (Content::Data, 30)]);
        let mut calls = 0;
        runs(&disk, 0..30, |_, _| {
            calls += 1;
            false
        })
        .unwrap();
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_disk_that_goes_backwards_is_an_error_and_no_endless_loop() {
        let disk = listed(&[(Content::Data, 10)]);
        let error = runs(&disk, 10..20, |_, _| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
