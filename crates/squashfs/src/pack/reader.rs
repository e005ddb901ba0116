//! Reads contents back in their order, and decides what is a block, a tail, zeros, or there already.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender};

use firebrick_tree::{FileData, Kind, Tree};
use sha2::{Digest as _, Sha256};

use super::{Content, Contents, Job};
use crate::plan::Plan;

/// Where a file's content lies, as far as that is known before it is compressed.
#[derive(Clone, Debug)]
pub(super) struct FileLayout {
    pub(super) size: u64,
    /// Its blocks among those of all files.
    pub(super) blocks: Range<usize>,
    /// The fragment that holds its tail, and the offset in it.
    pub(super) fragment: Option<(u32, u32)>,
    /// Bytes in blocks of zeros.
    pub(super) sparse: u64,
    /// The file before it, by its place in the plan, that has the same content.
    pub(super) same_as: Option<usize>,
}

/// Where the contents of all files lie.
#[derive(Debug, Default)]
pub(super) struct Layouts {
    /// By their place in the plan.
    pub(super) files: Vec<FileLayout>,
    /// How many blocks there are in all.
    pub(super) blocks: usize,
}

/// Why reading ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Contents cannot be read.
    Read(io::Error),
    /// Nobody takes the jobs any more, and has said why.
    Gone,
}

pub(super) struct Reader<'a, C> {
    plan: &'a Plan,
    tree: &'a Tree,
    contents: &'a C,
    jobs: SyncSender<Job>,
    empty: Receiver<Vec<u8>>,
    next_job: u64,
    /// Tails so far of the next fragment block, and how many fragment blocks there are before it.
    tails: Vec<u8>,
    fragments: u32,
    /// Files by the digest of their content, where another has the same length.
    known: HashMap<(u64, [u8; 32]), usize>,
    layouts: Layouts,
}

impl<'a, C: Contents> Reader<'a, C> {
    pub(super) fn new(
        plan: &'a Plan,
        tree: &'a Tree,
        contents: &'a C,
        jobs: SyncSender<Job>,
        empty: Receiver<Vec<u8>>,
    ) -> Reader<'a, C> {
        Reader {
            plan,
            tree,
            contents,
            jobs,
            empty,
            next_job: 0,
            tails: Vec::new(),
            fragments: 0,
            known: HashMap::new(),
            layouts: Layouts::default(),
        }
    }

    pub(super) fn run(mut self) -> Result<Layouts, Stop> {
        let tree = self.tree;
        let contents_of = |place: usize| match &tree.inode(self.plan.files[place]).kind {
            Kind::File(data) => data,
            _ => unreachable!("plan.files holds files alone"),
        };
        let mut of_size: HashMap<u64, u32> = HashMap::new();
        for place in 0..self.plan.files.len() {
            *of_size.entry(contents_of(place).size).or_default() += 1;
        }
        self.tails = self.empty.recv().map_err(|_| Stop::Gone)?;
        let mut spare = self.empty.recv().map_err(|_| Stop::Gone)?;
        for place in 0..self.plan.files.len() {
            let data = contents_of(place);
            let is_alone = of_size.get(&data.size) == Some(&1) || data.segments.is_empty();
            let layout = match self.same_as(place, data, is_alone, &mut spare)? {
                Some(original) => FileLayout {
                    same_as: Some(original),
                    ..self.layouts.files[original].clone()
                },
                None => self.file(place, data, &mut spare)?,
            };
            self.layouts.files.push(layout);
        }
        if !self.tails.is_empty() {
            let tails = std::mem::take(&mut self.tails);
            self.send(Content::Fragment, tails)?;
        }
        Ok(self.layouts)
    }

    fn block_size(&self) -> u64 {
        self.plan.options.block_size.into()
    }

    /// The first file with the same content. Only files of one length are compared, by a digest of all their bytes.
    fn same_as(
        &mut self,
        place: usize,
        data: &FileData,
        is_alone: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<usize>, Stop> {
        if is_alone {
            return Ok(None);
        }
        let mut digest = Sha256::new();
        let mut segments = Segments::of(data);
        for (number, block) in blocks(data.size, self.block_size()) {
            if segments.read(self.contents, block, buffer)? {
                digest.update(number.to_le_bytes());
                digest.update(&buffer);
            }
        }
        let key = (data.size, digest.finalize().into());
        match self.known.get(&key) {
            Some(&original) => Ok(Some(original)),
            None => {
                self.known.insert(key, place);
                Ok(None)
            }
        }
    }

    /// Sends the blocks of a file and keeps its tail. `buffer` is an empty one, before and after.
    fn file(&mut self, place: usize, data: &FileData, buffer: &mut Vec<u8>) -> Result<FileLayout, Stop> {
        let first = self.layouts.blocks;
        let mut layout = FileLayout {
            size: data.size,
            blocks: first..first,
            fragment: None,
            sparse: 0,
            same_as: None,
        };
        let mut segments = Segments::of(data);
        for (_, block) in blocks(data.size, self.block_size()) {
            let len = block.end - block.start;
            let has_bytes =
                segments.read(self.contents, block, buffer)? && buffer.iter().any(|&byte| byte != 0);
            if has_bytes && len < self.block_size() {
                layout.fragment = Some(self.keep_tail(buffer)?);
                continue;
            }
            let block = layout.blocks.end;
            layout.blocks.end += 1;
            if has_bytes {
                let empty = self.empty.recv().map_err(|_| Stop::Gone)?;
                let full = std::mem::replace(buffer, empty);
                self.send(Content::Block { file: place, block }, full)?;
            } else {
                layout.sparse += len;
            }
        }
        self.layouts.blocks = layout.blocks.end;
        Ok(layout)
    }

    /// Puts a tail behind the others, or first into the next fragment block. Where it is.
    fn keep_tail(&mut self, tail: &[u8]) -> Result<(u32, u32), Stop> {
        if (self.tails.len() + tail.len()) as u64 > self.block_size() {
            let empty = self.empty.recv().map_err(|_| Stop::Gone)?;
            let full = std::mem::replace(&mut self.tails, empty);
            self.tails.clear();
            self.send(Content::Fragment, full)?;
            self.fragments += 1;
        }
        let offset = u32::try_from(self.tails.len()).expect("blocks have at most 1 MiB");
        self.tails.extend_from_slice(tail);
        Ok((self.fragments, offset))
    }

    fn send(&mut self, content: Content, bytes: Vec<u8>) -> Result<(), Stop> {
        let number = self.next_job;
        self.next_job += 1;
        let job = Job {
            number,
            content,
            bytes,
        };
        self.jobs.send(job).map_err(|_| Stop::Gone)
    }
}

