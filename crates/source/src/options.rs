//! What the caller decides: platform, cache, limits, registry access, and who hears of progress.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use firebrick_digest::Digest;

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

/// How registries are asked.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Docker's `config.json` (or podman's `auth.json`), for its `auths`, `credHelpers` and `credsStore`.
    pub docker_config: Option<PathBuf>,
    /// Folders searched for `docker-credential-NAME` programs before the `PATH`.
    pub credential_helper_dirs: Vec<PathBuf>,
    /// Credentials by registry host, which come before those of the file.
    pub credentials: BTreeMap<String, Credentials>,
    /// Hosts (with port, if any) that are asked over plain HTTP. Loopback names need not be listed.
    pub plain_http: Vec<String>,
    /// PEM files of certificate authorities, trusted besides those of the system.
    pub ca_files: Vec<PathBuf>,
    /// Whether the system's certificate authorities are trusted.
    pub system_ca: bool,
    /// An HTTP proxy.
    pub proxy: Option<Proxy>,
    /// How many layers download at a time.
    pub parallel: usize,
    /// How failures are met.
    pub retry: Retry,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for the next bytes.
    pub read_timeout: Duration,
}

impl Default for RegistryOptions {
    fn default() -> RegistryOptions {
        RegistryOptions {
            docker_config: None,
            credential_helper_dirs: Vec::new(),
            credentials: BTreeMap::new(),
            plain_http: Vec::new(),
            ca_files: Vec::new(),
            system_ca: true,
            proxy: None,
            parallel: 4,
            retry: Retry::default(),
            connect_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(60),
        }
    }
}

/// An HTTP proxy, reached by `CONNECT`.
#[derive(Clone)]
pub struct Proxy {
    /// Its address, e.g. `http://proxy:3128`, maybe with user and password.
    pub url: String,
    /// Hosts that are asked directly, as the `NO_PROXY` variable lists them.
    pub no_proxy: Vec<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.rsplit('@').next().unwrap_or("");
        f.debug_struct("Proxy")
            .field("host", &host)
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// What a registry is shown. Its `Debug` text holds no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password (or an access token that serves as one).
    Basic {
        /// The account.
        username: String,
        /// Its password.
        password: String,
    },
    /// A refresh token that the registry's token server changes into access tokens.
    IdentityToken(String),
    /// A ready bearer token.
    RegistryToken(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Basic { username, .. } => write!(f, "Basic({username:?}, …)"),
            Credentials::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Credentials::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// How failures that may pass are met. Delays double from `first_delay`; there is no chance in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often one thing is tried in a row. A transfer that moved on starts counting again.
    pub attempts: u32,
    /// The pause before the second try.
    pub first_delay: Duration,
    /// The longest pause, also when the registry asks for one (`Retry-After`); beyond it we give up.
    pub max_delay: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 5,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(60),
        }
    }
}

impl Retry {
    /// The pause after the `failures`-th failure in a row, counted from 1.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(20));
        self.first_delay.saturating_mul(doubled).min(self.max_delay)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        let retry = Retry::default();
        let seconds: Vec<f64> = (1..10).map(|n| retry.delay(n).as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(retry.delay(u32::MAX), retry.max_delay);
    }

    #[test]
    fn debug_text_holds_no_secret() {
        let secrets = [
            Credentials::Basic {
                username: "joe".into(),
                password: "s3cret".into(),
            },
            Credentials::IdentityToken("s3cret".into()),
            Credentials::RegistryToken("s3cret".into()),
        ];
        let proxy = Proxy {
            url: "http://joe:s3cret@proxy:3128".into(),
            no_proxy: Vec::new(),
        };
        let text = format!("{secrets:?} {proxy:?}");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("proxy:3128"), "{text}");
    }
}
