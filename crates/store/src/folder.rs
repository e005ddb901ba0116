//! Objects as files of a folder.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firebrick_digest::Digest;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::objects::{Entry, ObjectError, Objects, Swap, Version};

/// Files that are being written lie here until they are whole.
pub(crate) const PARTIAL: &str = ".partial";
/// Who writes names holds a lock on this file.
const LOCK: &str = ".lock";
/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;
/// How long the lock is waited for: who holds it writes one small file.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who waits so long is told.
const LONG: Duration = Duration::from_secs(2);
/// How often it is looked whether the lock is free.
const LOOK: Duration = Duration::from_millis(10);

/// Hears that the lock, a file of that path, is being waited for.
type Waits = dyn Fn(&Path) + Send + Sync;

/// A folder of this host, which need not be there yet.
pub struct Folder {
    root: PathBuf,
    address: String,
    patience: Duration,
    waits: Box<Waits>,
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Folder {
    /// The store in the folder `root`, an absolute path.
    pub fn new(root: &Path) -> Folder {
        Folder {
            root: root.to_owned(),
            address: format!("file://{}", root.display()),
            patience: PATIENCE,
            waits: Box::new(|_| ()),
        }
    }

    /// Tells `waits` the path of the lock, once somebody has been waited for for two seconds.
    #[must_use]
    pub fn telling(self, waits: Box<Waits>) -> Folder {
        Folder { waits, ..self }
    }

    /// Waits at most this long for somebody who holds the lock, in place of a minute.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Folder {
        Folder { patience, ..self }
    }

    /// Where an object lies. No key leads out of the folder.
    fn path(&self, key: &str) -> Result<PathBuf, ObjectError> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        match key.split('/').all(plain) {
            true => Ok(self.root.join(key)),
            false => Err(self.failed("use", key, io::ErrorKind::InvalidFilename.into())),
        }
    }

    fn failed(&self, action: &'static str, key: &str, source: io::Error) -> ObjectError {
        let (address, key) = (self.address.clone(), key.to_owned());
        match source.kind() {
            io::ErrorKind::NotFound => ObjectError::Missing { address, key },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ObjectError::Denied {
                address,
                key,
                action,
                source: source.into(),
            },
            _ => ObjectError::Failed {
                address,
                key,
                action,
                source: source.into(),
            },
        }
    }

    /// Opens an object. What is no file, a pipe or a device, is refused before it can make us wait.
    fn open(&self, key: &str) -> Result<File, ObjectError> {
        let path = self.path(key)?;
        let open = || -> io::Result<File> {
            plain(&fs::metadata(&path)?)?;
            // It may be another by now.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::open(&path, flags, Mode::empty())?);
            plain(&file.metadata()?)?;
            Ok(file)
        };
        open().map_err(|error| self.failed("read", key, error))
    }

    /// Writes beside, and puts in place what is on disk.
    fn write(&self, key: &str, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), ObjectError> {
        let path = self.path(key)?;
        let write = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(&self.root);
            let partial = self.root.join(PARTIAL);
            fs::create_dir_all(folder)?;
            fs::create_dir_all(&partial)?;
            let mut file = tempfile::Builder::new()
                // Listings leave out what begins with a dot, and `gc` looks for what was left here.
                .prefix("partial-")
                .permissions(mode(0o644))
                .tempfile_in(partial)?;
            fill(file.as_file_mut())?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(folder)?.sync_all()
        };
        // A folder that is not there is not an object that is not there.
        write().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.failed("write", key, io::Error::other(error)),
            _ => self.failed("write", key, error),
        })
    }

    /// Holds off other writers of names until the file is closed.
    fn lock(&self) -> Result<File, ObjectError> {
        let failed = |error| self.failed("write", LOCK, error);
        fs::create_dir_all(&self.root).map_err(failed)?;
        let path = self.root.join(LOCK);
        let open = || -> io::Result<File> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::open(&path, flags, Mode::from_raw_mode(0o666))?);
            plain(&file.metadata()?)?;
            Ok(file)
        };
        let file = open().map_err(failed)?;
        let began = Instant::now();
        let mut is_told = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
            let waited = began.elapsed();
            if waited >= self.patience {
                return Err(ObjectError::Locked {
                    address: self.address.clone(),
                    path,
                    seconds: waited.as_secs(),
                });
            }
            if !is_told && waited >= LONG {
                (self.waits)(&path);
                is_told = true;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Files below a folder; with `deep`, also those in folders there.
    fn collect(folder: &Path, key: &str, deep: bool, entries: &mut Vec<Entry>) -> io::Result<()> {
        let list = match fs::read_dir(folder) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            list => list?,
        };
        for found in list {
            let found = found?;
            let Some(name) = found
                .file_name()
                .to_str()
                .filter(|name| !name.starts_with('.'))
                .map(str::to_owned)
            else {
                continue;
            };
            // Follows links; what is gone since is not there.
            let Ok(metadata) = fs::metadata(found.path()) else {
                continue;
            };
            let key = format!("{key}{name}");
            if metadata.is_dir() && deep {
                Self::collect(&found.path(), &format!("{key}/"), deep, entries)?;
            } else if metadata.is_file() {
                let modified = metadata.modified()?;
                entries.push(Entry {
                    key,
                    len: metadata.len(),
                    modified,
                });
            }
        }
        Ok(())
    }
}

