//! `firebrick rootfs cp`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::put::Putter;
use super::take::Taker;
use crate::edited::{Edited, Owner, Refusal};
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::images;
use crate::talk::Talk;
use crate::text;
use crate::volume::LastSymlink;

/// Copy files between the host and an image
///
/// One side is IMAGE:/PATH. The rules are those of docker cp: what is copied goes to DST, or into DST if that is a folder; of
/// a folder FOLDER/. only the contents are copied. Symbolic links stay links. Into an image, files belong to root and keep their modes and
/// times; the image is copied, changed, and replaced when all is done.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to copy: a path, or IMAGE:/PATH
    #[arg(value_name = "SRC")]
    source: OsString,

    /// Where to: IMAGE:/PATH, or a path
    #[arg(value_name = "DST")]
    target: OsString,

    /// Owner and group of what is put into the image, by number or by name there
    #[arg(long, value_name = "USER[:GROUP]", value_parser = Owner::parse)]
    chown: Option<Owner>,

    /// Write the changed image here, and leave the other as it is
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

/// One side of a copy.
enum Side<'a> {
    Host(&'a Path),
    Image { image: &'a OsStr, path: &'a [u8] },
}

/// What has `:/` in it is an image and a path there; a host path that has starts with `./`.
fn side(text: &OsStr) -> Side<'_> {
    let bytes = text.as_bytes();
    match bytes.windows(2).position(|pair| pair == b":/") {
        Some(at) if at > 0 => Side::Image {
            image: OsStr::from_bytes(&bytes[..at]),
            path: &bytes[at + 1..],
        },
        _ => Side::Host(Path::new(text)),
    }
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    if [&args.source, &args.target].iter().any(|side| *side == "-") {
        return Err(Refusal::Stream.into());
    }
    match (side(&args.source), side(&args.target)) {
        (Side::Host(host), Side::Image { image, path }) => put(args, home, talk, host, image, path),
        (Side::Image { image, path }, Side::Host(host)) => {
            if args.chown.is_some() || args.output.is_some() {
                return Err(Refusal::NotForThisCopy {
                    flag: if args.chown.is_some() {
                        "--chown"
                    } else {
                        "--output"
                    },
                }
                .into());
            }
            let image = ImageFile::open(home, image)?;
            let inode = image.lookup(OsStr::from_bytes(path), LastSymlink::Keep)?;
            let contents_only = path.ends_with(b"/.");
            let name = path
                .split(|byte| *byte == b'/')
                .rfind(|name| !matches!(*name, b"" | b"." | b".."));
            Taker::new(&image, talk)
                .take(&inode, name.unwrap_or_default(), contents_only, host)
                .with_context(|| format!("cannot copy from {:?} to {host:?}", image.path))
        }
        _ => Err(Refusal::CopySides.into()),
    }
}

fn put(args: &Args, home: &Home, talk: &Talk, host: &Path, image: &OsStr, path: &[u8]) -> anyhow::Result<()> {
    let image = images::find(home, image)?;
    let mut edited = Edited::open(home, &image, args.output.as_deref(), talk)?;
    let owner = args
        .chown
        .as_ref()
        .map(|owner| owner.numbers(&edited))
        .transpose()?;
    Putter::new(&mut edited, owner)
        .put(host, path)
        .with_context(|| format!("cannot copy {host:?} into {image:?}; it stays as it was"))?;
    let output = edited.output.clone();
    let changes = edited.finish()?;
    talk.say(&format!(
        "copied {} into {}: {} new, {} free",
        text::bytes(changes.written_bytes),
        output.display(),
        changes.made,
        text::bytes(changes.free_bytes)
    ));
    Ok(())
}
