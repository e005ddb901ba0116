//! Archives of packages: a web server for one folder, by Python, and what a small archive in Ubuntu's shape is made of.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

/// A server of what is in a folder, on loopback; it ends with the value.
#[derive(Debug)]
pub struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Serves the folder.
    ///
    /// # Errors
    /// If Python does not.
    pub fn of(folder: &Path) -> anyhow::Result<Server> {
        let mut process = Command::new("python3")
            .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory"])
            .arg(folder)
            .arg("0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting python3")?;
        // `Serving HTTP on 127.0.0.1 port 12345 (http://…) ...`
        let mut line = String::new();
        let stdout = process.stdout.take().context("stdout is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line
            .split(" port ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let port = port.and_then(|port| port.parse().ok());
        let port = port.with_context(|| format!("the server said {line:?}"))?;
        Ok(Server { process, port })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An archive of `noble` for a minimal system and `python3-minimal`, made of Debian's packages and signed with a key of its own:
/// `archive/`, `key.gpg`, and `other.gpg`, which has another key. It is made once, in a folder of `tmp`, and kept.
///
/// # Errors
/// If its packages cannot be downloaded, or one of the tools is missing.
pub fn ubuntu_archive(tmp: &Path) -> anyhow::Result<PathBuf> {
    let folder = tmp.join("ubuntu");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/ubuntu-archive");
    let status = Command::new(script)
        .arg(&folder)
        .status()
        .with_context(|| format!("starting {script}"))?;
    ensure!(status.success(), "{script}: {status}");
    Ok(folder)
}
