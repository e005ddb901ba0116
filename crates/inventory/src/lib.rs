//! What is in a filesystem image, whatever its format.
//!
//! - a [`Listing`] is everything that has a name: each [`Node`] with its [`Entry`], parents before children;
//! - [`Contents`] gives the bytes of regular files, piece by piece;
//! - an [`Inventory`] is the [`Package`]s that databases in the image name, and which of them owns which node;
//! - [`Usage`] counts bytes as `du` would, by directory, package, layer or file;
//! - [`Duplicates`] are files of the same content that are no hardlinks;
//! - a [`Diff`] is what a second image has otherwise;
//! - [`sbom`] and [`report`] write it down: SPDX, CycloneDX, one page of HTML.
//!
//! Everything is hostile: names are bytes, databases lie, texts are escaped where they are written. Nothing here opens a file
//! or reads a clock; who has an image walks it into a [`ListingBuilder`].
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

mod contents;
mod databases;
mod diff;
mod duplicates;
mod error;
mod inventory;
mod licence;
mod listing;
mod package;
mod purl;
pub mod report;
#[cfg(test)]
mod sample;
pub mod sbom;
mod text;
mod usage;

pub use contents::{Contents, digest_of, start_of};
pub use diff::{Aspect, Change, Diff, diff};
pub use duplicates::{Duplicates, Group};
pub use error::InventoryError;
pub use inventory::Inventory;
pub use listing::{Entry, Listing, ListingBuilder, ListingError, Node, NodeId};
pub use package::{Ecosystem, Package, PackageId, Release};
pub use text::printable;
pub use usage::{Bytes, Usage};
