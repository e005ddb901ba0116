//! What host and guest say to each other, and how it is framed; no I/O.
//!
//! - A *message* is one JSON-RPC 2.0 object on a line of its own ([`rpc`], [`mod@line`]).
//! - A *method* has typed parameters and a typed result ([`agent`]); `docs/protocol-jsonrpc.md` is the contract.
//! - A *file* method moves or tells about files ([`files`]).
//! - A *job*, on a port of its own, is one frame of JSON that is answered by one ([`jobs`]); `docs/protocol-jobs.md` is the contract.
//! - A *stream* is one two-way byte stream to a guest *port*. Where a VMM has vsock or TCP the kernel gives streams;
//!   over a virtio-serial port, which is one byte stream, [`mux`] carries many (`docs/protocol-mux.md`).
//!
//! Everything here is a state machine that is fed bytes and gives bytes, so that host, guest, tests and fuzzers run
//! the same code. It is `no_std` because the guest has no standard library.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod agent;
pub mod files;
pub mod jobs;
pub mod line;
pub mod mux;
mod queue;
pub mod rpc;
pub mod tar;

pub use queue::Queue;

/// The guest port on which the agent speaks JSON-RPC lines, on vsock and in the [`mux`].
pub const AGENT_PORT: u32 = 52;

/// The guest port on which the agent takes framed jobs ([`jobs`]), on vsock and in the [`mux`].
pub const JOB_PORT: u32 = 5000;

/// The name of the virtio-serial port that carries the [`mux`], as `/sys/class/virtio-ports/*/name` shows it.
pub const SERIAL_PORT_NAME: &str = "firebrick.0";

/// What stands in the guest's file before its version, which a line's end follows.
pub const GUEST_VERSION_MARK: &str = "firebrick-guest version ";

/// The version of the agent's methods, counted up with each addition; `status` tells it.
pub const PROTOCOL_VERSION: u32 = 3;

/// The first version whose transfers may be raw.
pub const RAW_SINCE: u32 = 3;
