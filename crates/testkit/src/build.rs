//! Images out of layers, judged by everyone who can.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;
use firebrick_ext4::geometry::{BlockNumber, DataBlock, Layout};
use firebrick_ext4::{BlockSink, Region, plan, region_start, write};
use firebrick_layer::{Limits, RegionSink, decompress, scan};
use firebrick_tree::{LayerIndex, MergeOptions, RegionIndex, Timestamp, Tree};

use crate::layers::{Layer, oci, tar::to_tar};
use crate::listing::{Ignore, Listing, Time, diff};
use crate::oracle::Image;
use crate::{reference, view};

/// How to build.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The filesystem's options.
    pub ext4: firebrick_ext4::Options,
    /// How the layers are wrapped.
    pub layout: oci::Options,
}

impl Default for Recipe {
    fn default() -> Recipe {
        let ext4 = firebrick_ext4::Options {
            identity: [7; 32],
            ..Default::default()
        };
        Recipe {
            ext4,
            layout: oci::Options::default(),
        }
    }
}

/// An image that passed `e2fsck -fn`, in a folder of its own.
#[derive(Debug)]
pub struct Built {
    /// The image.
    pub image: Image,
    /// What the reference says it should show; empty until [`check`] has asked it.
    pub expected: Listing,
    /// The modification time of directories that no layer describes.
    pub created: Time,
    /// The plan as text.
    pub plan: String,
    _dir: tempfile::TempDir,
}

impl Built {
    /// Compares what the kernel and `ext4-view` show with `expected`.
    ///
    /// # Errors
    /// The differences.
    pub fn compare(&self, expected: &Listing) -> anyhow::Result<()> {
        if view::can_show(expected) {
            let viewed = self.image.viewed_listing()?;
            diff(expected, &viewed, &Ignore::EXT4_VIEW).context("ext4-view shows something else")?;
        }
        if let Some(mounted) = self.image.mounted_listing()? {
            diff(expected, &mounted, &Ignore::NOTHING).context("the mounted image shows something else")?;
        }
        Ok(())
    }
}

/// Builds an image of `layers` and compares what it shows with the reference.
///
/// # Errors
/// Whatever goes wrong on the way, and every difference.
pub fn check(layers: &[Layer], recipe: &Recipe) -> anyhow::Result<Built> {
    let mut built = build(layers, recipe)?;
    built.expected = reference::apply(layers, built.created)?;
    built.compare(&built.expected)?;
    Ok(built)
}

/// Builds an image of `layers` and lets `e2fsck` judge it.
///
/// # Errors
/// If the layers are refused, or the image is not clean.
pub fn build(layers: &[Layer], recipe: &Recipe) -> anyhow::Result<Built> {
    let compression = recipe.layout.compression;
    let blobs: Vec<_> = layers
        .iter()
        .map(|layer| compression.compress(&to_tar(layer)))
        .collect();
    build_blobs(&blobs, recipe)
}

/// As [`build`], of layers as they are stored.
///
/// # Errors
/// As [`build`].
pub fn build_blobs(blobs: &[Vec<u8>], recipe: &Recipe) -> anyhow::Result<Built> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("image.ext4");
    let file = File::create_new(&path)?;
    let created = Timestamp {
        seconds: oci::DEFAULT_CREATED,
        nanoseconds: 0,
    };
    let mut options = recipe.ext4.clone();
    options.created = created;
    let layout = Layout {
        online_resize: options.online_resize,
    };
    let mut regions: Vec<Region> = Vec::new();
    let mut tree = Tree::merge([], &MergeOptions { created })?;
    for (number, blob) in (0..).zip(blobs) {
        let end = regions
            .last()
            .map_or(DataBlock(0), |region| DataBlock(region.start.0 + region.blocks));
        let mut sink = FileRegion {
            file: &file,
            layout,
            start: region_start(end),
            len: 0,
            pending: Vec::new(),
        };
        let index = scan_blob(blob, number, &mut sink)?;
        sink.flush()?;
        regions.push(Region {
            start: sink.start,
            blocks: index.region_len / 4096,
        });
        tree.apply(index, &MergeOptions { created })?;
    }
    let plan = plan(&tree, &regions, &options)?;
    for run in plan.hidden() {
        file.write_all_at(&vec![0; run.count as usize * 4096], run.start.0 * 4096)?;
    }
    file.set_len(plan.size_bytes())?;
    write(&plan, &tree, &mut ImageFile(&file))?;
    Ok(Built {
        image: Image::check(&path)
            .with_context(|| plan.dump(&tree).chars().take(20_000).collect::<String>())?,
        expected: Listing::new(),
        created: Time {
            secs: created.seconds,
            nanos: created.nanoseconds,
        },
        plan: plan.dump(&tree),
        _dir: dir,
    })
}

fn scan_blob(blob: &[u8], number: u32, sink: &mut FileRegion<'_>) -> anyhow::Result<LayerIndex> {
    let (_, tar) = decompress(Box::new(blob))?;
    let (index, _) = scan(
        io::BufReader::new(tar),
        RegionIndex(number),
        sink,
        &Limits::default(),
    )?;
    Ok(index)
}

struct ImageFile<'a>(&'a File);

impl BlockSink for ImageFile<'_> {
    fn write_blocks(&mut self, start: BlockNumber, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, start.0 * 4096)
    }
}

/// A region that is written block by block to its place in the image.
struct FileRegion<'a> {
    file: &'a File,
    layout: Layout,
    start: DataBlock,
    /// Blocks written.
    len: u64,
    pending: Vec<u8>,
}

impl FileRegion<'_> {
    fn flush(&mut self) -> io::Result<()> {
        for block in self.pending.chunks(4096) {
            for run in self.layout.runs(DataBlock(self.start.0 + self.len), 1) {
                self.file.write_all_at(block, run.start.0 * 4096)?;
            }
            self.len += 1;
        }
        self.pending.clear();
        Ok(())
    }
}

impl RegionSink for FileRegion<'_> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend(bytes);
        if self.pending.len() >= 1 << 20 && self.pending.len().is_multiple_of(4096) {
            self.flush()?;
        }
        Ok(())
    }

    fn append_zeros(&mut self, len: usize) -> io::Result<()> {
        self.pending.resize(self.pending.len() + len, 0);
        Ok(())
    }
}
