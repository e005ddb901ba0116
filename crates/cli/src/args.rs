//! The command line: one definition that feeds parsing, help, completions and man pages.

use clap::{Parser, Subcommand};

use crate::commands::{
    boot, cache, completions, doctor, guest, man, pool, recipe, rootfs, run, setup, store,
};

const AFTER_LONG_HELP: &str = "\
Exit codes:
  0    done
  1    failed; stderr says why, and often what to do
  2    bad usage
  diff 1: the images differ, 2: firebrick failed, 3: over the budget
  run  passes the program's own status on; 124 means the time was up, 125 that firebrick failed

Environment:
  FIREBRICK_HOME     keeps everything below this folder: images/, kernels/, cache/
  XDG_DATA_HOME      images and kernels go to its firebrick/ (default ~/.local/share)
  XDG_CACHE_HOME     downloaded layers go to its firebrick/ (default ~/.cache)
  FIREBRICK_STORE    the store where none is named: file:///dir, s3://bucket/prefix, …
  FIREBRICK_POLICY   which keys images need, before ~/.config/firebrick/policy.toml
  SOURCE_DATE_EPOCH  time of the files that firebrick itself adds to an image
  NO_COLOR           no colours

Root's images, kernels and cache are in /srv/firecracker unless FIREBRICK_HOME says otherwise.";

/// Turns container images into root filesystems that Firecracker-style microVMs boot.
///
/// Needs no root, no daemon and no mounts.
#[derive(Debug, Parser)]
#[command(name = "firebrick", version, after_long_help = AFTER_LONG_HELP, propagate_version = true)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Say more on stderr (twice: every event)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Talk")]
    pub(crate) verbose: u8,

    /// Say nothing on stderr but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Talk")]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Rootfs(Box<rootfs::Rootfs>),
    /// Look at the recipes in firebrick, or check one of yours
    #[command(subcommand)]
    Recipe(recipe::Command),
    Run(Box<run::Args>),
    Boot(boot::Args),
    /// Keep VMs warm, so that run need not wait for a boot
    #[command(subcommand)]
    Pool(pool::Command),
    Setup(setup::Args),
    Doctor(doctor::Args),
    Guest(guest::Args),
    /// Keep a store of images in order, or give an image of it as a disk
    #[command(subcommand)]
    Store(Box<store::Command>),
    /// Show or shrink the cache of downloaded layers
    #[command(subcommand)]
    Cache(cache::Command),
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    /// What the shell sees when the command itself fails.
    pub(crate) fn exit_code_of_failure(&self) -> u8 {
        match self {
            Command::Run(_) => 125, // docker's habit: the other codes belong to the program
            // diff's habit: 1 says that something differs, or that something is wrong.
            Command::Rootfs(rootfs)
                if matches!(
                    rootfs.command,
                    Some(rootfs::Command::Diff(_) | rootfs::Command::Check(_))
                ) =>
            {
                2
            }
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn definition_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
