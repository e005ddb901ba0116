//! The crate against object stores: SeaweedFS for S3, Azurite for Azure, a scripted server for Google, and what goes wrong between.
//!
//! Needs `weed` and `azurite-blob`; see `firebrick_testkit::oracle` for what happens without.

mod azure;
mod conditions;
mod contract;
mod credentials;
mod faults;
mod google;
mod independent;
mod memory;
mod s3;
mod support;
