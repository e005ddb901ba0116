//! The NBD protocol, from the server's side.
//!
//! A connection has two phases. In the *handshake* the client sends *options* and gets replies to each, until one of them chooses the
//! *export* (the disk; there is one, with two names) and what else is spoken: the `terms`. In the *transmission* it sends *requests*,
//! each with a *cookie* that comes back in the reply, in any order. A *simple reply* has all bytes or an error; a *structured reply* has
//! *chunks*, which can be holes. The one *metadata context* here is `base:allocation`, which tells holes without reading.
//!
//! The document is <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>; numbers from it are in `wire`.

mod answer;
mod connection;
mod handshake;
mod options;
mod queue;
mod reply;
mod request;
mod stream;
mod violation;
mod wire;

pub use connection::serve_stream;
pub use violation::Violation;

/// The most bytes that one read may ask for, and that a write may bring (which is refused all the same): 32 MiB.
pub const PAYLOAD_BYTES_MAX: u32 = 32 << 20;
/// The longest name of an export, in bytes.
pub const NAME_LEN_MAX: usize = 4096;
/// The longest option of a client, in bytes behind its header.
pub const OPTION_LEN_MAX: u32 = 64 << 10;
