//! The image file while it is being made: without a name, written past the page cache where that works.
//!
//! Two facts decide its shape. A file opened with `O_TMPFILE` has no name, so whatever kills us, nothing is left.
//! And `fsync` of gigabytes that lie in the page cache takes several times as long as writing them directly
//! (`docs/performance.md`), so everything is collected into aligned buffers of 1 MiB that a thread writes with
//! `O_DIRECT`. Filesystems that know neither get a named file, and ordinary writes. Names: [`crate::place`].

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use firebrick_ext4::BlockSink;
use firebrick_ext4::geometry::{BlockNumber, DataBlock, Layout, Run};
use firebrick_layer::RegionSink;
use rustix::fs::FallocateFlags;

use crate::place::Place;

const BLOCK: usize = 4096;
/// Bytes of one buffer.
const BUFFER_LEN: usize = 1 << 20;
/// Buffers in all: one is filled while others are written, and a disk that stops for a moment stops nobody else.
const BUFFERS: usize = 16;

/// [`BUFFER_LEN`] bytes, aligned as `O_DIRECT` wants them.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// Zeros, which the kernel makes where they are touched; an aligned allocation would be filled with them here.
    fn new() -> Buffer {
        let bytes = vec![0; BUFFER_LEN + BLOCK];
        let start = bytes.as_ptr().align_offset(BLOCK);
        Buffer { bytes, start }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + BUFFER_LEN]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + BUFFER_LEN]
    }
}

/// A buffer and where it belongs.
struct Piece {
    start: BlockNumber,
    buffer: Buffer,
    /// Bytes of it that count; a multiple of the block size when it is sent.
    len: usize,
}

/// An image that has no name yet.
pub(crate) struct ImageFile {
    file: File,
    place: Place,
    /// The name of a file that could not be made without one.
    named: Option<PathBuf>,
    writer: Option<JoinHandle<io::Result<()>>>,
    filled: Option<SyncSender<Piece>>,
    empty: Receiver<Buffer>,
    /// Buffers that came back.
    pool: Vec<Buffer>,
    /// Buffers that may still be made.
    to_make: usize,
    current: Option<Piece>,
    /// What is still to come of the region being written.
    region: VecDeque<Run>,
    /// Blocks of data space written so far of the region, and where it started.
    layout: Layout,
    region_start: DataBlock,
    region_bytes: u64,
    /// No region may reach past this block.
    end: BlockNumber,
    /// Write no more of regions: one reached past `end`, so the content does not fit. Reading goes on, to say by how
    /// much.
    discard: bool,
}

impl ImageFile {
    /// Starts an image that will be named `output`, of at most `size` bytes if that is given.
    pub(crate) fn create(output: &Path, layout: Layout, size: Option<u64>) -> io::Result<ImageFile> {
        let place = Place::of(output)?;
        place.remove_stale();
        let (file, named) = match place.open_unnamed_direct() {
            Some(file) => (file, None),
            None => place.open_named().map(|(file, path)| (file, Some(path)))?,
        };
        ImageFile::start(file, place, named, layout, size)
    }

    /// Starts a file for contents that are read back before the image beside `output` is written. It never gets a name,
    /// and is not written past the page cache, where most of it is still found.
    pub(crate) fn scratch(output: &Path) -> io::Result<ImageFile> {
        let place = Place::of(output)?;
        let layout = Layout { online_resize: false };
        ImageFile::start(place.open_scratch()?, place, None, layout, None)
    }

    fn start(
        file: File,
        place: Place,
        named: Option<PathBuf>,
        layout: Layout,
        size: Option<u64>,
    ) -> io::Result<ImageFile> {
        let (filled, to_write) = sync_channel::<Piece>(BUFFERS);
        let (give_back, empty) = sync_channel(BUFFERS);
        let out = file.try_clone()?;
        let writer = std::thread::Builder::new()
            .name("write".into())
            .spawn(move || write_pieces(&out, &to_write, &give_back))?;
        Ok(ImageFile {
            file,
            place,
            named,
            writer: Some(writer),
            filled: Some(filled),
            empty,
            pool: Vec::new(),
            to_make: BUFFERS,
            current: None,
            region: VecDeque::new(),
            layout,
            region_start: DataBlock(0),
            region_bytes: 0,
            end: BlockNumber(size.map_or(u64::MAX, |size| size / BLOCK as u64)),
            discard: false,
        })
    }

