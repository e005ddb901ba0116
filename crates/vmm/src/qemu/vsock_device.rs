//! vsock through `vhost-device-vsock`, a process that speaks Firecracker's protocol on a Unix socket: what dials a guest under
//! Firecracker dials this one too.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::deadline;
use crate::machine::{LaunchError, Port, ended};
use crate::process::Process;
use crate::uds;

const PROGRAM: &str = "vhost-device-vsock";
const INSTALL: &str = "cargo install --locked vhost-device-vsock";
/// The guest's address. Each device has a host of its own, so all may be alike.
const GUEST_CID: &str = "3";
/// How long the device may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait before what does not answer is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// A running device. Dropping it ends the process and removes the socket.
#[derive(Debug)]
pub(super) struct VsockDevice {
    socket: PathBuf,
    process: Process,
}

impl VsockDevice {
    /// Starts a device that listens at `socket`. Gives the connection over which QEMU tells it of the guest's memory.
    pub(super) fn start(socket: &Path) -> Result<(VsockDevice, OwnedFd), LaunchError> {
        let host = |action| move |source: io::Error| LaunchError::Host { action, source };
        let control = control_path(socket);
        for path in [socket, &control] {
            uds::remove_stale(path).map_err(host("make the vsock socket"))?;
        }
        let mut command = Command::new(PROGRAM);
        command.args(["--guest-cid", GUEST_CID, "--uds-path"]).arg(socket);
        command.arg("--socket").arg(&control);
        let (process, _) =
            Process::start(command, Vec::new(), None).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => LaunchError::NotInstalled {
                    program: PROGRAM,
                    install: INSTALL,
                },
                _ => LaunchError::Start {
                    program: PROGRAM.into(),
                    source,
                },
            })?;
        let device = VsockDevice {
            socket: socket.to_owned(),
            process,
        };
        let connected = device.connect(&control, START_LIMIT, &|| false);
        // Only we connect there, once.
        let _ = std::fs::remove_file(&control);
        let connected = connected.map_err(|source| LaunchError::Start {
            program: PROGRAM.into(),
            source,
        })?;
        Ok((device, connected.into()))
    }

    /// Connects to a port of the guest, waiting up to `limit` until it listens there.
    pub(super) fn dial(
        &self,
        port: Port,
        limit: Duration,
        has_ended: &dyn Fn() -> bool,
    ) -> io::Result<OwnedFd> {
        let has_ended = || has_ended() || self.has_ended();
        uds::dial(&self.socket, port, limit, &has_ended)
    }

    /// A listener that the guest reaches at this port of the host.
    pub(super) fn listen(&self, port: Port) -> io::Result<UnixListener> {
        uds::listen(&self.socket, port)
    }

    /// Connects to a socket of the device, waiting up to `limit` until it is there.
    fn connect(&self, path: &Path, limit: Duration, has_ended: &dyn Fn() -> bool) -> io::Result<UnixStream> {
        let deadline = deadline::after(limit);
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(stream),
                Err(_) if has_ended() || self.has_ended() => {
                    return Err(ended());
                }
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(RETRY_INTERVAL),
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.process.exit().is_some()
    }
}

impl Drop for VsockDevice {
    fn drop(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Where the device is told of a guest, for as long as that takes.
fn control_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".control");
    path.into()
}
