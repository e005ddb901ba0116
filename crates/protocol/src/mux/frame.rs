//! Frames on the wire, and the parser that finds them in whatever pieces the wire gives.

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use alloc::vec::Vec;

use super::{MAX_PAYLOAD_BYTES, Nonce, Refusal};

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 8;
/// Bytes behind the payload.
const TAG_BYTES: usize = 4;
/// The longest frame; also how many zeros go before the host's HELLO.
pub(super) const MAX_FRAME_BYTES: usize = HEADER_BYTES + MAX_PAYLOAD_BYTES + TAG_BYTES;
/// Magic and nonce.
const HELLO_BYTES: usize = 16;

/// What opens a HELLO, by sender.
const HOST_MAGIC: [u8; 8] = *b"FBMUX2H\n";
const GUEST_MAGIC: [u8; 8] = *b"FBMUX2G\n";

/// The byte between frames that means nothing.
const PADDING: u8 = 0;

/// What a frame does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A new stream to a port of the receiver's.
    Open { port: u32 },
    /// The stream is open.
    Opened,
    /// The stream is not opened.
    Refused(Refusal),
    /// Bytes of the stream.
    Data(&'a [u8]),
    /// The sender's last byte has gone.
    Eof,
    /// The sender drops the stream in both directions.
    Close,
    /// The receiver of this may send so many bytes more.
    Window { bytes: u32 },
}

/// What was found on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Hello(Nonce),
    Frame { stream: u32, frame: Frame<'a> },
}

/// The bytes are no frame of this session.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Desync;

/// Appends the frame as bytes. A payload longer than [`MAX_PAYLOAD_BYTES`] is the caller's mistake.
pub(super) fn encode(into: &mut crate::Queue, nonce: Nonce, stream: u32, frame: Frame<'_>) {
    let word;
    let (kind, payload): (u8, &[u8]) = match frame {
        Frame::Open { port } => {
            word = port.to_le_bytes();
            (1, &word)
        }
        Frame::Opened => (2, &[]),
        Frame::Refused(refusal) => {
            word = [refusal_code(refusal), 0, 0, 0];
            (3, word.get(..1).unwrap_or_default())
        }
        Frame::Data(bytes) => (4, bytes),
        Frame::Eof => (5, &[]),
        Frame::Close => (6, &[]),
        Frame::Window { bytes } => {
            word = bytes.to_le_bytes();
            (7, &word)
        }
    };
    debug_assert!(
        payload.len() <= MAX_PAYLOAD_BYTES,
        "a payload of {} bytes",
        payload.len()
    );
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes();
    let id = stream.to_le_bytes();
    into.push(&[kind, 0, length[0], length[1], id[0], id[1], id[2], id[3]]);
    into.push(payload);
    into.push(&nonce.tag());
}

/// Appends zeros that end any frame, whose tag they break.
pub(super) fn encode_zeros(into: &mut crate::Queue) {
    into.push(&[PADDING; MAX_FRAME_BYTES]);
}

/// Appends the host's HELLO with the zeros before it.
pub(super) fn encode_host_hello(into: &mut crate::Queue, nonce: Nonce) {
    encode_zeros(into);
    into.push(&HOST_MAGIC);
    into.push(&nonce.0.to_le_bytes());
}

/// Appends the guest's answer.
pub(super) fn encode_guest_hello(into: &mut crate::Queue, nonce: Nonce) {
    into.push(&GUEST_MAGIC);
    into.push(&nonce.0.to_le_bytes());
}

fn refusal_code(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::NoListener => 1,
        Refusal::TooManyStreams => 2,
        Refusal::Other(code) => code,
    }
}

fn refusal_of(code: u8) -> Refusal {
    match code {
        1 => Refusal::NoListener,
        2 => Refusal::TooManyStreams,
        code => Refusal::Other(code),
    }
}

/// Where the parser stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Passing over everything up to a HELLO.
    Scanning,
    /// Between or inside the frames of the session with this nonce.
    Session(Nonce),
}

/// Finds HELLOs and frames. Holds at most one frame.
#[derive(Debug)]
pub(super) struct Parser {
    /// The magic of the other side's HELLO.
    magic: [u8; 8],
    state: State,
    /// The start of a frame whose end has not come yet.
    partial: Vec<u8>,
    /// How much of `partial` was given out as a frame and is dropped at the next call.
    done: usize,
}

impl Parser {
    pub(super) fn of_host() -> Parser {
        Parser::new(GUEST_MAGIC)
    }

    pub(super) fn of_guest() -> Parser {
        Parser::new(HOST_MAGIC)
    }

    fn new(magic: [u8; 8]) -> Parser {
        Parser {
            magic,
            state: State::Scanning,
            partial: Vec::new(),
            done: 0,
        }
    }

