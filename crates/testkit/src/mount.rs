//! The kernel's own view of an image: a loop mount in a mount namespace of its own.
//!
//! A child process (`unshare -m`) mounts and then waits; we look in through `/proc/PID/root`, which shows that
//! process's mounts. Nothing appears in anyone else's namespace, and when the child ends, for whatever reason,
//! the kernel takes mount and loop device away.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::oracle;

/// Mounts, says so, waits for the end of its input, and unmounts; its status is that of the unmount.
const SCRIPT: &str = r#"mount -t "$4" -o "loop,$1" "$2" "$3" && echo mounted && cat && umount "$3""#;

/// A mounted image.
#[derive(Debug)]
pub struct Mount {
    child: Child,
    root: PathBuf,
    point: tempfile::TempDir,
}

impl Mount {
    /// Mounts `image`, an ext4, with these options (`ro` or `rw`).
    ///
    /// # Errors
    /// If the kernel refuses; with what it said.
    pub fn new(image: &Path, options: &str) -> anyhow::Result<Mount> {
        Mount::of(image, "ext4", options)
    }

    /// Mounts `image`, of the filesystem that the kernel calls so.
    ///
    /// # Errors
    /// As [`Mount::new`].
    pub fn of(image: &Path, filesystem: &str, options: &str) -> anyhow::Result<Mount> {
        let point = tempfile::tempdir()?;
        let mut child = Command::new("unshare")
            .args([
                "-m",
                "--propagation",
                "private",
                "sh",
                "-c",
                SCRIPT,
                "sh",
                options,
            ])
            .arg(std::fs::canonicalize(image)?)
            .arg(point.path())
            .arg(filesystem)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("running unshare")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout is a pipe")?).read_line(&mut line)?;
        if line != "mounted\n" {
            let mut message = String::new();
            child
                .stderr
                .take()
                .context("stderr is a pipe")?
                .read_to_string(&mut message)?;
            child.wait()?;
            anyhow::bail!("mounting {} -o {options}: {message}", image.display());
        }
        let root = PathBuf::from(format!("/proc/{}/root", child.id())).join(point.path().strip_prefix("/")?);
        Ok(Mount { child, root, point })
    }

    /// The mounted root, reachable while this value lives.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The loop device under it.
    ///
    /// # Errors
    /// If the mount is not there any more.
    pub fn device(&self) -> anyhow::Result<String> {
        let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", self.child.id()))?;
        let point = self
            .point
            .path()
            .to_str()
            .context("temporary folders have plain names")?;
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(point));
        let device = line.and_then(|line| line.split(' ').next());
        Ok(device.context("the image is not mounted")?.to_owned())
    }

    /// Runs a tool that must succeed where the mount can be seen.
    ///
    /// # Errors
    /// With what it said.
    pub fn run(&self, tool: &str, args: &[&str]) -> anyhow::Result<String> {
        let pid = self.child.id().to_string();
        oracle::run_ok(
            "nsenter",
            ["-t", &pid, "-m", tool].into_iter().chain(args.iter().copied()),
        )
    }

    /// Unmounts; everything written is in the image afterwards.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn unmount(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let mut message = String::new();
        self.child
            .stderr
            .take()
            .context("stderr is a pipe")?
            .read_to_string(&mut message)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "unmounting: {status} {message}");
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // The test is failing already or has unmounted; the kernel cleans up when the child is gone.
        let _ = self.child.wait();
    }
}
