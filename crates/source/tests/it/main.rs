//! The crate from outside: every transport, hostile input, real registries.
//!
//! Needs `skopeo`, `docker-registry` and `htpasswd`; see `firebrick_testkit::oracle` for what happens without.

mod archives;
mod cache;
mod files;
mod folders;
mod hostile;
mod layouts;
mod parsing;
mod processes;
mod registries;
mod support;
mod transfers;
