//! A stream of metadata: cut into blocks of 8 KiB, each compressed for itself with its length in front.

use std::io;

use crate::compress::Encoder;
use crate::format::{METADATA_UNCOMPRESSED, SQUASHFS_METADATA_SIZE};

/// A place in a stream: where the compressed block starts, and the offset in it once it is decompressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// From the start of the stream, in bytes.
    pub(crate) block: u32,
    /// Below 8192.
    pub(crate) offset: u16,
}

impl Position {
    /// Both in one number, as the kernel has it.
    pub(crate) fn reference(self) -> u64 {
        (u64::from(self.block) << 16) | u64::from(self.offset)
    }
}

/// Collects a stream in memory, compressed.
#[derive(Default)]
pub(crate) struct MetadataWriter {
    /// Finished blocks.
    out: Vec<u8>,
    /// The block that is being filled; never full.
    block: Vec<u8>,
    /// Where each finished block starts.
    starts: Vec<u32>,
}

impl MetadataWriter {
    /// Where the next byte goes.
    pub(crate) fn position(&self) -> io::Result<Position> {
        let block = u32::try_from(self.out.len())
            .map_err(|_| io::Error::other("a table of metadata is longer than 4 GiB"))?;
        // A block is flushed when it is full.
        let offset = u16::try_from(self.block.len()).map_err(io::Error::other)?;
        Ok(Position { block, offset })
    }

    /// How many bytes went in.
    pub(crate) fn len(&self) -> u64 {
        (self.starts.len() * SQUASHFS_METADATA_SIZE + self.block.len()) as u64
    }

    /// The start of the block that holds byte `at` of the stream, which is not beyond its end.
    pub(crate) fn block_of(&self, at: u64) -> io::Result<u32> {
        let block = usize::try_from(at / SQUASHFS_METADATA_SIZE as u64).map_err(io::Error::other)?;
        match self.starts.get(block) {
            Some(start) => Ok(*start),
            None => Ok(self.position()?.block),
        }
    }

    /// Adds bytes.
    pub(crate) fn append(&mut self, mut bytes: &[u8], encoder: &mut Encoder) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = SQUASHFS_METADATA_SIZE - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == SQUASHFS_METADATA_SIZE {
                self.flush(encoder)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, encoder: &mut Encoder) -> io::Result<()> {
        self.starts.push(self.position_of_block()?);
        put_block(&mut self.out, &self.block, encoder)?;
        self.block.clear();
        Ok(())
    }

    fn position_of_block(&self) -> io::Result<u32> {
        u32::try_from(self.out.len())
            .map_err(|_| io::Error::other("a table of metadata is longer than 4 GiB"))
    }

    /// The blocks, and where each of them starts.
    pub(crate) fn finish(mut self, encoder: &mut Encoder) -> io::Result<(Vec<u8>, Vec<u32>)> {
        if !self.block.is_empty() {
            self.flush(encoder)?;
        }
        Ok((self.out, self.starts))
    }
}

/// Adds one block with its length to `out`.
fn put_block(out: &mut Vec<u8>, block: &[u8], encoder: &mut Encoder) -> io::Result<()> {
    let packed = encoder.encode(block)?;
    let (bytes, flag) = match &packed {
        Some(packed) => (packed.as_slice(), 0),
        None => (block, METADATA_UNCOMPRESSED),
    };
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    out.extend((len | flag).to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn positions_name_the_block_and_the_offset_in_it() {
        let mut encoder = Encoder::new(&Options::default()).unwrap();
        let mut stream = MetadataWriter::default();
        stream.append(&[7; 8191], &mut encoder).unwrap();
        assert_eq!(
            stream.position().unwrap(),
            Position {
                block: 0,
                offset: 8191
            }
        );
        stream.append(&[7; 2], &mut encoder).unwrap();
        let second = stream.position().unwrap();
        assert!(second.block > 2 && second.offset == 1, "{second:?}");
        assert_eq!(stream.len(), 8193);
        assert_eq!(stream.block_of(8191).unwrap(), 0);
        assert_eq!(stream.block_of(8192).unwrap(), second.block);
        let (bytes, starts) = stream.finish(&mut encoder).unwrap();
        assert_eq!(starts, [0, second.block]);
        // One byte is not made shorter.
        assert_eq!(bytes[second.block as usize..], [1, 0x80, 7]);
    }
}