    /// Expects frames of this session from here on.
    pub(super) fn enter(&mut self, nonce: Nonce) {
        self.state = State::Session(nonce);
    }

    /// Expects nothing but a HELLO from here on.
    pub(super) fn scan(&mut self) {
        self.state = State::Scanning;
    }

    /// Takes bytes off the front of `input` until a HELLO or a frame is whole, or `input` is empty.
    /// After an error the parser scans for a HELLO, from the bytes behind those that were wrong.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Option<Result<Found<'_>, Desync>> {
        if core::mem::take(&mut self.done) > 0 {
            self.partial.clear();
        }
        match self.state {
            State::Scanning => self.next_hello(input).map(|nonce| Ok(Found::Hello(nonce))),
            State::Session(nonce) => self.next_frame(input, nonce),
        }
    }

    /// Byte by byte: this runs over at most one connection's leftovers.
    fn next_hello(&mut self, input: &mut &[u8]) -> Option<Nonce> {
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            self.partial.push(*byte);
            // The magic's first byte does not occur again in it: a mismatch can only restart at this very byte.
            if self
                .magic
                .get(self.partial.len().saturating_sub(1))
                .is_some_and(|expected| expected != byte)
            {
                self.partial.clear();
                if self.magic.first() == Some(byte) {
                    self.partial.push(*byte);
                }
            }
            if self.partial.len() >= HELLO_BYTES {
                let nonce = nonce_of(&self.partial);
                self.partial.clear();
                return nonce;
            }
        }
        None
    }

    fn next_frame(&mut self, input: &mut &[u8], nonce: Nonce) -> Option<Result<Found<'_>, Desync>> {
        if self.partial.is_empty() {
            let padding = input.iter().take_while(|byte| **byte == PADDING).count();
            *input = input.get(padding..).unwrap_or_default();
        }
        loop {
            let wanted = match self.wanted_bytes() {
                Ok(wanted) => wanted,
                Err(Desync) => return Some(Err(self.desync())),
            };
            let missing = wanted.saturating_sub(self.partial.len());
            if missing == 0 {
                break;
            }
            if input.is_empty() {
                return None;
            }
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.partial.extend_from_slice(taken);
            *input = rest;
        }
        if self.partial.first() == self.magic.first() {
            let hello = nonce_of(&self.partial);
            self.partial.clear();
            return hello.map(|nonce| Ok(Found::Hello(nonce)));
        }
        if decode(&self.partial, nonce).is_none() {
            return Some(Err(self.desync()));
        }
        self.done = self.partial.len();
        decode(&self.partial, nonce).map(Ok)
    }

    /// How long the HELLO or frame in `partial` is, as far as its first bytes tell.
    fn wanted_bytes(&self) -> Result<usize, Desync> {
        match *self.partial.as_slice() {
            [] => Ok(1),
            [first, ..] if Some(&first) == self.magic.first() => {
                let known = self.partial.iter().zip(&self.magic);
                if known.into_iter().any(|(byte, expected)| byte != expected) {
                    Err(Desync)
                } else {
                    Ok(HELLO_BYTES)
                }
            }
            [_, _, low, high, ..] => {
                let length = usize::from(u16::from_le_bytes([low, high]));
                if length > MAX_PAYLOAD_BYTES {
                    Err(Desync)
                } else {
                    Ok(HEADER_BYTES.saturating_add(length).saturating_add(TAG_BYTES))
                }
            }
            [..] => Ok(HEADER_BYTES),
        }
    }

    fn desync(&mut self) -> Desync {
        self.partial.clear();
        self.state = State::Scanning;
        Desync
    }
}

fn nonce_of(hello: &[u8]) -> Option<Nonce> {
    let nonce = hello.get(8..HELLO_BYTES)?.try_into().ok()?;
    Some(Nonce::new(u64::from_le_bytes(nonce)))
}

/// The frame in `bytes`, which are as long as its header says.
fn decode(bytes: &[u8], nonce: Nonce) -> Option<Found<'_>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let (payload, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
    let [kind, zero, _, _, stream @ ..] = *header;
    if *tag != nonce.tag() || zero != 0 {
        return None;
    }
    let word = || payload.try_into().ok().map(u32::from_le_bytes);
    let bare = |frame| payload.is_empty().then_some(frame);
    let frame = match kind {
        1 => Frame::Open { port: word()? },
        2 => bare(Frame::Opened)?,
        3 => match payload {
            [code] => Frame::Refused(refusal_of(*code)),
            _ => return None,
        },
        4 if !payload.is_empty() => Frame::Data(payload),
        5 => bare(Frame::Eof)?,
        6 => bare(Frame::Close)?,
        7 => Frame::Window { bytes: word()? },
        _ => return None,
    };
    Some(Found::Frame {
        stream: u32::from_le_bytes(stream),
        frame,
    })
}
