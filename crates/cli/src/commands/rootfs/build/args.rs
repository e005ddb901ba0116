//! The flags of `firebrick rootfs build`.

use std::path::PathBuf;

use crate::commands::recipe::parse_argument;
use crate::commands::rootfs::from_docker::source_args::Registry;
use crate::commands::rootfs::making::{Limits, RootPassword, Rules, StepArgs, parse_rules};

/// Make an image as a recipe says
///
/// RECIPE is a TOML file, a Dockerfile, or the name of a recipe in firebrick itself (`firebrick recipe list`). Options that are
/// given here count instead of those of the recipe. What a recipe asks for and this build cannot do is refused, never left out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The recipe
    #[arg(value_name = "RECIPE")]
    pub(crate) recipe: String,

    /// Name of the image [default: the recipe's, or that of its file]
    #[arg(short, long)]
    pub(crate) name: Option<String>,

    /// Write the image to this file instead
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,

    /// A value for an ARG of a Dockerfile
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_argument)]
    pub(crate) build_arg: Vec<(String, String)>,

    /// Size of the whole image, "auto" or "min"
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) size: Option<String>,

    /// Writable space beyond the content
    #[arg(long, value_name = "SIZE")]
    pub(crate) free: Option<String>,

    /// The filesystem's label
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,

    /// The filesystem: ext4 or squashfs
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,

    /// Give root a password: its hash as `openssl passwd -6` prints it, or "ask" to type one
    #[arg(long, value_name = "HASH|ask")]
    pub(crate) root_password: Option<RootPassword>,

    /// Leave out what is not needed to run: docs,man,info,locale,cache,logs,tmp,pyc, or "all"
    #[arg(long, value_name = "RULES", value_parser = parse_rules)]
    pub(crate) slim: Option<Rules>,

    #[command(flatten)]
    pub(crate) steps: StepArgs,

    #[command(flatten)]
    pub(crate) source: Registry,

    #[command(flatten)]
    pub(crate) limits: Limits,
}
