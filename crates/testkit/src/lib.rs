//! Layers to build images of, an independent application of them, and judges of the images.
//!
//! - [`layers`]: a text form of layers, and the tars and OCI layouts that they become;
//! - [`mod@reference`]: what a container would see of some layers, by the OCI text and none of our own code;
//! - [`listing`]: what any judge says of a tree, and how two of them differ;
//! - [`build`]: images out of layers, by the whole build as users run it, judged by everyone who can;
//! - [`squashfs`]: the same for squashfs, whose judges are others;
//! - [`child`]: a build in a process of its own, to be killed, starved or compared;
//! - [`walk`], [`mount`]: the kernel's view of a folder and of an image;
//! - [`uml`]: a second kernel, in a process of its own;
//! - [`view`]: the view of the `ext4-view` crate, written by others; [`own`]: that of our own reader;
//! - [`oracle`]: `e2fsck`, `debugfs`, `resize2fs`, `umoci`, and [`oracle::Image`], which is checked when it is made;
//! - [`docker_registry`], [`tokens`]: a real registry, and a token server for it; [`http`]: a small server that can be told to fail;
//! - [`registry`]: a registry of one layout; [`server`]: a web server of a folder, and an archive of packages for it;
//! - [`stores`]: object stores; [`fault`]: a proxy before one that can be told to fail;
//! - [`random`]: random layers for property tests;
//! - [`targets`]: what is fuzzed, and damage that needs no fuzzer;
//! - [`fixtures`]: real images.
//!
//! Nothing here is part of the product. A judge that is not there fails its test, see [`oracle::Missing`].
#![forbid(unsafe_code)]

pub mod acl;
pub mod build;
pub mod child;
pub mod debian;
pub mod docker_registry;
pub mod fault;
pub mod fixtures;
pub mod http;
pub mod layers;
pub mod listing;
pub mod mount;
pub mod oracle;
pub mod own;
pub mod random;
pub mod reference;
pub mod registry;
pub mod server;
pub mod slow;
pub mod squashfs;
pub mod stores;
pub mod targets;
pub mod tokens;
pub mod uml;
pub mod view;
pub mod walk;
