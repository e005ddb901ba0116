//! Small things of stores that never change, kept on this host: manifests, configs, tables.
//!
//! Whoever takes something out verifies it as if it came from the store, so a damaged cache costs a request and no more.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A folder that may be removed at any time.
#[derive(Debug, Clone)]
pub struct TableCache {
    folder: PathBuf,
}

impl TableCache {
    /// The cache in a folder, which need not be there yet.
    pub fn new(folder: &Path) -> TableCache {
        TableCache {
            folder: folder.to_owned(),
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(&key[..2]).join(key)
    }

    /// What is kept under the hex digits of a digest or id, if that is no more than `limit` bytes.
    pub(crate) fn get(&self, key: &str, limit: u64) -> Option<Vec<u8>> {
        let file = File::open(self.path(key)).ok()?;
        let len = file.metadata().ok()?.len();
        if len > limit {
            return None;
        }
        let mut bytes = Vec::new();
        (&file).take(len).read_to_end(&mut bytes).ok()?;
        // When it was last used; a cache that we may only read still serves.
        let _ = file.set_modified(SystemTime::now());
        Some(bytes)
    }

    /// Keeps bytes. That this fails costs only time later, so it says nothing.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        let write = || -> io::Result<()> {
            let folder = path.parent().unwrap_or(&self.folder);
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(bytes)?;
            file.persist(&path)?;
            Ok(())
        };
        let _ = write();
    }
}
