//! Replies, as the bytes that go out.

use std::ops::Range;

use super::options::ALLOCATION_ID;
use super::wire::{CHUNK_MAGIC, SIMPLE_REPLY_MAGIC, chunk};

/// The longest text behind an error, in bytes.
const TEXT_LEN_MAX: usize = 1000;

/// One whole reply, in pieces that are sent one behind the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply(pub(super) Vec<Vec<u8>>);

/// A part of what was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes that begin at byte `offset` of the disk.
    Data { offset: u64, bytes: Vec<u8> },
    /// Zeros.
    Hole { offset: u64, len: u32 },
}

/// An extent, as the protocol counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) len: u32,
    pub(super) flags: u32,
}

/// How many bytes there are in a range, of which the protocol says that they are fewer than 2^32.
pub(super) fn len(range: &Range<u64>) -> u32 {
    let len = range.end.saturating_sub(range.start);
    u32::try_from(len).expect("a request's length has 32 bits")
}

fn simple_header(cookie: u64, error: u32) -> Vec<u8> {
    [
        &SIMPLE_REPLY_MAGIC.to_be_bytes()[..],
        &error.to_be_bytes(),
        &cookie.to_be_bytes(),
    ]
    .concat()
}

/// A chunk's header and the fields that begin its payload; behind them `more` bytes of payload follow.
fn chunk_start(cookie: u64, kind: u16, done: bool, fields: &[u8], more: usize) -> Vec<u8> {
    let flags = if done { chunk::FLAG_DONE } else { 0 };
    let len = u32::try_from(fields.len().saturating_add(more)).expect("a reply's length is bounded");
    [
        &CHUNK_MAGIC.to_be_bytes()[..],
        &flags.to_be_bytes(),
        &kind.to_be_bytes(),
        &cookie.to_be_bytes(),
        &len.to_be_bytes(),
        fields,
    ]
    .concat()
}

impl Reply {
    /// Success, with nothing to tell.
    pub(super) fn done(cookie: u64, structured: bool) -> Reply {
        Reply(vec![if structured {
            chunk_start(cookie, chunk::NONE, true, &[], 0)
        } else {
            simple_header(cookie, 0)
        }])
    }

    /// An error, with a text where the client can take one.
    pub(super) fn error(cookie: u64, structured: bool, error: u32, text: &str) -> Reply {
        if !structured {
            return Reply(vec![simple_header(cookie, error)]);
        }
        let text = &text[..text.floor_char_boundary(TEXT_LEN_MAX)];
        let len = u16::try_from(text.len()).expect("the text was cut");
        let fields = [&error.to_be_bytes()[..], &len.to_be_bytes(), text.as_bytes()].concat();
        Reply(vec![chunk_start(cookie, chunk::ERROR, true, &fields, 0)])
    }

    /// All bytes of a read.
    pub(super) fn bytes(cookie: u64, bytes: Vec<u8>) -> Reply {
        Reply(vec![simple_header(cookie, 0), bytes])
    }

    /// All pieces of a read; there must be one.
    pub(super) fn pieces(cookie: u64, pieces: Vec<Piece>) -> Reply {
        let last = pieces.len().saturating_sub(1);
        let mut out = Vec::new();
        for (index, piece) in pieces.into_iter().enumerate() {
            let done = index == last;
            match piece {
                Piece::Data { offset, bytes } => {
                    let offset = offset.to_be_bytes();
                    out.push(chunk_start(
                        cookie,
                        chunk::OFFSET_DATA,
                        done,
                        &offset,
                        bytes.len(),
                    ));
                    out.push(bytes);
                }
                Piece::Hole { offset, len } => {
                    let fields = [&offset.to_be_bytes()[..], &len.to_be_bytes()].concat();
                    out.push(chunk_start(cookie, chunk::OFFSET_HOLE, done, &fields, 0));
                }
            }
        }
        Reply(out)
    }

    /// Extents beside each other; there must be one.
    pub(super) fn statuses(cookie: u64, statuses: &[Status]) -> Reply {
        let mut fields = ALLOCATION_ID.to_be_bytes().to_vec();
        for status in statuses {
            fields.extend(status.len.to_be_bytes());
            fields.extend(status.flags.to_be_bytes());
        }
        Reply(vec![chunk_start(cookie, chunk::BLOCK_STATUS, true, &fields, 0)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_replies() {
        assert_eq!(
            Reply::done(1, false).0,
            [b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x01"]
        );
        let denied = Reply::error(2, false, 1, "no");
        assert_eq!(denied.0, [b"\x67\x44\x66\x98\0\0\0\x01\0\0\0\0\0\0\0\x02"]);
    }

    #[test]
    fn an_errors_text_is_cut_between_characters() {
        let reply = Reply::error(3, true, 5, &"é".repeat(501));
        let bytes = &reply.0[0];
        assert_eq!(bytes[..8], *b"\x66\x8e\x33\xef\0\x01\x80\x01");
        assert_eq!(bytes[16..26], *b"\0\0\x03\xee\0\0\0\x05\x03\xe8");
        assert_eq!(std::str::from_utf8(&bytes[26..]), Ok("é".repeat(500).as_str()));
        let odd = Reply::error(3, true, 5, &format!("x{}", "é".repeat(501)));
        assert_eq!(odd.0[0].len(), 26 + 999);
    }

    #[test]
    fn only_the_last_chunk_ends_a_reply() {
        let data = |offset| Piece::Data {
            offset,
            bytes: vec![1],
        };
        let reply = Reply::pieces(9, vec![data(0), Piece::Hole { offset: 1, len: 7 }, data(8)]);
        let flags: Vec<u8> = [0, 2, 3].iter().map(|&index: &usize| reply.0[index][5]).collect();
        assert_eq!(flags, [0, 0, 1]);
        assert_eq!(reply.0[2][20..], *b"\0\0\0\0\0\0\0\x01\0\0\0\x07");
    }
}
