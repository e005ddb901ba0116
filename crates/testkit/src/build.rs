//! Images out of layers, the way a user's come to be, judged by everyone who can.
//!
//! Layers become an OCI image on disk, [`firebrick_source`] opens it, [`firebrick_build`] builds it.

use std::path::Path;

use anyhow::{Context as _, ensure};
use firebrick_build::{Filesystem, Report, Request};
use firebrick_layer::Limits;
use firebrick_source::Reference;
use firebrick_tree::Timestamp;

use crate::layers::{Layer, archive, oci, tar::to_tar};
use crate::listing::{Ignore, Listing, Time, diff};
use crate::oracle::Image;
use crate::{own, reference, view};

/// In what the layers are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Form {
    /// `oci:DIR`.
    #[default]
    Layout,
    /// `oci-archive:FILE`.
    OciArchive,
    /// `docker-archive:FILE`, as `docker save` wrote it for years.
    DockerArchive,
}

/// How to build.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The filesystem's options, if it becomes ext4.
    pub ext4: firebrick_ext4::Options,
    /// The filesystem's options, if it becomes squashfs instead.
    pub squashfs: Option<firebrick_squashfs::Options>,
    /// What the image says beside its layers.
    pub layout: oci::Options,
    /// In what they are wrapped.
    pub form: Form,
    /// Bounds on each layer.
    pub limits: Limits,
    /// How many layers are decompressed at once.
    pub layers_at_once: usize,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            ext4: firebrick_ext4::Options::default(),
            squashfs: None,
            layout: oci::Options::default(),
            form: Form::default(),
            limits: Limits::default(),
            layers_at_once: 2,
        }
    }
}

/// The modification time of what no layer describes: the image's own.
pub const CREATED: Time = Time {
    secs: oci::DEFAULT_CREATED,
    nanos: 0,
};

/// An image that passed `e2fsck -fn`, in a folder of its own.
#[derive(Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// What the reference says it should show; empty until [`check`] has asked it.
    pub expected: Listing,
    /// What the build said of it.
    pub report: Report,
    _dir: tempfile::TempDir,
}

impl Built {
    /// Compares what everyone who can look sees with `expected`.
    ///
    /// # Errors
    /// The differences.
    pub fn compare(&self, expected: &Listing) -> anyhow::Result<()> {
        for view in views(&self.image, view::can_show(expected))? {
            diff(expected, &view.listing, &view.ignore)
                .with_context(|| format!("{} shows something else", view.who))?;
        }
        Ok(())
    }
}

/// What somebody sees in an image.
#[derive(Debug)]
pub struct View {
    /// Who.
    pub who: &'static str,
    /// What it shows.
    pub listing: Listing,
    /// What it cannot show.
    pub ignore: Ignore,
}

/// What our own reader, the kernel (as root), and the `ext4-view` crate (if it can read this) see in an image.
///
/// # Errors
/// If one of them refuses it.
pub fn views(image: &Image, by_ext4_view: bool) -> anyhow::Result<Vec<View>> {
    let view = |who, listing, ignore| View { who, listing, ignore };
    let mut views = vec![view(
        "our own reader",
        own::listing(image.path())?,
        Ignore::NOTHING,
    )];
    if by_ext4_view {
        views.push(view("ext4-view", image.viewed_listing()?, Ignore::EXT4_VIEW));
    }
    if let Some(mounted) = image.mounted_listing()? {
        views.push(view("the mounted image", mounted, Ignore::NOTHING));
    }
    Ok(views)
}

/// Builds an image of `layers` and compares what it shows with the reference.
///
/// # Errors
/// Whatever goes wrong on the way, and every difference.
pub fn check(layers: &[Layer], recipe: &Recipe) -> anyhow::Result<Built> {
    let mut built = build(layers, recipe)?;
    built.expected = reference::apply(layers, CREATED)?;
    built.compare(&built.expected)?;
    Ok(built)
}

/// Builds an image of `layers` and lets `e2fsck` judge it.
///
/// # Errors
/// If the layers are refused, or the image is not clean.
pub fn build(layers: &[Layer], recipe: &Recipe) -> anyhow::Result<Built> {
    let compression = recipe.layout.compression;
    let blob = |layer| oci::Blob::of_tar(&to_tar(layer), compression);
    build_blobs(&layers.iter().map(blob).collect::<Vec<_>>(), recipe)
}

/// As [`build`], of layers as they are stored.
///
/// # Errors
/// As [`build`].
pub fn build_blobs(blobs: &[oci::Blob], recipe: &Recipe) -> anyhow::Result<Built> {
    let dir = tempfile::tempdir()?;
    let source = wrap(&dir.path().join("source"), blobs, recipe)?;
    build_reference(&source, recipe, dir)
}

/// Builds an image of whatever lies at `source` and lets `e2fsck` judge it.
///
/// # Errors
/// As [`build`].
pub fn build_found(source: &Reference, recipe: &Recipe) -> anyhow::Result<Built> {
    build_reference(source, recipe, tempfile::tempdir()?)
}

fn build_reference(source: &Reference, recipe: &Recipe, dir: tempfile::TempDir) -> anyhow::Result<Built> {
    // A folder of its own, so that whatever else a build leaves there is noticed.
    let folder = dir.path().join("image");
    std::fs::create_dir(&folder)?;
    let output = folder.join("rootfs.ext4");
    let outcome = run(source, &output, recipe);
    let left = names_in(&folder)?;
    let allowed: &[&str] = if outcome.is_ok() { &["rootfs.ext4"] } else { &[] };
    ensure!(left == allowed, "the build left {left:?}, and gave {outcome:?}");
    Ok(Built {
        report: outcome?,
        image: Image::check(&output)?,
        expected: Listing::new(),
        _dir: dir,
    })
}

/// The names in a folder, sorted.
///
/// # Errors
/// If it cannot be read.
pub fn names_in(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<_> = entries.collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

/// Writes the OCI image that the recipe asks for to `path`, and names it.
///
/// # Errors
/// What the host fails with.
pub fn wrap(path: &Path, blobs: &[oci::Blob], recipe: &Recipe) -> anyhow::Result<Reference> {
    let path = path.to_owned();
    let selector = None;
    Ok(match recipe.form {
        Form::Layout => {
            oci::write_layout_of_blobs(&path, blobs, &recipe.layout)?;
            Reference::OciLayout { path, selector }
        }
        Form::OciArchive => {
            archive::write_oci_archive(&path, blobs, &recipe.layout)?;
            Reference::OciArchive { path, selector }
        }
        Form::DockerArchive => {
            archive::write_docker_archive(&path, blobs, &recipe.layout)?;
            Reference::DockerArchive { path, selector }
        }
    })
}

/// Builds, and judges nothing.
///
/// # Errors
/// What opening and building give.
pub fn run(source: &Reference, output: &Path, recipe: &Recipe) -> anyhow::Result<Report> {
    let image = firebrick_source::open(source, &firebrick_source::Options::default())?;
    let request = Request {
        image: &image,
        customise: None,
        output: output.to_owned(),
        filesystem: match &recipe.squashfs {
            Some(options) => Filesystem::Squashfs(options.clone()),
            None => Filesystem::Ext4(recipe.ext4.clone()),
        },
        limits: recipe.limits,
        created: Timestamp {
            seconds: CREATED.secs,
            nanoseconds: CREATED.nanos,
        },
        layers_at_once: recipe.layers_at_once,
    };
    Ok(firebrick_build::build(request, &|_| ())?)
}
