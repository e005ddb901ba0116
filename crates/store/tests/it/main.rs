//! Images through whole stores.

mod common;
mod faults;
mod folder;
mod signatures;
