//! Where an image is cut into chunks.
//!
//! Filesystems keep files in whole blocks, so whatever moves inside an image moves by whole blocks. Cuts are therefore looked
//! for at block boundaries only, which is cheap, and are chosen by what stands before them, so that what moved is cut as before.
//! Blocks of zeros are no chunk: they are holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The unit of cuts, in bytes: that of every filesystem that firebrick writes.
pub const BLOCK_LEN: usize = 4096;

/// Bytes that are read at a time.
const WINDOW_LEN: usize = 1 << 20;

/// Who takes the pieces, one by one.
trait Sink<E>: FnMut(Piece) -> Result<(), E> {}
impl<E, F: FnMut(Piece) -> Result<(), E>> Sink<E> for F {}

/// How chunks are cut. All lengths are in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cuts {
    /// No cut is looked for before this many.
    pub min: usize,
    /// A cut stands behind one block in so many (a power of two), on the average; 0: only behind `max`.
    pub one_in: u32,
    /// A cut is made after this many.
    pub max: usize,
    /// Zero blocks in a row that are a hole rather than part of a chunk.
    pub hole: usize,
}

impl Cuts {
    /// What images are published with; chosen by measurement (`docs/store.md`). Another choice shares nothing with it.
    pub const PUBLISHED: Cuts = Cuts {
        min: 2,
        one_in: 8,
        max: 32,
        hole: 4,
    };

    /// Whether a cut may stand behind `block`.
    fn wanted(self, block: &[u8]) -> bool {
        // The checksum's low bits follow single bytes too closely; the product's high bits follow all of it.
        self.one_in > 0 && mixed(crc32c::crc32c(block)) < u32::MAX / self.one_in
    }
}

fn mixed(checksum: u32) -> u32 {
    checksum.wrapping_mul(0x9e37_79b1)
}

/// A part of an image, in the order of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of zeros.
    Hole(u64),
    /// The bytes of one chunk.
    Chunk(Vec<u8>),
}

/// Cuts a file of `len` bytes and gives `each` piece in order; stops early when `each` fails.
///
/// # Errors
/// What reading gives, or what `each` gives.
pub fn cut<E: From<io::Error>>(
    file: &File,
    len: u64,
    cuts: Cuts,
    mut each: impl FnMut(Piece) -> Result<(), E>,
) -> Result<(), E> {
    let mut cutter = Cutter::new(cuts);
    let mut window = vec![0; WINDOW_LEN];
    let mut position = 0;
    while position < len {
        let (data, end) = next_data(file, position, len)?;
        cutter.zeros += data - position;
        position = data;
        while position < end {
            let want = usize::try_from(end - position).map_or(WINDOW_LEN, |left| left.min(WINDOW_LEN));
            let bytes = &mut window[..want];
            file.read_exact_at(bytes, position)?;
            for block in bytes.chunks(BLOCK_LEN) {
                cutter.block(block, &mut each)?;
            }
            position += want as u64;
        }
    }
    cutter.finish(&mut each)
}

/// The next data at or behind `position` and where it ends, both at a block's boundary or at the end of the file.
fn next_data(file: &File, position: u64, len: u64) -> io::Result<(u64, u64)> {
    let seek = |to| match rustix::fs::seek(file, to) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(io::Error::from(error)),
    };
    let block = BLOCK_LEN as u64;
    match seek(SeekFrom::Data(position)) {
        Ok(None) => Ok((len, len)),
        Ok(Some(data)) => {
            let data = (data.min(len) / block * block).max(position);
            let hole = seek(SeekFrom::Hole(data))?.unwrap_or(len);
            Ok((data, hole.max(data + 1).next_multiple_of(block).min(len)))
        }
        // A filesystem that does not know holes.
        Err(_) => Ok((position, len)),
    }
}

/// The state between blocks.
struct Cutter {
    cuts: Cuts,
    chunk: Vec<u8>,
    blocks: usize,
    /// Bytes of zeros that came last and are neither in the chunk nor given.
    zeros: u64,
}

impl Cutter {
    fn new(cuts: Cuts) -> Cutter {
        Cutter {
            cuts,
            chunk: Vec::new(),
            blocks: 0,
            zeros: 0,
        }
    }

    fn block<E>(&mut self, block: &[u8], each: &mut impl Sink<E>) -> Result<(), E> {
        if is_zero(block) {
            self.zeros += block.len() as u64;
            return Ok(());
        }
        self.settle_zeros(each)?;
        self.chunk.extend_from_slice(block);
        self.blocks += 1;
        let full = self.blocks >= self.cuts.max;
        if full || (self.blocks >= self.cuts.min && self.cuts.wanted(block)) {
            self.give_chunk(each)?;
        }
        Ok(())
    }

    /// Zeros that something follows: a hole, or a few blocks in the middle of a chunk.
    fn settle_zeros<E>(&mut self, each: &mut impl Sink<E>) -> Result<(), E> {
        if self.zeros == 0 {
            return Ok(());
        }
        let blocks = usize::try_from(self.zeros).unwrap_or(usize::MAX) / BLOCK_LEN;
        // What fills a chunk to its end is cut there, so that no chunk is longer than the longest.
        let inside = self.blocks > 0 && blocks < self.cuts.hole && self.blocks + blocks < self.cuts.max;
        if inside {
            self.chunk.resize(self.chunk.len() + blocks * BLOCK_LEN, 0);
            self.blocks += blocks;
            self.zeros = 0;
            return Ok(());
        }
        self.give_chunk(each)?;
        each(Piece::Hole(std::mem::take(&mut self.zeros)))
    }

    fn give_chunk<E>(&mut self, each: &mut impl Sink<E>) -> Result<(), E> {
        self.blocks = 0;
        if self.chunk.is_empty() {
            return Ok(());
        }
        each(Piece::Chunk(std::mem::take(&mut self.chunk)))
    }

    fn finish<E>(mut self, each: &mut impl Sink<E>) -> Result<(), E> {
        self.give_chunk(each)?;
        if self.zeros > 0 {
            each(Piece::Hole(self.zeros))?;
        }
        Ok(())
    }
}

/// Whether there is nothing but zeros in `bytes`.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
