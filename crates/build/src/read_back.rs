//! Reading files of the merged tree back from the unfinished image, for the layer that is made from what lies below it.

use std::io;

use firebrick_ext4::Region;
use firebrick_ext4::geometry::DataBlock;
use firebrick_tree::FileData;

use crate::image_file::ImageFile;

const BLOCK: u64 = 4096;

impl ImageFile {
    /// What a file holds. Everything before must be [drained](ImageFile::drain).
    pub(crate) fn read_back(&self, data: &FileData, regions: &[Region]) -> io::Result<Vec<u8>> {
        let outside = || io::Error::other("a file reaches out of its layer");
        let mut bytes = Vec::new();
        for segment in &data.segments {
            let region = usize::try_from(segment.region.0)
                .ok()
                .and_then(|index| regions.get(index));
            let region = region.ok_or_else(outside)?;
            let count = segment.len.div_ceil(BLOCK);
            if segment.region_offset / BLOCK + count > region.blocks {
                return Err(outside());
            }
            bytes.resize(usize::try_from(segment.file_offset).map_err(|_| outside())?, 0);
            let start = DataBlock(region.start.0 + segment.region_offset / BLOCK);
            for run in self.layout().runs(start, count) {
                self.read_blocks(run.start, &mut bytes, run.count)?;
            }
            let end = segment.file_offset + segment.len;
            bytes.truncate(usize::try_from(end).map_err(|_| outside())?);
        }
        bytes.resize(usize::try_from(data.size).map_err(|_| outside())?, 0);
        Ok(bytes)
    }
}
