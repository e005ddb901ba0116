//! What a chunk is called: the BLAKE3 of its bytes, by a key or by none.
//!
//! Every byte of an image goes through this whenever the image is published, assembled or verified, and BLAKE3 is faster than SHA-256
//! even where the processor has instructions for that (`examples/ids.rs`). What other programs see, blobs and manifests, has
//! digests as OCI knows them. <https://github.com/BLAKE3-team/BLAKE3-specs>

use std::fmt;
use std::str::FromStr;

/// A chunk's name. Equal chunks (of one owner) have equal names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 32]);

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the id of a chunk: expected \"blake3:\" and 64 lower-case hex digits")]
pub struct ParseIdError {
    text: String,
}

impl Id {
    /// The id of bytes that everybody may read.
    pub fn of(bytes: &[u8]) -> Id {
        Id(*blake3::hash(bytes).as_bytes())
    }

    /// The id of bytes that who has no key is to know nothing of.
    pub(crate) fn keyed(key: &[u8; 32], bytes: &[u8]) -> Id {
        Id(*blake3::keyed_hash(key, bytes).as_bytes())
    }

    /// Wraps the 32 raw bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Id {
        Id(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", self.hex())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Id, ParseIdError> {
        let hash = text
            .strip_prefix("blake3:")
            .filter(|hex| !hex.contains(|digit: char| digit.is_ascii_uppercase()))
            .and_then(|hex| blake3::Hash::from_hex(hex).ok());
        let hash = hash.ok_or_else(|| ParseIdError {
            text: text.chars().take(100).collect(),
        })?;
        Ok(Id(*hash.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the specification's own test vectors, for no bytes.
    #[test]
    fn ids_are_as_others_compute_them() {
        let text = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(Id::of(b"").to_string(), text);
        assert_eq!(text.parse(), Ok(Id::of(b"")));
        let keyed = Id::keyed(b"whats the Elvish word for friend", b"");
        assert_eq!(
            keyed.hex(),
            "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"
        );
        for wrong in [&text[7..], &text[..70], &text.to_uppercase(), &format!("{text}0")] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong}");
        }
    }
}
