//! Warm pools: machines that have booted before anyone asks for them.
//!
//! - A [`Keeper`] is a process that holds a pool: it keeps some *warm* machines, all alike, each used once, and refills.
//! - Its *terms* ([`Terms`]) say what its machines are; a [`Wish`] says what is wanted, and is refused if they differ.
//! - A [`Lease`] is one machine taken from a pool: a stream to its agent that the keeper passed on, and the connection to the keeper,
//!   whose end is the machine's end.
//!
//! Where the VMM has snapshots the first machine becomes one, and the members are restored from it; elsewhere each is booted. The
//! keeper's machines end with it, however it ends. `docs/pool.md` has the messages.

mod keeper;
mod lease;
mod message;
mod template;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::folder::Reach;
use crate::uds;

pub use keeper::Keeper;
pub use lease::{Lease, Taking, status, stop, take};
pub use message::{ImageId, PoolStatus, Terms, Wish};

/// Where pools have their sockets, and what each has there.
#[derive(Clone, Debug)]
pub struct PoolFiles {
    folder: PathBuf,
    name: String,
}

impl PoolFiles {
    /// The files of the pool `name` in `folder`.
    pub fn of(folder: impl Into<PathBuf>, name: impl Into<String>) -> PoolFiles {
        PoolFiles {
            folder: folder.into(),
            name: name.into(),
        }
    }

    /// Every pool that has a socket in `folder`; its keeper may be dead.
    ///
    /// # Errors
    /// What the host said.
    pub fn all(folder: &Path) -> io::Result<Vec<PoolFiles>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(name) = name
                .strip_prefix("pool-")
                .and_then(|name| name.strip_suffix(".sock"))
            {
                all.push(PoolFiles::of(folder, name));
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its keeper's words go.
    pub fn log(&self) -> PathBuf {
        self.file("log")
    }

    /// Where its snapshot lies.
    pub fn snapshot(&self) -> PathBuf {
        self.file("snapshot")
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.folder.join(self.file_name(kind))
    }

    fn file_name(&self, kind: &str) -> String {
        format!("pool-{}.{kind}", self.name)
    }

    /// The log, for a keeper that may come to be: what another has written stays.
    ///
    /// # Errors
    /// What the host said.
    pub fn open_log(&self) -> io::Result<File> {
        self.make_folder()?;
        File::options().append(true).create(true).open(self.log())
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    /// A connection to the keeper; `None` if there is none, and then what a dead one has left is removed.
    ///
    /// # Errors
    /// What the host said.
    pub fn connect(&self) -> io::Result<Option<UnixStream>> {
        let reach = match Reach::open(&self.folder) {
            Ok(reach) => reach,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match uds::connect(&reach.path(&self.file_name("sock"))) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if let Some(held) = self.hold()? {
                    held.remove();
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Becomes the only keeper of the pool; `None` if there is another.
    ///
    /// # Errors
    /// What the host said.
    pub fn hold(&self) -> io::Result<Option<Held>> {
        self.make_folder()?;
        let path = self.file("lock");
        loop {
            let lock = File::create(&path)?;
            match lock.try_lock() {
                // Who held it may have removed it in between; then it is no longer the one that others see.
                Ok(()) if !is_at(&lock, &path)? => {}
                Ok(()) => {
                    return Ok(Some(Held {
                        files: self.clone(),
                        _lock: lock,
                    }));
                }
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

/// Whether the opened file is the one of this name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The right to keep a pool. The kernel takes it back when its holder ends.
#[derive(Debug)]
pub struct Held {
    files: PoolFiles,
    _lock: File,
}

impl Held {
    /// Listens for those who want machines: its own user only.
    ///
    /// # Errors
    /// What the host said.
    pub fn listen(&self) -> io::Result<UnixListener> {
        let reach = Reach::open(&self.files.folder)?;
        let path = reach.path(&self.files.file_name("sock"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Empties the log of what earlier keepers have said.
    ///
    /// # Errors
    /// What the host said.
    pub fn clear_log(&self) -> io::Result<()> {
        File::create(self.files.log()).map(drop)
    }

    /// Removes everything of the pool.
    pub fn remove(self) {
        let _ = fs::remove_file(self.files.log());
        self.remove_but_log();
    }

    /// The same for a keeper that failed: who started it reads in the log why.
    pub fn remove_but_log(self) {
        let _ = fs::remove_dir_all(self.files.snapshot());
        for kind in ["sock", "lock"] {
            let _ = fs::remove_file(self.files.file(kind));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_was_removed_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = File::create(&path).unwrap();
        assert!(is_at(&first, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&first, &path).unwrap());
        let _second = File::create(&path).unwrap();
        assert!(!is_at(&first, &path).unwrap());
        let files = PoolFiles::of(dir.path(), "x");
        let held = files.hold().unwrap().unwrap();
        assert!(files.hold().unwrap().is_none());
        held.remove();
        assert!(files.hold().unwrap().is_some());
    }
}
