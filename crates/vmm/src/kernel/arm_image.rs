//! The 64-bit ARM `Image`: a 64-byte header in front of the kernel's bytes.
//!
//! ```text
//! 0x08 text_offset u64   where it is loaded, from a 2 MiB boundary
//! 0x10 image_size u64    of memory, the part that the file does not hold included; 0 in kernels before 3.17
//! 0x38 "ARM\x64"         magic
//! ```
//!
//! Distributions may gzip it; QEMU starts it plain. Layout: <https://docs.kernel.org/arch/arm64/booting.html>
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use super::decompress::{Compression, decompress};

/// No kernel is larger; Debian's generic one has about 40 MB.
const IMAGE_LIMIT_BYTES: usize = 512 << 20;

/// Whether `bytes` begin like an `Image`.
pub fn is(bytes: &[u8]) -> bool {
    bytes.get(0x38..0x3c) == Some(b"ARM\x64")
}

/// The plain `Image` in `bytes`, which are one, or one compressed; `None` if they are something else.
pub fn plain(bytes: Vec<u8>) -> Option<Vec<u8>> {
    if is(&bytes) {
        return Some(bytes);
    }
    let plain = decompress(Compression::detect(&bytes)?, &bytes, IMAGE_LIMIT_BYTES).ok()?;
    is(&plain).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn an_image_is_known_plain_and_compressed() {
        let mut image = vec![7; 4096];
        image[0x38..0x3c].copy_from_slice(b"ARMd");
        assert_eq!(plain(image.clone()).as_ref(), Some(&image));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&image).unwrap();
        let packed = gzip.finish().unwrap();
        assert_eq!(plain(packed.clone()).as_ref(), Some(&image));
        assert_eq!(plain(packed[..packed.len() / 2].to_vec()), None);
        image[0x38] = 0;
        assert_eq!(plain(image), None);
        for len in [0, 0x38, 0x3b] {
            assert_eq!(plain(vec![b'A'; len]), None);
        }
    }
}
