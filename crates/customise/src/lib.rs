//! The *firebrick layer*: the one layer that firebrick adds on top of an OCI image, so that a microVM can boot it.
//!
//! It holds, at most:
//!
//! ```text
//! /usr/lib/firebrick/firebrick-guest   0755  the guest: PID 1 and agent
//! /etc/firebrick/image.json            0644  what the OCI config says about running it
//! /etc/firebrick/cmdline               0644  words for the guest, as on a kernel command line; only if there are any
//! /proc /sys /dev /run /tmp                  mount points, only those that the image lacks
//! /usr/bin/firebrick -> …/firebrick-guest    so that `firebrick guest --port 5000` works in the image
//! /sbin/overlay-init -> …/firebrick-guest    makes a read-only root writable, then becomes /sbin/init
//! /sbin/init -> …/firebrick-guest            only if asked, or if the image has no init that can supervise a service
//! a unit, a service script or an inittab     under the image's own init
//! what a user asks for ([`Settings`])        accounts, hostname, DNS, files …, and whiteouts of what is slimmed away
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
mod crypt;
mod image;
mod init;
mod lower;
mod mount_points;
mod plan;
mod service;
mod settings;
mod slim;
mod tar;
mod time;

pub use config::{ImageJson, ImageLayer, OddConfig, RunConfig};
pub use crypt::sha512_crypt;
pub use image::{Image, ReadFile};
pub use init::{Chosen, ImageInit, Init, UnknownInit};
pub use lower::{Lower, LowerKind, real_file};
pub use mount_points::{OddMountPoint, odd_mount_points};
pub use plan::{CustomiseError, Customised, Entry, EntryKind, Profile, Request, customise, lay, plan};
pub use service::{AgentUser, Service, UnknownUser};
pub use settings::{
    AccountName, Address, BadValue, Content, Dns, Hostname, Interface, ModuleLine, NewFile, NewGroup,
    NewUser, Owner, PasswordHash, SettingError, Settings, Tty,
};
pub use slim::{Row, Rule, Slimmed, UnknownRule};
pub use tar::to_tar;
pub use time::parse_rfc3339;

/// Where the guest lies in every image.
pub const GUEST_PATH: &str = "usr/lib/firebrick/firebrick-guest";

/// A symbolic link to the guest, under the name by which the hosts of Runner Codes start it; not made where the image has
/// something of that name.
pub const COMMAND_PATH: &str = "usr/bin/firebrick";
/// Where the guest finds what the OCI config says.
pub const IMAGE_JSON_PATH: &str = "etc/firebrick/image.json";
/// Where the guest finds words that are not on the kernel command line.
pub const WORDS_PATH: &str = "etc/firebrick/cmdline";
