//! The build itself.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::path::Path;

use firebrick_digest::Digest;
use firebrick_ext4::geometry::{DataBlock, Layout};
use firebrick_ext4::{Plan, PlanError, Region, Size, region_start};
use firebrick_layer::{ScanSummary, scan};
use firebrick_tree::{FileData, LayerIndex, MergeOptions, Metadata, RegionIndex, Timestamp, Tree};

use crate::ahead::AheadReader;
use crate::error::BuildError;
use crate::fullness::Fullness;
use crate::image_file::ImageFile;
use crate::key::{BuildKey, build_key};
use crate::request::{Customise, Event, Filesystem, LayerReport, Merged, Report, Request};
use crate::stream::{LayerBytes, LayerStream, Shared};

const BLOCK: u64 = 4096;

/// How often progress of a layer is told, in bytes of its tar.
const PROGRESS_STEP: u64 = 4 << 20;

/// Builds an image file. The output appears whole or not at all.
///
/// # Errors
/// [`BuildError`]: nothing is left under the output's name that was not there before, nor beside it.
pub fn build(request: Request<'_>, events: &(dyn Fn(Event) + Sync)) -> Result<Report, BuildError> {
    let Request {
        image,
        customise,
        output,
        filesystem,
        limits,
        created,
        layers_at_once,
    } = request;
    let (file, target) =
        Target::create(filesystem, created, &output).map_err(output_error("create", &output))?;
    let mut build = Build::new(file, &output, created, limits, layers_at_once, events);
    build.source_layers(image)?;
    if let Some(customise) = customise {
        build.made_layer(customise, matches!(target, Target::Ext4(_, None)))?;
    }
    build.finish(target)
}

/// Drops a tree: a tenth of a second for 190,000 entries, for which nobody needs to wait. Where no thread starts, it happens here.
pub(crate) fn drop_later(tree: Tree) {
    _ = std::thread::Builder::new()
        .name("drop".into())
        .spawn(move || drop(tree));
}

/// What the regions become once all layers are merged.
enum Target {
    /// The file that holds them becomes the image, or another into which they are moved together.
    Ext4(firebrick_ext4::Options, Option<Box<ImageFile>>),
    /// They are compressed into this one.
    Squashfs(firebrick_squashfs::Options, Box<ImageFile>),
}

impl Target {
    /// The file for the regions, and what is to become of it.
    fn create(
        filesystem: Filesystem,
        created: Timestamp,
        output: &Path,
    ) -> std::io::Result<(ImageFile, Target)> {
        match filesystem {
            Filesystem::Ext4(mut options) => {
                options.created = created;
                let layout = Layout {
                    online_resize: options.online_resize,
                };
                let size = match options.size {
                    Size::Auto | Size::Least => None,
                    Size::Bytes(bytes) => Some(bytes),
                };
                let image = ImageFile::create(output, layout, size)?;
                Ok(match options.size {
                    Size::Least => {
                        let scratch = ImageFile::scratch(output)?;
                        (scratch, Target::Ext4(options, Some(Box::new(image))))
                    }
                    _ => (image, Target::Ext4(options, None)),
                })
            }
            Filesystem::Squashfs(mut options) => {
                options.created = created;
                let layout = Layout { online_resize: false };
                let image = ImageFile::create(output, layout, None)?;
                Ok((
                    ImageFile::scratch(output)?,
                    Target::Squashfs(options, Box::new(image)),
                ))
            }
        }
    }
}

pub(crate) fn output_error<'a>(
    doing: &'static str,
    path: &'a Path,
) -> impl Fn(std::io::Error) -> BuildError + use<'a> {
    move |source| BuildError::Output {
        doing,
        path: path.to_owned(),
        source,
    }
}

pub(crate) struct Build<'a> {
    pub(crate) file: ImageFile,
    pub(crate) output: &'a Path,
    pub(crate) tree: Tree,
    merge: MergeOptions,
    limits: firebrick_layer::Limits,
    /// What the layers so far hold.
    scanned: ScanSummary,
    shared: Shared,
    pub(crate) regions: Vec<Region>,
    pub(crate) reports: Vec<LayerReport>,
    pub(crate) events: &'a (dyn Fn(Event) + Sync),
}

impl<'a> Build<'a> {
    /// Nothing read yet.
    pub(crate) fn new(
        file: ImageFile,
        output: &'a Path,
        created: Timestamp,
        limits: firebrick_layer::Limits,
        layers_at_once: usize,
        events: &'a (dyn Fn(Event) + Sync),
    ) -> Build<'a> {
        Build {
            file,
            output,
            tree: Tree::new(Metadata {
                mtime: created,
                ..Metadata::default()
            }),
            merge: MergeOptions {
                created,
                inodes: u32::try_from(limits.entries).unwrap_or(u32::MAX),
            },
            limits,
            scanned: ScanSummary::default(),
            shared: Shared::new(layers_at_once),
            regions: Vec::new(),
            reports: Vec::new(),
            events,
        }
    }
}

