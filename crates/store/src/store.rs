//! A store: a back end, what this host remembers of it, and who is told how things go.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use firebrick_digest::Digest;

use crate::backend::Backend;
use crate::cache::TableCache;
use crate::error::StoreError;
use crate::image::{Image, Source};
use crate::index::Published;
use crate::ledger::Settled;
use crate::name::{Reference, Tagged};

/// Names that an error offers instead.
const OFFERED: usize = 20;

/// What a store tells while it works.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// An image's table is read, to learn what it shares.
    Table(&'a Published),
    /// An image cannot be read, and is left out of account.
    Ignored(&'a Published, &'a StoreError),
    /// An image is being published.
    Upload {
        /// Bytes of the image that are done.
        done: u64,
        /// Bytes of the image.
        of: u64,
        /// Bytes that went to the store.
        sent: u64,
    },
    /// An image is being fetched.
    Download {
        /// Bytes of the image that are in place.
        done: u64,
        /// Bytes of the image that are no hole.
        of: u64,
        /// Bytes that came from the store.
        came: u64,
    },
    /// What is read cannot be kept in the cache file of that path. It is said once of each.
    Uncached(&'a Path, &'a io::Error),
    /// Somebody else holds this lock, and is waited for. It is said once, after two seconds.
    Waiting(&'a Path),
    /// Blobs are read again.
    Check {
        /// Bytes that are done.
        done: u64,
        /// Bytes that there are.
        of: u64,
    },
}

/// Takes what a store tells, from any thread.
pub type Listener = dyn Fn(Progress<'_>) + Send + Sync;

/// Images under names, in a folder, a bucket or a registry.
pub struct Store {
    backend: Box<dyn Backend>,
    cache: Option<TableCache>,
    pub(crate) progress: Box<Listener>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The store behind `backend`. Whoever sets `stop` ends what is going on with [`StoreError::Stopped`].
    pub fn new(
        backend: Box<dyn Backend>,
        cache: Option<TableCache>,
        progress: Box<Listener>,
        stop: Arc<AtomicBool>,
    ) -> Store {
        Store {
            backend,
            cache,
            progress,
            stop,
        }
    }

    /// The back end.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            backend: &*self.backend,
            cache: self.cache.as_ref(),
            stop: &self.stop,
        }
    }

    /// The version that a reference means.
    ///
    /// # Errors
    /// [`StoreError::NoImage`] if it means none, with names that there are.
    pub fn find(&self, reference: &Reference) -> Result<Published, StoreError> {
        let history = self.backend.history(&reference.tagged)?;
        let meant = |version: &Published| match &reference.digest {
            Some(digest) => version.digest == *digest,
            None => version.current,
        };
        if let Some(found) = history.into_iter().find(meant) {
            return Ok(found);
        }
        Err(StoreError::NoImage {
            address: self.backend.address().to_owned(),
            name: reference.to_string(),
            known: self.offer(&reference.tagged),
        })
    }

    /// Names that somebody may have meant.
    fn offer(&self, missed: &Tagged) -> Vec<String> {
        let mut all = self.backend.versions().unwrap_or_default();
        all.retain(|version| version.current);
        all.sort_by_key(|version| version.tagged.name != missed.name);
        all.into_iter()
            .take(OFFERED)
            .map(|version| version.tagged.to_string())
            .collect()
    }

    /// Opens a version of an image. Nothing of its content is read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(&self, version: &Published) -> Result<Image, StoreError> {
        self.source().image(&version.tagged.name, &version.digest)
    }

    /// Gives a version another name, too. Nothing of it is sent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tag(
        &self,
        version: &Published,
        tagged: &Tagged,
        time: u64,
    ) -> Result<crate::Replaced, StoreError> {
        let claim = self.claim()?;
        let image = self.open(version)?;
        let (from, to) = (&version.tagged.name, &tagged.name);
        let mut blobs: Vec<Digest> = image.manifest.blobs().map(|blob| blob.digest).collect();
        if from != to {
            crate::parallel::map(8, &blobs, |blob| {
                match self.backend.mount_blob(to, blob, from)? {
                    true => Ok(()),
                    // A registry that does not mount gets it as from anybody.
                    false => self.copy_blob(&image, blob, to),
                }
            })?;
            let bytes = self.source().manifest(from, &version.digest)?;
            self.backend.write_manifest(to, &version.digest, bytes)?;
        }
        blobs.push(version.digest);
        let published = Published {
            tagged: tagged.clone(),
            time,
            current: true,
            ..version.clone()
        };
        match claim.name(to, &blobs, |epoch| self.backend.publish(&published, epoch))? {
            Settled::Named(replaced) => Ok(replaced),
            Settled::Gone(gone) => Err(StoreError::Corrupt {
                address: self.backend.address().to_owned(),
                what: format!("image {}@{}", version.tagged, version.digest),
                problem: format!("it lacks {} blobs that were removed meanwhile", gone.len()),
            }),
        }
    }

    fn copy_blob(&self, image: &Image, blob: &Digest, to: &crate::Name) -> Result<(), StoreError> {
        let size = image
            .manifest
            .blobs()
            .find(|one| one.digest == *blob)
            .map_or(0, |one| one.size);
        let bytes = self.backend.read_blob(&image.name, blob, 0..size)?;
        self.backend.write_blob(to, blob, bytes)
    }
}
