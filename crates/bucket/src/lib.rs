//! S3, Google Cloud Storage and Azure Blob as [`firebrick_store::Objects`].
//!
//! A [`Bucket`] is opened from an *address* (`s3://bucket/prefix`, `gs://…`, `az://…`) and [`Options`]: variables that the caller
//! read, proxy, authorities. The library `object_store` speaks the providers' languages and finds credentials; below it lies our
//! `wire`, the HTTP that it uses, and above it what it leaves open: ranges that came short, writes on a condition whose answer was
//! lost, files in parts, and errors that say what to do.
//!
//! It is blocking on the outside: a small runtime inside drives the sockets, every call waits in the thread that made it, and
//! calls of many threads run at once. What is promised of conditional writes, and which stores were tried: `docs/buckets.md`.
#![forbid(unsafe_code)]

mod address;
mod body;
mod bucket;
mod client;
mod error;
mod fetch;
mod options;
mod profile;
mod provider;
mod swap;
mod trouble;
mod upload;
mod wire;

pub use bucket::Bucket;
pub use error::BucketError;
pub use options::{Options, Proxy, Retry};
