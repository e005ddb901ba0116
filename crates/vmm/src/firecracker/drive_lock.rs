//! Locks on drives, which machines of Firecracker and of QEMU heed alike.
//!
//! Firecracker locks nothing, so its owner does, as QEMU does it for its own: with locks of an *open file description* on single
//! bytes of the image, all of them shared ones. A byte from 100 on, one for each *permission*, is locked by who uses that
//! permission; one from 200 on by who lets nobody else use it. Permission 0 is to read, permission 1 to write. Who wants the drive
//! first locks, and then looks whether anybody else's locks are against it; of two who come at once at least one sees the other.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use rustix::io::Errno;

use crate::machine::{Drive, LaunchError, open_disk};

const USES: i64 = 100;
const KEEPS_TO_ITSELF: i64 = 200;
const READ: i64 = 0;
const WRITE: i64 = 1;

/// The locks of a drive, gone with this. Closing the file alone would leave them to processes that are just being started: until
/// such a one has become its program, it has the file, too.
#[derive(Debug)]
pub(super) struct DriveLock(File);

impl Drop for DriveLock {
    fn drop(&mut self) {
        let _ = fcntl(&self.0, Command::Lock, libc::F_UNLCK, 0, 0); // and then it is closed
    }
}

/// What came of locking a drive.
#[derive(Debug)]
pub(super) enum Locked {
    /// It is locked.
    Held(DriveLock),
    /// Its filesystem has no locks.
    Impossible(io::Error),
}

/// Locks the drive: who writes it has it alone, those who only read it share it.
pub(super) fn lock(drive: &Drive) -> Result<Locked, LaunchError> {
    let file = open_disk(&drive.path, false).map_err(|source| LaunchError::Open {
        path: drive.path.clone(),
        source,
    })?;
    let lock = DriveLock(file);
    let taken = take(drive.read_only, &mut |command, kind, byte| {
        fcntl(&lock.0, command, kind, byte, 1)
    });
    match taken {
        Ok(true) => Ok(Locked::Held(lock)),
        Ok(false) => Err(LaunchError::Unsupported {
            what: "sharing a drive that a machine writes",
            reason: format!("another machine has {}", drive.path.display()),
        }),
        Err(error) if is_without_locks(&error) => Ok(Locked::Impossible(error)),
        Err(source) => Err(LaunchError::Lock {
            path: drive.path.clone(),
            source,
        }),
    }
}

/// Whether a machine writes to this file as its drive, one of Firecracker or of QEMU. Nobody does where there are no locks.
pub fn drive_is_written(file: &File) -> bool {
    fcntl(file, Command::Look, libc::F_WRLCK, USES + WRITE, 1).is_ok_and(|is_free| !is_free)
}

/// What is asked of the kernel about one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// To lock it.
    Lock,
    /// Whether somebody else has locked it.
    Look,
}

/// Takes all locks and looks at those of others, through a function that says whether a byte could be locked, or is free. Whether
/// nobody is in the way.
fn take(
    read_only: bool,
    ask: &mut dyn FnMut(Command, libc::c_int, i64) -> io::Result<bool>,
) -> io::Result<bool> {
    let mut own = vec![USES + READ, KEEPS_TO_ITSELF + WRITE];
    // Those who keep to themselves what we use, and those who use what we keep to ourselves.
    let mut others = vec![KEEPS_TO_ITSELF + READ, USES + WRITE];
    if !read_only {
        own.push(USES + WRITE);
        others.push(KEEPS_TO_ITSELF + WRITE);
    }
    for byte in own {
        if !ask(Command::Lock, libc::F_RDLCK, byte)? {
            return Ok(false);
        }
    }
    for byte in others {
        // A lock that no other would leave room for: any that is there is in its way.
        if !ask(Command::Look, libc::F_WRLCK, byte)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Asks about so many bytes from `byte` on; about all of them if that is none.
fn fcntl(file: &File, command: Command, kind: libc::c_int, byte: i64, count: i64) -> io::Result<bool> {
    let short = |number: libc::c_int| libc::c_short::try_from(number).map_err(io::Error::other);
    let mut lock = libc::flock {
        l_type: short(kind)?,
        l_whence: short(libc::SEEK_SET)?,
        l_start: byte,
        l_len: count,
        l_pid: 0, // the kernel wants it so for locks of this kind
    };
    let number = match command {
        Command::Lock => libc::F_OFD_SETLK,
        Command::Look => libc::F_OFD_GETLK,
    };
    #[expect(unsafe_code, reason = "rustix locks whole files only")]
    // SAFETY: the descriptor is open, and both commands read and write one `flock`, which outlives the call.
    let returned = unsafe { libc::fcntl(file.as_raw_fd(), number, &raw mut lock) };
    match (returned, command) {
        (0, Command::Lock) => Ok(true),
        (0, Command::Look) => Ok(lock.l_type == short(libc::F_UNLCK)?),
        _ => match io::Error::last_os_error() {
            // Somebody has locked the byte for himself alone.
            error if matches!(Errno::from_io_error(&error), Some(Errno::AGAIN | Errno::ACCESS)) => Ok(false),
            error => Err(error),
        },
    }
}

/// Whether the error says that there are no locks here at all, as on some network filesystems.
fn is_without_locks(error: &io::Error) -> bool {
    let none = [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|errno| none.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_writer_and_anybody_else_the_second_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drive");
        std::fs::write(&path, "a disk").unwrap();
        let drive = |read_only| Drive {
            path: path.clone(),
            read_only,
        };
        for (first, second, is_had) in [
            (true, true, true),
            (true, false, false),
            (false, true, false),
            (false, false, false),
        ] {
            let held = lock(&drive(first)).unwrap();
            assert_eq!(lock(&drive(second)).is_ok(), is_had, "{first} {second}");
            // Free again, though somebody has the file, as a process that is being started does.
            let Locked::Held(DriveLock(file)) = &held else {
                panic!("a lock");
            };
            let _copy = file.try_clone().unwrap();
            drop(held);
            assert!(lock(&drive(second)).is_ok(), "it is free again");
        }
        // A lock of the whole file for one alone, as other programs have it.
        let other = File::options().write(true).open(&path).unwrap();
        assert!(fcntl(&other, Command::Lock, libc::F_WRLCK, USES, 1).unwrap());
        let error = lock(&drive(true)).unwrap_err();
        assert!(matches!(error, LaunchError::Unsupported { .. }), "{error}");
    }

    #[test]
    fn what_cannot_be_locked_is_told_apart_from_what_fails() {
        for (errno, is_none) in [
            (Errno::NOLCK, true),
            (Errno::OPNOTSUPP, true),
            (Errno::NOSYS, true),
            (Errno::INVAL, true),
            (Errno::IO, false),
            (Errno::BADF, false),
        ] {
            let error = take(false, &mut |_, _, _| Err(errno.into())).unwrap_err();
            assert_eq!(is_without_locks(&error), is_none, "{error}");
        }
    }
}
