//! `firebrick man`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::args::Cli;
use crate::talk::Talk;

/// Write a man page for every command into a folder
///
/// Read one with `man -l FOLDER/firebrick.1`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder; made if missing
    folder: PathBuf,
}

pub(crate) fn run(args: &Args, talk: &Talk) -> anyhow::Result<()> {
    let folder = &args.folder;
    fs::create_dir_all(folder).with_context(|| format!("cannot make folder {folder:?}"))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("cannot write man pages into {folder:?}"))?;
    talk.say(&format!("man pages are in {}", folder.display()));
    Ok(())
}
