//! The cache file: the image itself, with holes where nothing has come yet.
//!
//! A chunk lies where it lies in the image, so several processes write the same bytes to the same place and need no lock. Nothing
//! says which chunks are there: who finds bytes verifies them. So no crash, no other program and no lost write can make it wrong.
//! Each process that has it open holds a shared lock (flock), which tells who empties the cache to leave it there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use firebrick_digest::Digest;
use tempfile::NamedTempFile;

/// Who hears, once, that a cache file cannot be written, and why.
pub(super) type Warn = dyn Fn(&Path, &io::Error) + Send + Sync;

/// See the module.
pub(super) struct Keep {
    file: Option<File>,
    path: PathBuf,
    writable: AtomicBool,
    warn: Box<Warn>,
}

impl Keep {
    /// The cache file of an image of `len` bytes, whose manifest has the digest `image`. Without a folder there is none.
    pub(super) fn open(folder: Option<&Path>, image: &Digest, len: u64, warn: Box<Warn>) -> Keep {
        let mut keep = Keep {
            file: None,
            path: PathBuf::new(),
            writable: AtomicBool::new(folder.is_some()),
            warn,
        };
        let Some(folder) = folder else { return keep };
        keep.path = folder.join(format!("{}.part", image.hex()));
        match create(folder, &keep.path, len) {
            Ok(file) => keep.file = Some(file),
            Err(error) => {
                // What others wrote there can be read all the same.
                keep.file = File::open(&keep.path).ok();
                keep.give_up(&error);
            }
        }
        if let Some(file) = &keep.file {
            // Where somebody is just removing the file it serves us alone; where there are no locks it may be removed later.
            let _ = file.try_lock_shared();
            let _ = file.set_modified(SystemTime::now());
        }
        keep
    }

    fn give_up(&self, error: &io::Error) {
        if self.writable.swap(false, Ordering::Relaxed) {
            (self.warn)(&self.path, error);
        }
    }

    /// Whether what is written is kept, as far as is known.
    pub(super) fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// Reads whatever is there, and tells whether there is something.
    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> bool {
        let Some(file) = &self.file else { return false };
        file.read_exact_at(bytes, offset).is_ok()
    }

    /// Keeps a chunk, if that is possible.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> bool {
        let Some(file) = self.file.as_ref().filter(|_| self.is_writable()) else {
            return false;
        };
        match file.write_all_at(bytes, offset) {
            Ok(()) => true,
            Err(error) => {
                self.give_up(&error);
                false
            }
        }
    }
}

/// Opens the file, or makes a new one, which only its owner may read: an image that is encrypted in the store is not, here.
///
/// A file is never given another length: another process may have verified what is in it, and reads on from the old one.
fn create(folder: &Path, path: &Path, len: u64) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    if let Some(file) = open(path, len)? {
        return Ok(file);
    }
    let new = NamedTempFile::new_in(folder)?;
    new.as_file().set_len(len)?;
    if path.exists() {
        return Ok(new.persist(path)?);
    }
    match new.persist_noclobber(path) {
        Ok(file) => Ok(file),
        // Another process was first.
        Err(error) => open(path, len)?.ok_or(error.error),
    }
}

/// The file, if there is one of that length.
fn open(path: &Path, len: u64) -> io::Result<Option<File>> {
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let fits = file.metadata()?.len() == len;
    Ok(fits.then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kept::{HostCache, KeptKind, PruneKept};
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_write_that_fails_is_told_once_and_what_is_there_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let warn = move |path: &Path, _: &io::Error| heard.lock().unwrap().push(path.to_owned());
        let image = Digest::of(b"x");
        let mut keep = Keep::open(Some(dir.path()), &image, 100, Box::new(warn));
        assert!(keep.write(b"some", 50) && keep.is_writable());
        // A descriptor that takes nothing, as a full disk does.
        keep.file = File::open(&keep.path).ok();
        assert!(!keep.write(b"more", 10) && !keep.write(b"more", 10) && !keep.is_writable());
        assert_eq!(*told.lock().unwrap(), [keep.path.clone()]);
        let mut bytes = [0; 6];
        assert!(keep.read(&mut bytes, 49));
        assert_eq!(bytes, *b"\0some\0");
        assert!(!keep.read(&mut bytes, 98));
    }

    #[test]
    fn what_is_open_is_not_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let cache = HostCache::new(dir.path());
        let folder = cache.folder(KeptKind::Chunks);
        let open = |name: &[u8]| Keep::open(Some(&folder), &Digest::of(name), 100, Box::new(|_, _| ()));
        let (held, again, left) = (open(b"x"), open(b"x"), open(b"y"));
        drop(left);
        let removed = |count| {
            let pruned = cache.prune(PruneKept::All).unwrap();
            assert_eq!(pruned.removed.len(), count, "{pruned:?}");
        };
        removed(1);
        assert!(held.path.exists());
        drop(held);
        removed(0);
        let path = again.path.clone();
        drop(again);
        removed(1);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_of_another_length_is_replaced_and_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Keep::open(Some(dir.path()), &Digest::of(b"x"), 100, Box::new(|_, _| ()));
        let first = open();
        assert!(first.write(b"some", 50));
        let mut bytes = [0; 4];
        assert!(open().read(&mut bytes, 50) && bytes == *b"some");
        let path = first.path.clone();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(10)
            .unwrap();
        let second = open();
        assert_eq!(fs::metadata(&path).unwrap().len(), 100);
        assert!(second.read(&mut bytes, 50) && bytes == [0; 4]);
        // Who had read in the old one does not take the new one's holes for what was there.
        assert!(!first.read(&mut bytes, 50));
    }
}
