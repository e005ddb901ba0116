//! `firebrick rootfs rm`.

use std::fs;

use anyhow::Context as _;

use crate::home::Home;
use crate::images;
use crate::talk::Talk;

/// Delete images by name
///
/// Deletes nothing if one of the names has no image.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names, as `rootfs list` shows them
    #[arg(required = true, value_name = "NAME", value_parser = images::parse_name)]
    names: Vec<String>,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let mut paths = args
        .names
        .iter()
        .map(|name| images::find_named(home, name))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    paths.sort();
    paths.dedup(); // `rm a a` is one image
    for path in paths {
        fs::remove_file(&path).with_context(|| format!("cannot delete {path:?}"))?;
        talk.say(&format!("deleted {}", path.display()));
    }
    Ok(())
}
