//! `firebrick rootfs upload`.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use firebrick_store::{Store, StoreError, Tagged, Upload, Uploaded};
use firebrick_trust::PrivateKey;
use serde_json::json;

use crate::error::{CliError, write_stdout};
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::text::quoted;
use crate::{images, text, trust};

/// Send an image to a store
///
/// Only what the store does not have yet is sent: what the image shares with others there is found by its content. The version that
/// the name meant before is kept behind it. An upload that was ended is gone on with by the same command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image by its name here, and the name it gets there
    #[arg(short, long, value_name = "NAME[:TAG]", required_unless_present = "kernel")]
    lang: Option<Tagged>,

    /// Take this file in place of the image of that name
    #[arg(short, long, value_name = "FILE")]
    image: Option<PathBuf>,

    #[command(flatten)]
    store: StoreArgs,

    /// Sign what was sent with the private key in this file
    #[arg(long, value_name = "KEY", conflicts_with = "plain")]
    sign: Option<PathBuf>,

    /// Send the whole file as rootfs-NAME.ext4, with its digest beside, for hosts without firebrick
    #[arg(long, conflicts_with = "key", help_heading = "Whole files")]
    plain: bool,

    /// Send this kernel as vmlinux
    #[arg(long, value_name = "FILE", requires = "plain", conflicts_with_all = ["lang", "image"], help_heading = "Whole files")]
    kernel: Option<PathBuf>,

    /// Print a JSON object with name, digest and bytes sent
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    if args.plain {
        return plain(args, home, talk);
    }
    let tagged = args.lang.as_ref().context("no image is named")?;
    let key = args
        .sign
        .as_deref()
        .map(|path| trust::private_key(path, talk))
        .transpose()?;
    let path = path(args, tagged, home)?;
    let image = ImageFile::open_file(path.clone())?;
    let seal = args.store.seal()?;
    let steps = Arc::new(Steps::new(talk, 3));
    let store = args.store.open(home, remote::listener(&steps, talk))?;
    let address = store.backend().address().to_owned();
    steps.begin(1, &format!("Looking what {address} has"));
    let file = File::open(&path).with_context(|| format!("cannot open {path:?}"))?;
    let uploaded = store
        .upload(&Upload {
            file: &file,
            path: &path,
            tagged,
            about: remote::about(&image)?,
            seal: &seal,
            time: remote::now(),
            threads: remote::threads(),
        })
        .with_context(|| format!("cannot upload {} to {address}", path.display()))?;
    steps.begin(3, &format!("Naming it {tagged}"));
    report(&uploaded, &steps, talk);
    if uploaded
        .replaced
        .as_ref()
        .is_some_and(|replaced| !replaced.atomic)
    {
        remote::warn_of_races(&address, home, talk);
    }
    if let (Some(key), Some(path)) = (&key, &args.sign) {
        sign(&store, &uploaded, key, talk).map_err(|source| {
            let published = &uploaded.published;
            CliError::Unsigned {
                version: format!("{}@{}", published.tagged, published.digest),
                flags: format!("--sign {}{}", quoted(path), args.store.flags(&address)),
                address: address.clone(),
                source: Box::new(source),
            }
        })?;
    }
    steps.finish();
    if args.json {
        return write_stdout(&to_json(&uploaded, &address, key.as_ref()));
    }
    write_stdout(format!("{tagged}@{}\n", uploaded.published.digest).as_bytes())
}

/// Signs just the version that the upload told of, whatever the store says that the name means by now.
fn sign(store: &Store, uploaded: &Uploaded, key: &PrivateKey, talk: &Talk) -> Result<(), StoreError> {
    let published = &uploaded.published;
    store.sign(published, key)?;
    talk.say(&format!(
        "signed {} by the key {}",
        published.tagged,
        key.public().id()
    ));
    Ok(())
}

