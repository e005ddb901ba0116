//! `firebrick rootfs resize`.

use std::ffi::OsString;
use std::path::PathBuf;

use firebrick_build::Filesystem;
use firebrick_ext4::Size;

use super::making::parse_total;
use crate::edited::{Refusal, Turn};
use crate::error::write_stdout;
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::images;
use crate::rebuilt::{self, lost_features, rebuild};
use crate::talk::Talk;
use crate::text;
use crate::volume::Volume;

/// Give an ext4 image another size
///
/// The image is made again from what is in it, and takes its own place: so the result is as good as a new one, whoever made the
/// old one and however full it is. Label, UUID, journal and all files stay.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("to").required(true).args(["size", "free", "shrink"]))]
pub(crate) struct Args {
    /// The image: a name or a path
    #[arg(value_name = "IMAGE")]
    image: OsString,

    /// Size of the whole image, in MiB or with a unit
    #[arg(short, long, value_name = "SIZE", value_parser = parse_total)]
    size: Option<Size>,

    /// Writable space beyond the content, in MiB or with a unit
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    free: Option<u64>,

    /// As small as what is in it
    #[arg(long)]
    shrink: bool,

    /// Write the image of the other size here, and leave the old one as it is
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let path = images::find(home, &args.image)?;
    let _turn = match args.output {
        Some(_) => None,
        None => Some(Turn::wait(&path, talk)?),
    };
    let image = ImageFile::open_file(path)?;
    let Volume::Ext4(_) = &image.filesystem else {
        return Err(Refusal::NoSize { image: image.path }.into());
    };
    let mut options = rebuilt::options_of(&image);
    options.size = args.size.unwrap_or_default();
    options.free = args.free.unwrap_or(0);
    let output = args.output.as_deref().unwrap_or(&image.path);
    let report = rebuild(home, &image, output, Filesystem::Ext4(options))?;
    for feature in lost_features(&image) {
        talk.warn(&format!(
            "the new image is without {feature}, which the old one has"
        ));
    }
    talk.say(&format!(
        "{}: {} became {}, {} free",
        output.display(),
        text::bytes(image.size_bytes),
        text::bytes(report.size_bytes),
        text::bytes(report.free_bytes)
    ));
    write_stdout(format!("{}\n", output.display()).as_bytes())
}
