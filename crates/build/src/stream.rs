//! One layer on its way: read, verified, decompressed and digested in threads, ready to be scanned.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use firebrick_digest::{Digest, Hasher};
use firebrick_layer::{Compression, decompress, detect};
use firebrick_source::Layer;

use crate::ahead::{AheadReader, Opened, Pool, read_ahead};
use crate::error::BuildError;

/// Buffers for decompressed bytes, all layers together, in pieces: 160 MiB.
const TAR_PIECES: usize = 640;
/// As many of them are left to the layer that is being scanned, whatever those behind it would like.
const SCANNED_PIECES: usize = 128;
/// Buffers for reading a blob ahead of its decompression.
const BLOB_PIECES: usize = 4;
/// How far the diff ID may be behind the scan, in pieces.
const DIGEST_PIECES: usize = 32;
/// Buffers of a layer that is not compressed. Whoever reads such a one is faster than whoever scans it, and few buffers stay
/// in the cores' cache.
const PLAIN_PIECES: usize = 32;
/// Most layers that are decompressed at once: each holds a piece and a queue's worth of them.
const LAYERS_MAX: usize = 16;

/// Ratio of decompression counts only from here on, in bytes of output.
const RATIO_FREE_BYTES: u64 = 64 << 20;

/// What the layers of a build share.
pub(crate) struct Shared {
    /// How many layers are decompressed at once.
    pub(crate) layers_at_once: usize,
    tars: Pool,
    /// How far a layer may be decompressed ahead, in pieces.
    ahead: usize,
}

impl Shared {
    pub(crate) fn new(layers_at_once: usize) -> Shared {
        let layers_at_once = layers_at_once.clamp(1, LAYERS_MAX);
        Shared {
            layers_at_once,
            tars: Pool::new(TAR_PIECES),
            // All but one wait behind the one that is scanned. Those together never hold the pieces that it needs.
            ahead: match layers_at_once - 1 {
                0 => SCANNED_PIECES,
                waiting => (TAR_PIECES - SCANNED_PIECES) / waiting,
            },
        }
    }
}

/// A layer being decompressed.
pub(crate) struct LayerStream {
    /// The uncompressed tar.
    pub(crate) tar: AheadReader,
    digest: JoinHandle<Option<Digest>>,
    inflate: JoinHandle<()>,
    /// Bytes read of the blob.
    pub(crate) stored_bytes: Arc<AtomicU64>,
}

/// Where a layer's bytes come from.
pub(crate) enum LayerBytes {
    Source(Layer),
    Made(Vec<u8>),
}

impl LayerStream {
    /// Starts all threads of a layer.
    pub(crate) fn start(
        bytes: LayerBytes,
        layer: usize,
        ratio: u64,
        shared: &Shared,
    ) -> Result<LayerStream, BuildError> {
        let stored_bytes = Arc::new(AtomicU64::new(0));
        let inner: Box<dyn Read + Send> = match bytes {
            LayerBytes::Source(source) => source.open().map_err(|source| BuildError::Open {
                layer,
                source: Box::new(source),
            })?,
            LayerBytes::Made(tar) => Box::new(io::Cursor::new(tar)),
        };
        let count = stored_bytes.clone();
        let blob = Counted { inner, count };
        let thread_error = |source| BuildError::Output {
            doing: "start threads for",
            path: "layer".into(),
            source,
        };
        let pool = shared.tars.clone();
        let queues = [shared.ahead, DIGEST_PIECES];
        let (mut tars, inflate) =
            read_ahead("inflate", &queues, move || inflated(blob, pool, ratio)).map_err(thread_error)?;
        let (to_digest, tar) = (tars.pop().expect("two queues"), tars.pop().expect("two queues"));
        let digest = std::thread::Builder::new()
            .name("digest".into())
            .spawn(move || digest_of(to_digest))
            .map_err(thread_error)?;
        Ok(LayerStream {
            tar,
            digest,
            inflate,
            stored_bytes,
        })
    }

    /// The diff ID, once the tar has been read to its end; `None` if reading failed.
    pub(crate) fn finish(self) -> Option<Digest> {
        drop(self.tar);
        let digest = self.digest.join().ok().flatten();
        _ = self.inflate.join();
        digest
    }
}

/// The tar in `blob`, and the buffers for it: `pool` if it is compressed. Then the blob is read, and its digest verified,
/// in a thread of its own.
fn inflated(blob: Counted, pool: Pool, ratio: u64) -> io::Result<Opened> {
    let stored = blob.count.clone();
    let (compression, blob) = detect(blob)?;
    if compression == Compression::None {
        return Ok((Box::new(blob), Pool::new(PLAIN_PIECES)));
    }
    let open = move || Ok((Box::new(blob) as _, Pool::new(BLOB_PIECES)));
    let (mut readers, _) = read_ahead("read", &[BLOB_PIECES], open)?;
    let blob = readers.pop().expect("one queue was asked for");
    let tar = Bounded {
        inner: decompress(compression, blob)?,
        out: 0,
        stored,
        ratio,
    };
    Ok((Box::new(tar), pool))
}

fn digest_of(mut tar: AheadReader) -> Option<Digest> {
    let mut hasher = Hasher::new();
    // The scan meets the same error and says it.
    while let Some(piece) = tar.next_piece().ok()? {
        hasher.update(piece.bytes());
    }
    Some(hasher.finish())
}

/// Counts what is read.
struct Counted {
    inner: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.count.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

/// Stops a decompression bomb.
struct Bounded {
    inner: Box<dyn Read + Send>,
    out: u64,
    stored: Arc<AtomicU64>,
    ratio: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.out += len as u64;
        let stored = self.stored.load(Ordering::Relaxed);
        if self.out > RATIO_FREE_BYTES && self.out / self.ratio.max(1) > stored {
            let why = format!(
                "{stored} compressed bytes became over {} bytes, more than the ratio of {}",
                self.out, self.ratio
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(len)
    }
}
