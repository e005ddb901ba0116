//! The cache of blobs, by digest, in a folder of the caller's choice.
//!
//! ```text
//! CACHEDIR.TAG              tells backup programs to leave the folder out
//! blobs/sha256/HEX          whole, verified blobs; their time of change is when they were last used
//! partial/HEX.partial       a download as far as it got, locked (flock) while someone works on it
//! partial/.tmp*             small blobs on their way
//! ```
//!
//! A blob appears under its name whole, synced to disk, by rename. Two processes never write one blob at a time: the
//! second waits for the first one's lock and then finds the blob. Readers need no lock; a blob that is pruned while it
//! is read stays readable to them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use firebrick_digest::{Digest, Hasher};

use crate::error::SourceError;
use crate::image::file_error;

const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder holds downloads that firebrick can fetch again.\n";
/// A small blob is written within moments; what is older was left by a process that died.
const STALE_TEMP: Duration = Duration::from_secs(24 * 3600);

/// A folder of blobs. Cloning is cheap; any number of processes may use one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    root: PathBuf,
}

/// One blob of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedBlob {
    /// Its digest, as its name says; it is verified when it is used.
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was last used.
    pub last_used: SystemTime,
    /// It is not whole yet: a download that broke off or is under way.
    pub partial: bool,
}

/// What to take out of the cache. Downloads that are under way are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// Everything.
    All,
    /// What was last used before this time.
    UnusedSince(SystemTime),
    /// What was used longest ago, until at most this many bytes are left.
    DownTo(u64),
}

/// What [`Cache::prune`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What was removed, longest unused first.
    pub removed: Vec<CachedBlob>,
    /// How many bytes that frees.
    pub freed_bytes: u64,
    /// How many bytes of blobs are left.
    pub left_bytes: u64,
}

/// What a look into the cache found.
#[derive(Debug)]
pub(crate) enum Lookup {
    Absent,
    /// It was there, but was not what its name says; now it is gone.
    Dropped,
    /// Verified.
    Found(File),
}

