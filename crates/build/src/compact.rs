//! An image as small as what is in it: what has a name is moved together into one region, and what is hidden is left behind.
//!
//! It costs what the other way saves: contents are written twice, and a layer that two images share no longer lies alike in both.

use firebrick_ext4::Region;
use firebrick_ext4::geometry::{BlockNumber, DataBlock};
use firebrick_layer::RegionSink as _;
use firebrick_tree::{FileData, InodeId, Kind, RegionIndex, Segment};

use crate::error::BuildError;
use crate::image_file::ImageFile;
use crate::run::{Build, output_error};

const BLOCK: u64 = 4096;
/// Blocks that are moved at once.
const BLOCKS_AT_ONCE: u64 = 256;

impl Build<'_> {
    /// Moves all contents into `image`, which becomes the file of the build. Gives how many blocks they have.
    pub(crate) fn compact(&mut self, image: ImageFile) -> Result<u64, BuildError> {
        self.move_to(image).map_err(output_error("write", self.output))
    }

    fn move_to(&mut self, mut image: ImageFile) -> std::io::Result<u64> {
        self.file.drain()?;
        let mut moved = 0;
        let mut files = self.named_files();
        files.sort_unstable();
        let regions = std::mem::take(&mut self.regions);
        let start = self.next_start();
        image.start_region(start)?;
        for (_, _, id) in files {
            let Some(data) = self.tree.file_mut(id) else {
                continue;
            };
            for segment in &mut data.segments {
                let count = segment.len.div_ceil(BLOCK);
                copy(&self.file, &regions, segment, &mut image)?;
                segment.region = RegionIndex(0);
                segment.region_offset = moved * BLOCK;
                moved += count;
            }
        }
        self.regions = vec![Region { start, blocks: moved }];
        self.reports
            .iter_mut()
            .for_each(|layer| layer.region_start = None);
        self.file = image;
        Ok(moved)
    }

    /// The files that have a name and contents, and where these begin; the contents of others are forgotten.
    fn named_files(&mut self) -> Vec<(RegionIndex, u64, InodeId)> {
        let mut named = vec![false; self.tree.inode_slots()];
        for (_, id) in self.tree.walk() {
            named[id.index()] = true;
        }
        let mut files = Vec::new();
        for id in self.tree.inode_ids() {
            if !matches!(self.tree.inode(id).kind, Kind::File(_)) {
                continue;
            }
            let Some(data) = self.tree.file_mut(id) else {
                continue;
            };
            if !named[id.index()] {
                *data = FileData::default();
            }
            if let Some(first) = data.segments.first() {
                files.push((first.region, first.region_offset, id));
            }
        }
        files
    }
}

/// Appends a segment's blocks to the region of `image`.
fn copy(
    from: &ImageFile,
    regions: &[Region],
    segment: &Segment,
    image: &mut ImageFile,
) -> std::io::Result<()> {
    let outside = || std::io::Error::other("a file reaches out of its layer");
    let region = usize::try_from(segment.region.0)
        .ok()
        .and_then(|index| regions.get(index))
        .ok_or_else(outside)?;
    let count = segment.len.div_ceil(BLOCK);
    if segment.region_offset / BLOCK + count > region.blocks {
        return Err(outside());
    }
    let start = DataBlock(region.start.0 + segment.region_offset / BLOCK);
    let mut blocks = Vec::new();
    for run in from.layout().runs(start, count) {
        let mut done = 0;
        while done < run.count {
            let at_once = (run.count - done).min(BLOCKS_AT_ONCE);
            blocks.clear();
            from.read_blocks(BlockNumber(run.start.0 + done), &mut blocks, at_once)?;
            image.append(&blocks)?;
            done += at_once;
        }
    }
    Ok(())
}
