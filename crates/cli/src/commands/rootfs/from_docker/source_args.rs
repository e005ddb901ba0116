//! The flags that say how an OCI image is reached, and progress of its download.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use firebrick_source::{Cache, Event, OciImage, Options, Platform, Reference, RegistryOptions};

use crate::home::Home;
use crate::proxy::{docker_config, proxy_of_environment};
use crate::talk::{Steps, Talk};
use crate::text;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Registry")]
pub(crate) struct Registry {
    /// Take the image for this platform instead of this machine's, e.g. linux/arm64
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<Platform>,

    /// Ask the image's registry over plain HTTP (localhost is so anyway)
    #[arg(long)]
    plain_http: bool,

    /// Trust the certificate authorities in this PEM file too
    #[arg(long, value_name = "PEM")]
    ca_file: Vec<PathBuf>,

    /// Take credentials from this file
    ///
    /// It has the format of Docker's config.json. Without the flag REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json and
    /// ~/.docker/config.json are tried in that order; credential helpers named there are asked.
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,

    /// Neither use nor fill the cache
    ///
    /// It holds downloaded layers, and what scripts and run steps made.
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// What the source's events add up to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Transfer {
    /// Bytes that came over the network.
    pub(crate) fetched_bytes: u64,
    /// Layers that came over the network.
    pub(crate) fetched_layers: u64,
    /// Bytes that an earlier run had left or that the cache held.
    pub(crate) cached_bytes: u64,
    /// Layers that the cache held whole.
    pub(crate) cached_layers: u64,
    downloads: BTreeMap<usize, (u64, u64)>,
}

impl Registry {
    /// Opens the reference. Downloads and cache hits are counted in `transfer` and shown in `steps`.
    pub(crate) fn open(
        &self,
        reference: &Reference,
        home: &Home,
        talk: Talk,
        steps: &Arc<Steps>,
        transfer: &Arc<Mutex<Transfer>>,
    ) -> anyhow::Result<OciImage> {
        let cache = match (self.no_cache, reference) {
            (false, Reference::Registry(_)) => Some(Cache::open(home.cache())?),
            _ => None,
        };
        let (steps, transfer) = (Arc::clone(steps), Arc::clone(transfer));
        let options = Options {
            platform: self.platform.clone(),
            cache,
            temp_dir: std::env::temp_dir(),
            registry: self.registry_options(reference)?,
            events: Arc::new(move |event| {
                let mut transfer = transfer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                transfer.hear(event, &steps, talk);
            }),
            ..Options::default()
        };
        firebrick_source::open(reference, &options).with_context(|| format!("cannot open {reference}"))
    }

    fn registry_options(&self, reference: &Reference) -> anyhow::Result<RegistryOptions> {
        if let Some(file) = &self.authfile {
            std::fs::metadata(file).with_context(|| format!("cannot read the credentials {file:?}"))?;
        }
        let plain_http = match reference {
            Reference::Registry(registry) if self.plain_http => vec![registry.name.registry.clone()],
            _ => Vec::new(),
        };
        Ok(RegistryOptions {
            docker_config: docker_config(self.authfile.as_deref()),
            plain_http,
            ca_files: self.ca_file.clone(),
            proxy: proxy_of_environment(),
            ..RegistryOptions::default()
        })
    }
}

impl Transfer {
    fn hear(&mut self, event: Event, steps: &Steps, talk: Talk) {
        talk.event(&format!("      source: {event:?}"));
        match event {
            Event::Cached { size_bytes, .. } => {
                self.cached_layers += 1;
                self.cached_bytes += size_bytes;
            }
            Event::DownloadStarted {
                layer,
                size_bytes,
                resumed_bytes,
                ..
            } => {
                self.cached_bytes += resumed_bytes;
                self.downloads.insert(layer, (resumed_bytes, size_bytes));
                self.show(steps);
            }
            Event::Downloaded {
                layer,
                done_bytes,
                size_bytes,
            } => {
                self.downloads.insert(layer, (done_bytes, size_bytes));
                self.show(steps);
            }
            Event::DownloadFinished { layer, fetched_bytes } => {
                self.fetched_layers += 1;
                self.fetched_bytes += fetched_bytes;
                if let Some((done_bytes, size_bytes)) = self.downloads.get_mut(&layer) {
                    *done_bytes = *size_bytes;
                }
                self.show(steps);
            }
            Event::CorruptCacheEntry { digest } => {
                steps.note(&format!(
                    "layer {digest} was damaged in the cache; it is fetched again"
                ));
            }
            Event::WaitingForOther { layer } => {
                steps.note(&format!(
                    "another firebrick downloads layer {layer}; waiting for it"
                ));
            }
            Event::Retry { url, cause, delay } => {
                steps.note(&format!(
                    "{url}: {cause}; trying again in {}",
                    text::duration(delay)
                ));
            }
            _ => {}
        }
    }

    fn show(&self, steps: &Steps) {
        let (done, total) = self
            .downloads
            .values()
            .fold((0, 0), |(done, total), (d, t)| (done + d, total + t));
        steps.progress(done, total, "downloading");
    }

    /// `downloaded 3.1 MiB (1 layer), 27.4 MiB from the cache (2 layers)`.
    pub(crate) fn summary(&self) -> String {
        format!(
            "downloaded {} ({}), {} from the cache ({})",
            text::bytes(self.fetched_bytes),
            text::count(self.fetched_layers, "layer"),
            text::bytes(self.cached_bytes),
            text::count(self.cached_layers, "layer"),
        )
    }
}
