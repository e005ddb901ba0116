//! The four compressions, one block at a time.

use std::io;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use liblzma::stream::{Action, Check, Filters, LzmaOptions, Stream};

use crate::format::SQUASHFS_METADATA_SIZE;
use crate::options::{Compression, Options};

/// What an XZ decoder may allocate, in bytes; dictionaries are no longer than blocks.
const XZ_MEMORY_MAX: u64 = 32 << 20;

/// Compresses blocks, each for itself.
pub(crate) enum Encoder {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(Box<Compress>),
    Lz4,
    Xz(Box<LzmaOptions>),
}

impl Encoder {
    pub(crate) fn new(options: &Options) -> io::Result<Encoder> {
        let level = options.effective_level();
        Ok(match options.compression {
            Compression::Zstd => Encoder::Zstd(zstd::bulk::Compressor::new(
                i32::try_from(level).unwrap_or(i32::MAX),
            )?),
            Compression::Gzip => {
                Encoder::Gzip(Box::new(Compress::new(flate2::Compression::new(level), true)))
            }
            Compression::Lz4 => Encoder::Lz4,
            Compression::Xz => {
                let mut lzma = LzmaOptions::new_preset(level).map_err(io::Error::other)?;
                // What the kernel allocates where the superblock says nothing else.
                lzma.dict_size(options.block_size.max(SQUASHFS_METADATA_SIZE as u32));
                Encoder::Xz(Box::new(lzma))
            }
        })
    }

    /// The block compressed, if that makes it shorter.
    pub(crate) fn encode(&mut self, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        // One byte less than the block: what does not fit is not wanted.
        let room = bytes.len().saturating_sub(1);
        let packed = match self {
            Encoder::Zstd(compressor) => Some(compressor.compress(bytes)?),
            Encoder::Gzip(compress) => {
                compress.reset();
                let mut out = Vec::with_capacity(room);
                let status = compress.compress_vec(bytes, &mut out, FlushCompress::Finish)?;
                (status == Status::StreamEnd).then_some(out)
            }
            Encoder::Lz4 => Some(lz4_flex::block::compress(bytes)),
            Encoder::Xz(options) => {
                let mut filters = Filters::new();
                filters.lzma2(options);
                let mut stream = Stream::new_stream_encoder(&filters, Check::Crc32)?;
                let mut out = Vec::with_capacity(room);
                let status = stream.process_vec(bytes, &mut out, Action::Finish)?;
                (status == liblzma::stream::Status::StreamEnd).then_some(out)
            }
        };
        Ok(packed.filter(|packed| packed.len() <= room && !packed.is_empty()))
    }
}

/// Decompresses one block of at most `limit` bytes; `None` if it is not one.
pub(crate) fn decode(compression: Compression, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let out = decode_any(compression, bytes, limit)?;
    // A vector may have been given more room than was asked for.
    (out.len() <= limit).then_some(out)
}

fn decode_any(compression: Compression, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    match compression {
        Compression::Zstd => zstd::bulk::decompress(bytes, limit).ok(),
        Compression::Gzip => {
            let mut out = Vec::with_capacity(limit);
            let status = Decompress::new(true).decompress_vec(bytes, &mut out, FlushDecompress::Finish);
            (status.ok()? == Status::StreamEnd).then_some(out)
        }
        Compression::Lz4 => lz4_flex::block::decompress(bytes, limit).ok(),
        Compression::Xz => {
            let mut out = Vec::with_capacity(limit);
            let mut stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, 0).ok()?;
            let status = stream.process_vec(bytes, &mut out, Action::Finish).ok()?;
            (status == liblzma::stream::Status::StreamEnd).then_some(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_the_same_again() {
        let text: Vec<u8> = (0..100_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .take(131_072)
            .collect();
        let mut noise = 1_u64;
        let noise: Vec<u8> = (0..5000)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (noise >> 56) as u8
            })
            .collect();
        for compression in Compression::ALL {
            let options = Options {
                compression,
                ..Options::default()
            };
            let mut encoder = Encoder::new(&options).unwrap();
            let packed = encoder.encode(&text).unwrap().unwrap();
            assert!(packed.len() < text.len() / 2, "{compression}: {}", packed.len());
            assert_eq!(
                decode(compression, &packed, text.len()).unwrap(),
                text,
                "{compression}"
            );
            assert_eq!(encoder.encode(&noise).unwrap(), None, "{compression}");
            // A used encoder gives what a new one gives.
            let again = encoder.encode(&text).unwrap().unwrap();
            assert_eq!(again, packed, "{compression}");
            assert_eq!(
                decode(compression, &packed, text.len() - 1),
                None,
                "{compression}: too long"
            );
            assert_eq!(
                decode(compression, &packed[..packed.len() - 9], text.len()),
                None,
                "{compression}: cut"
            );
        }
    }
}
