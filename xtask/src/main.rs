//! Chores of the workspace, run as `cargo xtask NAME`.
//!
//! `tidy` holds the house rules that no compiler checks (sizes, front pages, the direction of dependencies, links);
//! `deny` holds the rules about other people's crates (licences, where they come from). Both print one finding a
//! line and end with status 1 when there is one. `guest` makes the guest binary for images of another processor.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers talks on its streams"
)]

mod deny;
mod guest;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

const USAGE: &str = "usage: cargo xtask tidy | deny | guest --target TRIPLE --output FILE";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["tidy"] => tidy::run(&root()),
        ["deny"] => deny::run(&root()),
        ["guest", "--target", target, "--output", file] => {
            guest::run(&root(), target, Path::new(file)).map(|()| true)
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace, found from where this crate was built.
fn root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder).to_owned()
}

/// Runs a command in `folder` and returns what it wrote to its standard output.
fn output(folder: &Path, program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let done = std::process::Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    anyhow::ensure!(
        done.status.success(),
        "{program} {} failed: {}",
        arguments.join(" "),
        done.status
    );
    Ok(done.stdout)
}

/// The workspace as `cargo metadata` tells it.
fn metadata(folder: &Path, arguments: &[&str]) -> Result<serde_json::Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let words = [&["metadata", "--format-version", "1"], arguments].concat();
    serde_json::from_slice(&output(folder, &cargo, &words)?).context("cargo metadata wrote no JSON")
}
