//! Contents on their way into the image: read back in their order, compressed in threads, written in their order again.
//!
//! ```text
//! contents ─► reader ─► jobs ─► compress (a few threads) ─► done ─► appended in order of the jobs
//!             (thread)                                            (here)
//!                ▲                                                  │
//!                └───────────────── empty buffers ◄─────────────────┘
//! ```
//!
//! A *job* is one block to compress: of a file, or a *fragment block*, which holds the tails of many files. The reader alone
//! decides what the jobs are and numbers them, so the threads change nothing but the time. There are only so many buffers,
//! which bounds everything that is on its way.

mod reader;

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use firebrick_tree::{RegionIndex, Tree};

use crate::compress::Encoder;
use crate::error::WriteError;
use crate::format::{DATA_UNCOMPRESSED, FragmentEntry};
use crate::inode::FileContent;
use crate::plan::Plan;
use crate::write::{Appender, BlockSink};
use reader::{FileLayout, Layouts, Reader, Stop};

/// More threads than this only wait for each other.
const THREADS_MAX: usize = 64;

/// File contents as layers brought them, to be read back.
pub trait Contents: Sync {
    /// Fills `buffer` with bytes of a region.
    ///
    /// # Errors
    /// What reading gives; the image is then not usable.
    fn read_at(&self, region: RegionIndex, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// What a job's bytes are.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// A block of a file: the file's place in the plan, and the block's among those of all files.
    Block { file: usize, block: usize },
    /// A fragment block. They are numbered in the order in which they come.
    Fragment,
}

/// One block to compress.
struct Job {
    number: u64,
    content: Content,
    bytes: Vec<u8>,
}

/// A block that can be written.
struct Done {
    job: Job,
    /// Its compressed bytes, if they are fewer.
    packed: Option<Vec<u8>>,
}

/// Where all contents lie.
#[derive(Default)]
pub(crate) struct Packed {
    layouts: Layouts,
    written: Written,
}

impl Packed {
    /// The content of a file, by its place in the plan.
    pub(crate) fn file(&self, file: usize) -> FileContent<'_> {
        let layout: &FileLayout = &self.layouts.files[file];
        let original = layout.same_as.unwrap_or(file);
        let blocks = layout.blocks.clone();
        FileContent {
            size: layout.size,
            start: self.written.starts.get(&original).copied().unwrap_or(0),
            blocks: self.written.lens.get(blocks).unwrap_or_default(),
            fragment: layout.fragment,
            sparse: layout.sparse,
        }
    }

    pub(crate) fn fragments(&self) -> &[FragmentEntry] {
        &self.written.fragments
    }

    pub(crate) fn duplicates(&self) -> u64 {
        self.layouts
            .files
            .iter()
            .map(|file| u64::from(file.same_as.is_some()))
            .sum()
    }
}

/// Where blocks were written.
#[derive(Default)]
struct Written {
    /// Where the first block of a file lies that is not zeros.
    starts: BTreeMap<usize, u64>,
    /// Stored lengths of all files' blocks, with the bit that says how; 0 for zeros.
    lens: Vec<u32>,
    fragments: Vec<FragmentEntry>,
}

/// Compresses the contents of all files and appends them to the image.
pub(crate) fn pack<C: Contents, S: BlockSink>(
    plan: &Plan,
    tree: &Tree,
    contents: &C,
    out: &mut Appender<'_, S>,
) -> Result<Packed, WriteError> {
    if plan.files.is_empty() {
        return Ok(Packed::default());
    }
    let threads = plan.options.threads.clamp(1, THREADS_MAX);
    // One is read into, one collects tails; beside each that is compressed two may wait.
    let buffers = 3 * threads + 2;
    let (jobs, to_compress) = sync_channel::<Job>(buffers);
    let (done, to_write) = sync_channel::<io::Result<Done>>(buffers + threads);
    let (free, empty) = sync_channel::<Vec<u8>>(buffers);
    for _ in 0..buffers {
        free.send(Vec::new()).expect("there is room for all of them");
    }
    let to_compress = &Mutex::new(to_compress);
    let compress_error = |source| WriteError::Compress { source };
    std::thread::scope(|scope| {
        let reader = Reader::new(plan, tree, contents, jobs, empty);
        let reading = std::thread::Builder::new()
            .name("read back".into())
            .spawn_scoped(scope, move || reader.run())
            .map_err(compress_error)?;
        for _ in 0..threads {
            let done = done.clone();
            std::thread::Builder::new()
                .name("compress".into())
                .spawn_scoped(scope, move || compress(plan, to_compress, &done))
                .map_err(compress_error)?;
        }
        drop(done);
        let mut written = write_in_order(&to_write, free, out)?;
        let layouts = match reading.join() {
            Ok(Ok(layouts)) => layouts,
            Ok(Err(Stop::Read(source))) => return Err(WriteError::Read { source }),
            Ok(Err(Stop::Gone)) | Err(_) => return Err(compress_error(io::Error::other("a thread stopped"))),
        };
        // Zeros at the end have no job.
        written.lens.resize(layouts.blocks, 0);
        Ok(Packed { layouts, written })
    })
}

/// Says that its thread panicked; else whoever waits for the block would wait for ever.
struct Alarm<'a>(&'a SyncSender<io::Result<Done>>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            _ = self
                .0
                .send(Err(io::Error::other("a compressing thread panicked")));
        }
    }
}

/// Compresses jobs until there are no more, or nobody wants them.
fn compress(plan: &Plan, jobs: &Mutex<Receiver<Job>>, done: &SyncSender<io::Result<Done>>) {
    let _alarm = Alarm(done);
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
    let mut encoder = match Encoder::new(&plan.options) {
        Ok(encoder) => encoder,
        Err(error) => {
            _ = done.send(Err(error));
            return;
        }
    };
    while let Some(job) = next() {
        let packed = encoder.encode(&job.bytes);
        if done.send(packed.map(|packed| Done { job, packed })).is_err() {
            return;
        }
    }
}

/// Appends blocks in the order of their jobs, and gives their buffers back.
fn write_in_order<S: BlockSink>(
    done: &Receiver<io::Result<Done>>,
    free: SyncSender<Vec<u8>>,
    out: &mut Appender<'_, S>,
) -> Result<Written, WriteError> {
    let mut written = Written::default();
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for block in done {
        let block = block.map_err(|source| WriteError::Compress { source })?;
        waiting.insert(block.job.number, block);
        while let Some(Done { job, packed }) = waiting.remove(&next) {
            next += 1;
            let (bytes, flag) = match &packed {
                Some(packed) => (packed, 0),
                None => (&job.bytes, DATA_UNCOMPRESSED),
            };
            let start = out.position();
            let len = u32::try_from(bytes.len()).expect("blocks have at most 1 MiB") | flag;
            out.append(bytes).map_err(|source| WriteError::Write { source })?;
            match job.content {
                Content::Block { file, block } => {
                    written.starts.entry(file).or_insert(start);
                    written.lens.resize(block, 0);
                    written.lens.push(len);
                }
                Content::Fragment => written.fragments.push(FragmentEntry {
                    start_block: start.into(),
                    size: len.into(),
                    unused: 0.into(),
                }),
            }
            // The reader may be done.
            _ = free.send(job.bytes);
        }
    }
    Ok(written)
}
