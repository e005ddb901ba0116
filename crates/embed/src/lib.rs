//! Builds the guest binary, for build scripts of programs that carry it inside themselves.
//!
//! The guest has no standard library and its own entry point, so it needs compiler flags that must not touch anything else:
//! it is built by a cargo of its own, into a folder of its own, from the same workspace and lock file.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why there is no guest binary.
#[derive(Debug)]
pub struct BuildError {
    what: String,
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for BuildError {}

/// Builds `firebrick-guest` for the processor of `target` (a Rust target triple) below `out_dir` and gives its path.
///
/// Nothing is done when its sources have not changed. The result depends on the sources and the compiler alone, not on
/// where they lie.
///
/// # Errors
/// [`BuildError`] when cargo cannot be run or fails; its own messages went to standard error.
pub fn build_guest_for(target: &str, out_dir: &Path) -> Result<PathBuf, BuildError> {
    build_guest_at(&workspace(), target, out_dir)
}

/// As [`build_guest_for`], from the workspace that lies at `workspace`.
///
/// # Errors
/// As [`build_guest_for`].
pub fn build_guest_at(workspace: &Path, target: &str, out_dir: &Path) -> Result<PathBuf, BuildError> {
    let target_dir = out_dir.join("guest");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_the_outer_build) {
            command.env_remove(name);
        }
    }
    command
        .current_dir(workspace)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--profile",
            "guest",
            "--package",
            "firebrick-guest",
        ])
        .args([
            "--bin",
            "firebrick-guest",
            "--features",
            "firebrick-guest/bin",
            "--target",
            target,
            "--target-dir",
        ])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, target).join("\u{1f}"));
    let status = command.status().map_err(|error| BuildError {
        what: format!("cannot run {:?}: {error}", command.get_program()),
    })?;
    if !status.success() {
        return Err(BuildError {
            what: format!("building firebrick-guest for {target} failed: {status}"),
        });
    }
    Ok(target_dir.join(target).join("guest/firebrick-guest"))
}

/// Builds `firebrick-guest` in a build script, for the target being built, and tells cargo when to build it anew.
///
/// # Panics
/// When it cannot be built: in a build script that is how to say so.
#[expect(
    clippy::print_stdout,
    reason = "build scripts talk to cargo on standard output"
)]
pub fn build_guest(out_dir: impl AsRef<Path>) -> PathBuf {
    let workspace = workspace();
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let named = way_to(&workspace, package.as_deref());
    for path in [
        "Cargo.toml",
        "Cargo.lock",
        "crates/embed/guest.ld",
        "crates/guest/Cargo.toml",
        "crates/guest/src",
        "crates/protocol/Cargo.toml",
        "crates/protocol/src",
    ] {
        println!("cargo:rerun-if-changed={}", named.join(path).display());
    }
    let target = env::var("TARGET").expect("cargo sets TARGET for build scripts");
    match build_guest_for(&target, out_dir.as_ref()) {
        Ok(path) => path,
        Err(error) => panic!("{error}"),
    }
}

/// Builds the guest for another processor than the one being built for, in a build script; `None` where this Rust has no
/// core library for it.
///
/// # Panics
/// As [`build_guest`].
pub fn build_other_guest(out_dir: impl AsRef<Path>) -> Option<PathBuf> {
    let target = env::var("TARGET").expect("cargo sets TARGET for build scripts");
    let other = TARGETS
        .into_iter()
        .find(|other| architecture(other) != architecture(&target))?;
    if !can_build_for(other) {
        return None;
    }
    match build_guest_for(other, out_dir.as_ref()) {
        Ok(path) => Some(path),
        Err(error) => panic!("{error}"),
    }
}

/// What the guest has been ported to. It has no C library, so one name of each is enough.
pub const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// Whether this Rust has a core library for `target`.
pub fn can_build_for(target: &str) -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output();
    output.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Path::new(&sysroot)
            .join("lib/rustlib")
            .join(target)
            .join("lib")
            .is_dir()
    })
}

fn architecture(target: &str) -> &str {
    target.split('-').next().unwrap_or(target)
}

