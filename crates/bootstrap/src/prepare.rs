//! From a package set to its layer.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use firebrick_source::{ImageConfig, Layer, OciImage};

use crate::error::BootstrapError;
use crate::run::{Event, Run};
use crate::set::{Base, PackageSet};
use crate::{alpine, debian, ids, processor, time};

/// What the host has to give.
#[derive(Clone)]
pub struct Options {
    /// Where the system is put together, in a folder that is removed. Every user may have to reach it: `/tmp`, `/var/tmp`.
    pub temp_dir: PathBuf,
    /// Where downloads are kept, by digest. It need not be there yet.
    pub cache: PathBuf,
    /// The time of files that are made meanwhile, in seconds since 1970; without it that of the snapshot, or of the release.
    pub time: Option<i64>,
    /// `/` of this host, for its own sources and keyrings.
    pub root: PathBuf,
    /// All that the tools, and so the scripts of packages, get to see of this process's variables: how the network is reached.
    pub env: Vec<(OsString, OsString)>,
    /// How single files are downloaded.
    pub source: firebrick_source::Options,
    /// Hears what happens, from several threads.
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            temp_dir: PathBuf::from("/tmp"),
            cache: PathBuf::from("/tmp"),
            time: None,
            root: PathBuf::from("/"),
            env: Vec::new(),
            source: firebrick_source::Options::default(),
            events: Arc::new(|_| ()),
        }
    }
}

/// A set that can be installed: its image has one layer, which is made while it is read, once.
pub struct Prepared {
    image: OciImage,
    run: Arc<Run>,
    time: i64,
}

impl Prepared {
    /// The set as an image without history: the layer, a shell to start, and the usual `PATH`.
    pub fn image(&self) -> &OciImage {
        &self.image
    }

    /// The time of files that are made while it is installed, in seconds since 1970.
    pub fn time(&self) -> i64 {
        self.time
    }

    /// Why the layer broke off, for whoever has seen it do so. Told once: an [`io::Error`](std::io::Error) has the words alone.
    pub fn take_failure(&self) -> Option<BootstrapError> {
        self.run.take_failure()
    }

    /// Ends the installation, and returns when nothing of it is left. From any thread; for signals.
    pub fn stop(&self) {
        self.run.stop();
    }
}

/// Checks the set against this host, and finds out its time. Nothing is installed before the layer is opened.
///
/// # Errors
/// [`BootstrapError`]: the set names what cannot be, or this host lacks something, or the mirror is not reached.
pub fn prepare(set: &PackageSet, options: &Options) -> Result<Prepared, BootstrapError> {
    set.check()?;
    // Alpine's base system alone is unpacked, and nothing of it runs.
    if set.base != Base::Alpine || !set.packages.is_empty() {
        set.architecture()?;
        processor::check(&set.platform, &options.temp_dir)?;
    }
    let mode = ids::mode(&options.root, rustix::process::geteuid().as_raw())?;
    let (spec, seconds) = match set.base {
        Base::Debian | Base::Ubuntu => debian::spec(set, mode, options)?,
        Base::Alpine => alpine::spec(set, mode, options)?,
    };
    let run = Run::new(spec, &options.env, Arc::clone(&options.events));
    let opened = Arc::clone(&run);
    let layer = Layer::from_stream(move || opened.start());
    let image = OciImage::from_layers(
        &set.title(),
        set.platform.clone(),
        config(set.base, seconds),
        [layer],
    );
    Ok(Prepared {
        image,
        run,
        time: seconds,
    })
}

/// As the base's own container image has it.
fn config(base: Base, seconds: i64) -> ImageConfig {
    let shell = match base {
        Base::Alpine => "/bin/sh",
        Base::Debian | Base::Ubuntu => "bash",
    };
    ImageConfig {
        created: Some(time::rfc3339(seconds)),
        cmd: vec![shell.to_owned()],
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
        ..ImageConfig::default()
    }
}
