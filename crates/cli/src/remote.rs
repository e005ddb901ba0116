//! Stores of images, as the command line names them.

mod about;
mod address;
mod listener;
mod settings;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use firebrick_bucket::Bucket;
use firebrick_digest::Digest;
use firebrick_registry::RegistryOptions;
use firebrick_store::{
    Backend, Folder, HostCache, KeptKind, Layout, Listener, Progress, Registry, Seal, Store,
};

pub(crate) use about::about;
pub(crate) use address::Address;
pub(crate) use listener::{Chain, listener};
pub(crate) use settings::config_folders;

use firebrick_trust::SealKey;

use crate::error::CliError;
use crate::home::Home;
use crate::proxy::{docker_config, proxy_of_environment};
use crate::talk::Talk;
use crate::text::quoted;

/// Which store, and how to get into it.
#[derive(Debug, clap::Args)]
pub(crate) struct StoreArgs {
    /// The store: file:///DIR, s3://BUCKET/PREFIX, oci://REGISTRY/PATH, …
    ///
    /// Also gs://BUCKET/PREFIX and az://CONTAINER/PREFIX. Without it $FIREBRICK_STORE, or `store = "…"` in config.toml.
    #[arg(short = 'b', long = "store", value_name = "STORE", help_heading = "Store")]
    store: Option<Address>,

    /// Open encrypted images with the key in this file, and encrypt what is uploaded with it
    #[arg(long, value_name = "FILE", help_heading = "Store", hide_short_help = true)]
    key: Option<PathBuf>,

    /// Allow HTTP without TLS to the store
    #[arg(long, help_heading = "Store", hide_short_help = true)]
    plain_http: bool,

    /// Take the credentials of a registry from this file, as docker login writes it
    #[arg(long, value_name = "FILE", help_heading = "Store", hide_short_help = true)]
    authfile: Option<PathBuf>,

    /// Trust the certificate authorities in this PEM file, too (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Store", hide_short_help = true)]
    ca_file: Vec<PathBuf>,
}

