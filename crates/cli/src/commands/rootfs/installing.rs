//! Package sets at work: where they are put together, how that is told, and what ends with us.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use firebrick_bootstrap::{BootstrapError, Event, Options, PackageSet, Prepared, prepare};
use firebrick_digest::Hasher;
use firebrick_source::{Layer, OciImage, RegistryOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::making::Reading;
use crate::downloads;
use crate::home::Home;
use crate::interrupt::die_by;
use crate::proxy::proxy_of_environment;
use crate::steps::network_environment;
use crate::talk::{Steps, Talk};
use crate::text;

/// A set that is being installed; what it works in goes with this.
pub(crate) struct Installing {
    title: String,
    workshop: Workshop,
    prepared: Arc<Prepared>,
}

impl Installing {
    /// Checks the set and prepares for it; nothing is installed before the image's layer is read.
    pub(crate) fn begin(
        set: &PackageSet,
        home: &Home,
        talk: Talk,
        steps: &Arc<Steps>,
    ) -> anyhow::Result<Installing> {
        steps.begin(1, &announced(set));
        let workshop = Workshop::open()?;
        let title = set.title();
        let options = options(set, home, &workshop, steps, talk)?;
        let prepared = prepare(set, &options).with_context(|| format!("cannot make an image of {title}"))?;
        Ok(Installing {
            title,
            prepared: workshop.hold(prepared),
            workshop,
        })
    }

    /// The set as an image, whose layer can be read once.
    pub(crate) fn image(&self) -> &OciImage {
        self.prepared.image()
    }

    /// The image to build, and how its layers come: who runs something in it reads it twice.
    pub(crate) fn read(&self, twice: bool) -> anyhow::Result<(OciImage, Reading)> {
        match twice {
            true => Ok((self.finished()?, Reading::Here)),
            false => Ok((self.image().clone(), Reading::Made)),
        }
    }

    /// Installs it now: an image whose layer can be read any number of times, as long as this lives.
    fn finished(&self) -> anyhow::Result<OciImage> {
        let mut image = self.image().clone();
        let path = self.workshop.folder.join("layer.tar");
        let keeping = || format!("cannot keep the packages in {path:?}");
        let mut file = File::create(&path).with_context(keeping)?;
        let mut hasher = Hasher::new();
        for layer in &image.layers {
            let mut tar = layer
                .open()
                .map_err(|error| self.failure(anyhow::Error::new(error)))?;
            let mut buffer = vec![0; 1 << 18];
            loop {
                let len = match tar.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(len) => len,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(self.failure(anyhow::Error::new(error))),
                };
                let bytes = buffer.get(..len).unwrap_or_default();
                hasher.update(bytes);
                file.write_all(bytes).with_context(keeping)?;
            }
        }
        image.layers = vec![Layer::from_file(&path, hasher.finish())?];
        Ok(image)
    }

    /// What became of the set, if its tool has failed; the error that it led to here otherwise.
    pub(crate) fn failure(&self, error: anyhow::Error) -> anyhow::Error {
        let failed = match self.prepared.take_failure() {
            // A signal has stopped it, and is about to end us.
            Some(BootstrapError::Stopped { .. }) => loop {
                std::thread::park();
            },
            Some(failure) => anyhow::Error::new(failure),
            None => error,
        };
        failed.context(format!("cannot make an image of {}", self.title))
    }
}

/// `Installing debian bookworm and 2 packages: python3, curl`.
fn announced(set: &PackageSet) -> String {
    let packages = match set.packages.as_slice() {
        [] => String::new(),
        packages => {
            let count = u64::try_from(packages.len()).unwrap_or(u64::MAX);
            format!(" and {}: {}", text::count(count, "package"), packages.join(", "))
        }
    };
    format!("Installing {}{packages}", set.title())
}

fn options(
    set: &PackageSet,
    home: &Home,
    workshop: &Workshop,
    steps: &Arc<Steps>,
    talk: Talk,
) -> anyhow::Result<Options> {
    let epoch = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .filter(|epoch| !epoch.is_empty());
    let time = epoch.map(|epoch| {
        epoch
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is {epoch:?}, expected seconds since 1970"))
    });
    let steps = Arc::clone(steps);
    Ok(Options {
        temp_dir: workshop.folder.clone(),
        cache: downloads::of_alpine(home),
        time: time.transpose()?,
        env: environment(),
        source: firebrick_source::Options {
            platform: Some(set.platform.clone()),
            registry: RegistryOptions {
                proxy: proxy_of_environment(),
                ..RegistryOptions::default()
            },
            ..firebrick_source::Options::default()
        },
        events: Arc::new(move |event| match event {
            Event::Stage(stage) => steps.note(&stage),
            Event::Warning(line) | Event::Line(line) => talk.detail(&format!("      {line}")),
            _ => {}
        }),
        ..Options::default()
    })
}

/// Where the tools are, and how the network is reached from here: proxies, certificates, and what apt reads.
fn environment() -> Vec<(OsString, OsString)> {
    let names = ["PATH", "APT_CONFIG", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    let files = names
        .into_iter()
        .filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    let proxies = network_environment()
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()));
    files.chain(proxies).collect()
}

/// Where a set is put together: a folder that goes, and whatever works in it, when this ends or a signal ends the process.
struct Workshop {
    folder: PathBuf,
    held: Arc<Mutex<Option<Arc<Prepared>>>>,
    /// As long as the folder is locked, nobody takes it for what a killed process left.
    _lock: File,
}

impl Workshop {
    fn open() -> anyhow::Result<Workshop> {
        let temp_dir = std::env::temp_dir();
        remove_stale(&temp_dir);
        let folder = temp_dir.join(format!("firebrick-{}", std::process::id()));
        let making = || format!("cannot make the folder {folder:?}");
        std::fs::create_dir(&folder).with_context(making)?;
        let lock = File::open(&folder).with_context(making)?;
        lock.lock().with_context(making)?;
        let workshop = Workshop {
            folder: folder.clone(),
            held: Arc::default(),
            _lock: lock,
        };
        // The users of a namespace are nobody's friends, and all of them work in there.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o1777)).with_context(making)?;
        let held = Arc::clone(&workshop.held);
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]).context("cannot catch signals")?;
        let watch = move || {
            if let Some(signal) = signals.forever().next() {
                // Held to the end, so that nothing else is begun.
                let held = held.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(prepared) = held.as_ref() {
                    prepared.stop();
                }
                let _ = std::fs::remove_dir_all(&folder);
                die_by(signal);
            }
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(watch)
            .context("cannot catch signals")?;
        Ok(workshop)
    }

    /// From now on a signal stops it.
    fn hold(&self, prepared: Prepared) -> Arc<Prepared> {
        let prepared = Arc::new(prepared);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(Arc::clone(&prepared));
        prepared
    }
}

/// Removes what killed processes of this user left.
fn remove_stale(temp_dir: &Path) {
    let entries = std::fs::read_dir(temp_dir).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let is_ours = name
            .to_str()
            .and_then(|name| name.strip_prefix("firebrick-"))
            .is_some_and(|pid| pid.parse::<u32>().is_ok())
            && entry.metadata().is_ok_and(|metadata| {
                metadata.is_dir() && metadata.uid() == rustix::process::getuid().as_raw()
            });
        if is_ours && File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path()); // the next run tries again
        }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(prepared) = held {
            prepared.stop();
        }
        let _ = std::fs::remove_dir_all(&self.folder); // what it cannot remove, it could not have made
    }
}
