//! Files from outside of the repository: real images, where they are: `FIREBRICK_FIXTURES`, or `../shared/fixtures` beside the
//! workspace.
//!
//! Where one is not, the test that wants it leaves it out and says so, and `scripts/test` tells at its end what was left out. Where
//! `CI` is set it fails, unless `FIREBRICK_FIXTURES=none` says that there are none.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::oracle::{is_set, leave_out};

/// The path of a fixture, or `None`, saying so, where it is left out.
///
/// # Panics
/// If it is absent and `CI` is set, unless `FIREBRICK_FIXTURES` is `none`.
#[track_caller]
pub fn fixture(name: &str) -> Option<PathBuf> {
    let setting = std::env::var_os("FIREBRICK_FIXTURES");
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    match look(setting.as_deref(), &usual, is_set("CI"), name) {
        Found::Here(path) => Some(path),
        Found::LeftOut(why) => {
            leave_out(&format!("{name} ({why})"));
            None
        }
        Found::Missing(why) => {
            panic!(
                "{why}, and CI is set: set FIREBRICK_FIXTURES to a folder that has {name}, or to none, to leave such files out"
            )
        }
    }
}

/// What came of looking for one.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Here(PathBuf),
    /// Why the test does without.
    LeftOut(String),
    /// Why it cannot.
    Missing(String),
}

fn look(setting: Option<&OsStr>, usual: &Path, is_ci: bool, name: &str) -> Found {
    if setting.is_some_and(|setting| setting == "none") {
        return Found::LeftOut("FIREBRICK_FIXTURES=none".to_owned());
    }
    let path = setting.map_or(usual, Path::new).join(name);
    let absent = format!("there is no {}", path.display());
    match (path.exists(), is_ci) {
        (true, _) => Found::Here(path),
        (false, false) => Found::LeftOut(absent),
        (false, true) => Found::Missing(absent),
    }
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

/// The description of Firecracker's API by its authors, beside the folder of the images.
pub const FIRECRACKER_API: &str = "../firecracker-api.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_left_out_but_in_ci() {
        let dir = tempfile::tempdir().unwrap();
        let (here, nowhere) = (dir.path().join("here"), dir.path().join("nowhere"));
        std::fs::create_dir(&here).unwrap();
        std::fs::write(here.join("image"), "").unwrap();
        std::fs::write(dir.path().join("beside"), "").unwrap();
        let look = |setting: Option<&Path>, usual: &Path, is_ci, name| match look(
            setting.map(Path::as_os_str),
            usual,
            is_ci,
            name,
        ) {
            Found::Here(_) => "here",
            Found::LeftOut(_) => "left out",
            Found::Missing(_) => "missing",
        };
        for (setting, usual, name, at_home, in_ci) in [
            (None, &here, "image", "here", "here"),
            (None, &here, "../beside", "here", "here"),
            (None, &here, "other", "left out", "missing"),
            (None, &nowhere, "image", "left out", "missing"),
            (Some(&*here), &nowhere, "image", "here", "here"),
            (Some(&*nowhere), &here, "image", "left out", "missing"),
            (Some(&*here), &here, "other", "left out", "missing"),
            (Some(Path::new("none")), &here, "image", "left out", "left out"),
        ] {
            let found = [false, true].map(|is_ci| look(setting, usual, is_ci, name));
            assert_eq!(found, [at_home, in_ci], "{setting:?} {name}");
        }
    }
}
