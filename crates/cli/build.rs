//! Builds the guest binaries, which `src/guest.rs` puts into the program.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let out_dir = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let guest = firebrick_embed::build_guest(&out_dir);
    println!("cargo:rustc-env=FIREBRICK_GUEST={}", guest.display());
    let other = firebrick_embed::build_other_guest(&out_dir).unwrap_or_else(|| none(Path::new(&out_dir)));
    println!("cargo:rustc-env=FIREBRICK_OTHER_GUEST={}", other.display());
}

/// An empty file, which says that there is no such guest.
fn none(out_dir: &Path) -> PathBuf {
    let path = out_dir.join("no-guest");
    fs::write(&path, []).expect("cargo's own folder can be written");
    path
}
