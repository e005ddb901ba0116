//! The program `build-image` as a child, watched.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::Context as _;

/// How a build in a process of its own ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its status; a panic or a signal shows here.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub said: String,
    /// What it wrote to standard error: nothing, unless something panicked.
    pub complaints: String,
}

impl Outcome {
    /// The most memory that it held, in MiB.
    ///
    /// # Errors
    /// If it did not come to say so.
    pub fn peak_mib(&self) -> anyhow::Result<u64> {
        let line = self.said.lines().find_map(|line| line.strip_prefix("peak_kib "));
        let kib: u64 = line.with_context(|| format!("no peak: {self:?}"))?.parse()?;
        Ok(kib / 1024)
    }

    /// The line that says why it failed, or nothing.
    pub fn error(&self) -> Option<&str> {
        self.said.lines().find_map(|line| line.strip_prefix("error: "))
    }
}

/// The command that builds `reference` to `output` with `program`, the path of `build-image`.
pub fn command(program: &str, reference: &str, output: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(reference).arg(output).stdin(Stdio::null());
    // Where a panic's trace would only make the message longer.
    command.env("RUST_BACKTRACE", "0");
    command
}

/// Runs it to its end.
///
/// # Errors
/// If it cannot be started.
pub fn finish(mut command: Command) -> anyhow::Result<Outcome> {
    let output = command.output().context("running build-image")?;
    Ok(Outcome {
        status: output.status,
        said: String::from_utf8_lossy(&output.stdout).into_owned(),
        complaints: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
