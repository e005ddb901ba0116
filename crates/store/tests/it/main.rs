//! Images through whole stores.
//!
//! Needs `skopeo`, `docker-registry` and SeaweedFS; see `firebrick_testkit::oracle` for what happens without.

mod archives;
mod carried;
mod check;
mod common;
mod faults;
mod folder;
mod gc;
mod lazy;
mod server_faults;
mod server_gc;
mod servers;
mod signatures;
mod stats;
mod watched;
