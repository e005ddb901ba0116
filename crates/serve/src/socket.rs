//! The socket that clients connect to: a name in the filesystem which is there as long as somebody answers behind it.

use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::ServeError;

/// The most bytes of a path that every program can connect to: `sun_path` has 108, and a NUL behind.
const PATH_LEN_MAX: usize = 107;
/// How many clients may wait to be accepted.
const BACKLOG: i32 = 128;
/// How long a socket may take from its name's appearance until it can be connected to, before it counts as left over.
const NEWBORN: Duration = Duration::from_millis(50);

/// A listener and its name, which is removed with the value unless it is somebody else's by then.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the name.
    identity: (u64, u64),
}

impl Socket {
    /// Listens at `path`, for this user only. A socket that nobody listens on any more makes room.
    pub(crate) fn bind(path: &Path) -> Result<Socket, ServeError> {
        let len = path.as_os_str().as_bytes().len();
        if len > PATH_LEN_MAX {
            let path = path.to_owned();
            return Err(ServeError::PathTooLong {
                path,
                len,
                limit: PATH_LEN_MAX,
            });
        }
        let failed = |source: io::Error| ServeError::Listen {
            path: path.to_owned(),
            source,
        };
        let address = SocketAddrUnix::new(path).map_err(|errno| failed(errno.into()))?;
        let mut bound = listen_at(&address);
        if matches!(bound, Err(Errno::ADDRINUSE)) {
            make_room(path, &address)?;
            bound = listen_at(&address);
        }
        let listener = match bound {
            // Somebody was quicker.
            Err(Errno::ADDRINUSE) => {
                return Err(ServeError::Taken {
                    path: path.to_owned(),
                });
            }
            bound => UnixListener::from(bound.map_err(|errno| failed(errno.into()))?),
        };
        let identity = identity(&std::fs::symlink_metadata(path).map_err(failed)?);
        Ok(Socket {
            listener,
            path: path.to_owned(),
            identity,
        })
    }

    /// Where clients are accepted, without waiting for them.
    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // Nobody is left to hear of it; the next server here makes room for itself.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn listen_at(address: &SocketAddrUnix) -> Result<OwnedFd, Errno> {
    let socket = new_socket()?;
    // The name is made with the socket's own mode: at no moment may others connect.
    fchmod(socket.as_fd(), Mode::RUSR | Mode::WUSR)?;
    bind(&socket, address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Removes the socket at `path` if nobody listens on it. What else there is stays, and is an error.
fn make_room(path: &Path, address: &SocketAddrUnix) -> Result<(), ServeError> {
    let failed = |source: io::Error| ServeError::Listen {
        path: path.to_owned(),
        source,
    };
    let taken = || ServeError::Taken {
        path: path.to_owned(),
    };
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed)?,
    };
    if !found.file_type().is_socket() {
        return Err(ServeError::NotSocket {
            path: path.to_owned(),
        });
    }
    // Between its name and its readiness a socket refuses, too: one that still does a while later is left over.
    for pause in [Duration::ZERO, NEWBORN] {
        std::thread::sleep(pause);
        match connect(new_socket().map_err(|errno| failed(errno.into()))?, address) {
            Err(Errno::CONNREFUSED) => {}
            Err(Errno::NOENT) => return Ok(()),
            // Not to wait in a queue that is full: there is somebody whose queue it is.
            Ok(()) | Err(Errno::AGAIN) => return Err(taken()),
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    match std::fs::symlink_metadata(path) {
        Ok(now) if identity(&now) != identity(&found) => Err(taken()),
        Ok(_) => std::fs::remove_file(path).map_err(failed),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;

    fn refused(path: &Path) -> ServeError {
        Socket::bind(path).expect_err("it is refused")
    }

    #[test]
    fn the_name_is_there_as_long_as_the_socket_and_for_its_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_left_alone_and_a_stale_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = UnixListener::bind(&path).unwrap();
        assert!(matches!(refused(&path), ServeError::Taken { .. }));
        assert!(UnixStream::connect(&path).is_ok());
        drop(first);
        assert!(path.exists());
        let second = Socket::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_whose_queue_is_full_is_no_trap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let address = SocketAddrUnix::new(&path).unwrap();
        let busy = new_socket().unwrap();
        bind(&busy, &address).unwrap();
        listen(&busy, 0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(matches!(refused(&path), ServeError::Taken { .. }));
    }

    #[test]
    fn files_folders_and_links_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(refused(&path), ServeError::NotSocket { .. }));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let link = folder.path().join("l");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(matches!(refused(&link), ServeError::NotSocket { .. }));
        assert!(link.is_symlink());
        assert!(matches!(refused(folder.path()), ServeError::NotSocket { .. }));
        assert!(matches!(
            refused(&folder.path().join("not/there")),
            ServeError::Listen { source, .. } if source.kind() == io::ErrorKind::NotFound
        ));
    }

    #[test]
    fn paths_end_where_addresses_do() {
        let folder = tempfile::tempdir().unwrap();
        let room = PATH_LEN_MAX - folder.path().as_os_str().len() - 1;
        let longest = folder.path().join("x".repeat(room));
        let _socket = Socket::bind(&longest).unwrap();
        assert!(UnixStream::connect(&longest).is_ok());
        let longer = folder.path().join("x".repeat(room + 1));
        assert!(matches!(
            refused(&longer),
            ServeError::PathTooLong {
                len: 108,
                limit: 107,
                ..
            }
        ));
    }

    #[test]
    fn a_successors_name_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = Socket::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        // Made while the first inode is still in use, so that it has another number.
        let second = Socket::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
