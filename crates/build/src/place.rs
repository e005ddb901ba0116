//! Where an image goes: its final name, and the names that unfinished ones have beside it.
//!
//! An unfinished image is locked (`flock`) as long as somebody works on it. Most have no name at all until they are
//! whole; those that need one are called `.NAME.partial-PID-N`. A run that is killed leaves such a file without a lock,
//! and the next run for the same output removes it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use firebrick_digest::Digest;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// Longest name of a file, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;
/// Room for `-PID-N` behind the prefix.
const SUFFIX_MAX: usize = 24;

/// Symbolic links that are followed, as many as the kernel does.
const SYMLINKS_MAX: usize = 40;

/// How many names are tried.
const ATTEMPTS: usize = 100;

/// Makes names unique among the builds of this process.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Where a path leads: images may be kept on another disk, and a link to them is to stay one.
///
/// # Errors
/// If links lead in a circle, or to what a process has open (`/dev/stdout`), which is no place for a file.
pub fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..SYMLINKS_MAX {
        let Ok(target) = path.read_link() else {
            return Ok(path);
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        if folder
            .canonicalize()
            .is_ok_and(|folder| folder.starts_with("/proc"))
        {
            return Err(no_file());
        }
        path = folder.join(target);
    }
    Err(Errno::LOOP.into())
}

fn no_file() -> io::Error {
    let why = "there is something that is not a file: give the name of a file";
    io::Error::new(io::ErrorKind::AlreadyExists, why)
}

/// An output and its folder.
#[derive(Debug)]
pub struct Place {
    output: PathBuf,
    folder: PathBuf,
    /// Held open, so that making the new name last cannot fail for want of access when it is too late.
    open_folder: File,
    /// What names of unfinished images of this output start with.
    prefix: OsString,
}