impl Build<'_> {
    pub(crate) fn source_layers(&mut self, image: &firebrick_source::OciImage) -> Result<(), BuildError> {
        let mut waiting = image.layers.iter().enumerate();
        let mut started = VecDeque::new();
        loop {
            while started.len() < self.shared.layers_at_once
                && let Some((place, layer)) = waiting.next()
            {
                let bytes = LayerBytes::Source(layer.clone());
                let stream = LayerStream::start(bytes, place, self.limits.ratio, &self.shared)?;
                started.push_back((layer, stream));
            }
            let Some((layer, stream)) = started.pop_front() else {
                return Ok(());
            };
            self.layer(layer.digest, layer.diff_id, layer.size, stream)?;
        }
    }

    /// The layer that firebrick adds, made from what the others merged to.
    fn made_layer(&mut self, customise: Customise<'_>, has_regions: bool) -> Result<(), BuildError> {
        let tar = self.make(customise, has_regions)?;
        let len = tar.len() as u64;
        // Our own bytes: they may compress as well as they like, since they are not compressed.
        let stream = LayerStream::start(LayerBytes::Made(tar), self.reports.len(), u64::MAX, &self.shared)?;
        self.layer(None, None, Some(len), stream)
    }

    /// The tar of a layer over what is there.
    pub(crate) fn make(
        &mut self,
        customise: Customise<'_>,
        has_regions: bool,
    ) -> Result<Vec<u8>, BuildError> {
        if !has_regions {
            self.reports
                .iter_mut()
                .for_each(|layer| layer.region_start = None);
        }
        let next_region = has_regions.then(|| self.place_of(self.next_start())).flatten();
        // Whoever reads waits for what is still being written; mostly nobody does.
        let file = std::cell::RefCell::new(&mut self.file);
        let read = |data: &FileData| {
            let mut file = file.borrow_mut();
            file.drain()?;
            file.read_back(data, &self.regions)
        };
        let merged = Merged {
            tree: &self.tree,
            layers: &self.reports,
            next_region,
            read: &read,
        };
        customise(&merged).map_err(|source| BuildError::Customise { source })
    }

    fn layer(
        &mut self,
        digest: Option<Digest>,
        expected: Option<Digest>,
        stored_bytes: Option<u64>,
        mut stream: LayerStream,
    ) -> Result<(), BuildError> {
        let layer = self.reports.len();
        (self.events)(Event::LayerStarted { layer, stored_bytes });
        let start = self.next_start();
        self.file
            .start_region(start)
            .map_err(output_error("write", self.output))?;
        let index = RegionIndex(u32::try_from(layer).expect("manifests are bounded far below 2^32 layers"));
        let stored = stream.stored_bytes.clone();
        let tar = Told {
            inner: &mut stream.tar,
            until_told: PROGRESS_STEP,
            tell: || {
                let stored_bytes = stored.load(std::sync::atomic::Ordering::Relaxed);
                (self.events)(Event::LayerProgress { layer, stored_bytes });
            },
        };
        let scanned = scan(tar, index, &mut self.file, &self.limits, self.scanned);
        let diff_id = stream.finish();
        let (entries, summary) = scanned.map_err(|source| self.scan_error(layer, digest, source))?;
        let diff_id = diff_id.expect("the scan reads the tar to its end, so the digest saw it too");
        if let Some(expected) = expected.filter(|&expected| expected != diff_id) {
            return Err(BuildError::DiffId {
                layer,
                expected,
                actual: diff_id,
            });
        }
        self.add(start, digest, diff_id, entries, summary)?;
        (self.events)(Event::LayerFinished {
            layer,
            tar_bytes: summary.tar_bytes,
        });
        Ok(())
    }

    /// Where the region of the next layer starts.
    pub(crate) fn next_start(&self) -> DataBlock {
        region_start(
            self.regions
                .last()
                .map_or(DataBlock(0), |last| DataBlock(last.start.0 + last.blocks)),
        )
    }

    /// Where a data block lies in the image, in bytes.
    fn place_of(&self, start: DataBlock) -> Option<u64> {
        let layout = self.file.layout();
        layout.runs(start, 1).first().map(|run| run.start.0 * BLOCK)
    }

    fn scan_error(
        &self,
        layer: usize,
        digest: Option<Digest>,
        source: firebrick_layer::ScanError,
    ) -> BuildError {
        match source {
            firebrick_layer::ScanError::Write { source } => output_error("write", self.output)(source),
            source => BuildError::Scan {
                layer,
                digest,
                source,
            },
        }
    }

    fn add(
        &mut self,
        start: DataBlock,
        digest: Option<Digest>,
        diff_id: Digest,
        index: LayerIndex,
        summary: ScanSummary,
    ) -> Result<(), BuildError> {
        let layer = self.reports.len();
        self.scanned = self.scanned.plus(summary);
        let region = Region {
            start,
            blocks: index.region_len / BLOCK,
        };
        let region_start = self.place_of(start);
        self.reports.push(LayerReport {
            digest,
            diff_id,
            region_start,
            region_bytes: index.region_len,
            entries: summary.entries,
            file_bytes: summary.file_bytes,
        });
        self.regions.push(region);
        self.tree
            .apply(index, &self.merge)
            .map_err(|source| BuildError::Merge { layer, source })
    }

    fn finish(mut self, target: Target) -> Result<Report, BuildError> {
        let diff_ids: Vec<Digest> = self.reports.iter().map(|layer| layer.diff_id).collect();
        let created = self.merge.created;
        let key = |filesystem: &Filesystem| build_key(&diff_ids, filesystem, created);
        match target {
            Target::Ext4(mut options, image) => {
                let key = key(&Filesystem::Ext4(options.clone()));
                options.identity = *key.as_bytes();
                let brought: u64 = self.regions.iter().map(|region| region.blocks).sum();
                let moved = image.map(|image| self.compact(*image)).transpose()?;
                let left_behind = moved.map_or(0, |moved| brought - moved);
                self.finish_ext4(key, &options, left_behind)
            }
            Target::Squashfs(options, image) => {
                let key = key(&Filesystem::Squashfs(options.clone()));
                self.finish_squashfs(key, &options, *image)
            }
        }
    }

    /// `left_behind` are hidden blocks that are not in the file at all.
    fn finish_ext4(
        mut self,
        key: BuildKey,
        options: &firebrick_ext4::Options,
        left_behind: u64,
    ) -> Result<Report, BuildError> {
        let output = self.output;
        let plan = self.plan(options)?;
        let (inodes, inodes_used) = plan.inodes();
        (self.events)(Event::Merged {
            inodes: inodes_used.into(),
        });
        (self.events)(Event::Planned {
            size_bytes: plan.size_bytes(),
        });
        let hidden = plan.hidden();
        self.file.drain().map_err(output_error("write", self.output))?;
        self.file
            .punch(&hidden)
            .map_err(output_error("remove hidden contents from", self.output))?;
        firebrick_ext4::write(&plan, &self.tree, &mut self.file).map_err(|source| BuildError::Metadata {
            path: self.output.to_owned(),
            source,
        })?;
        (self.events)(Event::Written);
        let Build {
            file, tree, reports, ..
        } = self;
        let allocated_bytes = file
            .commit(plan.size_bytes())
            .map_err(output_error("finish", output))?;
        drop_later(tree);
        Ok(Report {
            build_key: key,
            size_bytes: plan.size_bytes(),
            allocated_bytes,
            free_bytes: plan.free_bytes(),
            inodes,
            inodes_used,
            uuid: Some(plan.uuid()),
            layers: reports,
            hidden_bytes: (left_behind + hidden.iter().map(|run| run.count).sum::<u64>()) * BLOCK,
            left_out_xattrs: plan.left_out_xattrs().to_vec(),
            clamped_times: 0,
            duplicates: 0,
        })
    }

    fn plan(&self, options: &firebrick_ext4::Options) -> Result<Plan, BuildError> {
        firebrick_ext4::plan(&self.tree, &self.regions, options).map_err(|error| match error {
            PlanError::TooSmall { needed, size } => {
                let regions: Vec<u64> = self.reports.iter().map(|layer| layer.region_bytes).collect();
                BuildError::DoesNotFit(Box::new(Fullness::new(size, needed, &regions, &self.tree)))
            }
            source => BuildError::Plan { source },
        })
    }
}

/// A tar that tells how far it was read.
struct Told<'a, F> {
    inner: &'a mut AheadReader,
    until_told: u64,
    tell: F,
}

impl<F: Fn()> BufRead for Told<'_, F> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.until_told = self.until_told.checked_sub(count as u64).unwrap_or_else(|| {
            (self.tell)();
            PROGRESS_STEP
        });
    }
}

impl<F: Fn()> Read for Told<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer)
    }
}
