//! Decompression, chosen by what the bytes are and not by what somebody says they are.

use std::io::{self, BufRead, Read};

/// How a blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), possibly several members.
    Gzip,
    /// Zstandard (RFC 8878), possibly several frames.
    Zstd,
    /// xz, possibly several streams.
    Xz,
    /// bzip2, possibly several streams.
    Bzip2,
}

impl Compression {
    /// Recognises a compression by its first bytes (6 are enough).
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame, as zstd:chunked and parallel compressors put in front.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
            _ => Compression::None,
        }
    }
}

/// Window limit for zstd, as a power of two: 128 MiB, what `zstd --long=27` makes and `zstd -d` takes by default.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Memory limit for xz, in bytes: `xz -9` needs 65 MiB to decompress.
const XZ_MEMORY_MAX: u64 = 256 << 20;

/// A blob whose first bytes were looked at, from its start.
pub type Whole<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// Says how `blob` is compressed, and gives all of its bytes again.
///
/// # Errors
/// What reading its first bytes gives.
pub fn detect<R: Read>(mut blob: R) -> io::Result<(Compression, Whole<R>)> {
    // One read may give fewer bytes than the magic needs.
    let mut start = Vec::with_capacity(6);
    blob.by_ref().take(6).read_to_end(&mut start)?;
    Ok((Compression::detect(&start), io::Cursor::new(start).chain(blob)))
}

/// The decompressed bytes of `blob`.
///
/// The blob is read to its very end before the returned reader says that it is at its end, so that a reader that
/// verifies a digest has seen everything.
///
/// # Errors
/// None but of memory; errors of decompression come from the returned reader.
pub fn decompress<'a>(
    compression: Compression,
    blob: impl BufRead + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(blob),
        Compression::Gzip => Box::new(Drained::new(flate2::bufread::MultiGzDecoder::new(blob), |gz| {
            gz.into_inner()
        })),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(Drained::new(decoder, zstd::stream::read::Decoder::finish))
        }
        Compression::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED)
                    .map_err(io::Error::other)?;
            Box::new(Drained::new(
                liblzma::bufread::XzDecoder::new_stream(blob, stream),
                |xz| xz.into_inner(),
            ))
        }
        Compression::Bzip2 => Box::new(Drained::new(bzip2::bufread::MultiBzDecoder::new(blob), |bz| {
            bz.into_inner()
        })),
    })
}

/// Reads the blob to its end once the decoder has given its last byte.
struct Drained<D, B> {
    decoder: Option<D>,
    into_blob: fn(D) -> B,
}

impl<D: Read, B: BufRead> Drained<D, B> {
    fn new(decoder: D, into_blob: fn(D) -> B) -> Drained<D, B> {
        Drained {
            decoder: Some(decoder),
            into_blob,
        }
    }
}

impl<D: Read, B: BufRead> Read for Drained<D, B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(0);
        };
        let len = decoder.read(buffer)?;
        if len == 0
            && !buffer.is_empty()
            && let Some(decoder) = self.decoder.take()
        {
            io::copy(&mut (self.into_blob)(decoder), &mut io::sink())?;
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn unpacked(blob: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let mut out = Vec::new();
        let (compression, blob) = detect(blob)?;
        decompress(compression, blob)?.read_to_end(&mut out)?;
        Ok((compression, out))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_compression_is_recognised_and_undone() {
        let text = b"a layer's tar".repeat(1000);
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(&text).unwrap();
        for (blob, expected) in [
            (text.clone(), Compression::None),
            (gzip(&text), Compression::Gzip),
            (zstd::encode_all(&text[..], 1).unwrap(), Compression::Zstd),
            (xz.finish().unwrap(), Compression::Xz),
            (bz.finish().unwrap(), Compression::Bzip2),
        ] {
            assert_eq!(unpacked(&blob).unwrap(), (expected, text.clone()));
        }
        assert_eq!(unpacked(b"").unwrap(), (Compression::None, vec![]));
        assert_eq!(unpacked(b"abc").unwrap(), (Compression::None, b"abc".to_vec()));
    }

    #[test]
    fn several_gzip_members_are_one_stream() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(unpacked(&two).unwrap().1, b"one two");
    }

    #[test]
    fn cut_off_blobs_are_errors() {
        let text = vec![7; 100_000];
        for blob in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            for len in [7, blob.len() / 2, blob.len() - 1] {
                assert!(unpacked(&blob[..len]).is_err(), "{len} of {}", blob.len());
            }
        }
    }

    /// Counts what is read through it.
    struct Counted<'a>(&'a [u8], &'a AtomicU64);

    impl Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.0.read(buffer)?;
            self.1.fetch_add(len as u64, Ordering::Relaxed);
            Ok(len)
        }
    }

    #[test]
    fn the_blob_is_read_to_its_end_past_trailing_bytes() {
        let frame = zstd::encode_all(&b"x"[..], 1).unwrap();
        let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 0, 0, 8, 0];
        skippable.resize(8 + (8 << 16), 0);
        let blob = [frame, skippable].concat();
        let count = AtomicU64::new(0);
        let blob_read = io::BufReader::new(Counted(&blob, &count));
        let mut out = Vec::new();
        let mut reader = decompress(Compression::Zstd, blob_read).unwrap();
        reader.read_to_end(&mut out).unwrap();
        assert_eq!(
            (out.as_slice(), count.load(Ordering::Relaxed)),
            (&b"x"[..], blob.len() as u64)
        );
    }
}
