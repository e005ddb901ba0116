//! Asks OCI registries: pulls and pushes, over HTTP, with whatever authorization they want.
//!
//! A [`Repository`] is one repository of one registry, by its [`RepositoryName`]. It holds *blobs*, which are known by digest alone,
//! and *manifests* (and indexes, which are manifests of manifests), which may also have tags. A [`Client`] fetches single files
//! of the web by the same rules: redirects, proxies, certificates, plain HTTP only where it is allowed, tries again.
//!
//! Blocking: one thread waits for one answer; many threads may ask at once. Protocol:
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>, tokens:
//! <https://distribution.github.io/distribution/spec/auth/token/>.
#![forbid(unsafe_code)]

mod access;
mod address;
mod answer;
mod attempts;
mod auth;
mod blob;
mod challenge;
mod client;
mod connect;
mod credentials;
mod descriptor;
mod error;
mod listing;
mod manifest;
pub mod media_type;
mod name;
mod options;
mod pace;
pub mod quote;
mod referrers;
mod repository;
mod transfer;
mod trouble;
mod upload;

pub use client::Client;
pub use descriptor::Descriptor;
pub use error::RegistryError;
pub use manifest::{Manifest, Pushed};
pub use name::{ManifestName, NameError, RegistryReference, RepositoryName, Tag};
pub use options::{Credentials, OnRetry, Proxy, RegistryOptions, Retry, Retrying};
pub use quote::JsonError;
pub use repository::Repository;
pub use transfer::Piece;
pub use trouble::Trouble;