/// The workspace that the running crate belongs to, or else the one that this crate was built from: a target folder outlives
/// a checkout that moves, and serves several.
fn workspace() -> PathBuf {
    let running = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let holds_the_guest = |folder: &&Path| folder.join("crates/guest/Cargo.toml").is_file();
    [running.as_deref(), Some(built.as_path())]
        .into_iter()
        .flatten()
        .find_map(|manifest| manifest.ancestors().find(holds_the_guest))
        .expect("the crate lies in a workspace that has the guest")
        .to_path_buf()
}

/// How a build script of `package` names the workspace: relative, where it lies in it. Cargo keeps the names in the target folder,
/// and asks about the files of this checkout then, not of the one that filled the folder.
fn way_to(workspace: &Path, package: Option<&Path>) -> PathBuf {
    match package.and_then(|package| package.strip_prefix(workspace).ok()) {
        Some(inside) => inside.components().map(|_| "..").collect(),
        None => workspace.to_path_buf(),
    }
}

/// Whether a variable was set by or for the cargo that runs us: such ones would change the guest or its place.
fn is_of_the_outer_build(name: &str) -> bool {
    const KEPT: [&str; 4] = [
        "CARGO_HOME",
        "CARGO_NET_OFFLINE",
        "CARGO_HTTP_CAINFO",
        "CARGO_REGISTRIES_CRATES_IO_PROTOCOL",
    ];
    let of_cargo = name.starts_with("CARGO") || name.starts_with("RUSTC") || name.starts_with("RUSTFLAGS");
    let of_profile = matches!(
        name,
        "TARGET"
            | "HOST"
            | "OUT_DIR"
            | "PROFILE"
            | "OPT_LEVEL"
            | "DEBUG"
            | "NUM_JOBS"
            | "MAKEFLAGS"
            | "LD_LIBRARY_PATH"
    );
    (of_cargo || of_profile) && !KEPT.contains(&name)
}

/// How to link: the C compiler knows this machine's processor only, so for another one Rust's own linker is used. What
/// either links is the program alone, with no library and no start files.
fn linking(target: &str) -> &'static [&'static str] {
    if target.starts_with(env::consts::ARCH) {
        &[
            "link-arg=-nostartfiles",
            "link-arg=-nostdlib",
            "link-arg=-static",
            "link-arg=-no-pie",
            "link-arg=-Wl,--build-id=none",
            "link-arg=-Wl,-z,noexecstack",
            "link-arg=-Wl,--gc-sections",
            "link-arg=-Wl,--no-eh-frame-hdr",
        ]
    } else {
        &[
            "linker=rust-lld",
            "linker-flavor=ld.lld",
            "link-arg=-static",
            "link-arg=--build-id=none",
            "link-arg=-znoexecstack",
            "link-arg=--gc-sections",
            "link-arg=--no-eh-frame-hdr",
        ]
    }
}

/// The compiler's flags, none of which may depend on where the workspace lies but by being mapped away.
fn flags(workspace: &Path, target: &str) -> Vec<String> {
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let mut flags = vec![
        format!("--remap-path-prefix={}=firebrick", workspace.display()),
        format!("--remap-path-prefix={}=cargo", cargo_home.display()),
    ];
    flags.extend(["relocation-model=static", "force-unwind-tables=no"].map(|flag| format!("-C{flag}")));
    flags.extend(linking(target).iter().map(|flag| format!("-C{flag}")));
    // Both the C compiler and the linker itself know `-T`.
    let script = workspace.join("crates/embed/guest.ld");
    flags.extend(["-T".to_owned(), script.display().to_string()].map(|word| format!("-Clink-arg={word}")));
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkouts_own_files_are_watched() {
        let at = |package| way_to(Path::new("/a/firebrick"), package);
        assert_eq!(at(Some(Path::new("/a/firebrick/crates/cli"))), Path::new("../.."));
        assert_eq!(at(Some(Path::new("/a/other"))), Path::new("/a/firebrick"));
        assert_eq!(at(None), Path::new("/a/firebrick"));
    }
}
