//! Chunks that this host has: those of its image files.
//!
//! What an image file holds is looked up once and remembered beside other small things. It is only a hint where to look: whoever
//! takes a chunk from there verifies it.

use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use firebrick_digest::Digest;

use crate::cache::TableCache;
use crate::error::StoreError;
use crate::id::Id;
use crate::known::Known;
use crate::pack::{Packing, pack};
use crate::seal::Seal;
use crate::table::{CHUNK_MAX, Entry};

const MAGIC: &[u8; 8] = b"FBHERE2\n";
/// A remembered file has at most so many bytes of chunks' ids.
const KEPT_MAX: u64 = 1 << 30;

/// A chunk in a file of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) id: Id,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// An image file, and what is in it.
#[derive(Debug)]
pub struct LocalImage {
    pub(crate) file: File,
    pub(crate) chunks: Vec<Here>,
}

impl LocalImage {
    /// Opens an image file and finds out what is in it, from `cache` or by reading all of it.
    /// `read` tells whether that much work is wanted; if not, there is nothing.
    ///
    /// # Errors
    /// [`StoreError::File`] if the file cannot be read.
    pub fn open(
        path: &Path,
        seal: &Seal,
        cache: Option<&TableCache>,
        read: bool,
        threads: usize,
        stop: &AtomicBool,
    ) -> Result<Option<LocalImage>, StoreError> {
        let failed = |source| StoreError::File {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let found = |chunks| {
            Ok(Some(LocalImage {
                file: file.try_clone().map_err(failed)?,
                chunks,
            }))
        };
        if let Some(chunks) = cache.and_then(|cache| recall(cache, path, &file, seal)) {
            return found(chunks);
        }
        if !read {
            return Ok(None);
        }
        let len = file.metadata().map_err(failed)?.len();
        let packing = Packing {
            seal,
            known: &Known::everything(),
            threads,
            send: &|_, _| Ok(false),
            done: &|_| {},
            stop,
        };
        let packed = pack(&file, path, len, &packing)?;
        if let Some(cache) = cache {
            remember(cache, path, &file, seal, &packed.entries);
        }
        found(chunks(&packed.entries))
    }
}

fn chunks(entries: &[Entry]) -> Vec<Here> {
    let mut offset = 0;
    let mut chunks = Vec::new();
    for entry in entries {
        if let Entry::Chunk(locator) = entry {
            chunks.push(Here {
                id: locator.id,
                offset,
                len: locator.len,
            });
        }
        offset += entry.len();
    }
    chunks
}

/// What a file's remembered chunks are found by.
fn key(path: &Path, seal: &Seal) -> Digest {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = [
        b"here\0",
        path.as_os_str().as_bytes(),
        b"\0",
        seal.fingerprint().unwrap_or("").as_bytes(),
    ];
    Digest::of(&text.concat())
}

/// What changes when a file does.
fn identity(file: &File) -> Option<[u8; 48]> {
    let found = file.metadata().ok()?;
    let fields = [
        found.dev(),
        found.ino(),
        found.len(),
        found.mtime().cast_unsigned(),
        found.mtime_nsec().cast_unsigned(),
        found.ctime_nsec().cast_unsigned(),
    ];
    let mut bytes = [0; 48];
    for (place, field) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
        *place = field.to_le_bytes();
    }
    Some(bytes)
}

/// Remembers what is in a file. That this fails costs only time later.
pub(crate) fn remember(cache: &TableCache, path: &Path, file: &File, seal: &Seal, entries: &[Entry]) {
    let Some(identity) = identity(file) else { return };
    let mut bytes = [&MAGIC[..], &identity].concat();
    for chunk in chunks(entries) {
        bytes.extend_from_slice(chunk.id.as_bytes());
        bytes.extend_from_slice(&chunk.offset.to_le_bytes());
        bytes.extend_from_slice(&chunk.len.to_le_bytes());
    }
    cache.put(&key(path, seal).hex(), &bytes);
}

fn recall(cache: &TableCache, path: &Path, file: &File, seal: &Seal) -> Option<Vec<Here>> {
    let bytes = cache.get(&key(path, seal).hex(), KEPT_MAX)?;
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&identity(file)?)?;
    let (chunks, []) = rest.as_chunks::<44>() else {
        return None;
    };
    chunks.iter().map(here).collect()
}

fn here(bytes: &[u8; 44]) -> Option<Here> {
    let (id, rest) = bytes.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let len = u32::from_le_bytes(*rest.first_chunk()?);
    let fits = usize::try_from(len).is_ok_and(|len| len <= CHUNK_MAX);
    fits.then_some(Here {
        id: Id::from_bytes(*id),
        offset: u64::from_le_bytes(*offset),
        len,
    })
}
