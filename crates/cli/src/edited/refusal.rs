//! What the commands that change images refuse, and what helps.

use std::path::PathBuf;

/// A change that is not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// A format that cannot be written to.
    #[error("{image:?} is a squashfs, which cannot be changed")]
    ReadOnlyFormat { image: PathBuf },
    /// A format whose size is that of its content.
    #[error("{image:?} is a squashfs, which is as large as what is in it")]
    NoSize { image: PathBuf },
    /// A format that has no checker here.
    #[error("{image:?} is a squashfs, which cannot be checked this way")]
    NotChecked { image: PathBuf },
    /// What changes while it is read is no image.
    #[error("a virtual machine is writing to {image:?}")]
    InUse { image: PathBuf },
    /// Neither side of a copy is a stream.
    #[error("- is no place to copy from or to")]
    Stream,
    /// What took its place would be lost.
    #[error("{image:?} was replaced while it was being changed")]
    Replaced { image: PathBuf },
    /// Some of many.
    #[error("{failed} of {all} images could not be updated")]
    NotAllUpdated { failed: usize, all: usize },
    /// What a check would get wrong.
    #[error("{image:?} uses {feature}, which firebrick does not check")]
    UncheckedFeature { image: PathBuf, feature: String },
    /// A name that layers keep for something else.
    #[error("/{path} in the image has a name that removes another where images are made (.wh.)")]
    Whiteout { path: String },
    /// Nothing to update.
    #[error("{image:?} has no agent of firebrick")]
    NoAgent { image: PathBuf },
    /// An agent that this firebrick has no other for.
    #[error("the agent in {image:?} is for a processor that this firebrick has no agent for")]
    OtherAgent { image: PathBuf },
    /// A name that the image does not know.
    #[error("{file} in {image:?} has no {name:?}")]
    NoSuchOwner {
        name: String,
        file: &'static str,
        image: PathBuf,
    },
    /// Folders do not replace files.
    #[error("{path:?} is a file, and a folder cannot take its place")]
    FolderOverFile { path: String },
    /// A path that ends in a slash.
    #[error("{path:?} in the image is no folder")]
    NoFolderInImage { path: String },
    /// A path that ends in a slash, or one without a name.
    #[error("{path:?} is no folder")]
    NoFolderOnHost { path: PathBuf },
    /// Folders within folders within folders.
    #[error("the image has folders more than {limit} deep")]
    TooDeep { limit: usize },
    /// A change that cannot be read.
    #[error("{flag} is given {value:?}, expected {expected}")]
    BadChange {
        flag: &'static str,
        value: String,
        expected: &'static str,
    },
    /// One side of a copy is in an image.
    #[error("one of the two sides must be in an image, IMAGE:/PATH, and the other not")]
    CopySides,
    /// A flag for the other direction.
    #[error("{flag} is for copies into images")]
    NotForThisCopy { flag: &'static str },
}

impl Refusal {
    /// What a person can do.
    pub(crate) fn hint(&self) -> String {
        match self {
            Refusal::ReadOnlyFormat { image } => format!(
                "make an ext4 of it first: firebrick rootfs convert {} --format ext4 -o OTHER.ext4",
                image.display()
            ),
            Refusal::NoSize { image } => format!(
                "for room to write, make an ext4 of it: firebrick rootfs convert {} --format ext4 --free 1G",
                image.display()
            ),
            Refusal::NotChecked { image } => {
                format!("read all of it with another reader: unsquashfs -lls {}", image.display())
            }
            Refusal::UncheckedFeature { image, .. } => {
                format!("ask the checker of those who made it: e2fsck -fn {}", image.display())
            }
            Refusal::InUse { image } => format!(
                "end the machine in order first, so that what it wrote is whole; see which it is: fuser -v {}",
                image.display()
            ),
            Refusal::Stream => {
                "print a file: firebrick rootfs cat IMAGE /PATH; one that is called - is ./-".to_owned()
            }
            Refusal::Replaced { image } => format!(
                "nothing was changed; see what it is now, and change that: firebrick rootfs inspect {}",
                image.display()
            ),
            Refusal::NotAllUpdated { .. } => {
                "once that is mended, update those alone: firebrick rootfs update-agent IMAGE".to_owned()
            }
            Refusal::Whiteout { path } => {
                format!("remove it, or give it another name: firebrick rootfs edit IMAGE --rm /{path}")
            }
            Refusal::NoAgent { .. } => {
                "make the image with one: firebrick rootfs from-docker -n NAME -i IMAGE".to_owned()
            }
            Refusal::OtherAgent { .. } => {
                "put the right one in by hand: firebrick rootfs edit IMAGE --add firebrick-guest:/usr/lib/firebrick/"
                    .to_owned()
            }
            Refusal::NoSuchOwner { file, image, .. } => {
                format!("give numbers, or see who there is: firebrick rootfs cat {} {file}", image.display())
            }
            Refusal::FolderOverFile { .. } => {
                "name another place, or remove the file first: firebrick rootfs edit IMAGE --rm PATH".to_owned()
            }
            Refusal::NoFolderInImage { .. } => {
                "leave the slash at its end out, or see what is there: firebrick rootfs ls IMAGE".to_owned()
            }
            Refusal::NoFolderOnHost { path } => format!("make it: mkdir -p {}", path.display()),
            Refusal::TooDeep { .. } => "copy a folder further down: firebrick rootfs cp IMAGE:/A/B DST".to_owned(),
            Refusal::BadChange { .. } => "see the examples: firebrick rootfs edit --help".to_owned(),
            Refusal::CopySides => "as in: firebrick rootfs cp motd python:/etc/motd".to_owned(),
            Refusal::NotForThisCopy { flag } => format!("leave it out: {flag}"),
        }
    }
}
