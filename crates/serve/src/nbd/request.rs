//! Requests: what a client asks for, and whether it may.

use std::ops::Range;

use super::handshake::Terms;
use super::wire::{Fields, REQUEST_MAGIC, command, command_flag};
use super::{PAYLOAD_BYTES_MAX, Violation};

/// How long a request is, in bytes, without what a write brings.
pub(super) const REQUEST_LEN: usize = 28;

/// One request as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) command: u16,
    /// Comes back in the reply.
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// What is done about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The disk is asked.
    Ask(Task),
    /// It is answered without the disk, after so many bytes of payload were skipped.
    Answer {
        /// Success, or an error.
        verdict: Result<(), Denial>,
        /// How many bytes of payload follow the request.
        skip: u32,
    },
    /// The client takes its leave.
    Leave,
}

/// What the disk is asked for; each range lies inside it and is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Bytes. Where `whole`, in one chunk.
    Read { range: Range<u64>, whole: bool },
    /// Extents. Where `one`, only the first.
    Status { range: Range<u64>, one: bool },
    /// Nothing yet.
    Prefetch { range: Range<u64> },
}

impl Task {
    pub(super) fn range(&self) -> Range<u64> {
        match self {
            Task::Read { range, .. } | Task::Status { range, .. } | Task::Prefetch { range } => range.clone(),
        }
    }

    /// How many bytes of memory it takes to answer.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Task::Read { range, .. } => range.end.saturating_sub(range.start),
            Task::Status { .. } | Task::Prefetch { .. } => 0,
        }
    }
}

/// Why a request is not granted: an error number of the protocol, and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) error: u32,
    pub(super) text: String,
}

/// `EPERM`.
pub(super) const EPERM: u32 = 1;
/// `EIO`.
pub(super) const EIO: u32 = 5;
/// `EINVAL`.
pub(super) const EINVAL: u32 = 22;

impl Denial {
    fn invalid(text: &str) -> Denial {
        Denial {
            error: EINVAL,
            text: text.to_owned(),
        }
    }
}

impl Request {
    /// Reads one.
    pub(super) fn parse(bytes: &[u8; REQUEST_LEN]) -> Result<Request, Violation> {
        let mut fields = Fields(bytes);
        let magic = fields.u32().unwrap_or(0);
        if magic != REQUEST_MAGIC {
            return Err(Violation::RequestMagic { magic });
        }
        let mut request = || {
            Some(Request {
                flags: fields.u16()?,
                command: fields.u16()?,
                cookie: fields.u64()?,
                offset: fields.u64()?,
                len: fields.u32()?,
            })
        };
        Ok(request().expect("28 bytes are a request"))
    }

    /// What is done about it, on these terms and with a disk of this size.
    pub(super) fn step(&self, terms: Terms, size_bytes: u64) -> Result<Step, Violation> {
        let answer = |verdict| Ok(Step::Answer { verdict, skip: 0 });
        match self.command {
            command::DISC => Ok(Step::Leave),
            command::WRITE if self.len > PAYLOAD_BYTES_MAX => Err(Violation::PayloadTooLong {
                len: self.len,
                limit: PAYLOAD_BYTES_MAX,
            }),
            command::WRITE => Ok(Step::Answer {
                verdict: Err(read_only()),
                skip: self.len,
            }),
            command::TRIM | command::WRITE_ZEROES => answer(Err(read_only())),
            command::FLUSH if self.flags == 0 && self.offset == 0 && self.len == 0 => answer(Ok(())),
            command::FLUSH => answer(Err(Denial::invalid("a flush has neither flags nor a range"))),
            _ => match self.task(terms, size_bytes) {
                Ok(Some(task)) => Ok(Step::Ask(task)),
                Ok(None) => answer(Ok(())),
                Err(denial) => answer(Err(denial)),
            },
        }
    }

    /// What the disk is to be asked for; `None` if that is nothing.
    fn task(&self, terms: Terms, size_bytes: u64) -> Result<Option<Task>, Denial> {
        let flags_possible = match self.command {
            command::READ if terms.structured => command_flag::DF,
            command::READ | command::CACHE => 0,
            command::BLOCK_STATUS if terms.allocation => command_flag::REQ_ONE,
            command::BLOCK_STATUS => return Err(Denial::invalid("no metadata context was chosen")),
            _ => return Err(Denial::invalid("this server does not know the command")),
        };
        if self.flags & !flags_possible != 0 {
            return Err(Denial::invalid("the command does not have such a flag"));
        }
        let end = self.offset.checked_add(u64::from(self.len));
        let Some(end) = end.filter(|&end| end <= size_bytes) else {
            return Err(Denial::invalid("the range does not end inside the disk"));
        };
        let range = self.offset..end;
        match self.command {
            command::READ if self.len > PAYLOAD_BYTES_MAX => {
                Err(Denial::invalid("a read has 32 MiB at most"))
            }
            command::BLOCK_STATUS if self.len == 0 => Err(Denial::invalid("the range is empty")),
            _ if self.len == 0 => Ok(None),
            command::READ => Ok(Some(Task::Read {
                range,
                whole: self.flags & command_flag::DF != 0,
            })),
            command::CACHE => Ok(Some(Task::Prefetch { range })),
            _ => Ok(Some(Task::Status {
                range,
                one: self.flags & command_flag::REQ_ONE != 0,
            })),
        }
    }
}

