//! Many byte streams over one: what goes through a virtio-serial port, where the VMM has no vsock.
//!
//! - A *wire* is the one byte stream below: a virtio-serial port, or a socket that stands for it.
//! - A *session* is one host talking: it starts with the host's HELLO, which carries a fresh *nonce*, and ends with the
//!   next HELLO. Whatever an earlier host left half-sent, in either direction, never reaches a stream of this one.
//! - A *stream* is one connection to a *port*, with flow control of its own: a side may send only as many bytes as the
//!   other has granted, so that a stream nobody reads holds [`WINDOW_BYTES`] at most and stops no other.
//! - The *floor* is what every stream may hold in either direction, and has from its start. More comes from what an endpoint has to
//!   *spare* for all its streams: a host enough for each, a guest [`SPARE_BYTES`], so that its memory stays small.
//!
//! [`Endpoint`] is both sides' state machine: bytes from the wire go in, [`Event`]s and bytes for the wire come out.
//! It does no I/O, reads no clock and no random source. `docs/protocol-mux.md` is the contract; in short, integers
//! little-endian:
//!
//! ```text
//! HELLO (host → guest)  "FBMUX2H\n"  nonce u64            after 16,396 zero bytes, which end any frame cut short
//! HELLO (guest → host)  "FBMUX2G\n"  nonce u64            the host's nonce, returned
//! frame                 kind u8 │ 0 u8 │ length u16 │ stream u32 │ payload │ low half of the nonce u32
//! ```

mod endpoint;
mod frame;
mod stream;

pub use endpoint::{Endpoint, Event, OpenError, Read};

/// How many bytes of a stream may be on their way or unread, in each direction.
pub const WINDOW_BYTES: usize = 64 * 1024;

/// How many of them may be from the start; and what a stream may always hold, received or to be sent.
pub const FLOOR_BYTES: usize = 4 * 1024;

/// What all streams of a guest may hold beyond their floors: so much received, and so much to be sent.
pub const SPARE_BYTES: usize = 512 * 1024;

/// How many bytes an endpoint keeps of a stream's outgoing data before [`Endpoint::write`] takes no more.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// The longest payload of a frame.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024;

/// The most streams that may be open at once, of both sides together.
pub const MAX_STREAMS: usize = 256;

/// Names a stream within a session; never used twice in one. The host's are odd, the guest's even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// The number on the wire.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// Tells one session from another: chosen by the host, at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(u64);

impl Nonce {
    /// A nonce from 64 random bits. The low half is never zero: zeros must not end a frame well.
    pub fn new(random: u64) -> Nonce {
        Nonce(if random & 0xffff_ffff == 0 {
            random | 1
        } else {
            random
        })
    }

    /// What ends each frame of the session.
    fn tag(self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        [a, b, c, d]
    }
}

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing listens on that port.
    NoListener,
    /// [`MAX_STREAMS`] are open.
    TooManyStreams,
    /// A reason that this version does not know.
    Other(u8),
}

#[cfg(test)]
mod tests;
