//! Looking into an image file: its filesystem without a mount, and what firebrick wrote about it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context as _;
pub(crate) use firebrick_inventory::printable;

use crate::home::Home;
use crate::images;
use crate::volume::{Bytes, FileType, Inode, LastSymlink, Volume};

/// Longest `image.json` that is read, in bytes.
const IMAGE_JSON_MAX: u64 = 1 << 20;

/// An opened image.
pub(crate) struct ImageFile {
    pub(crate) path: PathBuf,
    pub(crate) size_bytes: u64,
    pub(crate) allocated_bytes: u64,
    /// When the file itself was last written.
    pub(crate) modified: Option<SystemTime>,
    pub(crate) filesystem: Volume,
}

impl ImageFile {
    /// Opens the image that an IMAGE argument means.
    pub(crate) fn open(home: &Home, image: &OsStr) -> anyhow::Result<ImageFile> {
        ImageFile::open_file(images::find(home, image)?)
    }

    /// Opens the image in a file.
    pub(crate) fn open_file(path: PathBuf) -> anyhow::Result<ImageFile> {
        let opening = || format!("cannot open {path:?}");
        let file = File::open(&path).with_context(opening)?;
        let metadata = file.metadata().with_context(opening)?;
        let filesystem =
            Volume::open(Box::new(file)).with_context(|| format!("cannot read {path:?} as an image"))?;
        Ok(ImageFile {
            size_bytes: metadata.len(),
            allocated_bytes: metadata.blocks() * 512,
            modified: metadata.modified().ok(),
            path,
            filesystem,
        })
    }

    /// The image of these bytes, which the VMM finds at `path`.
    pub(crate) fn of_bytes(path: PathBuf, bytes: Bytes) -> anyhow::Result<ImageFile> {
        let size_bytes = bytes.size_bytes()?;
        let filesystem = Volume::open(bytes)?;
        Ok(ImageFile {
            path,
            size_bytes,
            allocated_bytes: 0,
            modified: None,
            filesystem,
        })
    }

    /// What stands at a path of the image.
    pub(crate) fn lookup(&self, path: &OsStr, last: LastSymlink) -> anyhow::Result<Inode> {
        self.filesystem
            .lookup(path, last)
            .with_context(|| format!("cannot look up {path:?} in {:?}", self.path))
    }

    /// What firebrick wrote into the image about running it; `None` where it wrote nothing.
    pub(crate) fn image_json(&self) -> anyhow::Result<Option<serde_json::Value>> {
        let path = format!("/{}", firebrick_customise::IMAGE_JSON_PATH);
        let Some(bytes) = self.start_of(OsStr::new(&path), IMAGE_JSON_MAX)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("{path} in {:?} is not JSON", self.path))
    }

    /// The first bytes of a file, at most `len_max`, symlinks followed; `None` where there is no regular file.
    pub(crate) fn start_of(&self, path: &OsStr, len_max: u64) -> anyhow::Result<Option<Vec<u8>>> {
        self.filesystem
            .start_of(path, len_max)
            .with_context(|| format!("cannot read {path:?} in {:?}", self.path))
    }

    /// Whether firebrick's guest is in the image.
    pub(crate) fn has_guest(&self) -> bool {
        let path = format!("/{}", firebrick_customise::GUEST_PATH);
        self.filesystem
            .lookup(OsStr::new(&path), LastSymlink::Follow)
            .is_ok_and(|inode| inode.stat.file_type == FileType::Regular)
    }
}
