//! Fetching an image: from what this host has, else from the store, into a file that gets its name when it is whole.
//!
//! Until then it lies beside under a name made of its version's digest. A download that was ended finds it there, verifies what
//! it holds, and goes on.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use firebrick_digest::Digest;
use firebrick_trust::FileIdentity;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};

use crate::cut::{BLOCK_LEN, is_zero};
use crate::error::StoreError;
use crate::fetch::Fetching;
use crate::id::Id;
use crate::image::Image;
use crate::index::Published;
use crate::local::{Here, LocalImage};
use crate::seal::Seal;
use crate::store::{Progress, Store};
use crate::table::{Entry, Locator};

/// What is fetched, and where to.
#[derive(Debug)]
pub struct Download<'a> {
    /// Which version.
    pub version: &'a Published,
    /// The key, if the image has one; a plain image needs none.
    pub keys: &'a Seal,
    /// Where the image is to be. What is there is replaced in the last step.
    pub target: &'a Path,
    /// Other images of this host. Those that were looked at before are tried first; of the others, as many as `scans`.
    pub donors: &'a [PathBuf],
    /// How many images may be read for what is in them.
    pub scans: usize,
    /// Requests at a time.
    pub requests: usize,
    /// Threads that verify.
    pub threads: usize,
}

/// What a download came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// Length of the image in bytes.
    pub image_len: u64,
    /// Bytes of it that are no hole.
    pub data_len: u64,
    /// Bytes that came from the store, tables among them.
    pub came: u64,
    /// Chunks that came from the store.
    pub new_chunks: u64,
    /// Chunks that this host had.
    pub known_chunks: u64,
    /// The file that is there now, taken after it got its name.
    pub file: FileIdentity,
}

impl Store {
    /// Fetches a version of an image into a file.
    ///
    /// # Errors
    /// [`StoreError`]. The target is then what it was; what came is used by the next try.
    pub fn download(&self, download: &Download<'_>) -> Result<Downloaded, StoreError> {
        let image = self.open(download.version)?;
        let seal = image.seal(download.keys)?;
        let came = AtomicU64::new(0);
        let count = |len| {
            came.fetch_add(len, Ordering::Relaxed);
        };
        let source = self.source();
        let root = source.root(&image, seal)?;
        let entries = source.segments(&image, &root.segments, seal, &count)?.concat();
        let partial = Partial::open(download.target, &image.digest)?;
        let assembly = Assembly::new(&entries, &partial, self, &came);
        partial.prepare(root.image_len, &entries)?;
        if partial.resumed {
            assembly.resume(seal, download.threads)?;
        }
        assembly.take_from_all(download, seal)?;
        let known_chunks = assembly.done_chunks.load(Ordering::Relaxed);
        assembly.fetch(&image, seal, download.requests)?;
        let identity = partial.finish(download.target)?;
        if let (Some(cache), Ok(file)) = (source.cache, File::open(download.target)) {
            crate::local::remember(cache, download.target, &file, seal, &entries);
        }
        Ok(Downloaded {
            image_len: root.image_len,
            data_len: assembly.data_len,
            came: came.load(Ordering::Relaxed),
            new_chunks: assembly.done_chunks.load(Ordering::Relaxed) - known_chunks,
            known_chunks,
            file: identity,
        })
    }
}

/// The file beside the target.
pub(crate) struct Partial {
    pub(crate) file: File,
    path: PathBuf,
    /// Whether an earlier download left something in it.
    pub(crate) resumed: bool,
}

