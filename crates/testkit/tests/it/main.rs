//! What the crates do together.

mod determinism;
mod flatten;
mod foreign_tars;
mod hostile;
mod hostile_registry;
mod image;
mod interrupted;
mod large;
mod left_out;
mod merge;
mod mutations;
mod pins;
mod squashfs;
mod writable;