/// The blocks of a file of this size: numbers, and ranges of bytes of the file.
fn blocks(size: u64, block_size: u64) -> impl Iterator<Item = (u64, Range<u64>)> {
    (0..size.div_ceil(block_size)).map(move |number| {
        let start = number * block_size;
        (number, start..size.min(start.saturating_add(block_size)))
    })
}

/// A file's segments, of which those before the last block that was read are done with.
struct Segments<'a> {
    data: &'a FileData,
    next: usize,
}

impl<'a> Segments<'a> {
    fn of(data: &'a FileData) -> Segments<'a> {
        Segments { data, next: 0 }
    }

    /// Fills `buffer` with a range of the file; `false`, and an unchanged buffer, where no segment reaches into it.
    fn read<C: Contents>(
        &mut self,
        contents: &C,
        range: Range<u64>,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, Stop> {
        let mut found = false;
        while let Some(segment) = self.data.segments.get(self.next) {
            let segment_end = segment.file_offset + segment.len;
            let (start, end) = (segment.file_offset.max(range.start), segment_end.min(range.end));
            if start < end {
                if !found {
                    buffer.clear();
                    buffer.resize((range.end - range.start) as usize, 0);
                    found = true;
                }
                let part = &mut buffer[(start - range.start) as usize..(end - range.start) as usize];
                let offset = segment.region_offset + (start - segment.file_offset);
                contents
                    .read_at(segment.region, offset, part)
                    .map_err(Stop::Read)?;
            }
            if segment_end > range.end {
                break;
            }
            self.next += 1;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebrick_tree::{RegionIndex, Segment};

    struct Ones;

    impl Contents for Ones {
        fn read_at(&self, _: RegionIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            assert!(offset + buffer.len() as u64 <= 20_000);
            buffer.fill(1);
            Ok(())
        }
    }

    #[test]
    fn blocks_are_made_of_segments_and_zeros() {
        let segment = |file_offset, region_offset, len| Segment {
            file_offset,
            region: RegionIndex(0),
            region_offset,
            len,
        };
        let data = FileData {
            size: 50_000,
            segments: vec![
                segment(4096, 0, 8192),
                segment(16_384, 8192, 4096),
                segment(40_960, 12_288, 7000),
            ],
        };
        let mut segments = Segments::of(&data);
        let mut buffer = Vec::new();
        let mut ones = Vec::new();
        for (_, range) in blocks(data.size, 8192) {
            let len = (range.end - range.start) as usize;
            let found = segments.read(&Ones, range, &mut buffer).unwrap();
            assert!(!found || buffer.len() == len);
            ones.push(if found {
                buffer.iter().map(|&byte| usize::from(byte)).sum()
            } else {
                0
            });
        }
        assert_eq!(ones, [4096, 4096, 4096, 0, 0, 7000, 0]);
    }
}