impl Partial {
    /// The file for what has this digest.
    pub(crate) fn open(target: &Path, digest: &Digest) -> Result<Partial, StoreError> {
        let name = target.file_name().unwrap_or_default();
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".download-");
        let mut own = prefix.clone();
        own.push(digest.short());
        let path = target.with_file_name(&own);
        let failed = |source| StoreError::File {
            action: "write",
            path: path.clone(),
            source,
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed)?;
            remove_others(folder, &prefix, &own);
        }
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::Busy {
                    path: target.to_owned(),
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let resumed = file.metadata().map_err(failed)?.len() > 0;
        Ok(Partial { file, path, resumed })
    }

    pub(crate) fn failed(&self, source: io::Error) -> StoreError {
        StoreError::File {
            action: "write",
            path: self.path.clone(),
            source,
        }
    }

    /// Gives the file its length, and sees that holes are holes.
    fn prepare(&self, len: u64, entries: &[Entry]) -> Result<(), StoreError> {
        self.file.set_len(len).map_err(|error| self.failed(error))?;
        if !self.resumed {
            return Ok(());
        }
        let mut offset = 0;
        for entry in entries {
            if let Entry::Hole(len) = entry {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&self.file, flags, offset, *len).map_err(|error| self.failed(error.into()))?;
            }
            offset += entry.len();
        }
        Ok(())
    }

    /// Writes a chunk. In a file that was empty, zeros need not be written.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        if self.resumed {
            return self
                .file
                .write_all_at(bytes, offset)
                .map_err(|error| self.failed(error));
        }
        self.write_sparse(bytes, offset)
    }

    /// Writes what is no block of zeros, where nothing was before.
    pub(crate) fn write_sparse(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        let write = |bytes: &[u8], at: usize| {
            let offset = offset + at as u64;
            self.file
                .write_all_at(bytes, offset)
                .map_err(|error| self.failed(error))
        };
        let mut start = None;
        for at in (0..bytes.len()).step_by(BLOCK_LEN) {
            let block = &bytes[at..bytes.len().min(at + BLOCK_LEN)];
            match (start, is_zero(block)) {
                (None, false) => start = Some(at),
                (Some(from), true) => {
                    write(&bytes[from..at], from)?;
                    start = None;
                }
                _ => {}
            }
        }
        start.map_or(Ok(()), |from| write(&bytes[from..], from))
    }

    /// Empties the file: what is in it is not right.
    pub(crate) fn empty(&self) -> Result<(), StoreError> {
        self.file.set_len(0).map_err(|error| self.failed(error))
    }

    /// Removes the file.
    pub(crate) fn discard(self) {
        // What is left is verified by whoever finds it.
        let _ = fs::remove_file(&self.path);
    }

    /// Gives the file its name, and tells which file has it then.
    pub(crate) fn finish(&self, target: &Path) -> Result<FileIdentity, StoreError> {
        let finish = || -> io::Result<FileIdentity> {
            self.file.sync_all()?;
            fs::rename(&self.path, target)?;
            let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
            // Getting the name changed its ctime.
            Ok(FileIdentity::of(&self.file.metadata()?))
        };
        finish().map_err(|source| StoreError::File {
            action: "write",
            path: target.to_owned(),
            source,
        })
    }
}

/// Removes what downloads of other versions left, unless they go on.
fn remove_others(folder: &Path, prefix: &OsString, own: &OsString) {
    let Ok(list) = fs::read_dir(folder) else { return };
    for found in list.flatten() {
        let name = found.file_name();
        let is_other = name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) && name != *own;
        if is_other
            && let Ok(file) = File::open(found.path())
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_file(found.path());
        }
    }
}

/// A chunk, and everywhere in the image that it is.
struct Part {
    locator: Locator,
    offsets: Vec<u64>,
    done: AtomicBool,
}

struct Assembly<'a> {
    /// In the order of ids.
    parts: Vec<Part>,
    partial: &'a Partial,
    store: &'a Store,
    came: &'a AtomicU64,
    data_len: u64,
    done_len: AtomicU64,
    done_chunks: AtomicU64,
}

