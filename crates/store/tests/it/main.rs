//! Images through whole stores.

mod common;
mod faults;
mod folder;
mod lazy;
mod signatures;
mod watched;
