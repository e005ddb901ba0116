//! Images through whole stores.
//!
//! Needs `skopeo` and `docker-registry`; see `firebrick_testkit::oracle` for what happens without.

mod archives;
mod carried;
mod check;
mod common;
mod faults;
mod folder;
mod gc;
mod lazy;
mod signatures;
mod stats;
mod watched;
