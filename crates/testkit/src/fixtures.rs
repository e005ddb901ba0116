//! Real images, where they are: `FIREBRICK_FIXTURES`, or `../shared/fixtures` beside the workspace.

use std::path::{Path, PathBuf};

use crate::oracle::say;

/// The path of a fixture, or `None`, saying so, where it is absent.
pub fn fixture(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("FIREBRICK_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let path = folder.join(name);
    if !path.exists() {
        say(&format!(
            "the real image {name} is left out: no {}",
            path.display()
        ));
        return None;
    }
    Some(path)
}

/// Alpine's minirootfs, as tar.gz.
pub const ALPINE: [&str; 3] = [
    "alpine/alpine-minirootfs-3.19.4-x86_64.tar.gz",
    "alpine/alpine-minirootfs-3.20.3-x86_64.tar.gz",
    "alpine/alpine-minirootfs-3.20.3-aarch64.tar.gz",
];

/// Busybox as OCI layouts. The musl layers have 404 hard links.
pub const BUSYBOX: [&str; 3] = [
    "oci/busybox-glibc-amd64",
    "oci/busybox-musl-amd64",
    "oci/busybox-musl-arm64v8",
];
