//! Debian, Ubuntu and Alpine package sets as layers.
//!
//! A [`PackageSet`] says what is wanted: a [`Base`], its *suite* (a release), *mirrors* to take it from, and packages. The
//! distributions' own tools install it, without root: `mmdebstrap` for Debian and Ubuntu, `apk` for Alpine. [`prepare`] checks
//! what can be checked beforehand and yields a [`Prepared`] set, whose only layer is the tar that the tool writes to its
//! stdout: nothing keeps it, it is scanned as it comes.
//!
//! ```text
//! PackageSet ─►   check   ─► time ─► Command ─► stdout ─► Layer
//!   (set)    (ids, processor) (time)  (debian,  stderr ─► events, and the words of a failure
//!                                      alpine)  (run)
//! ```
//!
//! Signatures are checked by the tools, against keys that this host or the user has: see [`PackageSet::keys`]. Same packages,
//! same time, same options: same bytes, so the *time* of everything that is made while installing is fixed before it begins.
//!
//! Decisions: `docs/create.md`.
#![forbid(unsafe_code)]

mod alpine;
mod debian;
mod error;
mod guard;
mod host;
mod ids;
mod prepare;
mod processor;
mod run;
mod set;
mod sources;
#[cfg(test)]
mod testing;
mod time;

pub use debian::FORGET_KEYSTORE_TIMES;
pub use error::{BootstrapError, Cause, NoHandler};
pub use prepare::{Options, Prepared, prepare};
pub use run::Event;
pub use set::{Base, PackageSet, Snapshot};
