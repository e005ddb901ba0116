//! Scripts and other steps that run in an image while it is made: each becomes one more layer.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_build::{Flatten, diff_ids, flatten};
use firebrick_digest::Digest;
use firebrick_sandbox::{
    Key, Limits, MadeLayer, Options, Owners, Plan, Progress, SandboxError, Step, StepCache, run_steps,
};
use firebrick_source::{Layer, OciImage};
use firebrick_tree::Timestamp;

use crate::error;
use crate::home::Home;
use crate::talk::{Steps, Talk};
use crate::text;

/// How steps are run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running<'a> {
    pub(crate) steps: &'a [Step],
    pub(crate) limits: Limits,
    /// Bounds on the layers that are unpacked for them.
    pub(crate) layer_limits: firebrick_layer::Limits,
    /// Time of what the steps make.
    pub(crate) created: Timestamp,
    /// Layers of earlier runs are used, and these kept.
    pub(crate) cache: bool,
    pub(crate) layers_at_once: usize,
}

/// Where the layers of steps are kept.
pub(crate) fn cache(home: &Home) -> StepCache {
    StepCache::new(home.cache().join("steps"))
}

/// Where what runs has its copy.
fn sandbox(home: &Home) -> PathBuf {
    home.cache().join("sandbox")
}

/// Says what is not as it is elsewhere.
pub(crate) fn say_limits(home: &Home, shown: &Steps) {
    if Options::new(sandbox(home)).owners() == Owners::Single {
        shown.note("there is one user id for scripts here: new files belong to root, and changing owners does nothing");
    }
}

/// The layers' diff IDs. Where an image does not say them they are found, once.
fn known_diff_ids(image: &mut OciImage) -> anyhow::Result<Vec<Digest>> {
    let known = diff_ids(image)?;
    for (layer, diff_id) in image.layers.iter_mut().zip(&known) {
        layer.diff_id = Some(*diff_id);
    }
    Ok(known)
}

/// Runs steps over an image, and adds their layers to it. They can be read as long as what is given lives.
pub(crate) fn run(
    running: &Running<'_>,
    image: &mut OciImage,
    home: &Home,
    talk: Talk,
    shown: &Steps,
) -> anyhow::Result<Vec<MadeLayer>> {
    let options = Options {
        created: running.created,
        ..Options::new(sandbox(home))
    };
    let base = known_diff_ids(image)?;
    let cache = cache(home);
    let plan = Plan {
        options: &options,
        base: &base,
        steps: running.steps,
        limits: running.limits,
        cache: &cache,
        use_cache: running.cache,
    };
    let mut lines = Lines {
        talk,
        line: Vec::new(),
    };
    let flat = |layers: &[MadeLayer], out: &mut dyn std::io::Write| {
        let mut image = image.clone();
        add(&mut image, layers)?;
        let request = Flatten {
            image: &image,
            beside: &contents(home),
            limits: running.layer_limits,
            created: running.created,
            layers_at_once: running.layers_at_once,
        };
        flatten(&request, out, &|_| {})?;
        Ok(())
    };
    let layers = run_steps(&plan, flat, &mut |progress| match progress {
        Progress::Cached(step) => shown.note(&format!("{}: cached", step.name)),
        Progress::Unpacking => shown.note("unpacking the image"),
        Progress::Output(bytes) => lines.hear(bytes),
        Progress::Finished(step, seconds, layer) => {
            lines.end();
            let took = text::duration(std::time::Duration::from_secs_f64(seconds));
            let size = text::bytes(layer.stored_bytes);
            shown.note(&format!("{}: done in {took}, its layer has {size}", step.name));
        }
        _ => {}
    })
    .map_err(|failed| {
        lines.end();
        if let SandboxError::Step { tail, .. } = &failed {
            error::quote(tail);
        }
        unpacking(failed)
    })?;
    add(image, &layers).context("cannot read back what a step made")?;
    Ok(layers)
}

