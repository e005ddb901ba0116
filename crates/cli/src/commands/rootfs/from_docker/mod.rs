//! `firebrick rootfs from-docker`.

mod agent;
mod args;
mod contents;
mod filesystem_args;
mod output;
mod source_args;

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use firebrick_build::{BuildError, Event, Report, Request};
use firebrick_layer::ScanError;
use firebrick_source::{OciImage, Reference};

pub(crate) use args::Args;
use contents::Contents;
use source_args::Transfer;

use crate::error::{CliError, write_stdout};
use crate::home::Home;
use crate::talk::{Steps, Talk};
use crate::text;

/// How many layers are decompressed at once, at most: more only take memory, since one is written at a time.
const LAYERS_AT_ONCE_MAX: usize = 4;

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let started = Instant::now();
    // Before anything is pulled.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let filesystem = args.filesystem.to_build(threads)?;
    let output = output::path(args, home)?;
    let steps = Arc::new(Steps::new(talk, 6));
    let transfer = Arc::new(Mutex::new(Transfer::default()));
    steps.begin(1, &format!("Pulling {}", args.image));
    let image = args.source.open(&args.image, home, *talk, &steps, &transfer)?;
    steps.note(&describe(&image));
    let contents = Contents::new(args, &image)?;
    image.prefetch();
    let request = Request {
        image: &image,
        customise: Some(Box::new(|tree| contents.layer(tree))),
        output: output.clone(),
        filesystem,
        limits: args.limits.to_layer(),
        created: contents.created,
        layers_at_once: threads.min(LAYERS_AT_ONCE_MAX),
    };
    let progress = Progress {
        steps: &steps,
        sizes: image.layers.iter().map(|layer| layer.size).collect(),
        downloads: is_download(args),
        format: args.filesystem.format(),
    };
    let report = firebrick_build::build(request, &|event| progress.hear(event))
        .map_err(|error| fail(&args.image, error))?;
    steps.finish();
    output::remove_other_formats(args, home, &output)?;
    for odd in contents.odd().iter() {
        talk.warn(odd);
    }
    let transfer = transfer.lock().unwrap_or_else(PoisonError::into_inner);
    conclude(args, talk, &output, &report, &transfer, started);
    write_stdout(format!("{}\n", output.display()).as_bytes())
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

/// Turns what happens in the build into steps 2 to 6.
struct Progress<'a> {
    steps: &'a Steps,
    /// Lengths of the OCI image's layers as stored; the layer after them is ours.
    sizes: Vec<Option<u64>>,
    /// Layers come over the network, whose progress is the one to watch.
    downloads: bool,
    /// What the image becomes.
    format: &'static str,
}

impl Progress<'_> {
    fn hear(&self, event: Event) {
        let steps = self.steps;
        match event {
            Event::LayerStarted { layer, .. } if layer < self.sizes.len() => {
                let layers = text::count(as_u64(self.sizes.len()), "layer");
                steps.begin(2, &format!("Reading {layers}"));
            }
            Event::LayerStarted { .. } => steps.begin(3, "Adding the guest"),
            Event::LayerProgress { layer, stored_bytes } if !self.downloads => {
                if let Some(Some(size)) = self.sizes.get(layer) {
                    let what = format!("layer {} of {}", layer + 1, self.sizes.len());
                    steps.progress(stored_bytes, *size, &what);
                }
            }
            Event::Merged { inodes } => {
                steps.begin(
                    4,
                    &format!("Laying out {} for {}", self.format, text::count(inodes, "file")),
                );
            }
            Event::Planned { size_bytes } => {
                steps.begin(5, &format!("Writing {}", text::bytes(size_bytes)));
            }
            Event::Compressing { content_bytes } => {
                steps.begin(5, &format!("Compressing {}", text::bytes(content_bytes)));
            }
            Event::CompressProgress {
                read_bytes,
                content_bytes,
            } => {
                steps.progress(read_bytes, content_bytes, "compressing");
            }
            Event::Written => steps.begin(6, "Making it last"),
            _ => {}
        }
    }
}

/// Size, time, what was downloaded, and what to do next.
fn conclude(args: &Args, talk: &Talk, output: &Path, report: &Report, transfer: &Transfer, started: Instant) {
    if matches!(args.image, Reference::Tar { .. })
        && report.layers.first().is_some_and(|tar| tar.entries == 0)
    {
        talk.warn(&format!("{} holds no files", args.image));
    }
    for xattr in &report.left_out_xattrs {
        let format = args.filesystem.format();
        talk.warn(&format!("left out, since {format} has no place for it: {xattr}"));
    }
    if report.clamped_times > 0 {
        talk.warn(&format!(
            "{} before 1970 or after 2106, which squashfs cannot say, became the nearest that it can",
            text::count(report.clamped_times, "time")
        ));
    }
    let name = output.file_name().unwrap_or(output.as_os_str());
    talk.say(&format!(
        "{}: {} ({} on disk), {}, {} files, made in {}",
        name.display(),
        text::bytes(report.size_bytes),
        text::bytes(report.allocated_bytes),
        match args.filesystem.format() {
            "squashfs" => "read-only".to_owned(),
            _ => format!("{} free", text::bytes(report.free_bytes)),
        },
        report.inodes_used,
        text::duration(started.elapsed())
    ));
    if is_download(args) {
        talk.say(&transfer.summary());
    }
    talk.detail(&format!("build key {}", report.build_key));
    if args.output.is_none() && std::io::stderr().is_terminal() {
        talk.say(&format!("run it: firebrick run -l {}", args.name));
    }
}

fn is_download(args: &Args) -> bool {
    matches!(args.image, Reference::Registry(_))
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
