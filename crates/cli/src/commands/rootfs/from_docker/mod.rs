//! `firebrick rootfs from-docker`.

mod args;
pub(super) mod source_args;

use std::sync::{Arc, Mutex, PoisonError};

use firebrick_build::BuildError;
use firebrick_layer::ScanError;
use firebrick_source::{OciImage, Reference};

pub(crate) use args::Args;
pub(super) use source_args::Transfer;

use super::making::{Contents, Making, Reading};
use crate::error::CliError;
use crate::home::Home;
use crate::talk::{Steps, Talk};
use crate::text;

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    // Before anything is pulled.
    let making = Making::new(&args.name, &args.made, home)?;
    let script = args.script.read()?;
    // A script is one more of them.
    let steps = Arc::new(Steps::new(talk, if script.is_some() { 7 } else { 6 }));
    let transfer = Arc::new(Mutex::new(Transfer::default()));
    steps.begin(1, &format!("Pulling {}", args.image));
    let mut image = args.source.open(&args.image, home, *talk, &steps, &transfer)?;
    steps.note(&describe(&image));
    let mut contents = Contents::new(&args.made, &image)?;
    contents.state_platform(args.source.platform.is_some());
    image.prefetch();
    let in_image = &args.script.steps;
    let running = making.running(in_image.limits(), &args.limits, &contents, !args.source.no_cache);
    let made = script
        .map(|script| script.run(in_image.network, &running, &mut image, home, *talk, &steps))
        .transpose()?;
    let is_download = matches!(args.image, Reference::Registry(_));
    let report = making
        .build(&image, &contents, &args.limits, &steps, Reading::of(&args.image))
        .map_err(|error| fail(&args.image, error))?;
    drop(made);
    if matches!(args.image, Reference::Tar { .. })
        && report.layers.first().is_some_and(|tar| tar.entries == 0)
    {
        talk.warn(&format!("{} holds no files", args.image));
    }
    let transfer = transfer.lock().unwrap_or_else(PoisonError::into_inner);
    let downloaded = is_download.then(|| transfer.summary());
    making.finish(home, talk, &contents, &report, downloaded.as_deref())
}

/// What went wrong with a folder is not a layer's fault.
fn fail(image: &Reference, error: BuildError) -> anyhow::Error {
    match (image, &error) {
        (
            Reference::Dir { .. },
            BuildError::Scan {
                source: ScanError::Read { .. },
                ..
            },
        ) => CliError::Folder {
            reference: image.clone(),
            source: Box::new(error),
        }
        .into(),
        _ => anyhow::Error::new(error).context(format!("cannot turn {image} into an image")),
    }
}

/// `sha256:0123456789ab for linux/amd64: 3 layers, 45.2 MiB`.
fn describe(image: &OciImage) -> String {
    let digest = image
        .manifest_digest
        .map(|digest| format!("sha256:{} ", digest.short()))
        .unwrap_or_default();
    let sizes: Option<u64> = image.layers.iter().map(|layer| layer.size).sum();
    let size = sizes
        .map(|bytes| format!(", {}", text::bytes(bytes)))
        .unwrap_or_default();
    let layers = text::count(as_u64(image.layers.len()), "layer");
    format!("{digest}for {}: {layers}{size}", image.platform)
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
