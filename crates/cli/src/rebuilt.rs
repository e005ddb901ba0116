//! An image made again from what is in another: with another size, or as another filesystem.
//!
//! What the image holds becomes a tar, and that the only layer of a build: so the result is what a fresh build gives. The tar
//! is never anywhere as a whole.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};
use firebrick_build::{Filesystem, Report, Request};
use firebrick_ext4::edit::ensure_clean;
use firebrick_layer::Limits;
use firebrick_layer::tar::{Writer, WriterEntry};
use firebrick_source::{ImageConfig, Layer, OciImage, Platform};
use firebrick_tree::{DeviceKind, LayerPath, Metadata};

use crate::edited::{Refusal, ensure_unused};
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::trust;
use crate::volume::{FileType, Inode, Volume};

/// Bytes that are on their way to the build at once.
const BUFFER: usize = 1 << 18;

/// The folder that belongs to ext4 itself.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// Names that begin like this mean something else in a layer.
const WHITEOUT: &[u8] = b".wh.";

/// Builds `output` from what is in `image`.
pub(crate) fn rebuild(
    home: &Home,
    image: &ImageFile,
    output: &Path,
    filesystem: Filesystem,
) -> anyhow::Result<Report> {
    trust::ensure_usable(home, &image.path)?;
    ensure_whole(image)?;
    let path = image.path.clone();
    let layer = Layer::from_stream(move || Ok(Box::new(Produced::start(path)?)));
    let name = image.path.display().to_string();
    let source = OciImage::from_layers(&name, Platform::host(), ImageConfig::default(), [layer]);
    let request = Request {
        image: &source,
        customise: None,
        output: output.to_owned(),
        filesystem,
        limits: limits(),
        created: image.filesystem.created(),
        layers_at_once: 1,
    };
    let report = firebrick_build::build(request, &|_| {})
        .with_context(|| format!("cannot make {output:?} from what is in {:?}", image.path))?;
    trust::forget(home, output)?;
    Ok(report)
}

/// Features that keep something of files or users which an image made again does not have.
const LOST: [&str; 4] = ["mmp", "project", "quota", "verity"];

/// Which of those an image has.
pub(crate) fn lost_features(image: &ImageFile) -> Vec<&'static str> {
    match &image.filesystem {
        Volume::Ext4(filesystem) => {
            let features = filesystem.summary().features.names();
            LOST.into_iter()
                .filter(|lost| features.iter().any(|feature| feature == lost))
                .collect()
        }
        Volume::Squashfs(_) => Vec::new(),
    }
}

/// Refuses an image that is being written to, and one that its last user did not leave in order: it is to be replaced, and what
/// cannot be read rightly would be lost.
fn ensure_whole(image: &ImageFile) -> anyhow::Result<()> {
    let path = &image.path;
    let file = File::open(path).with_context(|| format!("cannot open {path:?}"))?;
    ensure_unused(&file, path)?;
    match &image.filesystem {
        Volume::Ext4(filesystem) => ensure_clean(filesystem)
            .with_context(|| format!("cannot make another image from what is in {path:?}")),
        Volume::Squashfs(_) => Ok(()),
    }
}

/// What an ext4 keeps when it is made again; what a squashfs has of that is nothing.
pub(crate) fn options_of(image: &ImageFile) -> firebrick_ext4::Options {
    let mut options = firebrick_ext4::Options::default();
    if let Volume::Ext4(filesystem) = &image.filesystem {
        let summary = filesystem.summary();
        let features = summary.features.names();
        let has = |name: &str| features.iter().any(|feature| feature == name);
        options.label = summary.label.to_vec();
        options.uuid = Some(summary.uuid);
        options.journal = has("has_journal");
        options.online_resize = has("resize_inode") && !has("sparse_super2");
    }
    options
}

/// It was an image already, and nothing in it is compressed twice.
fn limits() -> Limits {
    let entries = 100_000_000;
    Limits {
        entries,
        unpacked_bytes: 16 << 40,
        metadata_bytes: 4 << 30,
        ratio: u64::MAX,
    }
}

