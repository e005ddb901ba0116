//! Images through whole stores.

mod common;
mod folder;
mod lazy;
mod watched;
