//! One layer on its way: read, verified, decompressed and digested in threads, ready to be scanned.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use firebrick_digest::{Digest, Hasher};
use firebrick_layer::decompress;
use firebrick_source::Layer;

use crate::ahead::{AheadReader, PIECE_LEN, Pool, read_ahead};
use crate::error::BuildError;

/// How far decompression may be ahead, in bytes, all layers at once together.
const AHEAD_BYTES: usize = 96 << 20;
/// How far reading the blob may be ahead of decompression, in pieces.
const BLOB_PIECES: usize = 8;
/// How far the diff ID may be behind the scan, in pieces.
const DIGEST_PIECES: usize = 32;

/// Ratio of decompression counts only from here on, in bytes of output.
const RATIO_FREE_BYTES: u64 = 64 << 20;

/// A layer being decompressed.
pub(crate) struct LayerStream {
    /// The uncompressed tar.
    pub(crate) tar: AheadReader,
    digest: JoinHandle<Option<Digest>>,
    threads: Vec<JoinHandle<()>>,
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
        layers_at_once: usize,
        pool: &Pool,
    ) -> Result<LayerStream, BuildError> {
        let stored_bytes = Arc::new(AtomicU64::new(0));
        let opened: Box<dyn Read + Send> = match bytes {
            LayerBytes::Source(source) => source.open().map_err(|source| BuildError::Open {
                layer,
                source: Box::new(source),
            })?,
            LayerBytes::Made(tar) => Box::new(io::Cursor::new(tar)),
        };
        let blob = Counted {
            inner: opened,
            count: stored_bytes.clone(),
        };
        let thread_error = |source| BuildError::Output {
            doing: "start threads for",
            path: "layer".into(),
            source,
        };
        let (mut blobs, reading) =
            read_ahead("read", pool, &[BLOB_PIECES], move || Ok(Box::new(blob))).map_err(thread_error)?;
        let blob = blobs.pop().expect("one queue was asked for");
        let count = stored_bytes.clone();
        let open = move || {
            let (_, tar) = decompress(Box::new(blob))?;
            Ok(Box::new(Bounded {
                inner: tar,
                out: 0,
                stored: count,
                ratio,
            }) as Box<dyn Read + Send>)
        };
        let pieces = AHEAD_BYTES / PIECE_LEN / layers_at_once.max(2);
        let queues = [pieces.max(1), DIGEST_PIECES.min(pieces.max(1))];
        let (mut tars, inflating) = read_ahead("inflate", pool, &queues, open).map_err(thread_error)?;
        let (to_digest, tar) = (tars.pop().expect("two queues"), tars.pop().expect("two queues"));
        let digest = std::thread::Builder::new()
            .name("digest".into())
            .spawn(move || digest_of(to_digest))
            .map_err(thread_error)?;
        Ok(LayerStream {
            tar,
            digest,
            threads: vec![reading, inflating],
            stored_bytes,
        })
    }

    /// The diff ID, once the tar has been read to its end; `None` if reading failed.
    pub(crate) fn finish(self) -> Option<Digest> {
        drop(self.tar);
        let digest = self.digest.join().ok().flatten();
        for thread in self.threads {
            _ = thread.join();
        }
        digest
    }
}

fn digest_of(mut tar: AheadReader) -> Option<Digest> {
    let mut hasher = Hasher::new();
    // The scan meets the same error and says it.
    while let Some(piece) = tar.next_piece().ok()? {
        hasher.update(piece.bytes());
        tar.give_back(piece);
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