    /// From here on, appended bytes belong to the region that starts at `start`.
    pub(crate) fn start_region(&mut self, start: DataBlock) -> io::Result<()> {
        self.flush()?;
        self.region.clear();
        self.region_start = start;
        self.region_bytes = 0;
        Ok(())
    }

    /// How data space lies in this image.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The file, to read back what is written once it is [drained](ImageFile::drain).
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Reads whole blocks of the file into `blocks`, once they are [drained](ImageFile::drain). What was never written reads
    /// as zeros.
    pub(crate) fn read_blocks(&self, start: BlockNumber, blocks: &mut Vec<u8>, count: u64) -> io::Result<()> {
        // The file may be open past the page cache, which wants its own alignment.
        let mut buffer = Buffer::new();
        let mut offset = start.0 * BLOCK as u64;
        let mut left = count * BLOCK as u64;
        while left > 0 {
            let want = left.min(BUFFER_LEN as u64) as usize;
            let len = self.file.read_at(&mut buffer[..want], offset)? / BLOCK * BLOCK;
            if len == 0 {
                buffer[..want].fill(0);
            }
            let len = if len == 0 { want } else { len };
            blocks.extend_from_slice(&buffer[..len]);
            offset += len as u64;
            left -= len as u64;
        }
        Ok(())
    }

    /// Writes nothing more of regions.
    fn discard(&mut self) {
        self.discard = true;
        self.pool.extend(self.current.take().map(|piece| piece.buffer));
    }

    /// Takes hidden blocks, which are written, out of the file, so that nobody finds in it what an upper layer removed.
    pub(crate) fn punch(&mut self, runs: &[Run]) -> io::Result<()> {
        for run in runs {
            let (offset, len) = (run.start.0 * BLOCK as u64, run.count * BLOCK as u64);
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&self.file, flags, offset, len) {
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.zero(offset, len)?,
                other => other?,
            }
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let zeros = Buffer::new();
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..piece as usize], offset + done)?;
            done += piece;
        }
        Ok(())
    }

    /// Makes the image last, and gives it its name. Gives how many bytes the disk holds of it.
    pub(crate) fn commit(mut self, size_bytes: u64) -> io::Result<u64> {
        self.drain()?;
        // Never: a plan refuses what does not fit. An image without its contents would be the worst of outcomes.
        if self.discard {
            return Err(io::Error::other("contents were left out"));
        }
        self.file.set_len(size_bytes)?;
        self.file.sync_all()?;
        let allocated = self.file.metadata()?.blocks() * 512;
        let temporary = match self.named.take() {
            Some(path) => path,
            None => self.place.link(&self.file)?,
        };
        self.place.rename(&temporary)?;
        Ok(allocated)
    }

    /// The buffer to put bytes for `start` into: the current one if they follow it.
    fn buffer_for(&mut self, start: BlockNumber) -> io::Result<&mut Piece> {
        let fits = self.current.as_ref().is_some_and(|piece| {
            piece.len < BUFFER_LEN
                && piece.len.is_multiple_of(BLOCK)
                && piece.start.0 + (piece.len / BLOCK) as u64 == start.0
        });
        if !fits {
            self.flush()?;
            let buffer = self.empty_buffer()?;
            self.current = Some(Piece {
                start,
                buffer,
                len: 0,
            });
        }
        Ok(self.current.as_mut().expect("it was there or was just made"))
    }

    /// A buffer to fill: one that came back, if there is one, so that a small image touches few.
    fn empty_buffer(&mut self) -> io::Result<Buffer> {
        if let Some(buffer) = self.pool.pop().or_else(|| self.empty.try_recv().ok()) {
            return Ok(buffer);
        }
        if let Some(left) = self.to_make.checked_sub(1) {
            self.to_make = left;
            return Ok(Buffer::new());
        }
        // The writer gives every buffer back, or ends with an error.
        self.empty.recv().map_err(|_| self.writer_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(piece) = self.current.take() else {
            return Ok(());
        };
        let sent = self
            .filled
            .as_ref()
            .is_some_and(|filled| filled.send(piece).is_ok());
        if sent { Ok(()) } else { Err(self.writer_error()) }
    }

    /// What made the writer stop.
    fn writer_error(&mut self) -> io::Error {
        self.filled = None;
        match self.writer.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => error,
            _ => io::Error::other("the writing thread stopped"),
        }
    }

    /// Waits until everything so far is written.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        self.flush()?;
        while self.pool.len() + self.to_make < BUFFERS {
            match self.empty.recv() {
                Ok(buffer) => self.pool.push(buffer),
                Err(_) => return Err(self.writer_error()),
            }
        }
        Ok(())
    }

    /// Copies whole or partial blocks to the region's next place.
    fn append_with(&mut self, len: usize, mut fill: impl FnMut(&mut [u8], usize)) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let block = self.region_bytes / BLOCK as u64;
            let within = (self.region_bytes % BLOCK as u64) as usize;
            if within == 0 && self.region.front().is_none_or(|run| run.count == 0) {
                self.region.pop_front();
                // As far as data space goes on without a step; far more than any region.
                let start = DataBlock(self.region_start.0 + block);
                self.region.extend(self.layout.runs(start, 1 << 15));
            }
            let run = *self.region.front().expect("just filled");
            if run.start >= self.end {
                self.discard();
                return Ok(());
            }
            let piece = if within == 0 {
                self.buffer_for(run.start)?
            } else {
                self.current
                    .as_mut()
                    .expect("a block that was begun is in the buffer")
            };
            let room = (BUFFER_LEN - piece.len).min(run.count as usize * BLOCK - within);
            let count = room.min(len - done);
            fill(&mut piece.buffer[piece.len..piece.len + count], done);
            piece.len += count;
            done += count;
            self.region_bytes += count as u64;
            let finished = (within + count) / BLOCK;
            let front = self.region.front_mut().expect("just used");
            front.start.0 += finished as u64;
            front.count -= finished as u64;
        }
        Ok(())
    }
}

