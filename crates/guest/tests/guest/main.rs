//! The real guest binary as an ordinary process, driven by plain clients.

mod agent;
mod bounds;
mod common;
mod conformance;
mod load;
mod serial;
mod trees;