impl Cache {
    /// Opens the cache at `root`, making the folder if it is missing.
    ///
    /// # Errors
    /// [`SourceError::File`] if that fails.
    pub fn open(root: impl Into<PathBuf>) -> Result<Cache, SourceError> {
        let cache = Cache { root: root.into() };
        for folder in [cache.blobs(), cache.partials()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(|source| file_error("make", &folder, source))?;
        }
        let tag = cache.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(&tag, TAG).map_err(|source| file_error("write", &tag, source))?;
        }
        Ok(cache)
    }

    /// The cache at `root` as it is, to look at: nothing is made, and a folder that is missing holds nothing.
    pub fn existing(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn partial_path(&self, digest: Digest) -> PathBuf {
        self.partials().join(format!("{}.partial", digest.hex()))
    }

    /// Lists whole and partial blobs, longest unused first.
    ///
    /// # Errors
    /// [`SourceError::File`] if the folder cannot be read.
    pub fn list(&self) -> Result<Vec<CachedBlob>, SourceError> {
        let mut found = Vec::new();
        for (folder, suffix) in [(self.blobs(), ""), (self.partials(), ".partial")] {
            for (name, metadata) in files(&folder)? {
                let hex = name.strip_suffix(suffix);
                let Some(digest) = hex.and_then(|hex| format!("sha256:{hex}").parse().ok()) else {
                    continue;
                };
                found.push(CachedBlob {
                    digest,
                    size_bytes: metadata.len(),
                    last_used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    partial: !suffix.is_empty(),
                });
            }
        }
        found.sort_by_key(|blob| (blob.last_used, blob.digest));
        Ok(found)
    }

    /// Removes blobs, and whatever processes that died have left.
    ///
    /// # Errors
    /// [`SourceError::File`] if the folder cannot be read or a file cannot be removed.
    pub fn prune(&self, rule: Prune) -> Result<Pruned, SourceError> {
        self.sweep()?;
        let blobs = self.list()?;
        let mut report = Pruned {
            left_bytes: blobs.iter().map(|blob| blob.size_bytes).sum(),
            ..Pruned::default()
        };
        for blob in blobs {
            let unwanted = match rule {
                Prune::All => true,
                Prune::UnusedSince(time) => blob.last_used < time,
                Prune::DownTo(bytes) => report.left_bytes > bytes,
            };
            if unwanted && self.remove(&blob)? {
                report.left_bytes -= blob.size_bytes;
                report.freed_bytes += blob.size_bytes;
                report.removed.push(blob);
            }
        }
        Ok(report)
    }

    /// Whether the blob is gone now; a partial one that someone works on stays.
    fn remove(&self, blob: &CachedBlob) -> Result<bool, SourceError> {
        if !blob.partial {
            remove_file(&self.blob_path(blob.digest))?;
            return Ok(true);
        }
        match self.lock_partial(blob.digest)? {
            None => Ok(false),
            Some(partial) => partial.discard().map(|()| true),
        }
    }

    /// Removes temporary files that no living process can still be writing.
    fn sweep(&self) -> Result<(), SourceError> {
        let folder = self.partials();
        for (name, metadata) in files(&folder)? {
            let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
            if name.starts_with(".tmp") && age.is_some_and(|age| age > STALE_TEMP) {
                remove_file(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Finds a blob and verifies it whole.
    pub(crate) fn lookup(&self, digest: Digest, size: Option<u64>) -> Result<Lookup, SourceError> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lookup::Absent),
            Err(source) => return Err(file_error("open", &path, source)),
        };
        let actual = file
            .metadata()
            .map_err(|source| file_error("examine", &path, source))?
            .len();
        let good = size.is_none_or(|size| size == actual)
            && hash_range(&file, actual)
                .map_err(|source| file_error("read", &path, source))?
                .finish()
                == digest;
        if !good {
            remove_file(&path)?;
            return Ok(Lookup::Dropped);
        }
        // A cache that we may only read still serves.
        let _ = file.set_modified(SystemTime::now());
        Ok(Lookup::Found(file))
    }

    pub(crate) fn contains(&self, digest: Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Keeps a small blob that has been verified.
    pub(crate) fn insert(&self, digest: Digest, bytes: &[u8]) -> Result<(), SourceError> {
        let (folder, path) = (self.partials(), self.blob_path(digest));
        if path.exists() {
            return Ok(());
        }
        let write = |source| file_error("write a blob in", &folder, source);
        let mut temp = tempfile::Builder::new()
            .prefix(".tmp")
            .tempfile_in(&folder)
            .map_err(write)?;
        temp.write_all(bytes).map_err(write)?;
        temp.as_file().sync_all().map_err(write)?;
        temp.persist(&path)
            .map_err(|error| file_error("rename to", &path, error.error))?;
        self.sync_blobs()
    }

    fn sync_blobs(&self) -> Result<(), SourceError> {
        let folder = self.blobs();
        File::open(&folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| file_error("sync", &folder, source))
    }

    /// Opens the blob's partial download for us alone; `None` while another holds it.
    pub(crate) fn lock_partial(&self, digest: Digest) -> Result<Option<Partial>, SourceError> {
        let path = self.partial_path(digest);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|source| file_error("open", &path, source))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(source)) => return Err(file_error("lock", &path, source)),
            }
            // The one before us may have renamed or removed the file that we opened.
            let ours = file
                .metadata()
                .map_err(|source| file_error("examine", &path, source))?;
            match fs::metadata(&path) {
                Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {
                    return Ok(Some(Partial {
                        cache: self.clone(),
                        digest,
                        path,
                        file,
                    }));
                }
                _ => {}
            }
        }
    }
}

/// A partial download, locked as long as this lives. Dropping it keeps the bytes for a later run.
#[derive(Debug)]
pub(crate) struct Partial {
    cache: Cache,
    digest: Digest,
    path: PathBuf,
    file: File,
}

impl Partial {
    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the blob its name. The bytes must have been verified.
    pub(crate) fn commit(self) -> Result<(), SourceError> {
        let path = self.cache.blob_path(self.digest);
        self.file
            .sync_all()
            .map_err(|source| file_error("sync", &self.path, source))?;
        fs::rename(&self.path, &path).map_err(|source| file_error("rename to", &path, source))?;
        self.cache.sync_blobs()
    }

    /// Removes the partial download.
    pub(crate) fn discard(self) -> Result<(), SourceError> {
        remove_file(&self.path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Clones of the descriptor share the lock and may outlive us.
        let _ = self.file.unlock();
    }
}

/// Hashes the first `len` bytes.
pub(crate) fn hash_range(file: &File, len: u64) -> io::Result<Hasher> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut offset = 0;
    while offset < len {
        let want = usize::try_from(len - offset)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        match file.read_at(&mut buffer[..want], offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher)
}

fn files(folder: &Path) -> Result<Vec<(String, fs::Metadata)>, SourceError> {
    let error = |source| file_error("list", folder, source);
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(source) => return Err(error(source)),
    };
    for entry in entries {
        let entry = entry.map_err(error)?;
        // Another process may have removed it since.
        if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata())
            && metadata.is_file()
        {
            found.push((name, metadata));
        }
    }
    Ok(found)
}

fn remove_file(path: &Path) -> Result<(), SourceError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("remove", path, error)),
        _ => Ok(()),
    }
}
