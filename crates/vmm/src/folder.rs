//! A folder of one machine's files, which is gone when its owner is: removed on drop, and after a death that could not be
//! cleaned up by the next machine of the same place.
//!
//! The owner holds a lock on the folder (`flock`), which the kernel takes back whatever happens to the owner. A folder that nobody
//! holds is removed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// How the folders' names begin. Nothing else in their place is touched.
const PREFIX: &str = "vm-";

/// A folder with a name of its own, open to its owner only.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: tempfile::TempDir,
    _held: File,
}

impl Folder {
    /// Makes a folder in `parent`, which is made too, and removes those that nobody holds.
    pub(crate) fn create(parent: &Path) -> io::Result<Folder> {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        // Between its making and its locking a folder looks as if nobody held it.
        let gate = File::open(parent)?;
        gate.lock()?;
        sweep(parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let held = File::open(folder.path())?;
        held.lock()?;
        Ok(Folder { folder, _held: held })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what the dead have left. What cannot be removed is in nobody's way.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_ours && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// An opened folder, in which sockets are reached however long its path is: that of a socket has 107 bytes at most.
#[derive(Debug)]
pub(crate) struct Reach(File);

impl Reach {
    /// Opens the folder.
    pub(crate) fn open(folder: &Path) -> io::Result<Reach> {
        Ok(Reach(File::open(folder)?))
    }

    /// A short path of `name` in it, good in this process.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_go_with_their_owners_and_the_dead_leave_none() {
        let parent = tempfile::tempdir().unwrap();
        let names = || {
            let entries = fs::read_dir(parent.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let held = Folder::create(parent.path()).unwrap();
        // As a killed owner leaves it: there, with something in it, and not locked.
        fs::create_dir(parent.path().join("vm-dead")).unwrap();
        fs::write(parent.path().join("vm-dead/api.sock"), "").unwrap();
        fs::create_dir(parent.path().join("other")).unwrap();
        let second = Folder::create(parent.path()).unwrap();
        let mut expected: Vec<_> = [held.path(), second.path()]
            .map(|path| path.file_name().unwrap().to_owned())
            .into();
        expected.insert(0, "other".into());
        expected.sort();
        assert_eq!(names(), expected);
        drop((held, second));
        assert_eq!(names(), ["other"]);
    }

    #[test]
    fn sockets_are_reached_however_deep_they_lie() {
        let deep = tempfile::tempdir().unwrap();
        let folder = deep.path().join("x".repeat(200));
        fs::create_dir(&folder).unwrap();
        let reach = Reach::open(&folder).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(reach.path("s")).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(folder.join("s")).is_err());
        std::os::unix::net::UnixStream::connect(reach.path("s")).unwrap();
    }
}
