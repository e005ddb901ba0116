//! Layers of steps that ran, by a key of everything that they saw.
//!
//! ```text
//! steps/KEY-DIFFID.tar.zst      the time of change is when it was last used
//! steps/.partial-PID-N          one being written, or made for this once; locked (flock)
//! ```
//!
//! A layer appears under its name whole, by rename, and is read through once before it is used again: one that was damaged is removed,
//! and its step runs anew.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use firebrick_digest::{Digest, Hasher};
use rustix::fs::FlockOperation;

use crate::SANDBOX_VERSION;
use crate::error::SandboxError;
use crate::ids::Owners;
use crate::steps::{Run, Step};

/// What a step's layer is found by: the digest of all that the step saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(Digest);

impl Key {
    /// The key of `step` over layers with these diff IDs.
    pub(crate) fn of(
        below: &[Digest],
        step: &Step,
        owners: Owners,
        created: firebrick_tree::Timestamp,
    ) -> Key {
        let mut hasher = Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(format!("firebrick sandbox {SANDBOX_VERSION}").as_bytes());
        add(&(below.len() as u64).to_le_bytes());
        for diff_id in below {
            add(diff_id.as_bytes());
        }
        match &step.run {
            Run::Script(bytes) => {
                add(b"script");
                add(bytes);
            }
            Run::Command(argv) => {
                add(b"command");
                add(&(argv.len() as u64).to_le_bytes());
                argv.iter().for_each(|word| add(word.as_bytes()));
            }
        }
        add(&(step.env.len() as u64).to_le_bytes());
        for (name, value) in &step.env {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        add(step.user.as_bytes());
        add(step.workdir.as_bytes());
        add(&[u8::from(step.network)]);
        // With a range of ids, how long it is changes nothing but for ids beyond it.
        add(match owners {
            Owners::Range(_) => b"range",
            Owners::Single => b"single",
        });
        add(&created.seconds.to_le_bytes());
        add(&created.nanoseconds.to_le_bytes());
        Key(hasher.finish())
    }

    /// The key of a layer that the caller makes over layers with these diff IDs, out of what has the digest `made_of`.
    pub fn of_made(below: &[Digest], made_of: Digest, created: firebrick_tree::Timestamp) -> Key {
        let mut hasher = Hasher::new();
        hasher.update(b"made");
        for diff_id in below {
            hasher.update(diff_id.as_bytes());
        }
        hasher.update(b"of");
        hasher.update(made_of.as_bytes());
        hasher.update(&created.seconds.to_le_bytes());
        hasher.update(&created.nanoseconds.to_le_bytes());
        Key(hasher.finish())
    }
}

/// A layer that a step made, in the cache; or one that is not to be kept, and goes with the last of these.
#[derive(Debug, Clone)]
pub struct MadeLayer {
    /// A tar, compressed with zstd.
    pub path: PathBuf,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Its length as stored, in bytes.
    pub stored_bytes: u64,
    /// The step did not run: its layer was there.
    pub cached: bool,
    _once: Option<Arc<Once>>,
}

/// A file that is not to be kept. As long as it is locked, nobody takes it for what a killed process left.
#[derive(Debug)]
struct Once {
    path: PathBuf,
    _lock: File,
}

impl Drop for Once {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.path);
    }
}

/// One layer of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedStep {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Its length as stored, in bytes.
    pub size_bytes: u64,
    /// When it was last used.
    pub last_used: SystemTime,
    path: PathBuf,
}

/// What to take out of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneSteps {
    /// Everything.
    All,
    /// What was last used before this time.
    UnusedSince(SystemTime),
    /// What was used longest ago, until at most this many bytes are left.
    DownTo(u64),
}

/// What pruning did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedSteps {
    /// What was removed, longest unused first.
    pub removed: Vec<CachedStep>,
    /// Bytes left.
    pub left_bytes: u64,
}

const PARTIAL: &str = ".partial-";
const SUFFIX: &str = ".tar.zst";

/// Makes names unique among the layers that this process writes.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A folder of layers. Any number of processes may use one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCache {
    folder: PathBuf,
}

impl StepCache {
    /// The cache in this folder, which is made when there is something to put into it.
    pub fn new(folder: impl Into<PathBuf>) -> StepCache {
        StepCache {
            folder: folder.into(),
        }
    }

