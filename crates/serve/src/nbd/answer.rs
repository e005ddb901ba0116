//! Answers a task from the disk.

use std::io;
use std::ops::Range;

use super::handshake::Terms;
use super::reply::{Piece, Reply, Status, len};
use super::request::Task;
use super::wire::allocation;
use crate::disk::{Content, Disk, runs};

/// Holes shorter than this are sent as zeros: a chunk of their own would hardly be shorter, and be more work for everyone.
const HOLE_BYTES_MIN: u64 = 4096;
/// The most extents in a reply.
const STATUSES_MAX: usize = 4096;

/// What was made of a task.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// How many bytes of it were holes.
    pub(super) hole_bytes: u64,
}

/// Asks the disk.
///
/// # Errors
/// What it says; nothing of the reply is sent then.
pub(super) fn answer(disk: &dyn Disk, cookie: u64, task: &Task, terms: Terms) -> io::Result<Answer> {
    let without_holes = |reply| Ok(Answer { reply, hole_bytes: 0 });
    match task {
        Task::Read { range, .. } if !terms.structured => {
            without_holes(Reply::bytes(cookie, read(disk, range)?))
        }
        Task::Read { range, whole: true } => {
            let bytes = read(disk, range)?;
            without_holes(Reply::pieces(
                cookie,
                vec![Piece::Data {
                    offset: range.start,
                    bytes,
                }],
            ))
        }
        Task::Read { range, whole: false } => read_pieces(disk, cookie, range),
        Task::Status { range, one } => {
            let statuses = statuses(disk, range, if *one { 1 } else { STATUSES_MAX })?;
            without_holes(Reply::statuses(cookie, &statuses))
        }
        Task::Prefetch { range } => {
            disk.prefetch(range.clone());
            without_holes(Reply::done(cookie, terms.structured))
        }
    }
}

fn read(disk: &dyn Disk, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len(range)).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    disk.read_at(range.start, &mut bytes)?;
    Ok(bytes)
}

fn read_pieces(disk: &dyn Disk, cookie: u64, range: &Range<u64>) -> io::Result<Answer> {
    let mut parts: Vec<(Content, Range<u64>)> = Vec::new();
    runs(disk, range.clone(), |content, run| {
        let long = run.end.saturating_sub(run.start) >= HOLE_BYTES_MIN;
        let content = if long { content } else { Content::Data };
        match parts.last_mut() {
            Some((last, before)) if *last == content => before.end = run.end,
            _ => parts.push((content, run)),
        }
        true
    })?;
    let mut hole_bytes: u64 = 0;
    let mut pieces = Vec::with_capacity(parts.len());
    for (content, run) in parts {
        let offset = run.start;
        pieces.push(match content {
            Content::Data => Piece::Data {
                offset,
                bytes: read(disk, &run)?,
            },
            Content::Hole => {
                let len = len(&run);
                hole_bytes = hole_bytes.saturating_add(u64::from(len));
                Piece::Hole { offset, len }
            }
        });
    }
    Ok(Answer {
        reply: Reply::pieces(cookie, pieces),
        hole_bytes,
    })
}

fn statuses(disk: &dyn Disk, range: &Range<u64>, most: usize) -> io::Result<Vec<Status>> {
    let mut statuses = Vec::new();
    runs(disk, range.clone(), |content, run| {
        let flags = match content {
            Content::Data => 0,
            Content::Hole => allocation::HOLE | allocation::ZERO,
        };
        statuses.push(Status {
            len: len(&run),
            flags,
        });
        statuses.len() < most
    })?;
    Ok(statuses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Extent;

    /// Data of ones in every second piece of this many bytes, and holes between.
    struct Striped(u64);

    impl Disk for Striped {
        fn size_bytes(&self) -> u64 {
            1 << 30
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            for (byte, at) in buffer.iter_mut().zip(offset..) {
                *byte = u8::from((at / self.0).is_multiple_of(2));
            }
            Ok(())
        }

        fn extent(&self, range: Range<u64>) -> io::Result<Extent> {
            let index = range.start / self.0;
            let content = if index.is_multiple_of(2) {
                Content::Data
            } else {
                Content::Hole
            };
            Ok(Extent {
                content,
                end: (index + 1) * self.0,
            })
        }

        fn prefetch(&self, _: Range<u64>) {}
    }

    const TERMS: Terms = Terms {
        structured: true,
        allocation: true,
    };

    #[test]
    fn small_holes_are_bytes_and_large_ones_are_not_sent() {
        let task = Task::Read {
            range: 0..16 << 10,
            whole: false,
        };
        let small = answer(&Striped(2048), 1, &task, TERMS).unwrap();
        assert_eq!((small.reply.0.len(), small.hole_bytes), (2, 0));
        assert_eq!(
            small.reply.0[1]
                .iter()
                .map(|&byte| usize::from(byte))
                .sum::<usize>(),
            8 << 10
        );
        let large = answer(&Striped(4096), 1, &task, TERMS).unwrap();
        assert_eq!((large.reply.0.len(), large.hole_bytes), (6, 8 << 10));
        let whole = Task::Read {
            range: 0..16 << 10,
            whole: true,
        };
        let whole = answer(&Striped(4096), 1, &whole, TERMS).unwrap();
        assert_eq!((whole.reply.0.len(), whole.reply.0[1].len()), (2, 16 << 10));
    }

    #[test]
    fn the_number_of_extents_is_bounded() {
        let task = |one| Task::Status {
            range: 0..1 << 30,
            one,
        };
        let many = answer(&Striped(4096), 1, &task(false), TERMS).unwrap();
        assert_eq!(many.reply.0[0].len(), 20 + 4 + 8 * STATUSES_MAX);
        let one = answer(&Striped(4096), 1, &task(true), TERMS).unwrap();
        assert_eq!(one.reply.0[0][24..], *b"\0\0\x10\0\0\0\0\0");
        let inside = Task::Status {
            range: 5000..5010,
            one: false,
        };
        let inside = answer(&Striped(4096), 1, &inside, TERMS).unwrap();
        assert_eq!(inside.reply.0[0][24..], *b"\0\0\0\x0a\0\0\0\x03");
    }
}
