//! Debian roots, made by `mmdebstrap` once per target folder and shared by all tests of the workspace.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::oracle;

/// The tar of Debian bookworm with these packages, named `debian-NAME.tar` in `folder`, which is the `CARGO_TARGET_TMPDIR` of the
/// test. Tests of several processes may want it at once: one makes it, the others wait. `None` where oracles are left out.
///
/// # Panics
/// If it cannot be made.
pub fn root(folder: &Path, name: &str, packages: &str) -> Option<PathBuf> {
    if !oracle::have("mmdebstrap").expect("mmdebstrap") {
        return None;
    }
    let file = |end: &str| folder.join(format!("debian-{name}{end}"));
    let (tar, part) = (file(".tar"), file(".part.tar"));
    let lock = File::create(file(".lock")).expect("the lock");
    lock.lock().expect("the lock");
    if !tar.exists() {
        let status = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase"])
            .args([&format!("--include={packages}"), "bookworm"])
            .arg(&part)
            .env("SOURCE_DATE_EPOCH", "1735689600")
            .status()
            .expect("mmdebstrap (Debian package mmdebstrap)");
        assert!(status.success(), "mmdebstrap: {status}");
        fs::rename(&part, &tar).expect("the tar gets its name");
    }
    Some(tar)
}
