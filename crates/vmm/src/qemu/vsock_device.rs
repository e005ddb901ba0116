//! vsock through `vhost-device-vsock`, a process that speaks Firecracker's protocol on a Unix socket: what dials a guest under
//! Firecracker dials this one too.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::Process;
use super::{ended, not_listening};
use crate::machine::{LaunchError, Port};

const PROGRAM: &str = "vhost-device-vsock";
const INSTALL: &str = "cargo install --locked vhost-device-vsock";
/// The guest's address. Each device has a host of its own, so all may be alike.
const GUEST_CID: &str = "3";
/// How long the device may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait before what does not answer is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);
/// The longest answer to `CONNECT`: `OK 4294967295` and a line feed.
const ANSWER_LEN_MAX: usize = 14;

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
            remove_stale(path).map_err(host("make the vsock socket"))?;
        }
        let mut command = Command::new(PROGRAM);
        command.args(["--guest-cid", GUEST_CID, "--uds-path"]).arg(socket);
        command.arg("--socket").arg(&control);
        let (process, _) = Process::start(command, Vec::new()).map_err(|source| match source.kind() {
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
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let stream = self.connect(&self.socket, left, has_ended)?;
            if has_ended() {
                return Err(ended());
            }
            if connect_through(&stream, port, deadline)? {
                return Ok(stream.into());
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Connects to a socket of the device, waiting up to `limit` until it is there.
    fn connect(&self, path: &Path, limit: Duration, has_ended: &dyn Fn() -> bool) -> io::Result<UnixStream> {
        let deadline = Instant::now() + limit;
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

/// Removes a socket that nobody listens on any more; what else there is stays, and is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    let taken = |why: &str| {
        let text = format!("{}: {why}", path.display());
        Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => taken("there is a file of this name"),
        Ok(_) if UnixStream::connect(path).is_ok() => taken("another program listens there"),
        Ok(_) => std::fs::remove_file(path),
    }
}

/// Asks for a port of the guest. Whether it is granted; an error once `deadline` has passed.
fn connect_through(mut stream: &UnixStream, port: Port, deadline: Instant) -> io::Result<bool> {
    if stream.write_all(format!("CONNECT {port}\n").as_bytes()).is_err() {
        return if Instant::now() < deadline {
            Ok(false)
        } else {
            Err(not_listening(port))
        };
    }
    // Byte by byte: what follows the line is the guest's.
    let mut answer = Vec::with_capacity(ANSWER_LEN_MAX);
    while !answer.ends_with(b"\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(not_listening(port));
        }
        stream.set_read_timeout(Some(left))?;
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) if answer.len() < ANSWER_LEN_MAX => answer.push(byte[0]),
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(not_listening(port)),
            Err(_) => return Ok(false),
        }
    }
    stream.set_read_timeout(None)?;
    Ok(answer.starts_with(b"OK "))
}
