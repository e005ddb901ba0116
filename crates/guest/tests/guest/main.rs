//! The real guest binary as an ordinary process, driven by plain clients.

mod agent;
mod bounds;
mod budget;
mod common;
mod conformance;
mod endings;
mod load;
mod serial;
mod trees;
mod uploads;
