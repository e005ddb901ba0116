//! The x86 `bzImage`: boot sector, setup code, and a payload that is the compressed ELF `vmlinux`.
//!
//! ```text
//! 0x1f1 setup_sects u8      number of 512-byte setup sectors after the boot sector (0 means 4)
//! 0x202 "HdrS"              magic, then 0x206 version u16
//! 0x20e kernel_version u16  offset - 0x200 of the NUL-terminated release text
//! 0x248 payload_offset u32  from the end of the setup sectors
//! 0x24c payload_length u32  the last four bytes are the decompressed length
//! ```
//!
//! The ELF starts up faster under emulation than the `bzImage`, whose guest would have to decompress itself.
//! Layout: <https://docs.kernel.org/arch/x86/boot.html>
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use super::decompress::{Compression, decompress};

/// No kernel is larger; the Debian generic one has about 60 MB.
const VMLINUX_LIMIT_BYTES: usize = 512 << 20;

/// Why a file is not a kernel that can be taken apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BzImageError {
    /// The magic number is absent.
    #[error("not an x86 bzImage: no \"HdrS\" at offset 0x202")]
    Magic,
    /// The boot protocol is too old to say where the payload lies.
    #[error("boot protocol {major}.{minor:02} has no payload fields, 2.08 is needed")]
    Protocol {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// A field points outside the file.
    #[error("{field} points outside the file of {file_bytes} bytes")]
    OutOfBounds {
        /// The field's name in the boot protocol.
        field: &'static str,
        /// The length of the whole file.
        file_bytes: usize,
    },
    /// The payload has a compression that we do not know.
    #[error("payload starts with {magic:02x?}, which is no compression known here (gzip, xz, zstd, lz4)")]
    Compression {
        /// The payload's first bytes.
        magic: Vec<u8>,
    },
    /// The payload cannot be decompressed.
    #[error("cannot decompress the {compression} payload")]
    Payload {
        /// The compression's name.
        compression: &'static str,
        /// What the decoder says.
        source: std::io::Error,
    },
    /// The payload's length differs from what its trailer says.
    #[error("the payload has {actual} bytes decompressed, its trailer says {expected}")]
    PayloadLength {
        /// From the trailer.
        expected: u32,
        /// What came.
        actual: usize,
    },
}

/// What a `bzImage` holds.
#[derive(Debug)]
pub struct BzImage {
    /// The release, as `uname -r` would say.
    pub release: String,
    /// How the payload was compressed.
    pub compression: Compression,
    /// The ELF file (with relocations behind it), decompressed.
    pub vmlinux: Vec<u8>,
}

impl BzImage {
    /// Whether `bytes` look like a `bzImage`.
    pub fn is(bytes: &[u8]) -> bool {
        bytes.get(0x202..0x206) == Some(b"HdrS")
    }

    /// Takes a `bzImage` apart.
    ///
    /// # Errors
    /// [`BzImageError`] says which field or part is wrong.
    pub fn parse(bytes: &[u8]) -> Result<BzImage, BzImageError> {
        if !BzImage::is(bytes) {
            return Err(BzImageError::Magic);
        }
        let outside = |field| BzImageError::OutOfBounds {
            field,
            file_bytes: bytes.len(),
        };
        let byte = |at: usize| bytes.get(at).copied().ok_or_else(|| outside("header"));
        let (minor, major) = (byte(0x206)?, byte(0x207)?);
        if (major, minor) < (2, 8) {
            return Err(BzImageError::Protocol { major, minor });
        }
        let sectors = match byte(0x1f1)? {
            0 => 4_usize,
            count => usize::from(count),
        };
        let word = |at: usize, field| {
            let end = at.checked_add(4)?;
            let word: [u8; 4] = bytes.get(at..end)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(word))
                .ok()
                .map(|word| (word, field))
        };
        let (offset, _) = word(0x248, "payload_offset").ok_or_else(|| outside("payload_offset"))?;
        let (length, _) = word(0x24c, "payload_length").ok_or_else(|| outside("payload_length"))?;
        let start = sectors
            .saturating_add(1)
            .saturating_mul(512)
            .saturating_add(offset);
        let payload = start
            .checked_add(length)
            .and_then(|end| bytes.get(start..end))
            .ok_or_else(|| outside("payload"))?;
        let release = release(bytes).ok_or_else(|| outside("kernel_version"))?;
        let (compression, vmlinux) = unpack(payload)?;
        Ok(BzImage {
            release,
            compression,
            vmlinux,
        })
    }
}

