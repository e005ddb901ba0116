//! `firebrick rootfs download`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use firebrick_store::{Download, Downloaded, Published, Reference, Store, Tagged};
use serde_json::json;

use super::list::when;
use super::making::output;
use super::upload::{closing, plain_key};
use crate::error::write_stdout;
use crate::home::Home;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::trust::Fetching;
use crate::{images, text};

/// The name of the kernel among whole files, and in policies.
pub(super) const KERNEL: &str = "vmlinux";

/// Local images that are read through for what they share with the wanted one, if nobody has looked into them before.
const SCANS: usize = 8;

/// Fetch an image from a store
///
/// Only what no image of this host has is fetched. The image is there when it is whole and every part of it is verified; a download
/// that was ended is gone on with by the same command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image by its name there
    #[arg(
        short,
        long,
        value_name = "NAME[:TAG][@DIGEST]",
        required_unless_present = "kernel"
    )]
    lang: Option<Reference>,

    /// Write to this path in place of the images folder
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,

    #[command(flatten)]
    store: StoreArgs,

    /// Fetch everything, also what images of this host have
    #[arg(long)]
    no_reuse: bool,

    /// Fetch the whole file rootfs-NAME.ext4
    #[arg(long, conflicts_with = "key", help_heading = "Whole files")]
    plain: bool,

    /// Fetch the kernel vmlinux to the path of --output
    #[arg(long, requires_all = ["plain", "output"], conflicts_with = "lang", help_heading = "Whole files")]
    kernel: bool,

    /// Print a JSON object with path, digest and bytes fetched
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    if args.plain {
        return plain(args, home, talk);
    }
    let reference = args.lang.as_ref().context("no image is named")?;
    let trust = Fetching::of(home)?;
    let steps = Arc::new(Steps::new(talk, 2));
    let store = args.store.open(home, remote::listener(&steps, talk))?;
    let address = store.backend().address().to_owned();
    steps.begin(1, &format!("Looking for {reference} in {address}"));
    let fetching = || format!("cannot download {reference} from {address}");
    let version = store.find(reference).with_context(fetching)?;
    let signatures = trust.judge(&store, &version, talk).with_context(fetching)?;
    let image = store.open(&version).with_context(fetching)?;
    steps.note(&format!(
        "sha256:{}, published {}",
        version.digest.short(),
        when(version.time)
    ));
    let target = target(args, &version, &image.config.about.format, home)?;
    let began = Instant::now();
    let downloaded = store
        .download(&Download {
            version: &version,
            keys: &args.store.seal()?,
            target: &target,
            donors: &donors(args, &target, home)?,
            scans: SCANS,
            requests: remote::REQUESTS,
            threads: remote::threads(),
        })
        .with_context(fetching)?;
    trust.note(&target, &store, &version, signatures, downloaded.file, talk)?;
    output::remove_other_formats(
        version.tagged.name.as_str(),
        args.output.as_deref(),
        home,
        &target,
    )?;
    steps.finish();
    talk.say(&closing(
        "fetched",
        downloaded.came,
        downloaded.data_len,
        downloaded.new_chunks,
        downloaded.known_chunks,
    ));
    talk.detail(&format!("in {}", text::duration(began.elapsed())));
    if args.json {
        return write_stdout(&to_json(&version, &downloaded, &address, &target));
    }
    write_stdout(format!("{}\n", target.display()).as_bytes())
}

/// Where the image goes.
fn target(args: &Args, version: &Published, format: &str, home: &Home) -> anyhow::Result<PathBuf> {
    if args.output.is_none() && !images::FORMATS.contains(&format) {
        anyhow::bail!(
            "{} is of the format {format:?}, which has no place in the images folder: give -o PATH",
            version.tagged
        );
    }
    output::path(version.tagged.name.as_str(), args.output.as_deref(), format, home)
}

