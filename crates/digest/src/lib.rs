//! SHA-256 content digests, written as OCI writes them: `sha256:` and 64 lower-case hex digits.
//!
//! A *digest* identifies content everywhere in firebrick; the word *hash* is kept for ext4's directory index.
//! Format: <https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests>

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::Digest as _;

/// The SHA-256 digest of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a digest: expected \"sha256:\" and 64 lower-case hex digits")]
pub struct ParseDigestError {
    text: String,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(sha2::Sha256::digest(bytes).into())
    }

    /// Wraps the 32 raw bytes of a SHA-256.
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits, without `sha256:` (the file name in an OCI layout's `blobs/sha256`).
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
            text
        })
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Digest, ParseDigestError> {
        let error = || ParseDigestError {
            text: text.chars().take(100).collect(),
        };
        let hex = text.strip_prefix("sha256:").ok_or_else(error)?.as_bytes();
        if hex.len() != 64 {
            return Err(error());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = (nibble(pair[0]).ok_or_else(error)? << 4) | nibble(pair[1]).ok_or_else(error)?;
        }
        Ok(Digest(bytes))
    }
}

fn nibble(hex_digit: u8) -> Option<u8> {
    match hex_digit {
        b'0'..=b'9' => Some(hex_digit - b'0'),
        b'a'..=b'f' => Some(hex_digit - b'a' + 10),
        _ => None,
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Starts with no bytes.
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// A reader whose bytes are checked against an expected digest (and length) as they pass.
///
/// The last read (the one that finds the end) fails with [`io::ErrorKind::InvalidData`] and a [`Mismatch`]
/// inside if the bytes were not the promised ones, so whoever reads to the end has verified them.
#[derive(Debug)]
pub struct VerifyingReader<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    expected_len: Option<u64>,
    read_len: u64,
}

/// Content that is not what its digest or length promised.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Mismatch {
    /// The digest differs.
    #[error("digest is {actual}, expected {expected}")]
    Digest {
        /// What was promised.
        expected: Digest,
        /// What the bytes give.
        actual: Digest,
    },
    /// The length differs (found early when there are too many bytes).
    #[error("length is {}{actual} bytes, expected {expected}", if *.at_least { "at least " } else { "" })]
    Length {
        /// What was promised, in bytes.
        expected: u64,
        /// How many bytes came.
        actual: u64,
        /// Reading stopped as soon as there were too many.
        at_least: bool,
    },
}

impl<R: Read> VerifyingReader<R> {
    /// Checks `inner` against `expected`, and its length too where one is promised.
    pub fn new(inner: R, expected: Digest, expected_len: Option<u64>) -> VerifyingReader<R> {
        VerifyingReader {
            inner,
            hasher: Some(Hasher::new()),
            expected,
            expected_len,
            read_len: 0,
        }
    }

    fn verify_end(&mut self) -> Result<(), Mismatch> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        if let Some(expected) = self.expected_len.filter(|&len| len != self.read_len) {
            return Err(Mismatch::Length {
                expected,
                actual: self.read_len,
                at_least: false,
            });
        }
        let actual = hasher.finish();
        if actual != self.expected {
            return Err(Mismatch::Digest {
                expected: self.expected,
                actual,
            });
        }
        Ok(())
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let len = self.inner.read(buffer)?;
        if len == 0 {
            return self
                .verify_end()
                .map(|()| 0)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..len]);
        }
        self.read_len += len as u64;
        if let Some(expected) = self.expected_len.filter(|&expected| self.read_len > expected) {
            let error = Mismatch::Length {
                expected,
                actual: self.read_len,
                at_least: true,
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-2, appendix B.1.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digest_of_published_vector() {
        assert_eq!(Digest::of(b"abc").to_string(), ABC);
        assert_eq!(ABC.parse::<Digest>().unwrap(), Digest::of(b"abc"));
    }

    #[test]
    fn parse_refuses_what_is_not_a_digest() {
        let upper = ABC.to_uppercase();
        for text in [
            "",
            "sha256:",
            "sha512:00",
            &ABC[..70],
            upper.as_str(),
            "sha256:../../../../etc/passwd",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }

    fn read_all(bytes: &[u8], expected: Digest, len: Option<u64>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        VerifyingReader::new(bytes, expected, len)
            .read_to_end(&mut out)
            .map(|_| out)
    }

    #[test]
    fn verifying_reader_passes_good_bytes_and_names_the_difference() {
        assert_eq!(read_all(b"abc", Digest::of(b"abc"), Some(3)).unwrap(), b"abc");
        let wrong = read_all(b"abd", Digest::of(b"abc"), None)
            .unwrap_err()
            .to_string();
        assert!(
            wrong.starts_with("digest is sha256:") && wrong.ends_with(ABC),
            "{wrong}"
        );
        let short = read_all(b"ab", Digest::of(b"abc"), Some(3))
            .unwrap_err()
            .to_string();
        assert_eq!(short, "length is 2 bytes, expected 3");
        let long = read_all(b"abcd", Digest::of(b"abc"), Some(3))
            .unwrap_err()
            .to_string();
        assert_eq!(long, "length is at least 4 bytes, expected 3");
    }
}
