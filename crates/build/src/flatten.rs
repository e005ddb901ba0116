//! The merged tree as one tar, for whoever needs the files themselves: a sandbox, another program.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use firebrick_digest::{Digest, Hasher};
use firebrick_ext4::Region;
use firebrick_ext4::geometry::Layout;
use firebrick_layer::tar::{Writer, WriterEntry};
use firebrick_layer::{Limits, decompress, detect};
use firebrick_source::OciImage;
use firebrick_tree::{FileData, Inode, Kind, LayerPath, Segment, Timestamp, Tree};

use crate::error::BuildError;
use crate::image_file::ImageFile;
use crate::request::{Customise, Event};
use crate::run::{Build, drop_later, output_error};

const BLOCK: u64 = 4096;

/// How much of a file is copied at a time.
const COPY_LEN: usize = 256 << 10;

/// What is to be flattened.
#[derive(Debug, Clone, Copy)]
pub struct Flatten<'a> {
    /// The opened OCI image.
    pub image: &'a OciImage,
    /// A file that need not exist, in the folder that contents are kept in until all layers are merged. They have no name.
    pub beside: &'a Path,
    /// Bounds on the layers, all together.
    pub limits: Limits,
    /// Time of what no layer describes.
    pub created: Timestamp,
    /// How many layers are decompressed at once.
    pub layers_at_once: usize,
}

/// What [`flatten`] read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flattened {
    /// The layers' diff IDs, lowest first, as their bytes gave them.
    pub diff_ids: Vec<Digest>,
    /// Names in the merged tree, its root included.
    pub entries: u64,
}

/// Writes the merged tree of an OCI image as one uncompressed tar: the root first, directories before what they hold, names in
/// byte order. An inode with several names comes under the first of them, the others are hardlinks to it. What an upper layer
/// hid is not in it. Same layers and time, same bytes.
///
/// # Errors
/// [`BuildError`]. What was written until then is not a whole tar.
pub fn flatten(
    request: &Flatten<'_>,
    out: &mut dyn Write,
    events: &(dyn Fn(Event) + Sync),
) -> Result<Flattened, BuildError> {
    let beside = request.beside;
    let mut build = merged(request, events)?;
    build.file.drain().map_err(output_error("write beside", beside))?;
    let contents = Contents {
        file: build.file.file(),
        regions: &build.regions,
        layout: build.file.layout(),
    };
    let entries = write(&build.tree, &contents, out).map_err(|source| BuildError::Flatten { source })?;
    let diff_ids = build.reports.iter().map(|layer| layer.diff_id).collect();
    drop_later(build.tree);
    Ok(Flattened { diff_ids, entries })
}

/// The tar of a layer that `customise` makes, as in a build, over what the image's layers merge to. No image comes of it.
///
/// # Errors
/// [`BuildError`], that of `customise` too.
pub fn made_over(request: &Flatten<'_>, customise: Customise<'_>) -> Result<Vec<u8>, BuildError> {
    let mut build = merged(request, &|_| {})?;
    let tar = build.make(customise, false)?;
    drop_later(build.tree);
    Ok(tar)
}

/// All layers, merged.
fn merged<'a>(request: &Flatten<'a>, events: &'a (dyn Fn(Event) + Sync)) -> Result<Build<'a>, BuildError> {
    let beside = request.beside;
    let file = ImageFile::scratch(beside).map_err(output_error("create a file beside", beside))?;
    let mut build = Build::new(
        file,
        beside,
        request.created,
        request.limits,
        request.layers_at_once,
        events,
    );
    build.source_layers(request.image)?;
    Ok(build)
}

/// The diff IDs of an image's layers: those that its config gives, and of the others what their bytes give.
///
/// # Errors
/// [`BuildError`] if a layer without one cannot be read.
pub fn diff_ids(image: &OciImage) -> Result<Vec<Digest>, BuildError> {
    let of = |(layer, source): (usize, &firebrick_source::Layer)| {
        if let Some(known) = source.diff_id {
            return Ok(known);
        }
        let opened = source.open().map_err(|source| BuildError::Open {
            layer,
            source: Box::new(source),
        })?;
        hash(opened).map_err(|error| BuildError::Scan {
            layer,
            digest: source.digest,
            source: firebrick_layer::ScanError::Read {
                offset: 0,
                source: error,
            },
        })
    };
    image.layers.iter().enumerate().map(of).collect()
}

