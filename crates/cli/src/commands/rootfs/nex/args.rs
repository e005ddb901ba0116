//! The flags of `firebrick rootfs` itself, which are those of Nex's command of that name.

use std::path::PathBuf;

use firebrick_source::Reference;

/// The size that Nex gives an image, in bytes: 150 MiB.
const SIZE_BYTES: u64 = 157_286_400;

// Read as Nex reads them. (A doc comment would become the text of `firebrick rootfs`.)
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Nex's image")]
pub(crate) struct Args {
    /// Make an image for Nex out of this container image, which has OpenRC or gets it from the script
    #[arg(long, value_name = "IMAGE", value_parser = Reference::from_argument)]
    pub(super) image: Reference,

    /// Have OpenRC start this static program as the user nex (1000:1000), as /usr/local/bin/agent
    #[arg(long, value_name = "PATH")]
    pub(super) agent: Option<PathBuf>,

    /// Size of the whole image in bytes
    #[arg(long, value_name = "BYTES", default_value_t = SIZE_BYTES)]
    pub(super) size: u64,

    /// Run this script in the image, as its root, with this machine's network
    #[arg(long, value_name = "FILE")]
    pub(super) script: Option<PathBuf>,

    /// The image, or with .gz at the end the image compressed
    #[arg(long, value_name = "PATH", default_value = "rootfs.ext4.gz")]
    pub(super) output: PathBuf,
}
