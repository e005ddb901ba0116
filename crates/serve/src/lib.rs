//! Gives a read-only disk to other programs, over NBD on a unix socket.
//!
//! ```text
//! Disk ◄── read, extent, prefetch ── workers ◄── queue ◄── reader ◄── client     one such row for each connection
//!                                       └───────── whole replies ────────►
//! ```
//!
//! - a [`Disk`] is what is served: a size, bytes, and where they are holes. [`FileDisk`] is one; what fetches its bytes from far away
//!   is another. Nothing here knows of images or of stores, and nothing of NBD is in the trait, so that other ways of serving
//!   (vhost-user-blk) can stand beside [`nbd`];
//! - a [`Server`] holds a socket and serves one disk there, to many clients at once, until its [`Stopper`] is told;
//! - an [`Event`] says who came, who went and why, and what could not be read. Nothing is printed here.
//!
//! A client is not believed: what it sends has bounds, and whoever breaks the protocol is hung up on while the others go on.
//! What is spoken, and with which limits, is in `docs/nbd.md`.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

mod disk;
mod error;
mod event;
mod file;
pub mod nbd;
mod server;
mod socket;

pub use disk::{Content, Disk, Extent};
pub use error::ServeError;
pub use event::{ConnectionId, Counts, Ending, Event, Refusal};
pub use file::FileDisk;
pub use nbd::Violation;
pub use server::{Options, Server, Stopper};