fn read_only() -> Denial {
    Denial {
        error: EPERM,
        text: "the disk is read-only".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Terms = Terms {
        structured: false,
        allocation: false,
    };
    const RICH: Terms = Terms {
        structured: true,
        allocation: true,
    };

    fn request(command: u16, flags: u16, offset: u64, len: u32) -> Request {
        Request {
            flags,
            command,
            cookie: 7,
            offset,
            len,
        }
    }

    fn asked(command: u16, flags: u16, offset: u64, len: u32) -> Option<Task> {
        match request(command, flags, offset, len).step(RICH, 100 << 20) {
            Ok(Step::Ask(task)) => Some(task),
            _ => None,
        }
    }

    fn denied(command: u16, flags: u16, offset: u64, len: u32, terms: Terms) -> u32 {
        match request(command, flags, offset, len).step(terms, 100 << 20) {
            Ok(Step::Answer {
                verdict: Err(denial), ..
            }) => denial.error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fields_are_where_the_document_has_them() {
        let mut bytes = *b"\x25\x60\x95\x13\0\x04\0\0cookie..\0\0\0\x01\0\0\0\x02\0\0\x10\0";
        let request = Request::parse(&bytes).unwrap();
        assert_eq!((request.flags, request.command), (4, 0));
        assert_eq!(request.cookie.to_be_bytes(), *b"cookie..");
        assert_eq!((request.offset, request.len), ((1 << 32) + 2, 4096));
        bytes[3] = 0x14;
        assert_eq!(
            Request::parse(&bytes),
            Err(Violation::RequestMagic { magic: 0x2560_9514 })
        );
    }

    #[test]
    fn ranges_end_with_the_disk() {
        let size = 100 << 20;
        assert_eq!(
            asked(0, 0, size - 1, 1),
            Some(Task::Read {
                range: size - 1..size,
                whole: false
            })
        );
        assert_eq!(denied(0, 0, size, 1, RICH), EINVAL);
        assert_eq!(denied(0, 0, size - 1, 2, RICH), EINVAL);
        assert_eq!(denied(0, 0, u64::MAX, 2, RICH), EINVAL);
        assert_eq!(denied(7, 0, 0, u32::MAX, RICH), EINVAL);
        assert_eq!(denied(5, 0, 1, 100 << 20, RICH), EINVAL);
        // Past the end even where there is nothing to read.
        assert_eq!(denied(0, 0, size + 1, 0, RICH), EINVAL);
    }

    #[test]
    fn lengths_have_bounds() {
        assert_eq!(
            asked(0, 0, 0, 32 << 20),
            Some(Task::Read {
                range: 0..32 << 20,
                whole: false
            })
        );
        assert_eq!(denied(0, 0, 0, (32 << 20) + 1, RICH), EINVAL);
        // Only what is sent is bounded.
        assert_eq!(
            asked(5, 0, 0, 100 << 20),
            Some(Task::Prefetch { range: 0..100 << 20 })
        );
        assert_eq!(
            asked(7, 0, 0, 100 << 20),
            Some(Task::Status {
                range: 0..100 << 20,
                one: false
            })
        );
        assert_eq!(denied(7, 0, 0, 0, RICH), EINVAL);
        let empty = request(0, 0, 5, 0).step(RICH, 100);
        assert_eq!(
            empty,
            Ok(Step::Answer {
                verdict: Ok(()),
                skip: 0
            })
        );
    }

    #[test]
    fn flags_belong_to_their_command_and_terms() {
        assert!(matches!(asked(0, 4, 0, 1), Some(Task::Read { whole: true, .. })));
        assert!(matches!(asked(7, 8, 0, 1), Some(Task::Status { one: true, .. })));
        for (command, flags, terms) in [
            (0, 4, PLAIN),
            (0, 8, RICH),
            (7, 4, RICH),
            (5, 4, RICH),
            (0, 1, RICH),
            (3, 1, RICH),
        ] {
            assert_eq!(denied(command, flags, 0, 1, terms), EINVAL, "{command} {flags}");
        }
        assert_eq!(denied(7, 0, 0, 1, PLAIN), EINVAL);
        assert_eq!(
            denied(
                7,
                0,
                0,
                1,
                Terms {
                    structured: true,
                    allocation: false
                }
            ),
            EINVAL
        );
    }

    #[test]
    fn nothing_writes() {
        let write = request(1, 0, 0, 512).step(PLAIN, 100).unwrap();
        assert_eq!(
            write,
            Step::Answer {
                verdict: Err(read_only()),
                skip: 512
            }
        );
        assert_eq!(denied(4, 0, 0, 1, PLAIN), EPERM);
        assert_eq!(denied(6, 2, 0, 1, PLAIN), EPERM);
        let endless = request(1, 0, 0, u32::MAX).step(PLAIN, 100);
        assert_eq!(
            endless,
            Err(Violation::PayloadTooLong {
                len: u32::MAX,
                limit: 32 << 20
            })
        );
    }

    #[test]
    fn the_rest_is_answered_at_once() {
        assert_eq!(request(2, 0, 0, 0).step(PLAIN, 100), Ok(Step::Leave));
        assert_eq!(
            request(3, 0, 0, 0).step(PLAIN, 100),
            Ok(Step::Answer {
                verdict: Ok(()),
                skip: 0
            })
        );
        assert_eq!(denied(3, 0, 1, 0, PLAIN), EINVAL);
        assert_eq!(denied(8, 0, 0, 0, RICH), EINVAL);
        assert_eq!(denied(u16::MAX, 0, 0, 0, RICH), EINVAL);
    }
}
