//! The last part of a build that makes a squashfs: what the layers brought is read back and compressed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use firebrick_ext4::Region;
use firebrick_ext4::geometry::Layout;
use firebrick_squashfs::{Contents, Options};
use firebrick_tree::{Kind, RegionIndex, Tree};

use crate::error::BuildError;
use crate::image_file::ImageFile;
use crate::key::BuildKey;
use crate::request::{Event, Report};
use crate::run::{Build, drop_later, output_error};

const BLOCK: u64 = 4096;

/// How much is read back between two [`Event::CompressProgress`], in bytes.
const STEP: u64 = 1 << 20;

/// The file that holds the regions.
struct Scratch<'a> {
    file: &'a File,
    regions: &'a [Region],
    layout: Layout,
    /// Bytes read so far.
    read: AtomicU64,
    /// How many there are. Bytes that are read again, to compare them, do not count.
    content_bytes: u64,
    events: &'a (dyn Fn(Event) + Sync),
}

impl Contents for Scratch<'_> {
    fn read_at(&self, region: RegionIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let outside = || io::Error::other("a file reaches out of its layer");
        let region = usize::try_from(region.0)
            .ok()
            .and_then(|index| self.regions.get(index));
        let region = region.ok_or_else(outside)?;
        if offset + buffer.len() as u64 > region.blocks * BLOCK {
            return Err(outside());
        }
        let start = self
            .layout
            .runs(region.start, 1)
            .first()
            .map(|run| run.start.0 * BLOCK);
        self.file
            .read_exact_at(buffer, start.ok_or_else(outside)? + offset)?;
        let len = buffer.len() as u64;
        let before = self.read.fetch_add(len, Ordering::Relaxed);
        let after = before + len;
        if before / STEP != after / STEP {
            let content_bytes = self.content_bytes;
            let read_bytes = after.min(content_bytes);
            (self.events)(Event::CompressProgress {
                read_bytes,
                content_bytes,
            });
        }
        Ok(())
    }
}

impl Build<'_> {
    /// Compresses everything that has a name into `image`.
    pub(crate) fn finish_squashfs(
        mut self,
        key: BuildKey,
        options: &Options,
        mut image: ImageFile,
    ) -> Result<Report, BuildError> {
        let plan = firebrick_squashfs::plan(&self.tree, options)
            .map_err(|source| BuildError::PlanSquashfs { source })?;
        let inodes = plan.inodes();
        (self.events)(Event::Merged {
            inodes: inodes.into(),
        });
        let content_bytes = held_bytes(&self.tree);
        (self.events)(Event::Compressing { content_bytes });
        self.file.drain().map_err(output_error("write", self.output))?;
        let scratch = Scratch {
            file: self.file.file(),
            regions: &self.regions,
            layout: self.file.layout(),
            read: AtomicU64::new(0),
            content_bytes,
            events: self.events,
        };
        let summary =
            firebrick_squashfs::write(&plan, &self.tree, &scratch, &mut image).map_err(|source| {
                BuildError::Squashfs {
                    path: self.output.to_owned(),
                    source,
                }
            })?;
        (self.events)(Event::Written);
        let allocated_bytes = image
            .commit(summary.size_bytes)
            .map_err(output_error("finish", self.output))?;
        let brought: u64 = self.regions.iter().map(|region| region.blocks * BLOCK).sum();
        let Build {
            tree,
            reports: mut layers,
            ..
        } = self;
        drop_later(tree);
        for layer in &mut layers {
            layer.region_start = None;
        }
        Ok(Report {
            build_key: key,
            size_bytes: summary.size_bytes,
            allocated_bytes,
            free_bytes: 0,
            inodes,
            inodes_used: inodes,
            uuid: None,
            layers,
            hidden_bytes: brought.saturating_sub(content_bytes),
            left_out_xattrs: plan.left_out_xattrs().to_vec(),
            clamped_times: plan.clamped_times(),
            duplicates: summary.duplicates,
        })
    }
}

/// Bytes that the files of a tree take in regions.
fn held_bytes(tree: &Tree) -> u64 {
    let mut seen = vec![false; tree.inode_slots()];
    let mut total = 0;
    for (_, id) in tree.walk() {
        if let Kind::File(data) = &tree.inode(id).kind
            && !std::mem::replace(&mut seen[id.index()], true)
        {
            let lens = data
                .segments
                .iter()
                .map(|segment| segment.len.next_multiple_of(BLOCK));
            total += lens.sum::<u64>();
        }
    }
    total
}