impl RegionSink for ImageFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.discard {
            return Ok(());
        }
        self.append_with(bytes.len(), |to, from| {
            to.copy_from_slice(&bytes[from..from + to.len()])
        })
    }

    fn append_zeros(&mut self, len: usize) -> io::Result<()> {
        if self.discard {
            return Ok(());
        }
        self.append_with(len, |to, _| to.fill(0))
    }
}

impl BlockSink for ImageFile {
    fn write_blocks(&mut self, start: BlockNumber, bytes: &[u8]) -> io::Result<()> {
        for (block, bytes) in (start.0..).zip(bytes.chunks(BLOCK)) {
            let piece = self.buffer_for(BlockNumber(block))?;
            piece.buffer[piece.len..piece.len + BLOCK].copy_from_slice(bytes);
            piece.len += BLOCK;
        }
        Ok(())
    }
}

impl firebrick_squashfs::BlockSink for ImageFile {
    fn write_blocks(&mut self, start: u64, bytes: &[u8]) -> io::Result<()> {
        BlockSink::write_blocks(self, BlockNumber(start), bytes)
    }
}

impl Drop for ImageFile {
    fn drop(&mut self) {
        self.filled = None;
        self.current = None;
        if let Some(writer) = self.writer.take() {
            _ = writer.join();
        }
        if let Some(path) = &self.named {
            _ = std::fs::remove_file(path);
        }
    }
}

fn write_pieces(file: &File, pieces: &Receiver<Piece>, give_back: &SyncSender<Buffer>) -> io::Result<()> {
    for piece in pieces {
        file.write_all_at(&piece.buffer[..piece.len], piece.start.0 * BLOCK as u64)?;
        // Nobody waits for it any more when the image is being given up.
        _ = give_back.send(piece.buffer);
    }
    Ok(())
}