/// Images that may share something with the wanted one: what is to be replaced first, then the newest.
fn donors(args: &Args, target: &Path, home: &Home) -> anyhow::Result<Vec<PathBuf>> {
    if args.no_reuse {
        return Ok(Vec::new());
    }
    let mut images = images::list(home)?;
    images.sort_by_key(|image| std::cmp::Reverse(image.modified));
    let replaced = target.is_file().then(|| target.to_owned());
    let others = images
        .into_iter()
        .map(|image| image.path)
        .filter(|path| path != target);
    Ok(replaced.into_iter().chain(others).collect())
}

fn to_json(version: &Published, downloaded: &Downloaded, address: &str, target: &Path) -> Vec<u8> {
    text::json_line(&json!({
        "store": address,
        "name": version.tagged.name.as_str(),
        "tag": version.tagged.tag.as_str(),
        "digest": version.digest.to_string(),
        "path": target.to_string_lossy(),
        "size_bytes": downloaded.image_len,
        "data_bytes": downloaded.data_len,
        "fetched_bytes": downloaded.came,
        "new_chunks": downloaded.new_chunks,
        "known_chunks": downloaded.known_chunks,
    }))
}

fn plain(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let trust = Fetching::of(home)?;
    let kernel: Tagged = KERNEL.parse()?;
    let tagged = args.lang.as_ref().map_or(&kernel, |reference| &reference.tagged);
    trust
        .judge_whole(tagged)
        .with_context(|| format!("cannot download {} as a whole file", tagged.name))?;
    let steps = Arc::new(Steps::new(talk, 2));
    let store = args.store.open(home, remote::listener(&steps, talk))?;
    let address = store.backend().address().to_owned();
    steps.begin(1, &format!("Looking into {address}"));
    let (key, target) = match &args.lang {
        Some(reference) => plain_target(args, reference, &store, home)?,
        None => (
            KERNEL.to_owned(),
            output::path(KERNEL, args.output.as_deref(), "elf", home)?,
        ),
    };
    let fetched = store
        .get_plain(&key, &target)
        .with_context(|| format!("cannot download {key} from {address}"))?;
    let digest = fetched.digest;
    trust.note_whole(&target, &store, tagged, digest, talk)?;
    steps.finish();
    if digest.is_none() {
        talk.warn(&format!(
            "{address} has no {key}.sha256, so nobody knows whether these are the right bytes"
        ));
    }
    talk.say(&format!(
        "fetched {} of {} ({key})",
        text::bytes(fetched.came),
        text::bytes(fetched.len)
    ));
    if args.json {
        return write_stdout(&text::json_line(&json!({
            "store": address, "key": key, "path": target.to_string_lossy(),
            "digest": digest.map(|digest| digest.to_string()), "size_bytes": fetched.len,
            "fetched_bytes": fetched.came,
        })));
    }
    write_stdout(format!("{}\n", target.display()).as_bytes())
}

/// Which whole image is meant, and where it goes.
fn plain_target(
    args: &Args,
    reference: &Reference,
    store: &Store,
    home: &Home,
) -> anyhow::Result<(String, PathBuf)> {
    if reference.digest.is_some() {
        anyhow::bail!("whole files have no versions: give the name alone, or leave out --plain");
    }
    let there = store
        .plain_images()
        .with_context(|| format!("cannot list {}", store.backend().address()))?;
    let keys = images::FORMATS
        .iter()
        .map(|format| Ok((plain_key(&reference.tagged, format)?, *format)));
    let keys = keys.collect::<anyhow::Result<Vec<_>>>()?;
    let is_there = |key: &str| there.iter().any(|image| image.key == key);
    let (key, format) = keys
        .iter()
        .find(|(key, _)| is_there(key))
        .unwrap_or(&keys[0])
        .clone();
    let target = output::path(
        reference.tagged.name.as_str(),
        args.output.as_deref(),
        format,
        home,
    )?;
    Ok((key, target))
}
