//! Keys that images are encrypted with: a file of one line, `firebrick-key-1:` and 32 bytes in base64 or hex.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::error::TrustError;

const FAMILY: &str = "firebrick-key-";
const PREFIX: &str = "firebrick-key-1:";
const WHAT: &str = "an encryption key";
/// A key file has at most so many bytes.
const LEN_MAX: usize = 4096;

/// 32 secret bytes, which are nowhere in what is printed of them.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey([u8; 32]);

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(…)")
    }
}

fn wrong(problem: &str) -> TrustError {
    TrustError::Corrupt {
        what: WHAT,
        problem: problem.to_owned(),
    }
}

impl SealKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`TrustError::Random`].
    pub fn generate() -> Result<SealKey, TrustError> {
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| TrustError::Random)?;
        Ok(SealKey(bytes))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`TrustError`], which tells nothing of what the file holds but its form.
    pub fn parse(text: &[u8]) -> Result<SealKey, TrustError> {
        if text.len() > LEN_MAX {
            return Err(wrong("it has more than 4 KiB"));
        }
        let text = std::str::from_utf8(text).map_err(|_| wrong("it is no text"))?;
        let text = text.trim();
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text.contains("-----BEGIN ") {
            return Err(wrong(
                "it is PEM, as keys for signing are; one for encryption begins with firebrick-key-1:",
            ));
        }
        if text.lines().count() > 1 {
            return Err(wrong("it has more than one line"));
        }
        let Some(secret) = text.strip_prefix(PREFIX) else {
            let version = text.strip_prefix(FAMILY).and_then(|rest| rest.split_once(':'));
            return Err(match version {
                Some((found, _)) if found.len() <= 8 && found.bytes().all(|byte| byte.is_ascii_digit()) => {
                    TrustError::Version {
                        what: WHAT,
                        found: found.to_owned(),
                    }
                }
                _ => wrong("it does not begin with firebrick-key-1:"),
            });
        };
        let secret = secret.trim_start();
        let bytes = match secret.len() {
            64 => hex(secret),
            _ => STANDARD.decode(secret).ok(),
        };
        let bytes = bytes.ok_or_else(|| {
            wrong("what follows firebrick-key-1: is neither base64 (44 characters) nor hex (64 digits)")
        })?;
        let len = bytes.len();
        let bytes = bytes.try_into();
        bytes
            .map(SealKey)
            .map_err(|_| wrong(&format!("it has {len} bytes, not 32")))
    }

    /// The content of a key file, for one that nobody else may read.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}\n", STANDARD.encode(self.0))
    }

    /// The secret, for who seals with it.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(32);
    for pair in text.as_bytes().chunks_exact(2) {
        let pair = std::str::from_utf8(pair).ok()?;
        // A sign would be taken for part of a number.
        if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(pair, 16).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        let key = SealKey::generate().unwrap();
        assert_ne!(key, SealKey::generate().unwrap());
        let text = key.to_text();
        assert_eq!(SealKey::parse(text.as_bytes()).unwrap(), key);
        assert_eq!(
            SealKey::parse(text.replace('\n', "\r\n").as_bytes()).unwrap(),
            key
        );
        let digits: String = key.bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(
            SealKey::parse(format!("{PREFIX} {digits}").as_bytes()).unwrap(),
            key
        );
        assert_eq!(format!("{key:?}"), "SealKey(…)");
    }

    #[test]
    fn errors_tell_the_form_and_no_secret() {
        let secret = STANDARD.encode([0xa5; 32]);
        for (text, told) in [
            (String::new(), "empty"),
            (secret.clone(), "does not begin with"),
            (format!("firebrick-key-2:{secret}"), "is of version 2"),
            (format!("firebrick-key-{secret}"), "does not begin with"),
            (format!("firebrick-key-{secret}:x"), "does not begin with"),
            (format!("{PREFIX}{secret}{secret}"), "neither base64"),
            (format!("{PREFIX}{}", &secret[..40]), "has 30 bytes"),
            (format!("{PREFIX}{}", &secret[..43]), "neither base64"),
            (format!("{PREFIX}{}", "+1".repeat(32)), "neither base64"),
            (
                format!("{PREFIX}{secret}\n{PREFIX}{secret}"),
                "more than one line",
            ),
            (
                format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----"),
                "PEM",
            ),
            ("x".repeat(5000), "4 KiB"),
        ] {
            let error = SealKey::parse(text.as_bytes()).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains(told), "{said:?} does not tell {told:?}");
            assert!(!said.contains(&secret[..20]), "{said}");
        }
        assert!(SealKey::parse(b"\xff").is_err());
    }
}
