//! Proves that what is served arrives: to a client that knows only the protocol's document, to QEMU and to libnbd, to many at once, and
//! that no client hurts another.

mod client;
mod disks;
mod harness;
mod hostile;
mod many;
mod real;
mod requests;
mod stopping;
