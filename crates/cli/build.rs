//! Builds the guest binary, which `src/guest.rs` puts into the program.

use std::env;

fn main() {
    let out_dir = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let guest = firebrick_embed::build_guest(out_dir);
    println!("cargo:rustc-env=FIREBRICK_GUEST={}", guest.display());
}