fn hash(blob: Box<dyn io::Read + Send>) -> io::Result<Digest> {
    let (compression, blob) = detect(blob)?;
    let mut tar = decompress(compression, io::BufReader::with_capacity(COPY_LEN, blob))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; COPY_LEN];
    loop {
        match tar.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            len => hasher.update(&buffer[..len]),
        }
    }
}

/// The file that holds the regions.
struct Contents<'a> {
    file: &'a File,
    regions: &'a [Region],
    layout: Layout,
}

impl Contents<'_> {
    /// Copies a segment's bytes.
    fn copy(&self, segment: &Segment, buffer: &mut [u8], out: &mut dyn Write) -> io::Result<()> {
        let outside = || io::Error::other("a file reaches out of its layer");
        let region = usize::try_from(segment.region.0)
            .ok()
            .and_then(|index| self.regions.get(index))
            .ok_or_else(outside)?;
        if segment.region_offset + segment.len > region.blocks * BLOCK {
            return Err(outside());
        }
        let start = self.layout.runs(region.start, 1);
        let start = start.first().ok_or_else(outside)?.start.0 * BLOCK + segment.region_offset;
        let mut done = 0;
        while done < segment.len {
            let len = usize::try_from(segment.len - done)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.file.read_exact_at(&mut buffer[..len], start + done)?;
            out.write_all(&buffer[..len])?;
            done += len as u64;
        }
        Ok(())
    }
}

/// Gives how many names there are.
fn write(tree: &Tree, contents: &Contents<'_>, out: &mut dyn Write) -> io::Result<u64> {
    let mut writer = Writer::new(out);
    let mut first_names: Vec<Option<LayerPath>> = vec![None; tree.inode_slots()];
    let mut buffer = vec![0; COPY_LEN];
    let mut entries = 0;
    for (path, id) in tree.walk() {
        entries += 1;
        let Inode { meta, kind } = tree.inode(id);
        let first = &mut first_names[id.index()];
        if let Some(first) = first {
            writer.entry(&path, meta, WriterEntry::Hardlink(first))?;
            continue;
        }
        if !matches!(kind, Kind::Directory(_)) {
            *first = Some(path.clone());
        }
        let entry = match kind {
            Kind::File(data) => {
                file(&mut writer, &path, meta, data, contents, &mut buffer)?;
                continue;
            }
            Kind::Directory(_) => WriterEntry::Directory,
            Kind::Symlink(target) => WriterEntry::Symlink(target),
            Kind::Device { kind, major, minor } => WriterEntry::Device {
                kind: *kind,
                major: *major,
                minor: *minor,
            },
            Kind::Fifo => WriterEntry::Fifo,
            Kind::Socket => WriterEntry::Socket,
        };
        writer.entry(&path, meta, entry)?;
    }
    writer.finish()?.flush()?;
    Ok(entries)
}

fn file(
    writer: &mut Writer<&mut dyn Write>,
    path: &LayerPath,
    meta: &firebrick_tree::Metadata,
    data: &FileData,
    contents: &Contents<'_>,
    buffer: &mut [u8],
) -> io::Result<()> {
    // A block behind the last byte of a segment is its own, so a hole is at least one block.
    let is_whole = match data.segments.as_slice() {
        [] => data.size == 0,
        [only] => only.file_offset == 0 && only.len == data.size,
        _ => false,
    };
    let held: u64 = data.segments.iter().map(|segment| segment.len).sum();
    if is_whole {
        writer.file_header(path, meta, data.size)?;
    } else {
        writer.sparse_header(path, meta, data.size, &ranges(&data.segments))?;
    }
    for segment in &data.segments {
        contents.copy(segment, buffer, writer.get_mut())?;
    }
    writer.pad(held)
}

/// Where a file has content: segments that touch are one.
fn ranges(segments: &[Segment]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for segment in segments {
        let end = segment.file_offset + segment.len;
        match ranges.last_mut() {
            Some(last) if last.end == segment.file_offset => last.end = end,
            _ => ranges.push(segment.file_offset..end),
        }
    }
    ranges
}