/// A tar that another thread writes. Where that fails, so does the last read.
struct Produced {
    tar: PipeReader,
    writer: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Produced {
    fn start(image: PathBuf) -> io::Result<Produced> {
        let (tar, out) = io::pipe()?;
        let writer = std::thread::Builder::new()
            .name("tar".to_owned())
            .spawn(move || write(&image, out))?;
        Ok(Produced {
            tar,
            writer: Some(writer),
        })
    }
}

impl Read for Produced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.tar.read(buffer)?;
        if len == 0
            && !buffer.is_empty()
            && let Some(writer) = self.writer.take()
        {
            let written = writer
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written.map_err(|error| io::Error::other(error.into_boxed_dyn_error()))?;
        }
        Ok(len)
    }
}

/// Writes all that is in an image.
fn write(image: &Path, out: impl Write) -> anyhow::Result<()> {
    let volume = Volume::open(Box::new(File::open(image)?))?;
    let mut packer = Packer {
        volume: &volume,
        tar: Writer::new(BufWriter::with_capacity(BUFFER, out)),
        names: HashMap::new(),
        buffer: vec![0; BUFFER],
    };
    volume.walk(&mut |path, inode| {
        let is_folder = inode.stat.file_type == FileType::Directory;
        // An ext4 gets one of its own.
        if path == LOST_AND_FOUND && is_folder && volume.list(&inode)?.is_empty() {
            return Ok(());
        }
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if name.starts_with(WHITEOUT) {
            return Err(Refusal::Whiteout {
                path: path.escape_ascii().to_string(),
            }
            .into());
        }
        let path = LayerPath::parse(path)?;
        packer
            .add(&path, &inode)
            .with_context(|| format!("cannot read /{}", path.as_bytes().escape_ascii()))
    })?;
    packer.tar.finish()?.flush()?;
    Ok(())
}

/// A tar while it is written.
struct Packer<'a, W: Write> {
    volume: &'a Volume,
    tar: Writer<W>,
    /// The first names of inodes with several.
    names: HashMap<u32, LayerPath>,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    fn add(&mut self, path: &LayerPath, inode: &Inode) -> anyhow::Result<()> {
        let stat = &inode.stat;
        let meta = Metadata {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            mtime: stat.mtime,
            xattrs: self.volume.xattrs(inode)?,
        };
        if stat.links > 1 && stat.file_type != FileType::Directory {
            if let Some(first) = self.names.get(&stat.inode) {
                self.tar.entry(path, &meta, WriterEntry::Hardlink(first))?;
                return Ok(());
            }
            self.names.insert(stat.inode, path.clone());
        }
        let device = |kind| {
            let (major, minor) = stat.device.unwrap_or_default();
            WriterEntry::Device { kind, major, minor }
        };
        let target;
        let entry = match stat.file_type {
            FileType::Regular => return self.file(path, &meta, inode),
            FileType::Directory => WriterEntry::Directory,
            FileType::Symlink => {
                target = self.volume.read_link(inode)?;
                WriterEntry::Symlink(&target)
            }
            FileType::CharDevice => device(DeviceKind::Char),
            FileType::BlockDevice => device(DeviceKind::Block),
            FileType::Fifo => WriterEntry::Fifo,
            FileType::Socket => WriterEntry::Socket,
        };
        Ok(self.tar.entry(path, &meta, entry)?)
    }

    fn file(&mut self, path: &LayerPath, meta: &Metadata, inode: &Inode) -> anyhow::Result<()> {
        let size = inode.stat.size;
        let whole: Vec<_> = std::iter::once(0..size)
            .filter(|range| !range.is_empty())
            .collect();
        let parts = self.volume.parts(inode)?;
        if parts == whole {
            self.tar.file_header(path, meta, size)?;
        } else {
            self.tar.sparse_header(path, meta, size, &parts)?;
        }
        let mut content = self.volume.open_file(inode)?;
        let (mut at, mut held) = (0, 0);
        for part in parts {
            content.skip(part.start - at)?;
            at = part.start;
            let mut left = part.end - at;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                let len = content.read(&mut self.buffer[..most])?;
                if len == 0 {
                    bail!("it ends before its length of {size} bytes");
                }
                self.tar.get_mut().write_all(&self.buffer[..len])?;
                let len = len as u64;
                (at, held, left) = (at + len, held + len, left - len);
            }
        }
        Ok(self.tar.pad(held)?)
    }
}