/// A layer that `make` makes over an image, as a tar, if it is not in the cache: `of` says what it is made of. It is added to the image.
pub(crate) fn made(
    running: &Running<'_>,
    image: &mut OciImage,
    home: &Home,
    of: Digest,
    make: &dyn Fn(&OciImage) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<MadeLayer> {
    let cache = cache(home);
    let key = Key::of_made(&known_diff_ids(image)?, of, running.created);
    let layer = match running.cache.then(|| cache.find(key)).flatten() {
        Some(layer) => layer,
        None => {
            let folder = sandbox(home);
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder
                .create(&folder)
                .with_context(|| format!("cannot make the folder {folder:?}"))?;
            let tar = make(image)?;
            cache.put(running.cache.then_some(key), |out| {
                out.write_all(&tar).map_err(|source| SandboxError::Host {
                    doing: "write the layer of",
                    path: "files".into(),
                    source,
                })
            })?
        }
    };
    add(image, std::slice::from_ref(&layer)).context("cannot read back what was put in")?;
    Ok(layer)
}

/// A name beside which contents are kept while layers are merged; nothing of that name is made.
pub(crate) fn contents(home: &Home) -> PathBuf {
    sandbox(home).join("contents")
}

/// What is wrong with the image is said as it is elsewhere.
fn unpacking(error: SandboxError) -> anyhow::Error {
    match error {
        SandboxError::Unpack { source } => match source.downcast::<firebrick_build::BuildError>() {
            Ok(source) => anyhow::Error::new(*source).context("cannot unpack the image for its script"),
            Err(source) => SandboxError::Unpack { source }.into(),
        },
        error => error.into(),
    }
}

fn add(image: &mut OciImage, layers: &[MadeLayer]) -> Result<(), firebrick_source::SourceError> {
    for made in layers {
        let mut layer = Layer::from_file(&made.path, made.diff_id)?;
        layer.index = image.layers.len();
        image.layers.push(layer);
    }
    Ok(())
}

/// A script that is no file.
#[derive(Debug, thiserror::Error)]
#[error("the script {path:?} is {}", if *is_folder { "a folder" } else { "not a file" })]
pub(crate) struct NotAScript {
    pub(crate) path: PathBuf,
    pub(crate) is_folder: bool,
}

/// Reads a script: what is in the file is what runs.
pub(crate) fn read_script(path: &Path) -> anyhow::Result<Vec<u8>> {
    let reading = || format!("cannot read the script {path:?}");
    let found = std::fs::metadata(path).with_context(reading)?;
    if !found.is_file() {
        let path = path.to_owned();
        let is_folder = found.is_dir();
        return Err(NotAScript { path, is_folder }.into());
    }
    std::fs::read(path).with_context(reading)
}

/// The environment of a step: what the image's config says, and what every Linux program expects.
pub(crate) fn environment(config: &[String], created: Timestamp) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        // Nobody is there to answer.
        ("DEBIAN_FRONTEND", "noninteractive"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    env.push(("SOURCE_DATE_EPOCH".to_owned(), created.seconds.to_string()));
    for (name, value) in config.iter().filter_map(|variable| variable.split_once('=')) {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => env.push((name.to_owned(), value.to_owned())),
        }
    }
    env
}

/// The variables that say how the network is reached from here, for steps that may use it.
pub(crate) fn network_environment() -> Vec<(String, String)> {
    let names = ["http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"];
    let both = names
        .iter()
        .flat_map(|name| [(*name).to_owned(), name.to_uppercase()]);
    both.filter_map(|name| {
        let value = std::env::var(&name).ok()?;
        Some((name, value))
    })
    .collect()
}

/// Output of a step, line by line, for `-v`.
struct Lines {
    talk: Talk,
    line: Vec<u8>,
}

impl Lines {
    fn hear(&mut self, bytes: &[u8]) {
        /// A line is said in pieces of at most so many bytes.
        const LINE_MAX: usize = 4096;
        for &byte in bytes {
            if byte == b'\n' || self.line.len() >= LINE_MAX {
                self.end();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
    }

    fn end(&mut self) {
        if !self.line.is_empty() {
            let mut tail = firebrick_sandbox::Tail::new(1);
            tail.push(&self.line);
            self.talk.detail(&format!("      | {}", tail.text()));
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_says_more_of_the_environment_than_we() {
        let config = ["PATH=/own", "A=b=c", "odd"].map(str::to_owned);
        let env = environment(
            &config,
            Timestamp {
                seconds: 5,
                nanoseconds: 0,
            },
        );
        let get = |name: &str| {
            env.iter()
                .filter(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!((get("PATH"), get("A")), (vec!["/own"], vec!["b=c"]));
        assert_eq!((get("SOURCE_DATE_EPOCH"), get("odd")), (vec!["5"], vec![]));
    }
}
