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

/// Bytes that are read and given at a time, where no chunk may be longer than half of them.
const WINDOW_LEN: usize = 1 << 20;

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

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// So many bytes of zeros.
    Hole(u64),
    /// The bytes of one chunk.
    Chunk(&'a [u8]),
}

/// Some pieces in the order of the image, as they were read: nothing is copied to cut.
#[derive(Debug, Default)]
pub struct Window {
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Hole(u64),
    /// From where to where in the window.
    Chunk(usize, usize),
}

impl Window {
    /// A window that is a single chunk.
    pub(crate) fn of_chunk(bytes: Vec<u8>) -> Window {
        let parts = vec![Part::Chunk(0, bytes.len())];
        Window { bytes, parts }
    }

    /// What is in it.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.parts.iter().map(|part| match *part {
            Part::Hole(len) => Piece::Hole(len),
            Part::Chunk(start, end) => Piece::Chunk(&self.bytes[start..end]),
        })
    }

    /// The room for another window; new memory costs as much as reading into it.
    pub fn into_room(self) -> Vec<u8> {
        self.bytes
    }
}

/// Cuts a file of `len` bytes and gives `each` window in order; stops early when `each` fails. `room` gives a window's memory back.
///
/// # Errors
/// What reading gives, or what `each` gives.
pub fn cut<E: From<io::Error>>(
    file: &File,
    len: u64,
    cuts: Cuts,
    mut room: impl FnMut() -> Option<Vec<u8>>,
    mut each: impl FnMut(Window) -> Result<(), E>,
) -> Result<(), E> {
    let mut cutter = Cutter::new(cuts);
    let mut position = 0;
    while position < len {
        let (data, end) = next_data(file, position, len)?;
        let gap = data - position;
        if cutter.may_be_inside(gap) {
            // Few enough to be read like data: then they lie in the chunk.
            cutter.read(file, position, data, &mut room, &mut each)?;
        } else {
            cutter.hole(gap);
        }
        cutter.read(file, data, end, &mut room, &mut each)?;
        position = end;
    }
    cutter.end();
    each(cutter.window)
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

/// The state between blocks. Lengths are in bytes.
struct Cutter {
    cuts: Cuts,
    window: Window,
    /// How much of the window is read.
    filled: usize,
    /// Where the chunk began that is not cut yet.
    start: Option<usize>,
    /// Where its last block ended that is not zeros.
    end: usize,
    /// Its blocks up to there.
    blocks: usize,
    /// Zeros behind that.
    inside: usize,
    /// Zeros that no chunk holds and that were not given yet.
    outside: u64,
}

impl Cutter {
    fn new(cuts: Cuts) -> Cutter {
        let mut cutter = Cutter {
            cuts,
            window: Window::default(),
            filled: 0,
            start: None,
            end: 0,
            blocks: 0,
            inside: 0,
            outside: 0,
        };
        cutter.window.bytes = vec![0; cutter.window_len()];
        cutter
    }

    fn window_len(&self) -> usize {
        WINDOW_LEN.max(2 * BLOCK_LEN * (self.cuts.max + self.cuts.hole))
    }

    /// Whether so many zeros may lie in the middle of a chunk.
    fn may_be_inside(&self, len: u64) -> bool {
        self.start.is_some() && len < (self.cuts.hole * BLOCK_LEN) as u64
    }

    /// Reads from `position` to `end`, and gives what is full.
    fn read<E: From<io::Error>>(
        &mut self,
        file: &File,
        mut position: u64,
        end: u64,
        room: &mut impl FnMut() -> Option<Vec<u8>>,
        each: &mut impl FnMut(Window) -> Result<(), E>,
    ) -> Result<(), E> {
        while position < end {
            if self.filled == self.window.bytes.len() {
                each(self.take(room()))?;
            }
            let from = self.filled;
            let left = self.window.bytes.len() - from;
            let want = usize::try_from(end - position).map_or(left, |want| want.min(left));
            file.read_exact_at(&mut self.window.bytes[from..from + want], position)?;
            self.filled += want;
            position += want as u64;
            for at in (from..self.filled).step_by(BLOCK_LEN) {
                self.block(at, (at + BLOCK_LEN).min(self.filled));
            }
        }
        Ok(())
    }

    /// The window so far. What is not cut yet moves to the next one.
    fn take(&mut self, room: Option<Vec<u8>>) -> Window {
        let len = self.window_len();
        let room = room
            .filter(|room| room.len() == len)
            .unwrap_or_else(|| vec![0; len]);
        let next = Window {
            bytes: room,
            parts: Vec::new(),
        };
        let full = std::mem::replace(&mut self.window, next);
        let start = self.start.unwrap_or(self.filled);
        let rest = &full.bytes[start..self.filled];
        self.window.bytes[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
        self.end = self.end.saturating_sub(start);
        self.start = self.start.map(|_| 0);
        full
    }

    fn block(&mut self, from: usize, to: usize) {
        let block = &self.window.bytes[from..to];
        if is_zero(block) {
            if self.start.is_none() {
                self.outside += block.len() as u64;
                return;
            }
            self.inside += block.len();
            let blocks = self.inside / BLOCK_LEN;
            // What fills a chunk to its end is cut there, so that no chunk is longer than the longest.
            if blocks >= self.cuts.hole || self.blocks + blocks >= self.cuts.max {
                self.close();
            }
            return;
        }
        let wanted = self.cuts.wanted(block);
        if self.start.is_none() {
            self.give_hole();
            self.start = Some(from);
        }
        self.blocks += 1 + std::mem::take(&mut self.inside) / BLOCK_LEN;
        self.end = to;
        if self.blocks >= self.cuts.max || (self.blocks >= self.cuts.min && wanted) {
            self.close();
        }
    }

    /// Zeros that are not read.
    fn hole(&mut self, len: u64) {
        if len > 0 {
            self.close();
            self.outside += len;
        }
    }

    /// Ends the chunk; zeros behind it are none of it.
    fn close(&mut self) {
        if let Some(start) = self.start.take() {
            self.window.parts.push(Part::Chunk(start, self.end));
        }
        self.blocks = 0;
        self.outside += std::mem::take(&mut self.inside) as u64;
    }

    fn give_hole(&mut self) {
        if self.outside > 0 {
            self.window
                .parts
                .push(Part::Hole(std::mem::take(&mut self.outside)));
        }
    }

    fn end(&mut self) {
        self.close();
        self.give_hole();
    }
}

/// Whether there is nothing but zeros in `bytes`.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// The rules as they are said, over all blocks at once: lengths of chunks and, negative, of holes.
    fn by_the_rules(image: &[u8], cuts: Cuts) -> Vec<i64> {
        let mut pieces = Vec::new();
        let (mut chunk, mut zeros) = (Vec::<&[u8]>::new(), Vec::<&[u8]>::new());
        let len = |blocks: &[&[u8]]| i64::try_from(blocks.concat().len()).unwrap();
        for block in image.chunks(BLOCK_LEN) {
            if block.iter().all(|byte| *byte == 0) {
                zeros.push(block);
                continue;
            }
            let inside = !chunk.is_empty() && zeros.len() < cuts.hole && chunk.len() + zeros.len() < cuts.max;
            if !zeros.is_empty() && !inside {
                pieces.extend([len(&chunk), -len(&zeros)]);
                (chunk, zeros) = Default::default();
            }
            chunk.append(&mut zeros);
            chunk.push(block);
            if chunk.len() >= cuts.max || (chunk.len() >= cuts.min && cuts.wanted(block)) {
                pieces.push(len(&chunk));
                chunk.clear();
            }
        }
        pieces.extend([len(&chunk), -len(&zeros)]);
        pieces.retain(|len| *len != 0);
        pieces
    }

    /// Blocks of data and runs of zeros of many lengths, some of which are no part of the file.
    fn image(seed: u32) -> (Vec<u8>, File) {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = move |below: u32| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state % below
        };
        let mut bytes = Vec::new();
        let mut file = tempfile::tempfile().unwrap();
        while bytes.len() < 5 << 20 {
            let is_long = next(30) == 0;
            let blocks = next(if is_long { 300 } else { 9 }) as usize;
            match next(3) {
                0 => bytes.resize(bytes.len() + blocks * BLOCK_LEN, 0),
                _ => (0..blocks).for_each(|_| {
                    let word = (next(u32::MAX) | 1).to_le_bytes();
                    bytes.extend(word.iter().cycle().take(BLOCK_LEN));
                }),
            }
        }
        // A last block that is none.
        bytes.extend(vec![u8::try_from(seed % 2).unwrap(); 700]);
        for (at, block) in (0_u64..).zip(bytes.chunks(BLOCK_LEN)) {
            if !is_zero(block) || at % 5 == 0 {
                file.write_all_at(block, at * BLOCK_LEN as u64).unwrap();
            }
        }
        file.flush().unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        (bytes, file)
    }

    #[test]
    fn windows_hold_what_the_rules_say() {
        let other = Cuts {
            min: 1,
            one_in: 4,
            max: 300,
            hole: 2,
        };
        for (seed, cuts) in [(1, Cuts::PUBLISHED), (2, Cuts::PUBLISHED), (3, other), (4, other)] {
            let (bytes, file) = image(seed);
            let (mut found, mut back) = (Vec::new(), Vec::new());
            let mut rooms = Vec::new();
            let mut windows = 0;
            let spare = std::cell::RefCell::new(&mut rooms);
            cut(
                &file,
                bytes.len() as u64,
                cuts,
                || spare.borrow_mut().pop(),
                |window| -> io::Result<()> {
                    windows += 1;
                    for piece in window.pieces() {
                        match piece {
                            Piece::Hole(len) => {
                                found.push(-i64::try_from(len).unwrap());
                                back.resize(back.len() + usize::try_from(len).unwrap(), 0);
                            }
                            Piece::Chunk(chunk) => {
                                found.push(i64::try_from(chunk.len()).unwrap());
                                back.extend_from_slice(chunk);
                            }
                        }
                    }
                    spare.borrow_mut().push(window.into_room());
                    Ok(())
                },
            )
            .unwrap();
            assert!(back == bytes, "seed {seed}");
            assert_eq!(found, by_the_rules(&bytes, cuts), "seed {seed}");
            assert!(windows >= 2 && found.len() > 50, "{windows} {}", found.len());
        }
    }
}
