//! Decompression of kernels and modules: whole buffers in, whole buffers out, never more than a stated limit.
//!
//! *lz4 legacy* is the framing the kernel's build uses (`lz4 -l`): the magic `02 21 4c 18`, then blocks of a
//! little-endian length and that many compressed bytes, each at most 8 MiB once decompressed.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::io::{self, Read};

/// What a legacy lz4 block holds at most, decompressed.
const LZ4_BLOCK_LIMIT_BYTES: usize = 8 << 20;

/// How some bytes are compressed, told by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip (RFC 1952).
    Gzip,
    /// xz.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
    /// The kernel's lz4 framing.
    Lz4Legacy,
}

impl Compression {
    /// Recognises a compression by magic number.
    pub fn detect(bytes: &[u8]) -> Option<Compression> {
        [
            (&[0x1f, 0x8b][..], Compression::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&[0x02, 0x21, 0x4c, 0x18], Compression::Lz4Legacy),
        ]
        .into_iter()
        .find_map(|(magic, compression)| bytes.starts_with(magic).then_some(compression))
    }

    /// The usual name.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
            Compression::Lz4Legacy => "lz4",
        }
    }
}

/// Decompresses the first stream in `bytes`; whatever follows it is left alone.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the stream is broken, or longer than `limit_bytes` once decompressed.
pub fn decompress(compression: Compression, bytes: &[u8], limit_bytes: usize) -> io::Result<Vec<u8>> {
    match compression {
        Compression::Gzip => read_bounded(flate2::bufread::GzDecoder::new(bytes), limit_bytes),
        Compression::Xz => read_bounded(liblzma::bufread::XzDecoder::new(bytes), limit_bytes),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame();
            read_bounded(decoder, limit_bytes)
        }
        Compression::Lz4Legacy => lz4_legacy(bytes, limit_bytes),
    }
}

fn read_bounded(reader: impl Read, limit_bytes: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
    let mut out = Vec::new();
    reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|error| {
            // The decoders have various kinds for "these bytes are broken"; callers want one.
            io::Error::new(io::ErrorKind::InvalidData, error)
        })?;
    if out.len() > limit_bytes {
        Err(too_long(limit_bytes))
    } else {
        Ok(out)
    }
}

fn lz4_legacy(bytes: &[u8], limit_bytes: usize) -> io::Result<Vec<u8>> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let mut rest = bytes
        .get(4..)
        .ok_or_else(|| invalid("lz4 stream without a header"))?;
    let mut out = Vec::new();
    let mut block = vec![0; LZ4_BLOCK_LIMIT_BYTES];
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| invalid("lz4 block too long"))?;
        let Some((compressed, after)) = after.split_at_checked(len) else {
            // The payload's trailing length word may follow the last block.
            if after.is_empty() && !out.is_empty() {
                break;
            }
            return Err(invalid("lz4 block is cut off"));
        };
        let written = lz4_flex::block::decompress_into(compressed, &mut block)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if out.len().saturating_add(written) > limit_bytes {
            return Err(too_long(limit_bytes));
        }
        out.extend_from_slice(block.get(..written).unwrap_or_default());
        rest = after;
    }
    Ok(out)
}

fn too_long(limit_bytes: usize) -> io::Error {
    let text = format!("more than {limit_bytes} bytes once decompressed");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
#[expect(
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    reason = "test data is ours"
)]
mod tests {
    use super::*;
    use std::io::Write;

    fn samples() -> Vec<(Compression, Vec<u8>)> {
        let plain = plain();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).unwrap();
        vec![
            (Compression::Gzip, gzip.finish().unwrap()),
            (Compression::Xz, xz.finish().unwrap()),
            (Compression::Zstd, zstd::encode_all(&plain[..], 1).unwrap()),
            (Compression::Lz4Legacy, lz4_of_literals(&plain)),
        ]
    }

    fn plain() -> Vec<u8> {
        (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    /// A legacy stream whose blocks are nothing but literals, written from the format's description.
    fn lz4_of_literals(plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0x02, 0x21, 0x4c, 0x18];
        for chunk in plain.chunks(150_000) {
            let mut block = vec![0xf0];
            let mut left = chunk.len() - 15;
            while left >= 255 {
                block.push(255);
                left -= 255;
            }
            block.push(left as u8);
            block.extend_from_slice(chunk);
            out.extend_from_slice(&(block.len() as u32).to_le_bytes());
            out.extend_from_slice(&block);
        }
        out
    }

    #[test]
    fn each_kind_is_recognised_and_comes_back() {
        for (compression, bytes) in samples() {
            assert_eq!(Compression::detect(&bytes), Some(compression));
            assert_eq!(
                decompress(compression, &bytes, 400_000).unwrap(),
                plain(),
                "{compression:?}"
            );
        }
        assert_eq!(Compression::detect(b"\x7fELF"), None);
        assert_eq!(Compression::detect(b""), None);
    }

    #[test]
    fn what_follows_the_stream_is_left_alone() {
        for (compression, mut bytes) in samples() {
            bytes.extend_from_slice(&400_000_u32.to_le_bytes());
            assert_eq!(
                decompress(compression, &bytes, 400_000).unwrap(),
                plain(),
                "{compression:?}"
            );
        }
    }

    #[test]
    fn limits_and_cuts_are_errors() {
        for (compression, bytes) in samples() {
            let error = decompress(compression, &bytes, 399_999).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{compression:?}");
            assert!(error.to_string().contains("399999"), "{error}");
            let cut = &bytes[..bytes.len() / 2];
            let error = decompress(compression, cut, 1 << 20).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{compression:?}");
        }
    }
}