    /// The layer of a key, if it is here and whole.
    pub fn find(&self, key: Key) -> Option<MadeLayer> {
        let start = format!("{}-", key.0.hex());
        let entries = fs::read_dir(&self.folder).ok()?;
        let found = entries.flatten().find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let diff_id = diff_id(name.strip_prefix(&start)?)?;
            Some((entry.path(), diff_id))
        });
        let (path, diff_id) = found?;
        let file = File::open(&path).ok()?;
        let stored_bytes = file.metadata().ok()?.len();
        if hash(BufReader::with_capacity(1 << 20, &file)).ok() != Some(diff_id) {
            _ = fs::remove_file(&path);
            return None;
        }
        // Without write access the age is wrong, and nothing else.
        _ = file.set_modified(SystemTime::now());
        Some(MadeLayer {
            path,
            diff_id,
            stored_bytes,
            cached: true,
            _once: None,
        })
    }

    /// Keeps what `write` writes as the layer of a key, once it is whole; without a key as long as what is given lives.
    ///
    /// # Errors
    /// [`SandboxError`], that of `write` too: nothing is kept then.
    pub fn put(
        &self,
        key: Option<Key>,
        write: impl FnOnce(&mut dyn Write) -> Result<(), SandboxError>,
    ) -> Result<MadeLayer, SandboxError> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(SandboxError::host("make the folder", &self.folder))?;
        self.remove_stale();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let partial = self
            .folder
            .join(format!("{PARTIAL}{}-{count}", std::process::id()));
        let result = self.put_partial(&partial, key, write);
        if result.is_err() {
            _ = fs::remove_file(&partial);
        }
        result
    }

    fn put_partial(
        &self,
        partial: &Path,
        key: Option<Key>,
        write: impl FnOnce(&mut dyn Write) -> Result<(), SandboxError>,
    ) -> Result<MadeLayer, SandboxError> {
        let fail = |source| SandboxError::host("write", partial)(source);
        let mut options = File::options();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(partial)
            .map_err(fail)?;
        _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        // The fastest level: it is about as fast as the disk, and halves most layers.
        let encoder = zstd::stream::write::Encoder::new(&file, 1).map_err(fail)?;
        let mut hashing = Hashing {
            out: encoder,
            hasher: Hasher::new(),
        };
        write(&mut hashing)?;
        hashing.out.finish().map_err(fail)?;
        file.sync_all().map_err(fail)?;
        let diff_id = hashing.hasher.finish();
        let stored_bytes = file.metadata().map_err(fail)?.len();
        let Some(key) = key else {
            return Ok(MadeLayer {
                path: partial.to_owned(),
                diff_id,
                stored_bytes,
                cached: false,
                _once: Some(Arc::new(Once {
                    path: partial.to_owned(),
                    _lock: file,
                })),
            });
        };
        let path = self
            .folder
            .join(format!("{}-{}{SUFFIX}", key.0.hex(), diff_id.hex()));
        // A step that is not deterministic, run again: the last one counts.
        let start = format!("{}-", key.0.hex());
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(start.as_bytes()) && entry.path() != path {
                _ = fs::remove_file(entry.path());
            }
        }
        fs::rename(partial, &path).map_err(fail)?;
        Ok(MadeLayer {
            path,
            diff_id,
            stored_bytes,
            cached: false,
            _once: None,
        })
    }

    /// Removes what killed runs were writing.
    fn remove_stale(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if !entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PARTIAL.as_bytes())
            {
                continue;
            }
            let unlocked = File::open(entry.path())
                .is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
            if unlocked {
                _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Every layer, longest unused first.
    ///
    /// # Errors
    /// [`SandboxError::Host`] if the folder is there and cannot be read.
    pub fn list(&self) -> Result<Vec<CachedStep>, SandboxError> {
        let fail = |source| SandboxError::host("list", &self.folder)(source);
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(fail)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let diff_id = name.split_once('-').and_then(|(_, rest)| diff_id(rest));
            // It may have been pruned meanwhile.
            let (Some(diff_id), Ok(metadata)) = (diff_id, entry.metadata()) else {
                continue;
            };
            found.push(CachedStep {
                diff_id,
                size_bytes: metadata.len(),
                last_used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                path: entry.path(),
            });
        }
        found.sort_by_key(|step| (step.last_used, step.diff_id));
        Ok(found)
    }

    /// Removes layers by a rule.
    ///
    /// # Errors
    /// [`SandboxError::Host`] if the folder cannot be read or a layer cannot be removed.
    pub fn prune(&self, rule: PruneSteps) -> Result<PrunedSteps, SandboxError> {
        let all = self.list()?;
        let mut pruned = PrunedSteps {
            left_bytes: all.iter().map(|step| step.size_bytes).sum(),
            ..PrunedSteps::default()
        };
        for step in all {
            let goes = match rule {
                PruneSteps::All => true,
                PruneSteps::UnusedSince(time) => step.last_used < time,
                PruneSteps::DownTo(bytes) => pruned.left_bytes > bytes,
            };
            if goes {
                match fs::remove_file(&step.path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(SandboxError::host("remove", &step.path)(error));
                    }
                    _ => {}
                }
                pruned.left_bytes -= step.size_bytes;
                pruned.removed.push(step);
            }
        }
        Ok(pruned)
    }
}

fn diff_id(rest: &str) -> Option<Digest> {
    format!("sha256:{}", rest.strip_suffix(SUFFIX)?).parse().ok()
}

fn hash(stored: impl io::BufRead) -> io::Result<Digest> {
    let mut tar = zstd::stream::read::Decoder::with_buffer(stored)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match tar.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            len => hasher.update(&buffer[..len]),
        }
    }
}