impl<'a> Assembly<'a> {
    fn new(entries: &[Entry], partial: &'a Partial, store: &'a Store, came: &'a AtomicU64) -> Assembly<'a> {
        let mut places = Vec::new();
        let mut offset = 0;
        for entry in entries {
            if let Entry::Chunk(locator) = entry {
                places.push((*locator, offset));
            }
            offset += entry.len();
        }
        places.sort_unstable_by_key(|(locator, offset)| (locator.id, *offset));
        let data_len = places.iter().map(|(locator, _)| u64::from(locator.len)).sum();
        let same = places.chunk_by(|(a, _), (b, _)| (a.id, a.len) == (b.id, b.len));
        let parts = same.filter_map(|places| {
            let (locator, _) = places.first()?;
            let offsets = places.iter().map(|(_, offset)| *offset).collect();
            Some(Part {
                locator: *locator,
                offsets,
                done: AtomicBool::new(false),
            })
        });
        Assembly {
            parts: parts.collect(),
            partial,
            store,
            came,
            data_len,
            done_len: AtomicU64::new(0),
            done_chunks: AtomicU64::new(0),
        }
    }

    /// The part that is still to come, if `id` is one.
    fn missing(&self, id: &Id, len: u32) -> Option<&Part> {
        let index = self.parts.partition_point(|part| part.locator.id < *id);
        let part = self
            .parts
            .get(index)
            .filter(|part| part.locator.id == *id && part.locator.len == len)?;
        (!part.done.load(Ordering::Relaxed)).then_some(part)
    }

    /// Puts the bytes of a part everywhere that they belong.
    fn put(&self, part: &Part, bytes: &[u8]) -> Result<(), StoreError> {
        for offset in &part.offsets {
            self.partial.write(bytes, *offset)?;
        }
        self.finish(part);
        Ok(())
    }

    fn finish(&self, part: &Part) {
        if part.done.swap(true, Ordering::Relaxed) {
            return;
        }
        let len = u64::from(part.locator.len) * part.offsets.len() as u64;
        let done = self.done_len.fetch_add(len, Ordering::Relaxed) + len;
        self.done_chunks
            .fetch_add(part.offsets.len() as u64, Ordering::Relaxed);
        let came = self.came.load(Ordering::Relaxed);
        (self.store.progress)(Progress::Download {
            done,
            of: self.data_len,
            came,
        });
    }

    fn check_stop(&self) -> Result<(), StoreError> {
        match self.store.stop.load(Ordering::Relaxed) {
            true => Err(StoreError::Stopped),
            false => Ok(()),
        }
    }

    /// Finds what an earlier download brought.
    fn resume(&self, seal: &Seal, threads: usize) -> Result<(), StoreError> {
        crate::parallel::map(threads, &self.parts, |part| {
            self.check_stop()?;
            let mut bytes = vec![0; usize::try_from(part.locator.len).unwrap_or(0)];
            let is_there = |offset: &u64| {
                self.partial.file.read_exact_at(&mut bytes, *offset).is_ok()
                    && seal.id(&bytes) == part.locator.id
            };
            if part.offsets.iter().all(is_there) {
                self.finish(part);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Takes from other images what they have.
    fn take_from_all(&self, download: &Download<'_>, seal: &Seal) -> Result<(), StoreError> {
        let cache = self.store.source().cache;
        let mut seen = HashSet::new();
        for read in [false, true] {
            let mut scans = if read { download.scans } else { usize::MAX };
            for path in download
                .donors
                .iter()
                .filter(|path| !seen.contains(path))
                .collect::<Vec<_>>()
            {
                if scans == 0 || self.is_done() {
                    return Ok(());
                }
                // A file that cannot be read has nothing for us.
                match LocalImage::open(path, seal, cache, read, download.threads, &self.store.stop) {
                    Ok(Some(donor)) => self.take_from(&donor, seal, download.threads)?,
                    Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                    _ if !read => continue,
                    _ => {}
                }
                seen.insert(path);
                scans -= 1;
            }
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.done_len.load(Ordering::Relaxed) == self.data_len
    }

    fn take_from(&self, donor: &LocalImage, seal: &Seal, threads: usize) -> Result<(), StoreError> {
        let useful = |chunk: &&Here| self.missing(&chunk.id, chunk.len).is_some();
        let chunks: Vec<Here> = donor.chunks.iter().filter(useful).copied().collect();
        crate::parallel::map(threads, &chunks, |chunk| {
            self.check_stop()?;
            let Some(part) = self.missing(&chunk.id, chunk.len) else {
                return Ok(());
            };
            let mut bytes = vec![0; usize::try_from(chunk.len).unwrap_or(0)];
            // The file may have changed since it was looked at.
            if donor.file.read_exact_at(&mut bytes, chunk.offset).is_ok() && seal.id(&bytes) == chunk.id {
                self.put(part, &bytes)?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Fetches everything else.
    fn fetch(&self, image: &Image, seal: &Seal, requests: usize) -> Result<(), StoreError> {
        let missing = self
            .parts
            .iter()
            .filter(|part| !part.done.load(Ordering::Relaxed));
        let wanted = missing.map(|part| part.locator).collect();
        let fetching = Fetching {
            backend: self.store.backend(),
            name: &image.name,
            seal,
            threads: requests,
            stop: &self.store.stop,
            came: &|len| {
                self.came.fetch_add(len, Ordering::Relaxed);
            },
        };
        fetching.chunks(
            wanted,
            &|locator, bytes| match self.missing(&locator.id, locator.len) {
                Some(part) => self.put(part, bytes),
                None => Ok(()),
            },
        )
    }
}
