//! The guest binary for another processor than this machine's, as `firebrick rootfs from-docker --agent` takes it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use firebrick_embed::{TARGETS, can_build_for};

/// Builds the guest for `target` as firebrick's own build does, and puts it into `file`.
///
/// # Errors
/// When the target is none of ours, the compiler cannot build for it, or the file cannot be written.
pub(crate) fn run(root: &Path, target: &str, file: &Path) -> Result<()> {
    ensure!(
        TARGETS.contains(&target),
        "there is no guest for {target}, only for {}",
        TARGETS.join(", ")
    );
    ensure!(
        can_build_for(target),
        "this Rust cannot build for {target}; add that: rustup target add {target}"
    );
    let target_dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let built = firebrick_embed::build_guest_for(target, &target_dir.join("xtask"))?;
    std::fs::copy(&built, file).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{}: {} bytes", file.display(), std::fs::metadata(file)?.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn unknown_targets_are_refused_before_anything_is_built() {
        let file = std::path::Path::new("/nowhere/guest");
        let error = super::run(&crate::root(), "s390x-unknown-linux-gnu", file).unwrap_err();
        assert!(error.to_string().contains("aarch64-unknown-linux-gnu"), "{error}");
    }
}