impl StoreArgs {
    /// The argument of a command that only goes to a store with another flag: without that, these would mean nothing. `against` are
    /// the flags that the other one excludes.
    pub(crate) fn requiring(flag: &'static str, against: &[&'static str], arg: clap::Arg) -> clap::Arg {
        match arg.get_id().as_str() {
            "store" | "key" | "plain_http" | "authfile" | "ca_file" => {
                arg.requires(flag).conflicts_with_all(against)
            }
            _ => arg,
        }
    }

    /// The store's address.
    pub(crate) fn address(&self) -> anyhow::Result<Address> {
        match &self.store {
            Some(address) => Ok(address.clone()),
            None => settings::default_store(),
        }
    }

    /// Opens the store.
    pub(crate) fn open(&self, home: &Home, listener: Box<Listener>) -> anyhow::Result<Store> {
        self.open_until(home, listener, Arc::default())
    }

    /// Opens a store that is there to be read: a folder that does not exist is more likely a slip than an empty store.
    pub(crate) fn open_existing(&self, home: &Home, listener: Box<Listener>) -> anyhow::Result<Store> {
        match self.address()? {
            Address::Folder(path) if !path.exists() => {
                Err(anyhow::Error::new(CliError::NoSuchStore { path }).context("cannot open the store"))
            }
            _ => self.open(home, listener),
        }
    }

    /// Opens the store; what goes on with it ends when somebody sets `stop`.
    pub(crate) fn open_until(
        &self,
        home: &Home,
        listener: Box<Listener>,
        stop: Arc<AtomicBool>,
    ) -> anyhow::Result<Store> {
        let address = self.address()?;
        let _ = FLAGS.set(self.flags(&address.to_string())); // one store is opened
        let listener: Arc<Listener> = Arc::from(listener);
        let backend: Box<dyn Backend> = match &address {
            Address::Folder(path) => {
                let told = Arc::clone(&listener);
                let waits = Box::new(move |lock: &Path| told(Progress::Waiting(lock)));
                Box::new(Layout::new(Folder::new(path).telling(waits)))
            }
            Address::Bucket(text) => Box::new(Layout::new(self.open_bucket(text)?)),
            Address::Registry(base) => Box::new(self.open_registry(base)),
        };
        let listener = Box::new(move |progress: Progress<'_>| listener(progress));
        Ok(Store::new(backend, Some(cache(home).tables()), listener, stop))
    }

    /// The flags with which another command gets into the same store.
    pub(crate) fn flags(&self, address: &str) -> String {
        let mut flags = format!(" -b {}", quoted(Path::new(address)));
        if self.plain_http {
            flags.push_str(" --plain-http");
        }
        let authfile = self.authfile.iter().map(|file| ("authfile", file));
        let ca_files = self.ca_file.iter().map(|file| ("ca-file", file));
        for (flag, file) in authfile.chain(ca_files) {
            flags.push_str(&format!(" --{flag} {}", quoted(file)));
        }
        flags
    }

    fn open_bucket(&self, address: &str) -> anyhow::Result<Bucket> {
        let proxy = proxy_of_environment().map(|proxy| firebrick_bucket::Proxy {
            url: proxy.url,
            no_proxy: proxy.no_proxy,
        });
        let options = firebrick_bucket::Options {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            proxy,
            ca_files: self.ca_file.clone(),
            plain_http: self.plain_http,
            ..firebrick_bucket::Options::default()
        };
        Bucket::open(address, options).with_context(|| format!("cannot open {address}"))
    }

    fn open_registry(&self, base: &str) -> Registry {
        let host = base.split('/').next().unwrap_or(base);
        let options = RegistryOptions {
            docker_config: docker_config(self.authfile.as_deref()),
            plain_http: self.plain_http.then(|| host.to_owned()).into_iter().collect(),
            ca_files: self.ca_file.clone(),
            proxy: proxy_of_environment(),
            ..RegistryOptions::default()
        };
        Registry::new(base, options, Arc::new(|_| ()))
    }

    /// What closes and opens chunks.
    pub(crate) fn seal(&self) -> anyhow::Result<Seal> {
        let Some(path) = &self.key else {
            return Ok(Seal::PLAIN);
        };
        let reading = || format!("cannot read the key {path:?}");
        let text = std::fs::read(path).with_context(reading)?;
        Ok(Seal::keyed(SealKey::parse(&text).with_context(reading)?.bytes()))
    }
}

/// With which flags the process got into the store that it opened.
static FLAGS: OnceLock<String> = OnceLock::new();

/// The flags, with a space before each, that advice needs to lead into the same store; none before one is opened.
pub(crate) fn flags() -> &'static str {
    FLAGS.get().map_or("", String::as_str)
}

/// What stores keep on this host.
pub(crate) fn cache(home: &Home) -> HostCache {
    HostCache::new(home.cache())
}

/// That a store cannot change a name in one step.
fn races(address: &str) -> String {
    match address.starts_with("oci://") {
        true => format!(
            "registries cannot change a name in one step: of two uploads of one name at the same moment to {address} either may be the current version afterwards; both are kept"
        ),
        false => format!(
            "{address} ignores conditions on writes: a version that somebody else publishes at the same moment may not be listed"
        ),
    }
}

/// Warns of [`races`], unless this host has been told already.
pub(crate) fn warn_of_races(address: &str, home: &Home, talk: &Talk) {
    let told = cache(home).folder(KeptKind::Told);
    let mark = told.join(Digest::of(address.as_bytes()).hex());
    if let Ok(mark) = File::open(&mark) {
        let _ = mark.set_modified(SystemTime::now());
        return;
    }
    talk.warn(&races(address));
    // Where no mark can be left it is said again.
    let _ = std::fs::create_dir_all(&told).and_then(|()| std::fs::write(&mark, address));
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Threads for work that only computes.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Requests at a time; most of their time is waiting.
pub(crate) const REQUESTS: usize = 8;