/// The file that is sent.
fn path(args: &Args, tagged: &Tagged, home: &Home) -> anyhow::Result<PathBuf> {
    match &args.image {
        Some(path) => Ok(path.clone()),
        None => images::find(home, OsStr::new(tagged.name.as_str())),
    }
}

fn report(uploaded: &Uploaded, steps: &Steps, talk: &Talk) {
    match &uploaded.replaced {
        None => steps.note("it is this image already"),
        Some(replaced) => {
            if let Some(previous) = &replaced.previous {
                steps.note(&format!(
                    "the version before stays as {}@{previous}",
                    uploaded.published.tagged
                ));
            }
        }
    }
    talk.say(&closing(
        "sent",
        uploaded.sent,
        uploaded.data_len,
        uploaded.new_chunks,
        uploaded.known_chunks,
    ));
}

/// `sent 3.1 MiB of 212 MiB (68 chunks; 4,411 already there)`.
pub(super) fn closing(verb: &str, moved: u64, of: u64, new: u64, known: u64) -> String {
    format!(
        "{verb} {} of {} ({} chunk{}; {} already {})",
        text::bytes(moved),
        text::bytes(of),
        text::grouped(new),
        if new == 1 { "" } else { "s" },
        text::grouped(known),
        if verb == "sent" { "there" } else { "here" },
    )
}

fn to_json(uploaded: &Uploaded, address: &str, key: Option<&PrivateKey>) -> Vec<u8> {
    let replaced = uploaded.replaced.as_ref();
    text::json_line(&json!({
        "store": address,
        "name": uploaded.published.tagged.name.as_str(),
        "tag": uploaded.published.tagged.tag.as_str(),
        "digest": uploaded.published.digest.to_string(),
        "previous": replaced.and_then(|replaced| replaced.previous).map(|digest| digest.to_string()),
        "changed": replaced.is_some(),
        "size_bytes": uploaded.image_len,
        "data_bytes": uploaded.data_len,
        "sent_bytes": uploaded.sent,
        "new_chunks": uploaded.new_chunks,
        "known_chunks": uploaded.known_chunks,
        "signed_by": key.map(|key| key.public().id().to_string()),
    }))
}

fn plain(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let (key, path) = match (&args.kernel, &args.lang) {
        (Some(kernel), _) => ("vmlinux".to_owned(), kernel.clone()),
        (None, Some(tagged)) => {
            let path = path(args, tagged, home)?;
            let format = ImageFile::open_file(path.clone())?.filesystem.name();
            (plain_key(tagged, format)?, path)
        }
        (None, None) => anyhow::bail!("no image is named"),
    };
    let steps = Arc::new(Steps::new(talk, 2));
    let store: Store = args.store.open(home, remote::listener(&steps, talk))?;
    steps.begin(1, &format!("Reading {}", path.display()));
    let file = File::open(&path).with_context(|| format!("cannot open {path:?}"))?;
    let digest = store.put_plain(&key, &file, Path::new(&path)).with_context(|| {
        format!(
            "cannot upload {} to {}",
            path.display(),
            store.backend().address()
        )
    })?;
    steps.finish();
    let len = file.metadata()?.len();
    let size = text::bytes(len);
    talk.say(&format!("sent {size} of {size} ({key})"));
    if args.json {
        return write_stdout(&text::json_line(&json!({
            "store": store.backend().address(), "key": key, "digest": digest.to_string(), "sent_bytes": len,
        })));
    }
    write_stdout(format!("{}/{key}\n", store.backend().address()).as_bytes())
}

/// What a whole image is called in a store. There are no tags there.
pub(super) fn plain_key(tagged: &Tagged, format: &str) -> anyhow::Result<String> {
    if tagged.tag != firebrick_store::Tag::default() {
        anyhow::bail!(
            "whole files have no tags: -l {} names rootfs-{0}.{format}",
            tagged.name
        );
    }
    Ok(format!("rootfs-{}.{format}", tagged.name))
}
