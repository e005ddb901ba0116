//! `firebrick rootfs convert`.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use firebrick_build::Filesystem;

use super::making::FilesystemArgs;
use crate::edited::Turn;
use crate::error::write_stdout;
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::images;
use crate::rebuilt::{lost_features, options_of, rebuild};
use crate::talk::Talk;
use crate::text;
use crate::trust;
use crate::volume::Volume;

/// Make an image of another filesystem, with all that is in it
///
/// Names, contents, holes, owners, modes, times of change, links, devices and extended attributes stay; an ext4 keeps its label,
/// UUID and journal. A named image has one format: the old file goes once the new one is there. With a path or -o, both are there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a name or a path
    #[arg(value_name = "IMAGE")]
    image: OsString,

    /// Write the image here [default: beside the other, with the format's name at its end]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,

    #[command(flatten)]
    filesystem: FilesystemArgs,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let path = images::find(home, &args.image)?;
    let turn = match args.output {
        Some(_) => None,
        None => Some(Turn::wait(&path, talk)?),
    };
    let image = ImageFile::open_file(path)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut filesystem = args.filesystem.to_build(threads)?;
    if let Filesystem::Ext4(options) = &mut filesystem {
        let old = options_of(&image);
        options.uuid = options.uuid.or(old.uuid);
        options.journal |= old.journal;
        options.online_resize |= old.online_resize;
        if options.label.is_empty() {
            options.label = old.label;
        }
    }
    let beside = image.path.with_extension(args.filesystem.format());
    let output = args.output.clone().unwrap_or(beside);
    let report = rebuild(home, &image, &output, filesystem)?;
    for feature in lost_features(&image) {
        talk.warn(&format!(
            "the new image is without {feature}, which the old one has"
        ));
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
    let is_named = image.path.parent() == Some(&home.images());
    if is_named && args.output.is_none() && output != image.path {
        if let Some(turn) = &turn {
            turn.ensure_current()?;
        }
        fs::remove_file(&image.path)
            .with_context(|| format!("cannot delete {:?}, which the new image replaces", image.path))?;
        trust::forget(home, &image.path)?;
    }
    talk.say(&format!(
        "{}: {}, made from {} of {}",
        output.display(),
        text::bytes(report.size_bytes),
        text::bytes(image.size_bytes),
        match &image.filesystem {
            Volume::Ext4(_) => "an ext4",
            Volume::Squashfs(_) => "a squashfs",
        }
    ));
    write_stdout(format!("{}\n", output.display()).as_bytes())
}