/// Refuses what is no file.
fn plain(metadata: &fs::Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")),
    }
}

fn mode(mode: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

fn version(bytes: &[u8]) -> Version {
    Version(Digest::of(bytes).hex())
}

impl Objects for Folder {
    fn address(&self) -> &str {
        &self.address
    }

    fn size(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        match fs::metadata(self.path(key)?) {
            Ok(metadata) => match plain(&metadata) {
                Ok(()) => Ok(Some(metadata.len())),
                Err(error) => Err(self.failed("read", key, error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", key, error)),
        }
    }

    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, Version)>, ObjectError> {
        let file = match self.open(key) {
            Err(ObjectError::Missing { .. }) => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| self.failed("read", key, error))?;
        if bytes.len() as u64 > limit {
            let (address, key) = (self.address.clone(), key.to_owned());
            return Err(ObjectError::TooLarge { address, key, limit });
        }
        let version = version(&bytes);
        Ok(Some((bytes, version)))
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
        let file = self.open(key)?;
        let expected = range.end.saturating_sub(range.start);
        let found = file
            .metadata()
            .map_err(|error| self.failed("read", key, error))?
            .len();
        let mut bytes = vec![0; usize::try_from(expected.min(found)).unwrap_or(0)];
        match file.read_exact_at(&mut bytes, range.start) {
            Ok(()) if bytes.len() as u64 == expected => Ok(bytes),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Err(self.failed("read", key, error))
            }
            _ => Err(ObjectError::Short {
                address: self.address.clone(),
                key: key.to_owned(),
                expected,
                found: found.saturating_sub(range.start).min(expected),
            }),
        }
    }

    fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.write(key, |file| file.write_all(&bytes))
    }

    fn swap(&self, key: &str, bytes: Vec<u8>, expected: Option<&Version>) -> Result<Swap, ObjectError> {
        let _lock = self.lock()?;
        let current = match self.open(key) {
            Err(ObjectError::Missing { .. }) => None,
            file => {
                let mut bytes = Vec::new();
                file?
                    .read_to_end(&mut bytes)
                    .map_err(|error| self.failed("read", key, error))?;
                Some(version(&bytes))
            }
        };
        if current.as_ref() != expected {
            return Ok(Swap::Changed);
        }
        self.put(key, bytes)?;
        Ok(Swap::Done)
    }

    fn can_swap(&self) -> Result<bool, ObjectError> {
        Ok(true)
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        match fs::remove_file(self.path(key)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("remove", key, error)),
            _ => Ok(()),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, ObjectError> {
        let mut entries = Vec::new();
        let folder = match prefix.strip_suffix('/') {
            Some(folder) => self.path(folder)?,
            None => self.root.clone(),
        };
        Self::collect(&folder, prefix, true, &mut entries)
            .map_err(|error| self.failed("list", prefix, error))?;
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    fn list_top(&self) -> Result<Vec<Entry>, ObjectError> {
        let mut entries = Vec::new();
        Self::collect(&self.root, "", false, &mut entries).map_err(|error| self.failed("list", "", error))?;
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    fn put_file(&self, key: &str, file: &File, moved: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError> {
        self.write(key, |target| {
            copy(|bytes, at| file.read_at(bytes, at), target, moved)
        })
    }

    fn get_file(&self, key: &str, file: &File, moved: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError> {
        let source = self.open(key)?;
        let mut file = file;
        copy(|bytes, at| source.read_at(bytes, at), &mut file, moved)
            .map_err(|error| self.failed("read", key, error))
    }
}

fn copy(
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    target: &mut impl io::Write,
    moved: &(dyn Fn(u64) + Sync),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let len = read(&mut piece, at)?;
        if len == 0 {
            return Ok(());
        }
        target.write_all(&piece[..len])?;
        at += len as u64;
        moved(len as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(&dir.path().join("store"));
        (dir, folder)
    }

    #[test]
    fn objects_come_back() {
        let (_dir, folder) = folder();
        assert_eq!(folder.list("").unwrap(), []);
        assert!(folder.get("a/b", 10).unwrap().is_none());
        folder.put("a/b", b"hello".to_vec()).unwrap();
        folder.put("c", b"".to_vec()).unwrap();
        assert_eq!(folder.get("a/b", 5).unwrap().unwrap().0, b"hello");
        assert!(matches!(
            folder.get("a/b", 4),
            Err(ObjectError::TooLarge { limit: 4, .. })
        ));
        assert_eq!(folder.get_range("a/b", 1..3).unwrap(), b"el");
        for range in [3..6, 5..6, 9..10, 0..u64::MAX] {
            assert!(matches!(
                folder.get_range("a/b", range),
                Err(ObjectError::Short { .. })
            ));
        }
        assert!(matches!(
            folder.get_range("x", 0..1),
            Err(ObjectError::Missing { .. })
        ));
        let keys = |prefix| {
            folder
                .list(prefix)
                .unwrap()
                .into_iter()
                .map(|entry| entry.key)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (keys(""), keys("a/"), keys("x/")),
            (
                vec!["a/b".to_owned(), "c".to_owned()],
                vec!["a/b".to_owned()],
                vec![]
            )
        );
        folder.delete("c").unwrap();
        folder.delete("c").unwrap();
        assert_eq!(folder.size("c").unwrap(), None);
        assert_eq!(fs::read_dir(folder.root.join(PARTIAL)).unwrap().count(), 0);
    }

    #[test]
    fn keys_do_not_lead_out() {
        let (_dir, folder) = folder();
        for key in ["../x", "a/../../x", "/x", "a//b", "", ".", "a/."] {
            assert!(folder.put(key, Vec::new()).is_err(), "{key}");
            assert!(folder.get(key, 1).is_err(), "{key}");
        }
    }

    #[test]
    fn swaps_of_many_lose_nothing() {
        let (_dir, folder) = folder();
        let add = || loop {
            let found = folder.get("n", 100).unwrap();
            let count: u32 = found
                .as_ref()
                .map_or(0, |(text, _)| std::str::from_utf8(text).unwrap().parse().unwrap());
            let next = (count + 1).to_string().into_bytes();
            if folder
                .swap("n", next, found.as_ref().map(|(_, version)| version))
                .unwrap()
                == Swap::Done
            {
                return;
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10).for_each(|_| add()));
            }
        });
        assert_eq!(folder.get("n", 100).unwrap().unwrap().0, b"80");
    }

    #[test]
    fn pipes_are_no_objects() {
        let (_dir, folder) = folder();
        folder.put("a", b"file".to_vec()).unwrap();
        let fifo = |name: &str| {
            let path = folder.root.join(name);
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &path,
                rustix::fs::FileType::Fifo,
                mode_of(0o644),
                0,
            )
            .unwrap();
        };
        fifo("pipe");
        std::os::unix::fs::symlink("pipe", folder.root.join("link")).unwrap();
        for key in ["pipe", "link"] {
            let refused = [
                folder.size(key).err(),
                folder.get(key, 10).err(),
                folder.get_range(key, 0..1).err(),
                folder.swap(key, Vec::new(), None).err(),
            ];
            for error in refused {
                let error = error.unwrap();
                let ObjectError::Failed { source, .. } = &error else {
                    panic!("{error}")
                };
                assert_eq!(source.to_string(), "it is no file");
            }
        }
        fs::remove_file(folder.root.join(LOCK)).unwrap();
        fifo(LOCK);
        assert!(folder.swap("b", Vec::new(), None).is_err());
    }

    fn mode_of(mode: u32) -> Mode {
        Mode::from_raw_mode(mode)
    }

    #[test]
    fn who_holds_the_lock_is_waited_for_a_while() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let (_dir, folder) = folder();
        let told = std::sync::Arc::new(AtomicU32::new(0));
        let count = std::sync::Arc::clone(&told);
        let lock = folder.root.join(LOCK);
        let expected = lock.clone();
        let folder = folder
            .with_patience(Duration::from_millis(2300))
            .telling(Box::new(move |path| {
                assert_eq!(path, expected);
                count.fetch_add(1, Ordering::Relaxed);
            }));
        folder.swap("n", b"1".to_vec(), None).unwrap();
        let holder = File::open(&lock).unwrap();
        flock(&holder, FlockOperation::LockExclusive).unwrap();
        match folder.swap("n", b"2".to_vec(), None).unwrap_err() {
            ObjectError::Locked { path, seconds: 2, .. } => assert_eq!(path, lock),
            other => panic!("{other}"),
        }
        assert_eq!(told.load(Ordering::Relaxed), 1);
        drop(holder);
        assert_eq!(folder.swap("m", b"2".to_vec(), None).unwrap(), Swap::Done);
    }

    #[test]
    fn files_pass_whole() {
        let (dir, folder) = folder();
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..PIECE + 100).map(|n| u8::try_from(n % 251).unwrap()).collect();
        fs::write(&path, &bytes).unwrap();
        let moved = std::sync::atomic::AtomicU64::new(0);
        let count = |len| {
            moved.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
        };
        folder
            .put_file("big", &File::open(&path).unwrap(), &count)
            .unwrap();
        let back = dir.path().join("g");
        folder
            .get_file("big", &File::create(&back).unwrap(), &count)
            .unwrap();
        assert_eq!(fs::read(&back).unwrap(), bytes);
        assert_eq!(
            moved.load(std::sync::atomic::Ordering::Relaxed),
            2 * bytes.len() as u64
        );
        assert!(matches!(
            folder.get_file("none", &File::create(&back).unwrap(), &count),
            Err(ObjectError::Missing { .. })
        ));
    }
}
