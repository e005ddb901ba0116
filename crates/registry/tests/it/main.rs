//! The crate from outside: real registries, and servers that fail in every way we could think of.
//!
//! Needs `docker-registry`, `htpasswd`, `openssl` and `skopeo`; see `firebrick_testkit::oracle` for what happens without.

mod blobs;
mod faults;
mod hostile;
mod manifests;
mod referrers;
mod rights;
mod support;
mod uploads;
