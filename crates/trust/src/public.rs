//! Public keys, as `openssl pkey -pubout` and `cosign generate-key-pair` write them.
//!
//! A key is a SubjectPublicKeyInfo (<https://www.rfc-editor.org/rfc/rfc8410#section-4>, <https://www.rfc-editor.org/rfc/rfc5480#section-2>).
//! DER has one form for each, which is a fixed beginning and the key's bytes, so nothing needs to be parsed.

use std::fmt;

use firebrick_digest::Digest;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};

use crate::der;
use crate::error::TrustError;
use crate::pem::{self, Block};

/// What comes before the 32 bytes of an ed25519 key.
const ED25519_HEAD: [u8; 12] = [0x30, 42, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 33, 0];
/// What comes before the 65 bytes of a point on P-256, the first of which says that it is not compressed.
const P256_HEAD: [u8; 27] = [
    0x30, 89, 0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1,
    7, 3, 66, 0, 4,
];
const LABEL: &str = "PUBLIC KEY";
const WHAT: &str = "a public key";
const WANTED: &str = "an ed25519 or ECDSA P-256 public key";

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Pure ed25519, of the message itself.
    Ed25519,
    /// ECDSA on P-256 with SHA-256; signatures in DER.
    EcdsaP256,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Ed25519 => "ed25519",
            Algorithm::EcdsaP256 => "ECDSA P-256",
        })
    }
}

/// What tells that a signature was made by the owner of a private key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    /// The whole SubjectPublicKeyInfo.
    der: Vec<u8>,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm(), self.id().short())
    }
}

impl PublicKey {
    /// Reads a key from PEM.
    ///
    /// # Errors
    /// [`TrustError`]: no PEM, damaged, or another kind of key, which is named.
    pub fn from_pem(text: &[u8]) -> Result<PublicKey, TrustError> {
        let block = Block::find(text, WHAT)?;
        match block.label {
            LABEL => PublicKey::from_der(block.bytes(WHAT)?),
            other => Err(TrustError::Kind {
                found: match other {
                    private if private.ends_with("PRIVATE KEY") => "a private key".to_owned(),
                    "CERTIFICATE" => "a certificate".to_owned(),
                    "RSA PUBLIC KEY" => "an RSA key".to_owned(),
                    other => format!("{:?}", other.chars().take(64).collect::<String>()),
                },
                wanted: match other {
                    private if private.ends_with("PRIVATE KEY") => {
                        "its public key (`openssl pkey -in KEY -pubout`)"
                    }
                    "CERTIFICATE" => "the public key in it (`openssl x509 -pubkey -noout`)",
                    _ => WANTED,
                },
            }),
        }
    }

    fn from_der(der: Vec<u8>) -> Result<PublicKey, TrustError> {
        let is = |head: &[u8], len: usize| der.strip_prefix(head).is_some_and(|point| point.len() == len);
        if is(&ED25519_HEAD, 32) || is(&P256_HEAD, 64) {
            return Ok(PublicKey { der });
        }
        Err(match der::kind(&der) {
            Some(kind) if kind == "an ECDSA P-256 key" => TrustError::Kind {
                found: "an ECDSA P-256 key whose point is compressed or damaged".to_owned(),
                wanted: "one that is not (`openssl pkey -pubin -ec_conv_form uncompressed`)",
            },
            Some(found) if found != "an ed25519 key" => TrustError::Kind {
                found,
                wanted: WANTED,
            },
            _ => TrustError::Corrupt {
                what: WHAT,
                problem: "what it holds is no key".to_owned(),
            },
        })
    }

    /// The key with these 32 bytes.
    pub(crate) fn ed25519(bytes: &[u8]) -> PublicKey {
        PublicKey {
            der: [&ED25519_HEAD, bytes].concat(),
        }
    }

    /// The key as PEM, byte for byte what openssl writes.
    pub fn to_pem(&self) -> String {
        pem::encode(LABEL, &self.der)
    }

    /// The SHA-256 of the key in DER: what `openssl pkey -pubin -outform DER | sha256sum` says.
    pub fn id(&self) -> Digest {
        Digest::of(&self.der)
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        match self.der.starts_with(&ED25519_HEAD) {
            true => Algorithm::Ed25519,
            false => Algorithm::EcdsaP256,
        }
    }

    /// Whether this key's owner signed `message`. A point that is not on its curve never did.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self.algorithm() {
            Algorithm::Ed25519 => {
                let key = self.der.get(ED25519_HEAD.len()..).unwrap_or_default();
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
            Algorithm::EcdsaP256 => {
                // The last byte of the head is the first of the point.
                let point = self.der.last_chunk::<65>().map_or(&[][..], |point| point);
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}
