//! What the caller decides: platform, cache, limits, registry access, and who hears of progress.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use firebrick_digest::Digest;
use firebrick_registry::{OnRetry, RegistryOptions};

use crate::cache::Cache;
use crate::platform::Platform;

/// How to open a reference. `Options::default()` asks registries anonymously, without a cache.
#[derive(Clone)]
pub struct Options {
    /// The wanted platform; `None` means this machine's.
    pub platform: Option<Platform>,
    /// Where blobs of registries are kept; `None` keeps them in nameless temporary files.
    pub cache: Option<Cache>,
    /// Where nameless temporary files lie (compressed archives, downloads without a cache).
    pub temp_dir: PathBuf,
    /// How registries are asked.
    pub registry: RegistryOptions,
    /// What hostile input may cost.
    pub limits: Limits,
    /// Hears what happens; called from several threads.
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            platform: None,
            cache: None,
            temp_dir: PathBuf::from("/var/tmp"),
            registry: RegistryOptions::default(),
            limits: Limits::default(),
            events: Arc::new(|_| ()),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("platform", &self.platform)
            .field("cache", &self.cache)
            .field("temp_dir", &self.temp_dir)
            .field("registry", &self.registry)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// What a client of registries tells, as an event.
    pub(crate) fn on_retry(&self) -> OnRetry {
        let events = Arc::clone(&self.events);
        Arc::new(move |retrying| {
            events(Event::Retry {
                url: retrying.url,
                cause: retrying.cause,
                delay: retrying.delay,
            });
        })
    }
}

/// What hostile input may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest manifest or index, in bytes.
    pub manifest_bytes: u64,
    /// The largest config, in bytes.
    pub config_bytes: u64,
    /// The most layers of one image.
    pub layers: usize,
    /// How deep indexes may name indexes; 1 is an index of manifests.
    pub index_depth: usize,
    /// The most indexes and manifests read in search of a platform.
    pub documents: usize,
    /// The most entries of an archive that holds images.
    pub archive_entries: usize,
    /// The most bytes that a compressed archive may become on disk.
    pub spool_bytes: u64,
    /// The most bytes that one compressed byte of it may become, counted from 64 MiB on.
    pub spool_ratio: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            manifest_bytes: 4 << 20,
            config_bytes: 4 << 20,
            layers: 1000,
            index_depth: 4,
            documents: 100,
            archive_entries: 100_000,
            spool_bytes: 64 << 30,
            spool_ratio: 250,
        }
    }
}

/// What happens while an OCI image is opened and its layers are read. Layers count from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The reference names this manifest.
    Resolved {
        /// The manifest's digest, where it has one.
        manifest: Option<Digest>,
        /// The platform of the image.
        platform: Platform,
        /// How many layers it has.
        layers: usize,
    },
    /// The download of a single file moved on.
    FileMovedOn {
        /// How many of its bytes are here.
        done_bytes: u64,
        /// How many it has, where the server tells.
        size_bytes: Option<u64>,
    },
    /// A layer lies in the cache already.
    Cached {
        /// Which layer.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// Its size as stored, in bytes.
        size_bytes: u64,
    },
    /// A layer's download starts, or goes on from where an earlier one broke off.
    DownloadStarted {
        /// Which layer.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// Its size as stored, in bytes.
        size_bytes: u64,
        /// How many bytes an earlier run left.
        resumed_bytes: u64,
    },
    /// A layer's download moved on.
    Downloaded {
        /// Which layer.
        layer: usize,
        /// How many of its bytes are here.
        done_bytes: u64,
        /// Its size as stored, in bytes.
        size_bytes: u64,
    },
    /// A layer is here and verified.
    DownloadFinished {
        /// Which layer.
        layer: usize,
        /// How many bytes this run fetched for it.
        fetched_bytes: u64,
    },
    /// A blob in the cache was not what its name says; it was dropped and will be fetched again.
    CorruptCacheEntry {
        /// The blob.
        digest: Digest,
    },
    /// Another process downloads the same layer; we wait for it.
    WaitingForOther {
        /// Which layer.
        layer: usize,
    },
    /// Something failed and is tried again.
    Retry {
        /// The address.
        url: String,
        /// What failed.
        cause: String,
        /// The pause before the next try.
        delay: Duration,
    },
}
