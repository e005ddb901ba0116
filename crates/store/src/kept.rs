//! What stores leave on this host: the folders of its cache that this crate fills, to be looked at and emptied.
//!
//! ```text
//! tables/XX/HEX        small things of stores, and what image files hold: TableCache
//! chunks/HEX.part      an image that is read lazily, as far as it came; locked (flock, shared) by each process that reads it
//! told/HEX             the mark of what a user was told once
//! .tmp*                in any of them: a file on its way
//! ```
//!
//! The time of change is when a thing was last used. All of it can be had again; a file that is removed while a process has it open
//! stays readable to that process, but then nothing is freed, so files that are locked are left alone.

use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use firebrick_digest::Digest;

use crate::cache::TableCache;
use crate::error::StoreError;

/// A file is on its way for moments; what is older was left by a process that died.
const STALE_TEMP: Duration = Duration::from_secs(24 * 3600);
/// Whole blocks are counted in these units, whatever the filesystem's are.
const DISK_BLOCK: u64 = 512;

/// What a thing in the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptKind {
    /// A manifest, a config, a part of a table; or what an image file of this host holds.
    Table,
    /// What was read of an image lazily.
    Chunks,
    /// The mark that somebody was told something.
    Told,
}

impl KeptKind {
    const ALL: [KeptKind; 3] = [KeptKind::Table, KeptKind::Chunks, KeptKind::Told];
}

/// One thing in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What it is.
    pub kind: KeptKind,
    /// What it is found by. Of chunks: the digest of their image's manifest.
    pub key: Digest,
    /// The bytes that it takes on disk.
    pub size_bytes: u64,
    /// When it was last used.
    pub last_used: SystemTime,
    path: PathBuf,
}

/// What to take out of the cache. What a process reads from is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneKept {
    /// Everything.
    All,
    /// What was last used before this time.
    UnusedSince(SystemTime),
    /// What was used longest ago, until at most this many bytes are left.
    DownTo(u64),
}

/// What [`HostCache::prune`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedKept {
    /// What was removed, longest unused first.
    pub removed: Vec<Kept>,
    /// How many bytes are left.
    pub left_bytes: u64,
}

/// The cache of this host, as far as stores have to do with it. Nothing of it need exist.
#[derive(Debug, Clone)]
pub struct HostCache {
    root: PathBuf,
}

impl HostCache {
    /// The cache in a folder, which others may use for other things.
    pub fn new(root: &Path) -> HostCache {
        HostCache {
            root: root.to_owned(),
        }
    }

    /// Where things of a kind lie.
    pub fn folder(&self, kind: KeptKind) -> PathBuf {
        self.root.join(match kind {
            KeptKind::Table => "tables",
            KeptKind::Chunks => "chunks",
            KeptKind::Told => "told",
        })
    }

    /// The tables.
    pub fn tables(&self) -> TableCache {
        TableCache::new(&self.folder(KeptKind::Table))
    }

    /// Everything, longest unused first.
    ///
    /// # Errors
    /// [`StoreError::File`] if a folder is there and cannot be read.
    pub fn list(&self) -> Result<Vec<Kept>, StoreError> {
        let mut found = Vec::new();
        for kind in KeptKind::ALL {
            for folder in self.folders(kind)? {
                for (name, metadata) in entries(&folder)? {
                    let path = folder.join(&name);
                    found.extend(kept(kind, &name, &metadata, path));
                }
            }
        }
        found.sort_by_key(|one| (one.last_used, one.kind, one.key));
        Ok(found)
    }

    /// Removes things, and whatever processes that died have left.
    ///
    /// # Errors
    /// [`StoreError::File`] if a folder cannot be read or a file cannot be removed.
    pub fn prune(&self, rule: PruneKept) -> Result<PrunedKept, StoreError> {
        self.sweep()?;
        let all = self.list()?;
        let mut pruned = PrunedKept {
            left_bytes: all.iter().map(|one| one.size_bytes).sum(),
            ..PrunedKept::default()
        };
        for one in all {
            let goes = match rule {
                PruneKept::All => true,
                PruneKept::UnusedSince(time) => one.last_used < time,
                PruneKept::DownTo(bytes) => pruned.left_bytes > bytes,
            };
            if goes && one.remove()? {
                pruned.left_bytes -= one.size_bytes;
                pruned.removed.push(one);
            }
        }
        Ok(pruned)
    }

    /// The folders in which files of a kind lie.
    fn folders(&self, kind: KeptKind) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.folder(kind);
        if kind != KeptKind::Table {
            return Ok(vec![folder]);
        }
        let is_ours = |(name, metadata): &(String, Metadata)| {
            metadata.is_dir() && name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let below = entries(&folder)?.into_iter().filter(is_ours);
        Ok(below.map(|(name, _)| folder.join(name)).collect())
    }

    /// Removes files that no living process can still be writing.
    fn sweep(&self) -> Result<(), StoreError> {
        for kind in KeptKind::ALL {
            for folder in self.folders(kind)? {
                for (name, metadata) in entries(&folder)? {
                    let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
                    if metadata.is_file()
                        && name.starts_with(".tmp")
                        && age.is_some_and(|age| age > STALE_TEMP)
                    {
                        remove_file(&folder.join(name))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The thing that a file is, if it is one.
fn kept(kind: KeptKind, name: &str, metadata: &Metadata, path: PathBuf) -> Option<Kept> {
    use std::os::unix::fs::MetadataExt as _;
    let hex = match kind {
        KeptKind::Chunks => name.strip_suffix(".part")?,
        KeptKind::Table | KeptKind::Told => name,
    };
    let key = format!("sha256:{hex}").parse().ok()?;
    metadata.is_file().then(|| Kept {
        kind,
        key,
        // Images have holes; small files are not told as the whole blocks that they take.
        size_bytes: metadata.len().min(metadata.blocks().saturating_mul(DISK_BLOCK)),
        last_used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        path,
    })
}

impl Kept {
    /// Whether it is gone now; what a process reads from stays.
    fn remove(&self) -> Result<bool, StoreError> {
        if self.kind != KeptKind::Chunks {
            return remove_file(&self.path).map(|()| true);
        }
        // Over NFS only who may write locks a file for himself alone.
        let file = match File::options().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(source) => return Err(failed("open", &self.path)(source)),
        };
        match file.try_lock() {
            Ok(()) => remove_file(&self.path).map(|()| true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(source)) => Err(failed("lock", &self.path)(source)),
        }
    }
}

/// What is in a folder, which need not be there. Links are not followed.
fn entries(folder: &Path) -> Result<Vec<(String, Metadata)>, StoreError> {
    let failed = failed("list", folder);
    let listed = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(&failed)?,
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.map_err(&failed)?;
        // Another process may have removed it since.
        if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) {
            found.push((name, metadata));
        }
    }
    Ok(found)
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::File {
        action,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests;
