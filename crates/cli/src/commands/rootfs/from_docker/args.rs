//! The flags of `firebrick rootfs from-docker`.

use firebrick_source::Reference;

use super::source_args;
use crate::commands::rootfs::making::{ImageArgs, Limits, Script};
use crate::images;

/// Turn a container image into an image that a microVM boots
///
/// IMAGE is python:3.12-alpine or docker://… (a registry), oci:DIR, oci-archive:FILE or docker-archive:FILE (with :TAG
/// behind it where there are several images), tar:FILE or dir:PATH. The result replaces the image of that name, if there
/// is one, in one step; its path is printed on stdout.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the image: it becomes rootfs-NAME.ext4, or .squashfs
    #[arg(short, long, value_parser = images::parse_new_name)]
    pub(crate) name: String,

    /// The container image
    #[arg(short, long, value_parser = Reference::from_argument)]
    pub(crate) image: Reference,

    #[command(flatten)]
    pub(crate) made: ImageArgs,

    #[command(flatten)]
    pub(crate) script: Script,

    #[command(flatten)]
    pub(crate) source: source_args::Registry,

    #[command(flatten)]
    pub(crate) limits: Limits,
}
