//! The *firebrick layer*: the one layer that firebrick adds on top of an OCI image, so that a microVM can boot it.
//!
//! It holds, at most:
//!
//! ```text
//! /usr/lib/firebrick/firebrick-guest   0755  the guest: PID 1 and agent
//! /etc/firebrick/image.json            0644  what the OCI config says about running it
//! /proc /sys /dev /run /tmp                  mount points, only those that the image lacks
//! /sbin/init -> …/firebrick-guest            only if asked, or if the image has no init of its own
//! ```
//!
//! The layer is *planned* against the merged tree of the layers below ([`Lower`]): a directory that exists is
//! never repeated, because a repeated directory replaces its owner and mode, and a directory over a symlink
//! (`/sbin -> usr/sbin`) replaces the symlink. Parents that are symlinks are followed inside the image.
//!
//! Invariant: the entries are a function of the request and of the tree below alone: no clock, no environment,
//! no host files.
#![forbid(unsafe_code)]

mod config;
mod init;
mod lower;
mod mount_points;
mod plan;
mod tar;
mod time;

pub use config::{ImageJson, OddConfig, RunConfig};
pub use init::{ImageInit, Init, UnknownInit};
pub use lower::{Lower, LowerKind};
pub use mount_points::{OddMountPoint, odd_mount_points};
pub use plan::{CustomiseError, Entry, EntryKind, Request, plan};
pub use tar::to_tar;
pub use time::parse_rfc3339;

/// Where the guest lies in every image.
pub const GUEST_PATH: &str = "usr/lib/firebrick/firebrick-guest";
/// Where the guest finds what the OCI config says.
pub const IMAGE_JSON_PATH: &str = "etc/firebrick/image.json";