fn unpack(payload: &[u8]) -> Result<(Compression, Vec<u8>), BzImageError> {
    let compression = Compression::detect(payload).ok_or_else(|| BzImageError::Compression {
        magic: payload.iter().take(6).copied().collect(),
    })?;
    // gzip ends with the same word itself; for the others the kernel's build appends it.
    let (body, trailer) = payload
        .split_last_chunk::<4>()
        .ok_or_else(|| BzImageError::Compression {
            magic: payload.to_vec(),
        })?;
    let body = if compression == Compression::Gzip {
        payload
    } else {
        body
    };
    let vmlinux =
        decompress(compression, body, VMLINUX_LIMIT_BYTES).map_err(|source| BzImageError::Payload {
            compression: compression.name(),
            source,
        })?;
    let expected = u32::from_le_bytes(*trailer);
    if usize::try_from(expected) != Ok(vmlinux.len()) {
        return Err(BzImageError::PayloadLength {
            expected,
            actual: vmlinux.len(),
        });
    }
    Ok((compression, vmlinux))
}

/// The first word of the version text.
fn release(bytes: &[u8]) -> Option<String> {
    let offset: [u8; 2] = bytes.get(0x20e..0x210)?.try_into().ok()?;
    let start = usize::from(u16::from_le_bytes(offset)).checked_add(0x200)?;
    let text = bytes.get(start..)?;
    let word = text
        .iter()
        .take(256)
        .position(|&byte| byte == b' ' || byte == 0)?;
    String::from_utf8(text.get(..word)?.to_vec()).ok()
}

#[cfg(test)]
#[expect(clippy::as_conversions, reason = "test data is ours")]
mod tests {
    use super::*;

    /// A `bzImage` with one setup sector, a version text and a zstd payload.
    fn sample(plain: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&[0x0f, 2]);
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x310].copy_from_slice(b"6.9.0-x (me) #1\0");
        let mut payload = zstd::encode_all(plain, 1).unwrap();
        payload.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&8_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(&[0xcc; 8]);
        image.extend_from_slice(&payload);
        image
    }

    #[test]
    fn the_payload_and_the_release_come_out() {
        let image = BzImage::parse(&sample(b"\x7fELF and so on")).unwrap();
        assert_eq!(image.release, "6.9.0-x");
        assert_eq!(image.vmlinux, b"\x7fELF and so on");
        assert_eq!(image.compression, Compression::Zstd);
    }

    #[test]
    fn a_wrong_trailer_is_noticed() {
        let mut bytes = sample(b"\x7fELF");
        let last = bytes.len() - 4;
        bytes[last] ^= 1;
        assert!(matches!(
            BzImage::parse(&bytes),
            Err(BzImageError::PayloadLength {
                expected: 5,
                actual: 4
            })
        ));
    }

    #[test]
    fn old_or_odd_headers_are_refused() {
        assert!(matches!(BzImage::parse(b"\x7fELF"), Err(BzImageError::Magic)));
        let mut bytes = sample(b"x");
        bytes[0x206] = 7;
        assert!(matches!(
            BzImage::parse(&bytes),
            Err(BzImageError::Protocol { major: 2, minor: 7 })
        ));
        let mut bytes = sample(b"x");
        bytes[0x24b] = 0xff;
        let error = BzImage::parse(&bytes).unwrap_err();
        assert!(
            matches!(error, BzImageError::OutOfBounds { field: "payload", .. }),
            "{error}"
        );
        let mut bytes = sample(b"x");
        bytes[1024 + 8] = 0;
        assert!(matches!(
            BzImage::parse(&bytes),
            Err(BzImageError::Compression { .. })
        ));
    }

    #[test]
    fn no_cut_and_no_single_changed_byte_panics() {
        let whole = sample(b"\x7fELF and so on, and so on, and so on");
        for len in 0..whole.len() {
            assert!(BzImage::parse(&whole[..len]).is_err(), "cut to {len}");
        }
        for at in (0x1f0..0x310).chain(1024..whole.len()) {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = BzImage::parse(&bytes);
            }
        }
    }
}
