//! What happens while a disk is served: who comes and goes, and what could not be read.

use std::io;
use std::ops::Range;

use crate::Violation;

/// Which connection of a server; the first has number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Something that happened. Events of one connection come in order, those of several at the same time, from several threads.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A client is there.
    Connected {
        /// Its connection.
        connection: ConnectionId,
    },
    /// A client was not let in.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// Some bytes could not be had; the client was told, and goes on.
    Failed {
        /// The connection.
        connection: ConnectionId,
        /// The bytes it asked for.
        range: Range<u64>,
        /// What the disk said.
        error: io::Error,
    },
    /// A client is gone.
    Ended {
        /// Its connection.
        connection: ConnectionId,
        /// What it had done.
        counts: Counts,
        /// Why it went.
        ending: Ending,
    },
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There are as many as there may be.
    #[error("there are {limit} connections, which is all there may be")]
    TooMany {
        /// The most connections at a time.
        limit: usize,
    },
    /// This host has too little of something to take one more. The cause is `source`.
    #[error("cannot take another connection")]
    Host {
        /// What happened.
        source: io::Error,
    },
}

/// What a client has asked for and got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests of every kind, those that failed too.
    pub requests: u64,
    /// Reads that were answered with bytes.
    pub reads: u64,
    /// Bytes that these asked for.
    pub read_bytes: u64,
    /// Bytes among them that were answered as holes, without being sent.
    pub hole_bytes: u64,
    /// Requests that were answered with an error.
    pub failed: u64,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ending {
    /// The client took its leave.
    #[error("the client disconnected")]
    Disconnected,
    /// The client closed the connection without a word, as one does that is killed.
    #[error("the client hung up")]
    HungUp,
    /// The client broke the protocol, and was hung up on.
    #[error("the client broke the protocol")]
    Broke(#[source] Violation),
    /// The server was stopped.
    #[error("the server was stopped")]
    Stopped,
    /// This host failed. The cause is the source.
    #[error("the connection failed")]
    Failed(#[source] io::Error),
}
