//! squashfs images out of layers, judged by everyone who can: our own reader, the kernel's mount, `unsquashfs`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use firebrick_build::Report;
use firebrick_source::Reference;
use firebrick_squashfs::Options;

use crate::build::{CREATED, Recipe, View, names_in, run, wrap};
use crate::layers::{Layer, oci, tar::to_tar};
use crate::listing::{Ignore, Listing, Time, diff};
use crate::{mount, oracle, own, reference, walk};

/// A squashfs image in a folder of its own.
#[derive(Debug)]
pub struct Built {
    /// Where it is.
    pub path: PathBuf,
    /// What the build said of it.
    pub report: Report,
    _dir: tempfile::TempDir,
}

/// The recipe for these options.
pub fn recipe(options: Options) -> Recipe {
    Recipe {
        squashfs: Some(options),
        ..Recipe::default()
    }
}

/// Builds an image of `layers`.
///
/// # Errors
/// If the layers are refused, or anything else is left in the image's folder.
pub fn build(layers: &[Layer], recipe: &Recipe) -> anyhow::Result<Built> {
    let dir = tempfile::tempdir()?;
    let blob = |layer| oci::Blob::of_tar(&to_tar(layer), recipe.layout.compression);
    let blobs: Vec<_> = layers.iter().map(blob).collect();
    let source = wrap(&dir.path().join("source"), &blobs, recipe)?;
    build_reference(&source, recipe, dir)
}

/// Builds an image of whatever lies at `source`.
///
/// # Errors
/// As [`build`].
pub fn build_found(source: &Reference, recipe: &Recipe) -> anyhow::Result<Built> {
    build_reference(source, recipe, tempfile::tempdir()?)
}

fn build_reference(source: &Reference, recipe: &Recipe, dir: tempfile::TempDir) -> anyhow::Result<Built> {
    let folder = dir.path().join("image");
    std::fs::create_dir(&folder)?;
    let path = folder.join("rootfs.squashfs");
    let outcome = run(source, &path, recipe);
    let left = names_in(&folder)?;
    let allowed: &[&str] = if outcome.is_ok() {
        &["rootfs.squashfs"]
    } else {
        &[]
    };
    ensure!(left == allowed, "the build left {left:?}, and gave {outcome:?}");
    let report = outcome?;
    ensure!(
        report.size_bytes == std::fs::metadata(&path)?.len(),
        "the report's length is another"
    );
    ensure!(report.size_bytes.is_multiple_of(4096), "it is not whole blocks");
    Ok(Built {
        path,
        report,
        _dir: dir,
    })
}

/// Builds an image of `layers`, and compares what everyone sees with the reference, as far as squashfs can say it.
///
/// # Errors
/// Whatever goes wrong on the way, and every difference.
pub fn check(layers: &[Layer], recipe: &Recipe) -> anyhow::Result<Built> {
    let built = build(layers, recipe)?;
    compare(&built.path, &sayable(reference::apply(layers, CREATED)?))?;
    Ok(built)
}

/// Compares what everyone sees in an image.
///
/// # Errors
/// Every difference.
pub fn compare(image: &Path, expected: &Listing) -> anyhow::Result<()> {
    for view in views(image)? {
        diff(expected, &view.listing, &view.ignore)
            .with_context(|| format!("{} shows something else", view.who))?;
    }
    Ok(())
}

/// A listing with what squashfs has no place for taken out: nanoseconds, times before 1970 and after 2106, and
/// attributes of other namespaces. Modes of files with access control lists are the caller's to say.
pub fn sayable(mut listing: Listing) -> Listing {
    for record in listing.values_mut() {
        record.mtime = Time {
            secs: record.mtime.secs.clamp(0, u32::MAX.into()),
            nanos: 0,
        };
        let known = [&b"user."[..], b"trusted.", b"security."];
        record
            .xattrs
            .retain(|name, _| known.iter().any(|prefix| name.starts_with(prefix)));
    }
    listing
}

/// What our own reader sees, and as root the kernel and `unsquashfs`.
///
/// # Errors
/// If one of them refuses the image.
pub fn views(image: &Path) -> anyhow::Result<Vec<View>> {
    let view = |who, listing, ignore| View { who, listing, ignore };
    let mut views = vec![view(
        "our own reader",
        own::squashfs_listing(image)?,
        Ignore::NOTHING,
    )];
    if oracle::have_mount()? {
        let mounted = mount::Mount::of(image, "squashfs", "ro")?;
        views.push(view(
            "the mounted image",
            walk::walk(mounted.path())?,
            Ignore::NOTHING,
        ));
        mounted.unmount()?;
    }
    if rustix::process::geteuid().is_root() && oracle::have("unsquashfs")? {
        let ignore = Ignore {
            // The folder that it is unpacked to may count its folders in its own way.
            dir_links: true,
            ..Ignore::NOTHING
        };
        views.push(view("unsquashfs", unsquashed(image)?, ignore));
    }
    Ok(views)
}

/// What `unsquashfs` unpacks.
fn unsquashed(image: &Path) -> anyhow::Result<Listing> {
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("root");
    let output = oracle::run(
        "unsquashfs",
        [
            "-quiet".as_ref(),
            "-no-progress".as_ref(),
            "-strict-errors".as_ref(),
            "-d".as_ref(),
            root.as_os_str(),
            image.as_os_str(),
        ],
    )?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.trim().is_empty(),
        "unsquashfs: {} {said}",
        output.status
    );
    walk::walk(&root)
}