/// Digests what it passes on.
struct Hashing<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(script: &str) -> Step {
        Step {
            name: "step".into(),
            run: Run::Script(script.into()),
            env: vec![("A".into(), "b".into())],
            network_env: Vec::new(),
            user: String::new(),
            workdir: String::new(),
            network: false,
            time: None,
        }
    }

    fn key(step: &Step) -> Key {
        Key::of(
            &[Digest::of(b"base")],
            step,
            Owners::Range(65536),
            Default::default(),
        )
    }

    fn put(cache: &StepCache, step: &Step, content: &[u8]) -> MadeLayer {
        cache
            .put(Some(key(step)), |out| {
                out.write_all(content).map_err(SandboxError::host("write", "x"))
            })
            .unwrap()
    }

    #[test]
    fn a_key_is_of_everything_that_the_step_sees() {
        let base = step("a");
        let mut others = vec![step("b"); 7];
        others[1] = Step {
            run: Run::Command(vec!["a".into()]),
            ..step("a")
        };
        others[2] = Step {
            env: vec![("A".into(), "c".into())],
            ..step("a")
        };
        others[3] = Step {
            user: "ann".into(),
            ..step("a")
        };
        others[4] = Step {
            workdir: "/w".into(),
            ..step("a")
        };
        others[5] = Step {
            network: true,
            ..step("a")
        };
        others[6] = Step {
            env: vec![("Ab".into(), String::new())],
            ..step("a")
        };
        let mut keys: Vec<Key> = others.iter().map(key).collect();
        let digest = [Digest::of(b"base")];
        keys.push(Key::of(&[], &base, Owners::Range(1), Default::default()));
        keys.push(Key::of(&digest, &base, Owners::Single, Default::default()));
        let later = firebrick_tree::Timestamp {
            seconds: 1,
            nanoseconds: 0,
        };
        keys.push(Key::of(&digest, &base, Owners::Range(1), later));
        keys.push(key(&base));
        for (at, one) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(one), "{at}");
        }
        let same = Step {
            name: "other".into(),
            network_env: vec![("p".into(), "q".into())],
            ..base.clone()
        };
        assert_eq!(key(&same), key(&base));
        assert_eq!(
            Key::of(&digest, &base, Owners::Range(70000), Default::default()),
            key(&base)
        );
    }

    #[test]
    fn layers_are_found_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StepCache::new(dir.path().join("steps"));
        assert!(cache.find(key(&step("a"))).is_none() && cache.list().unwrap().is_empty());
        let made = put(&cache, &step("a"), b"layer");
        assert_eq!(made.diff_id, Digest::of(b"layer"));
        let found = cache.find(key(&step("a"))).unwrap();
        assert_eq!((found.path.clone(), found.cached), (made.path.clone(), true));
        assert!(cache.find(key(&step("b"))).is_none());
        // For this once: the one that is kept stays.
        let once = cache
            .put(None, |out| {
                out.write_all(b"layer").map_err(SandboxError::host("write", "x"))
            })
            .unwrap();
        assert_eq!((once.diff_id, cache.list().unwrap().len()), (made.diff_id, 1));
        let other = cache.put(Some(key(&step("c"))), |_| Err(SandboxError::Ended { doing: "x" }));
        assert!(other.is_err() && once.clone().path.exists());
        let path = once.path.clone();
        drop(once);
        assert!(!path.exists() && made.path.exists());
        // Another result of the same step takes its place.
        let again = put(&cache, &step("a"), b"another");
        assert_eq!(cache.list().unwrap().len(), 1);
        let failed = cache.put(Some(key(&step("b"))), |_| Err(SandboxError::Ended { doing: "x" }));
        assert!(failed.is_err() && cache.list().unwrap().len() == 1);
        fs::write(dir.path().join("steps/.partial-1-1"), "left").unwrap();
        fs::write(&again.path, "damaged").unwrap();
        assert!(cache.find(key(&step("a"))).is_none());
        put(&cache, &step("b"), b"b");
        assert_eq!(fs::read_dir(dir.path().join("steps")).unwrap().count(), 1);
    }

    #[test]
    fn pruning_goes_by_use() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StepCache::new(dir.path());
        for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
            let made = put(&cache, &step(name), name.as_bytes());
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at as u64 + 1);
            File::options()
                .write(true)
                .open(made.path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        }
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let ids = |pruned: PrunedSteps| pruned.removed.iter().map(|step| step.diff_id).collect::<Vec<_>>();
        assert_eq!(
            ids(cache.prune(PruneSteps::UnusedSince(at(2))).unwrap()),
            [Digest::of(b"a")]
        );
        let size = cache.list().unwrap()[0].size_bytes;
        assert_eq!(
            ids(cache.prune(PruneSteps::DownTo(size)).unwrap()),
            [Digest::of(b"b")]
        );
        assert_eq!(cache.prune(PruneSteps::All).unwrap().left_bytes, 0);
    }
}
