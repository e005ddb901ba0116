//! Images through whole stores.
//!
//! Needs `skopeo`, `docker-registry` and `weed`; see `firebrick_testkit::oracle` for what happens without.

mod archives;
mod carried;
mod check;
mod common;
mod faults;
mod folder;
mod gc;
mod hostile;
mod lazy;
mod plain;
mod sealed;
mod server_faults;
mod servers;
mod signatures;
mod spoiled;
mod stats;
mod watched;
mod worn;
