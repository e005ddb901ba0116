//! What every command does that makes an image: its flags, the firebrick layer, the build and its steps.

mod agent;
mod args;
mod contents;
mod filesystem_args;
pub(super) mod output;
mod put_in;
mod script_args;
mod settings_args;
mod slim_table;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use firebrick_build::{BuildError, Event, Filesystem, Report, Request};
use firebrick_sandbox::Limits as StepLimits;
use firebrick_source::{OciImage, Reference};

pub(super) use agent::read as read_program;
pub(super) use args::{ImageArgs, Limits};
pub(super) use contents::Contents;
pub(super) use filesystem_args::{Filesystem as FilesystemArgs, parse_total};
pub(super) use put_in::put_in;
pub(super) use script_args::{Read as ReadScript, Script, StepArgs};
pub(super) use settings_args::{RootPassword, Rules, ask as ask_for_password, parse_rules};

use crate::error::write_stdout;
use crate::home::Home;
use crate::steps::Running;
use crate::talk::{Steps, Talk};
use crate::text;
use crate::trust;

/// How many layers are decompressed at once, at most: more only take memory, since one is written at a time.
const LAYERS_AT_ONCE_MAX: usize = 4;

/// An image that is to be made, checked as far as that goes before anything is pulled or installed.
pub(super) struct Making<'a> {
    name: &'a str,
    args: &'a ImageArgs,
    output: PathBuf,
    filesystem: Filesystem,
    threads: usize,
    started: Instant,
}

impl<'a> Making<'a> {
    pub(super) fn new(name: &'a str, args: &'a ImageArgs, home: &Home) -> anyhow::Result<Making<'a>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Making {
            name,
            args,
            filesystem: args.filesystem.to_build(threads)?,
            output: output::path(name, args.output.as_deref(), args.filesystem.format(), home)?,
            threads,
            started: Instant::now(),
        })
    }

    /// How what runs in the image is run; no step yet.
    pub(super) fn running(
        &self,
        limits: StepLimits,
        layers: &Limits,
        contents: &Contents,
        cache: bool,
    ) -> Running<'static> {
        Running {
            steps: &[],
            limits,
            layer_limits: layers.to_layer(),
            created: contents.created,
            cache,
            layers_at_once: self.layers_at_once(),
        }
    }

    /// How many layers are decompressed at once.
    fn layers_at_once(&self) -> usize {
        self.threads.min(LAYERS_AT_ONCE_MAX)
    }

    /// Builds it, in the last five steps.
    pub(super) fn build(
        &self,
        image: &OciImage,
        contents: &Contents,
        limits: &Limits,
        steps: &Steps,
        reading: Reading,
    ) -> Result<Report, BuildError> {
        let request = Request {
            image,
            customise: Some(Box::new(|merged| contents.layer(merged))),
            output: self.output.clone(),
            filesystem: self.filesystem.clone(),
            limits: limits.to_layer(),
            created: contents.created,
            layers_at_once: self.layers_at_once(),
        };
        let progress = Progress {
            steps,
            first: steps.total().saturating_sub(4),
            sizes: image.layers.iter().map(|layer| layer.size).collect(),
            reading,
            format: self.args.filesystem.format(),
        };
        let report = firebrick_build::build(request, &|event| progress.hear(event))?;
        steps.finish();
        Ok(report)
    }

    /// The last words: what is odd about it, its size, the time it took; `more`, if anything; and its path on stdout.
    pub(super) fn finish(
        &self,
        home: &Home,
        talk: &Talk,
        contents: &Contents,
        report: &Report,
        more: Option<&str>,
    ) -> anyhow::Result<()> {
        self.finish_as(&self.output, home, talk, contents, report, more)
    }

    /// The same, where the image went from its place to another.
    pub(super) fn finish_as(
        &self,
        output: &Path,
        home: &Home,
        talk: &Talk,
        contents: &Contents,
        report: &Report,
        more: Option<&str>,
    ) -> anyhow::Result<()> {
        trust::forget(home, output)?;
        output::remove_other_formats(self.name, self.args.output.as_deref(), home, &self.output)?;
        for odd in contents.odd().iter() {
            talk.warn(odd);
        }
        slim_table::say(&contents.slimmed(), self.args.settings.slim_json, talk);
        self.conclude(output, talk, report);
        if let Some(more) = more {
            talk.say(more);
        }
        talk.detail(&format!("build key {}", report.build_key));
        if self.args.output.is_none() && std::io::stderr().is_terminal() {
            talk.say(&format!("run it: firebrick run -l {}", self.name));
        }
        write_stdout(format!("{}\n", output.display()).as_bytes())
    }

    fn conclude(&self, output: &Path, talk: &Talk, report: &Report) {
        let format = self.args.filesystem.format();
        for xattr in &report.left_out_xattrs {
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
            Path::new(name).display(),
            text::bytes(report.size_bytes),
            text::bytes(report.allocated_bytes),
            match format {
                "squashfs" => "read-only".to_owned(),
                _ => format!("{} free", text::bytes(report.free_bytes)),
            },
            report.inodes_used,
            text::duration(self.started.elapsed())
        ));
    }
}

/// Where layers come from, as far as progress is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Files here.
    Here,
    /// The network, whose progress is the one to watch.
    Downloads,
    /// Somebody makes them, and begins long before the first byte.
    Made,
}

impl Reading {
    /// How an image's layers come from where it is.
    pub(super) fn of(reference: &Reference) -> Reading {
        match reference {
            Reference::Registry(_) => Reading::Downloads,
            _ => Reading::Here,
        }
    }
}

/// Turns what happens in the build into the last five steps.
struct Progress<'a> {
    steps: &'a Steps,
    /// The number of the first of them.
    first: usize,
    /// Lengths of the layers below ours as stored.
    sizes: Vec<Option<u64>>,
    reading: Reading,
    /// What the image becomes.
    format: &'static str,
}

impl Progress<'_> {
    fn hear(&self, event: Event) {
        let (steps, first) = (self.steps, self.first);
        match event {
            Event::LayerStarted { layer, .. }
                if layer < self.sizes.len() && self.reading == Reading::Made => {}
            Event::LayerStarted { layer, .. } if layer < self.sizes.len() => {
                let layers = text::count(as_u64(self.sizes.len()), "layer");
                steps.begin(first, &format!("Reading {layers}"));
            }
            Event::LayerStarted { .. } => steps.begin(first + 1, "Adding the guest"),
            Event::LayerProgress { .. } if self.reading == Reading::Made => {
                steps.begin(first, "Reading what was installed")
            }
            Event::LayerProgress { layer, stored_bytes } if self.reading == Reading::Here => {
                if let Some(Some(size)) = self.sizes.get(layer) {
                    let what = format!("layer {} of {}", layer + 1, self.sizes.len());
                    steps.progress(stored_bytes, *size, &what);
                }
            }
            Event::Merged { inodes } => {
                steps.begin(
                    first + 2,
                    &format!("Laying out {} for {}", self.format, text::count(inodes, "file")),
                );
            }
            Event::Planned { size_bytes } => {
                steps.begin(first + 3, &format!("Writing {}", text::bytes(size_bytes)));
            }
            Event::Compressing { content_bytes } => {
                steps.begin(first + 3, &format!("Compressing {}", text::bytes(content_bytes)));
            }
            Event::CompressProgress {
                read_bytes,
                content_bytes,
            } => {
                steps.progress(read_bytes, content_bytes, "compressing");
            }
            Event::Written => steps.begin(first + 4, "Making it last"),
            _ => {}
        }
    }
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
