//! squashfs images out of layers, judged by everyone who can: our own reader, the kernel's mount, `unsquashfs`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use firebrick_build::Report;
use firebrick_digest::Hasher;
use firebrick_source::Reference;
use firebrick_squashfs::Options;
use firebrick_squashfs::read::{FileType, Filesystem, Inode};

use crate::build::{CREATED, Recipe, View, names_in, run, wrap};
use crate::layers::{Layer, oci, tar::to_tar};
use crate::listing::{Ignore, Kind, Listing, Record, Time, diff};
use crate::{mount, oracle, reference, walk};

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
    let mut views = vec![view("our own reader", listing(image)?, Ignore::NOTHING)];
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

/// An image through our own reader, [`firebrick_squashfs::read`].
///
/// # Errors
/// If the reader refuses the image or anything in it.
pub fn listing(path: &Path) -> anyhow::Result<Listing> {
    let filesystem = Filesystem::open(File::open(path)?)?;
    let mut walk = filesystem.walk(filesystem.root()?);
    let mut listing = Listing::new();
    let mut first_of: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    while let Some(visit) = walk.advance()? {
        let path = [b"/", visit.path].concat();
        let context = || format!("our own reader: {}", String::from_utf8_lossy(&path));
        let number = visit.inode.stat().inode;
        listing.insert(
            path.clone(),
            record(&filesystem, &visit.inode).with_context(context)?,
        );
        let first = first_of.entry(number).or_insert_with(|| path.clone());
        if path < *first {
            first.clone_from(&path);
        }
        numbers.insert(path, number);
    }
    for (path, record) in &mut listing {
        record.same_as.clone_from(&first_of[&numbers[path]]);
    }
    Ok(listing)
}

fn record(filesystem: &Filesystem<File>, inode: &Inode) -> anyhow::Result<Record> {
    let stat = inode.stat();
    let device = || stat.device.context("a device node without a number");
    let kind = match stat.file_type {
        FileType::Regular => {
            let mut reader = filesystem.open_file(inode)?;
            let (mut hasher, mut len, mut buffer) = (Hasher::new(), 0, vec![0; 1 << 17]);
            loop {
                let count = reader.read_some(&mut buffer)?;
                if count == 0 {
                    break;
                }
                hasher.update(&buffer[..count]);
                len += count as u64;
            }
            Kind::File {
                len,
                digest: hasher.finish(),
            }
        }
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink(filesystem.read_link(inode)?),
        FileType::CharDevice => device().map(|device| Kind::Char(device.major, device.minor))?,
        FileType::BlockDevice => device().map(|device| Kind::Block(device.major, device.minor))?,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
    };
    let xattrs = filesystem.xattrs(inode)?.into_iter();
    Ok(Record {
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: Time {
            secs: stat.mtime.seconds,
            nanos: 0,
        },
        nlink: stat.links.into(),
        same_as: Vec::new(),
        xattrs: xattrs.map(|(name, value)| (name.into(), value.into())).collect(),
    })
}
