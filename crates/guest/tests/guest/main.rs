//! The real guest binary as an ordinary process, driven by plain clients.

mod agent;
mod common;
mod conformance;
mod load;
mod serial;
mod trees;
