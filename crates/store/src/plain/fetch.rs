//! Taking a whole object out of a store: what is there of it already stays, and what is zeros is a hole.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use firebrick_digest::Digest;
use rustix::fs::{FallocateFlags, fallocate};

use super::digest;
use crate::cut::is_zero;
use crate::download::Partial;
use crate::error::StoreError;
use crate::objects::Objects;
use crate::store::{Progress, Store};

/// Bytes of a request.
const PIECE: u64 = 8 << 20;
/// Requests at a time.
const AT_ONCE: u64 = 4;
/// Zeros that are looked for in a file that is there, in bytes.
const HOLE: usize = 64 << 10;

/// What taking a whole object out of a store came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainFetched {
    /// Its digest, which its bytes have; `None` if the store has none, and nobody knows whether they are right.
    pub digest: Option<Digest>,
    /// Its length in bytes.
    pub len: u64,
    /// Bytes that came from the store.
    pub came: u64,
}

impl Store {
    /// Takes a whole object out of the store; the target is there when it is whole and right.
    ///
    /// One that has a digest beside it goes on where an earlier try ended. What is there of it then is believed until the end; if the
    /// digest is another, it is fetched once more from its beginning.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get_plain(&self, key: &str, target: &Path) -> Result<PlainFetched, StoreError> {
        let objects = self.plain_objects()?;
        let len = objects.size(key)?.ok_or_else(|| StoreError::NoImage {
            address: self.backend().address().to_owned(),
            name: key.to_owned(),
            known: self
                .plain_images()
                .unwrap_or_default()
                .into_iter()
                .map(|one| one.key)
                .collect(),
        })?;
        let digest = self.plain_digest(key)?;
        let came = match &digest {
            Some(digest) => self.get_verified(objects, key, len, digest, target)?,
            None => self.get_unverified(objects, key, len, target)?,
        };
        Ok(PlainFetched { digest, len, came })
    }

    fn get_verified(
        &self,
        objects: &dyn Objects,
        key: &str,
        len: u64,
        expected: &Digest,
        target: &Path,
    ) -> Result<u64, StoreError> {
        let partial = Partial::open(target, expected)?;
        let came = AtomicU64::new(0);
        let mut may_go_on = partial.resumed;
        loop {
            self.get_rest(objects, key, len, &partial, &came)?;
            let found = digest(&partial.file).map_err(|error| partial.failed(error))?;
            if found == *expected {
                partial.finish(target)?;
                return Ok(came.into_inner());
            }
            if !may_go_on {
                partial.discard();
                let problem = format!("the object has {found}, and it says {expected}");
                return Err(self.bad_digest(key, &problem));
            }
            may_go_on = false;
            partial.empty()?;
        }
    }

    /// Fetches what is behind the end of the file. Everything before its end is there, whenever this is ended.
    fn get_rest(
        &self,
        objects: &dyn Objects,
        key: &str,
        len: u64,
        partial: &Partial,
        came: &AtomicU64,
    ) -> Result<(), StoreError> {
        let metadata = partial.file.metadata().map_err(|error| partial.failed(error))?;
        let mut at = metadata.len();
        if at > len {
            partial.empty()?;
            at = 0;
        }
        let done = AtomicU64::new(at);
        while at < len {
            let starts: Vec<u64> = (0..AT_ONCE)
                .map(|number| at + number * PIECE)
                .filter(|start| *start < len)
                .collect();
            let pieces = crate::parallel::map(usize::try_from(AT_ONCE).unwrap_or(1), &starts, |start| {
                self.check_stop()?;
                let range = *start..len.min(start + PIECE);
                let bytes = objects.get_range(key, range)?;
                let moved = bytes.len() as u64;
                let came = came.fetch_add(moved, Ordering::Relaxed) + moved;
                let done = done.fetch_add(moved, Ordering::Relaxed) + moved;
                (self.progress)(Progress::Download { done, of: len, came });
                Ok(bytes)
            })?;
            for bytes in pieces {
                partial.write_sparse(&bytes, at)?;
                at += bytes.len() as u64;
                // Zeros at its end are of the file, too.
                partial.file.set_len(at).map_err(|error| partial.failed(error))?;
            }
        }
        Ok(())
    }

    /// Where nothing says what the bytes should be, those of two tries are never joined.
    fn get_unverified(
        &self,
        objects: &dyn Objects,
        key: &str,
        of: u64,
        target: &Path,
    ) -> Result<u64, StoreError> {
        let failed = |source| StoreError::File {
            action: "write",
            path: target.to_owned(),
            source,
        };
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(failed)?;
        let partial = tempfile::Builder::new()
            .prefix(".download-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)
            .map_err(failed)?;
        let came = AtomicU64::new(0);
        objects.get_file(key, partial.as_file(), &|len| {
            let came = came.fetch_add(len, Ordering::Relaxed) + len;
            (self.progress)(Progress::Download { done: came, of, came });
        })?;
        dig(partial.as_file()).map_err(failed)?;
        partial.as_file().sync_all().map_err(failed)?;
        partial.persist(target).map_err(|error| failed(error.error))?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)?;
        Ok(came.into_inner())
    }
}

/// Makes holes of zeros, where the filesystem has such.
fn dig(file: &File) -> io::Result<()> {
    let mut piece = vec![0; HOLE];
    let mut at = 0;
    loop {
        let len = file.read_at(&mut piece, at)?;
        if len == 0 {
            return Ok(());
        }
        if is_zero(&piece[..len]) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(file, flags, at, len as u64) {
                Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
                dug => dug?,
            }
        }
        at += len as u64;
    }
}
