//! Private keys for signing, as `openssl genpkey -algorithm ed25519` writes them.
//!
//! PKCS#8 (<https://www.rfc-editor.org/rfc/rfc8410#section-7>); version 1 without the public key, which every openssl reads, is what we
//! write, and version 2 is read too.

use std::fmt;

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::der;
use crate::error::TrustError;
use crate::pem::{self, Block};
use crate::public::PublicKey;

/// What comes before the 32 bytes of a key's seed.
const HEAD: [u8; 16] = [0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 34, 4, 32];
const LABEL: &str = "PRIVATE KEY";
const WHAT: &str = "a private key";
const WANTED: &str = "an ed25519 private key (`openssl genpkey -algorithm ed25519`)";

/// An ed25519 private key. Its secret is nowhere in what is printed of it.
pub struct PrivateKey {
    pair: Ed25519KeyPair,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public().id().short())
    }
}

impl PrivateKey {
    /// Makes a new key, and its PEM for a file that nobody else may read.
    ///
    /// # Errors
    /// [`TrustError::Random`].
    pub fn generate() -> Result<(PrivateKey, String), TrustError> {
        let mut seed = [0; 32];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| TrustError::Random)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed has 32 bytes, any of them");
        let text = pem::encode(LABEL, &[&HEAD[..], &seed].concat());
        Ok((PrivateKey { pair }, text))
    }

    /// Reads a key from PEM.
    ///
    /// # Errors
    /// [`TrustError`]: no PEM, damaged, encrypted, or another kind of key, which is named.
    pub fn from_pem(text: &[u8]) -> Result<PrivateKey, TrustError> {
        let block = Block::find(text, WHAT)?;
        if block.encrypted() {
            return Err(encrypted());
        }
        let kind = |found: &str| {
            Err(TrustError::Kind {
                found: found.to_owned(),
                wanted: WANTED,
            })
        };
        match block.label {
            LABEL => PrivateKey::from_der(&block.bytes(WHAT)?),
            "ENCRYPTED PRIVATE KEY" => Err(encrypted()),
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => Err(TrustError::Encrypted {
                instead: "it is one of cosign's: let cosign sign with it, or use an ed25519 key of openssl's",
            }),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => kind("a public key"),
            "EC PRIVATE KEY" => kind("an ECDSA key"),
            "RSA PRIVATE KEY" => kind("an RSA key"),
            "DSA PRIVATE KEY" => kind("a DSA key"),
            "OPENSSH PRIVATE KEY" => kind("a key of ssh's"),
            "CERTIFICATE" => kind("a certificate"),
            other => kind(&format!("{:?}", other.chars().take(64).collect::<String>())),
        }
    }

    fn from_der(der: &[u8]) -> Result<PrivateKey, TrustError> {
        match der::kind(der) {
            Some(kind) if kind == "an ed25519 key" => {}
            Some(found) => {
                return Err(TrustError::Kind {
                    found,
                    wanted: WANTED,
                });
            }
            None => return Err(damaged("what it holds is no key")),
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map_err(|_| damaged("its length or its public half does not fit its secret half"))?;
        Ok(PrivateKey { pair })
    }

    /// Its public key.
    pub fn public(&self) -> PublicKey {
        PublicKey::ed25519(self.pair.public_key().as_ref())
    }

    /// Signs a message. Equal messages give equal signatures.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

fn encrypted() -> TrustError {
    TrustError::Encrypted {
        instead: "`openssl pkey -in KEY -out PLAIN` makes a plain one, to be kept where nobody else reads it",
    }
}

fn damaged(problem: &str) -> TrustError {
    TrustError::Corrupt {
        what: WHAT,
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_text() {
        let (key, text) = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(text.as_bytes()).unwrap();
        assert_eq!(key.public(), again.public());
        assert_ne!(key.public(), PrivateKey::generate().unwrap().0.public());
        let public = key.public().to_pem();
        assert_eq!(PublicKey::from_pem(public.as_bytes()).unwrap(), key.public());
        let secret = text.lines().nth(1).unwrap();
        assert!(!format!("{key:?} {:?}", key.public()).contains(&secret[24..]));
    }

    #[test]
    fn the_vector_of_rfc_8032_is_signed_as_there() {
        // Section 7.1, test 2.
        let hex = |text: &str| -> Vec<u8> {
            let digits: Vec<u8> = text
                .chars()
                .map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap())
                .collect();
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let text = pem::encode(LABEL, &[&HEAD[..], &seed].concat());
        let key = PrivateKey::from_pem(text.as_bytes()).unwrap();
        let signature = hex(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        );
        assert_eq!(key.sign(&[0x72]), signature);
        assert!(key.public().verifies(&[0x72], &signature) && !key.public().verifies(&[0x73], &signature));
    }

    #[test]
    fn the_two_kinds_are_not_taken_for_each_other() {
        let (key, text) = PrivateKey::generate().unwrap();
        let error = PublicKey::from_pem(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("-pubout"), "{error}");
        assert!(!format!("{error:?}").contains(text.lines().nth(1).unwrap()));
        let error = PrivateKey::from_pem(key.public().to_pem().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("a public key"), "{error}");
    }
}
