//! A whole Linux of our own, as an ordinary process: user-mode Linux, whose root is the host's files and whose first
//! disk is an image.
//!
//! It may do what the host's kernel lets nobody do here (growing a mounted filesystem takes `CAP_SYS_RESOURCE`, which
//! containers and sandboxes drop), it can be killed in the middle of a write as a power cut would, and it is a second
//! version of the kernel.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::oracle;

/// Whether tests can run one here.
///
/// # Errors
/// [`oracle::Missing`], as [`oracle::have`].
pub fn have() -> anyhow::Result<bool> {
    if cfg!(target_arch = "x86_64") {
        return oracle::have("linux.uml");
    }
    oracle::say("user-mode Linux is left out: there is none for this processor");
    Ok(false)
}

/// A running Linux.
#[derive(Debug)]
pub struct Uml {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    _dir: tempfile::TempDir,
}

/// How long a Linux may live; far more than any script here takes on a busy machine.
const LIFE: Duration = Duration::from_secs(200);

impl Uml {
    /// Boots, mounts `image` on `$M` with these options, runs `script` under `set -e`, unmounts and halts.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(image: &Path, options: &str, script: &str) -> anyhow::Result<Uml> {
        let dir = tempfile::tempdir()?;
        let point = dir.path().join("mnt");
        std::fs::create_dir(&point)?;
        let init = dir.path().join("init");
        let text = format!(
            "#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C M={}\n\
             mount -t proc proc /proc\nmount -t devtmpfs dev /dev 2>/dev/null\n\
             (set -e\nmount -t ext4 -o {options} /dev/ubda $M\n{script}\numount $M\necho finished)\n\
             halt -f\n",
            point.display()
        );
        std::fs::write(&init, text)?;
        std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755))?;
        let mut child = Command::new("timeout")
            .args(["-k", "1", &LIFE.as_secs().to_string(), "linux.uml", "mem=256M"])
            .args(["rootfstype=hostfs", "rw", "quiet", "con=null", "con0=null,fd:1"])
            .arg(format!("ubd0={}", std::fs::canonicalize(image)?.display()))
            .arg(format!("init={}", init.display()))
            // Where it keeps its memory and its sockets.
            .env("TMPDIR", dir.path())
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("running timeout")?;
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        let lines = BufReader::new(stdout).lines();
        Ok(Uml {
            child,
            lines,
            _dir: dir,
        })
    }

    /// The next line that it says.
    ///
    /// # Errors
    /// If that is no text.
    pub fn line(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self
            .lines
            .next()
            .transpose()?
            .map(|line| line.trim_end().to_owned()))
    }

    /// Waits for the script's end; everything that it said.
    ///
    /// # Errors
    /// If the script failed, with all that it said.
    pub fn finish(mut self) -> anyhow::Result<String> {
        let mut text = String::new();
        while let Some(line) = self.line()? {
            text.push_str(&line);
            text.push('\n');
        }
        self.child.wait()?;
        ensure!(
            text.contains("\nfinished\n"),
            "the script did not get to its end: {text}"
        );
        Ok(text)
    }
}

/// A power cut.
impl Drop for Uml {
    fn drop(&mut self) {
        // `timeout` passes a signal on to the whole group; a Linux has several processes, and KILL it cannot pass on.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        );
        let _ = self.child.wait();
    }
}
