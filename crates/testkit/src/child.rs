//! The program `build-image` as a child, watched.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::build::names_in;

/// What a build may hold in memory, whatever it is fed.
pub const MEMORY_MIB: u64 = 400;
/// How long it may take to refuse what it is fed, on a machine that is busy with other tests.
const TIME: Duration = Duration::from_secs(60);

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

/// Builds `reference` with `program`, which must fail within the bounds, say `words` and leave nothing.
///
/// # Errors
/// If it does anything else; `name` is the case's, for the message.
pub fn refused(program: &str, name: &str, reference: &str, words: &[&str]) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let start = Instant::now();
    // A second bound for the host's sake, far above the first: address space is more than memory.
    let mut command = Command::new("prlimit");
    command.args(["--as=6442450944", "--fsize=4294967296", program, reference]);
    command
        .arg(dir.path().join("rootfs.ext4"))
        .env("RUST_BACKTRACE", "0");
    let outcome = finish(command)?;
    let took = start.elapsed();
    ensure!(outcome.status.code() == Some(1), "{name}: {outcome:?}");
    let error = outcome.error().with_context(|| format!("{name}: {outcome:?}"))?;
    for word in words {
        ensure!(error.contains(word), "{name}: no {word:?} in {error:?}");
    }
    ensure!(error.len() < 2000, "{name}: {} bytes of error", error.len());
    ensure!(outcome.complaints.is_empty(), "{name}: {}", outcome.complaints);
    ensure!(outcome.peak_mib()? <= MEMORY_MIB, "{name}: {outcome:?}");
    ensure!(took < TIME, "{name} took {took:?}");
    let left = names_in(dir.path())?;
    ensure!(left.is_empty(), "{name} left {left:?}");
    Ok(())
}
