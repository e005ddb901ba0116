//! `firebrick rootfs update-agent`.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use firebrick_customise::GUEST_PATH;
use firebrick_ext4::read::LastSymlink;
use firebrick_tree::Metadata;
use firebrick_vmm::Arch;

use crate::doctor::image::version_in;
use crate::edited::{Edited, Refusal};
use crate::elf::Elf;
use crate::error;
use crate::guest;
use crate::hints;
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::images;
use crate::talk::Talk;
use crate::volume::{FileType, Volume};

/// Longest agent that is compared, in bytes.
const AGENT_MAX: u64 = 64 << 20;

/// Replace the agent in images by this firebrick's own
///
/// The program /usr/lib/firebrick/firebrick-guest and nothing else: links to it, services and settings stay. An image that has this
/// agent already is left as it is.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["images", "names", "all"]))]
pub(crate) struct Args {
    /// Images: names or paths
    #[arg(value_name = "IMAGE")]
    images: Vec<OsString>,

    /// An image, by its name; may be repeated
    #[arg(short = 'n', long = "name", value_name = "NAME", value_parser = images::parse_name)]
    names: Vec<String>,

    /// Every image that `rootfs list` shows; those that have no agent, and squashfs images, are left out
    ///
    /// An image that fails stays as it was, and the others are updated all the same; the exit code is 1 then.
    #[arg(long, conflicts_with_all = ["images", "names"])]
    all: bool,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    if args.all {
        return update_all(home, talk);
    }
    let given = args.images.iter().map(OsString::as_os_str);
    let named = args.names.iter().map(OsStr::new);
    let paths = given
        .chain(named)
        .map(|image| images::find(home, image))
        .collect::<anyhow::Result<Vec<_>>>()?;
    paths.iter().try_for_each(|path| update(path, home, talk, false))
}

/// Updates every image that can be: one that cannot is no reason to leave the others old.
fn update_all(home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let images = images::list(home)?;
    let mut failed = 0;
    for image in &images {
        if let Err(error) = update(&image.path, home, talk, true) {
            failed += 1;
            let why = error::chain_texts(&error).join(": ");
            talk.warn(&format!("{} stays as it was: {why}", image.name));
            hints::of(&error).iter().for_each(|hint| error::hint(hint));
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Refusal::NotAllUpdated {
            failed,
            all: images.len(),
        }
        .into()),
    }
}

/// Updates one image. With `lenient`, one that cannot have another agent is left out.
fn update(path: &Path, home: &Home, talk: &Talk, lenient: bool) -> anyhow::Result<()> {
    let shown = images::name_of(path);
    let image = ImageFile::open_file(path.to_owned())?;
    let Some(old) = agent_of(&image)? else {
        if lenient {
            talk.say(&format!("{shown}: has no agent"));
            return Ok(());
        }
        return Err(Refusal::NoAgent {
            image: path.to_owned(),
        }
        .into());
    };
    if lenient && matches!(image.filesystem, Volume::Squashfs(_)) {
        talk.warn(&format!("{shown}: a squashfs cannot be changed; make it again"));
        return Ok(());
    }
    let machine = Elf::parse(&old).map(|elf| elf.machine);
    let arch = Arch::ALL.into_iter().find(|arch| {
        let own = guest::for_arch(*arch).and_then(Elf::parse);
        own.map(|elf| elf.machine) == machine
    });
    let Some(new) = arch.and_then(guest::for_arch) else {
        return Err(Refusal::OtherAgent {
            image: path.to_owned(),
        }
        .into());
    };
    let version = |agent: &[u8]| version_in(agent).unwrap_or_else(|| "of no known version".to_owned());
    let (was, is) = (version(&old), version(new));
    if old == new {
        talk.say(&format!("{shown}: {is} already"));
        return Ok(());
    }
    drop(image);
    let mut edited = Edited::open(home, path, None, talk)?;
    let meta = Metadata {
        mtime: edited.time()?,
        ..Metadata::default()
    };
    edited.change(
        || "replace the agent".to_owned(),
        |editor| {
            let guest = format!("/{GUEST_PATH}");
            Ok(editor.write_file(guest.as_bytes(), &meta, new.len() as u64, &mut &*new)?)
        },
    )?;
    edited.finish()?;
    let other = if was == is { " (another build)" } else { "" };
    talk.say(&format!("{shown}: was {was}{other}, is {is}"));
    Ok(())
}

/// The agent in an image.
fn agent_of(image: &ImageFile) -> anyhow::Result<Option<Vec<u8>>> {
    let path = format!("/{GUEST_PATH}");
    let Some(inode) = image.filesystem.find(OsStr::new(&path))? else {
        return Ok(None);
    };
    let itself = image.lookup(OsStr::new(&path), LastSymlink::Keep)?;
    if inode.stat.file_type != FileType::Regular || itself.stat.inode != inode.stat.inode {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    image
        .filesystem
        .open_file(&inode)?
        .take(AGENT_MAX)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read the agent in {:?}", image.path))?;
    Ok(Some(bytes))
}
