//! vsock behind a Unix socket, as Firecracker has it and `vhost-device-vsock` too.
//!
//! The host dials a port of the guest by connecting to the socket and sending `CONNECT <port>\n`: the answer is `OK <number>\n`,
//! or the connection's end. What the guest dials arrives at a second socket, whose path is the first one's with `_<port>` behind it.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::deadline;
use crate::machine::{Port, ended, not_listening};

/// The longest answer to `CONNECT`: `OK 4294967295` and a line feed.
const ANSWER_LEN_MAX: usize = 14;
/// How long to wait before what does not answer is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Connects to a port of the guest behind `socket`, waiting up to `limit` until it listens there.
pub(crate) fn dial(
    socket: &Path,
    port: Port,
    limit: Duration,
    has_ended: &dyn Fn() -> bool,
) -> io::Result<OwnedFd> {
    let deadline = deadline::after(limit);
    loop {
        let connected = connect(socket);
        if has_ended() {
            return Err(ended());
        }
        match connected {
            Ok(stream) => {
                if connect_through(&stream, port, deadline)? {
                    return Ok(stream.into());
                }
            }
            Err(error) if is_full(&error) => {}
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return Err(not_listening(port));
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

/// Connects at once or not at all.
///
/// Firecracker lets nobody in before the guest's driver is up, and until then whoever has tried keeps a place in the listener's
/// queue. Where that is full a usual `connect` waits for room, without a limit.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Whether that was for want of room in the listener's queue.
pub(crate) fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// The socket at which the guest's calls to `port` of the host arrive.
pub(crate) fn listener_path(socket: &Path, port: Port) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(format!("_{port}"));
    path.into()
}

/// A listener that the guest reaches at this port of the host. A socket that nobody listens on any more makes room.
pub(crate) fn listen(socket: &Path, port: Port) -> io::Result<UnixListener> {
    let path = listener_path(socket, port);
    remove_stale(&path)?;
    UnixListener::bind(path)
}

/// Removes a socket that nobody listens on any more, or a link to one or to nothing; what else there is stays, and is an error.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
    let taken = |why: &str| {
        let text = format!("{}: {why}", path.display());
        Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() && !leads_to_socket_or_nothing(path) => {
            taken("there is a file of this name")
        }
        Ok(_) if connect(path).map_or_else(|error| is_full(&error), |_| true) => {
            taken("another program listens there")
        }
        Ok(_) => std::fs::remove_file(path),
    }
}

/// What a killed machine in a jail has left is a link to a socket that may be gone.
fn leads_to_socket_or_nothing(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Ok(target) => target.file_type().is_socket(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_lets_nobody_in_is_not_waited_for_beyond_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.sock");
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let mut waiting = Vec::new();
        let full = loop {
            match connect(&path) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert!(is_full(&full), "{full}");
        let (sender, outcome) = std::sync::mpsc::channel();
        let socket = path.clone();
        std::thread::spawn(move || {
            let dialled = dial(&socket, Port(52), Duration::from_millis(200), &|| false);
            let _ = sender.send(dialled.map(drop));
        });
        let dialled = outcome
            .recv_timeout(Duration::from_secs(60))
            .expect("it gives up");
        assert_eq!(dialled.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // It is no socket of the dead, either.
        let taken = remove_stale(&path).unwrap_err();
        assert!(
            taken.to_string().ends_with("another program listens there"),
            "{taken}"
        );
    }
}