impl Place {
    /// Looks at where `output` will be, behind symbolic links.
    ///
    /// # Errors
    /// If its folder is not there, or something is there that is not a file.
    pub fn of(output: &Path) -> io::Result<Place> {
        // A folder or a device is somebody's mistake, also behind a symbolic link (`/dev/stdout`).
        if output.metadata().is_ok_and(|found| !found.is_file()) {
            return Err(no_file());
        }
        let output = &behind_links(output)?;
        let Some(name) = output.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
        };
        let folder = match output.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let open_folder = File::open(&folder)?;
        let mut prefix = OsString::from(".");
        if name.len() + ".".len() + ".partial".len() + SUFFIX_MAX <= NAME_MAX {
            prefix.push(name);
        } else {
            prefix.push(Digest::of(name.as_encoded_bytes()).short());
        }
        prefix.push(".partial-");
        Ok(Place {
            output: output.to_owned(),
            folder,
            open_folder,
            prefix,
        })
    }

    fn temporary(&self) -> PathBuf {
        let mut name = self.prefix.clone();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        name.push(format!("{}-{count}", std::process::id()));
        self.folder.join(name)
    }

    /// Opens a file that never gets a name, for what is read back before the build ends.
    pub(crate) fn open_scratch(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::open(&self.folder, flags, Mode::from_raw_mode(0o600)) {
            return Ok(file.into());
        }
        let (file, path) = self.open_named()?;
        std::fs::remove_file(path)?;
        Ok(file)
    }

    /// Opens a file without a name, locked; `None` where the filesystem knows no such files, or such a file could not be named
    /// later.
    pub fn open_unnamed(&self) -> Option<File> {
        self.open_with(OFlags::empty())
    }

    /// The same, past the page cache if that can be.
    pub(crate) fn open_unnamed_direct(&self) -> Option<File> {
        self.open_with(OFlags::DIRECT).or_else(|| self.open_unnamed())
    }

    fn open_with(&self, more: OFlags) -> Option<File> {
        // It can be named only through /proc.
        if !Path::new("/proc/self/fd").exists() {
            return None;
        }
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC | more;
        let file: File = rustix::fs::open(&self.folder, flags, Mode::from_raw_mode(0o644))
            .ok()?
            .into();
        lock(&file).ok().filter(|&ours| ours).map(|_| file)
    }

    /// Opens a file with a temporary name of its own, locked.
    ///
    /// # Errors
    /// If no such file can be made.
    pub fn open_named(&self) -> io::Result<(File, PathBuf)> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        for _ in 0..ATTEMPTS {
            let path = self.temporary();
            let file: File = match rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644)) {
                Ok(file) => file.into(),
                // Another machine, or another container, with our process number.
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            };
            // Where nothing can be locked, nobody takes it for a killed run's either.
            let Ok(locked) = lock(&file) else {
                return Ok((file, path));
            };
            // Until it was locked, another run might have taken it for that, and removed it.
            if locked && still_named(&file, &path)? {
                return Ok((file, path));
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Gives a file without a name a temporary one.
    ///
    /// # Errors
    /// If the folder does not take it.
    pub fn link(&self, file: &File) -> io::Result<PathBuf> {
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        for _ in 0..ATTEMPTS {
            let path = self.temporary();
            let (from, to) = (rustix::fs::CWD, rustix::fs::CWD);
            match rustix::fs::linkat(from, &unnamed, to, &path, AtFlags::SYMLINK_FOLLOW) {
                Err(Errno::EXIST) => {}
                other => return Ok(other.map(|()| path)?),
            }
        }
        Err(Errno::EXIST.into())
    }

    /// Gives the file with this temporary name its final one, and makes that last.
    ///
    /// # Errors
    /// The file is gone then, but where only the last part failed.
    pub fn rename(&self, temporary: &Path) -> io::Result<()> {
        std::fs::rename(temporary, &self.output).inspect_err(|_| _ = std::fs::remove_file(temporary))?;
        match rustix::fs::fsync(&self.open_folder) {
            // Some filesystems cannot sync a folder; they have no other way to make a name last.
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Removes what killed runs left: files of our temporary names that nobody holds locked.
    pub fn remove_stale(&self) {
        // Nothing here may stop a build: at worst a file stays for the next run.
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ours = name
                .as_encoded_bytes()
                .starts_with(self.prefix.as_encoded_bytes());
            if !ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = rustix::fs::open(entry.path(), flags, Mode::empty()).map(File::from);
            if opened.is_ok_and(|file| lock(&file).is_ok_and(|locked| locked)) {
                _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether `path` is a name of this open file.
fn still_named(file: &File, path: &Path) -> io::Result<bool> {
    let here = file.metadata()?;
    match path.symlink_metadata() {
        Ok(found) => Ok((found.dev(), found.ino()) == (here.dev(), here.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Locks a file as long as it is open. `false` if somebody else holds it.
fn lock(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn builds_of_one_process_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(&dir.path().join("a.ext4")).unwrap();
        let (first, first_path) = place.open_named().unwrap();
        let (second, second_path) = place.open_named().unwrap();
        let unnamed = place.open_unnamed().unwrap();
        let linked = place.link(&unnamed).unwrap();
        place.remove_stale();
        assert_eq!(names(dir.path()).len(), 3, "{:?}", names(dir.path()));
        for (path, file) in [
            (&linked, &unnamed),
            (&second_path, &second),
            (&first_path, &first),
        ] {
            place.rename(path).unwrap();
            let ino = std::fs::metadata(dir.path().join("a.ext4")).unwrap().ino();
            assert_eq!(ino, file.metadata().unwrap().ino());
        }
        assert_eq!(names(dir.path()), ["a.ext4"]);
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let other = Place::of(&dir.path().join("b.ext4")).unwrap();
        let others = other.open_named().unwrap();
        let place = Place::of(&dir.path().join("a.ext4")).unwrap();
        for name in [
            ".a.ext4.partial-1-0",
            ".a.ext4.partial",
            "a.ext4",
            ".b.ext4.partial-9-9",
        ] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        drop(place.open_named().unwrap());
        place.remove_stale();
        let expected = [".a.ext4.partial", ".b.ext4.partial-9-9", "a.ext4"];
        let left: Vec<_> = names(dir.path())
            .into_iter()
            .filter(|name| !others.1.ends_with(name))
            .collect();
        assert_eq!(left, expected);
    }

    #[test]
    fn long_names_have_short_temporary_ones() {
        let dir = tempfile::tempdir().unwrap();
        let name = "n".repeat(NAME_MAX);
        let place = Place::of(&dir.path().join(&name)).unwrap();
        let (_file, path) = place.open_named().unwrap();
        place.rename(&path).unwrap();
        assert_eq!(names(dir.path()), [name]);
    }

    #[test]
    fn what_a_process_has_open_is_no_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("file")).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", file.as_raw_fd()), &link).unwrap();
        assert!(link.metadata().unwrap().is_file());
        assert!(Place::of(&link).is_err());
        std::os::unix::fs::symlink("file", dir.path().join("other")).unwrap();
        assert!(Place::of(&dir.path().join("other")).is_ok());
    }

    #[test]
    fn folders_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Place::of(dir.path()).is_err());
        assert!(Place::of(Path::new("..")).is_err());
        assert!(Place::of(&dir.path().join("absent/a.ext4")).is_err());
    }
}
