//! What is signed: cosign's payload, which says that a manifest belongs under an identity.
//!
//! Format: <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md#payloads>. The signature covers its bytes as they are; they are
//! read only after that was checked.

use std::fmt;

use firebrick_digest::Digest;
use serde::{Deserialize, Serialize};

use crate::error::TrustError;

/// A payload has at most so many bytes.
pub const PAYLOAD_MAX: usize = 64 << 10;
/// Names and tags have at most so many bytes.
const NAME_MAX: usize = 128;
/// The one type of payload that makes claims about images.
const TYPE: &str = "cosign container image signature";
const WHAT: &str = "a signature's payload";

/// A version of an image under a name, for which trust is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    name: String,
    tag: String,
    manifest: Digest,
}

impl Version {
    /// The image with this manifest, as `name:tag`.
    ///
    /// # Errors
    /// [`TrustError::Corrupt`] if name or tag has other characters than a store's: two names could look like one.
    pub fn new(name: &str, tag: &str, manifest: Digest) -> Result<Version, TrustError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
        for text in [name, tag] {
            if text.is_empty() || text.len() > NAME_MAX || !text.bytes().all(good) {
                let shown: String = text.chars().take(NAME_MAX).collect();
                return Err(TrustError::Corrupt {
                    what: "the name of an image",
                    problem: format!(
                        "{shown:?} is not made of letters, digits, dots, dashes, underscores and pluses"
                    ),
                });
            }
        }
        Ok(Version {
            name: name.to_owned(),
            tag: tag.to_owned(),
            manifest,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The digest of its manifest.
    pub fn manifest(&self) -> &Digest {
        &self.manifest
    }

    /// What a signature of ours claims of it.
    pub fn claim(&self) -> Claim {
        Claim {
            identity: self.to_string(),
            manifest: self.manifest,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

/// That a manifest is what an identity stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The identity, `docker-reference` in the payload: `NAME:TAG` in ours, a repository in cosign's.
    pub identity: String,
    /// The digest of the manifest.
    pub manifest: Digest,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    /// Anything; nobody signs for it in particular.
    #[serde(default)]
    optional: serde_json::Value,
}

/// Who does not know a field here must not accept the payload.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

impl Claim {
    /// The payload that makes this claim. Equal claims give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let payload = Payload {
            critical: Critical {
                identity: Identity {
                    docker_reference: self.identity.clone(),
                },
                image: Image {
                    docker_manifest_digest: self.manifest.to_string(),
                },
                r#type: TYPE.to_owned(),
            },
            optional: serde_json::Value::Null,
        };
        serde_json::to_vec(&payload).expect("strings are always JSON")
    }

    /// What a payload claims.
    ///
    /// # Errors
    /// [`TrustError::Corrupt`] if it is not JSON, lacks a field, has one that nobody knows, or is of another type.
    pub fn decode(payload: &[u8]) -> Result<Claim, TrustError> {
        let wrong = |problem| TrustError::Corrupt { what: WHAT, problem };
        if payload.len() > PAYLOAD_MAX {
            return Err(wrong(format!("it has {} bytes", payload.len())));
        }
        let payload: Payload = serde_json::from_slice(payload).map_err(|error| wrong(error.to_string()))?;
        let critical = payload.critical;
        if critical.r#type != TYPE {
            let shown: String = critical.r#type.chars().take(100).collect();
            return Err(wrong(format!("its type is {shown:?}, not {TYPE:?}")));
        }
        let manifest = critical.image.docker_manifest_digest.parse();
        Ok(Claim {
            identity: critical.identity.docker_reference,
            manifest: manifest.map_err(|error| wrong(format!("{error}")))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn payloads_are_cosigns_to_the_byte() {
        let version = Version::new("python", "v1", Digest::of(b"abc")).unwrap();
        let payload = version.claim().encode();
        let text = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"python:v1"}},"image":{{"docker-manifest-digest":"{DIGEST}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        assert_eq!(String::from_utf8(payload.clone()).unwrap(), text);
        assert_eq!(Claim::decode(&payload).unwrap(), version.claim());
        // What cosign adds, and its older form without `optional`.
        let annotated = text.replace("null", r#"{"creator":"cosign","n":[1,{}]}"#);
        assert_eq!(Claim::decode(annotated.as_bytes()).unwrap(), version.claim());
        let short = text.replace(r#","optional":null"#, "");
        assert_eq!(Claim::decode(short.as_bytes()).unwrap(), version.claim());
    }

    #[test]
    fn other_payloads_claim_nothing() {
        let good = String::from_utf8(
            Version::new("a", "b", Digest::of(b"abc"))
                .unwrap()
                .claim()
                .encode(),
        )
        .unwrap();
        for (from, to, told) in [
            ("cosign container", "atomic container", "its type"),
            (r#""optional""#, r#""also""#, "unknown field"),
            (r#""type""#, r#""until":1,"type""#, "unknown field `until`"),
            (
                r#""docker-reference":"a:b""#,
                r#""docker-reference":"a:b","docker-reference":"a:c""#,
                "duplicate field",
            ),
            (r#""a:b""#, "7", "invalid type"),
            (r#"{"docker-reference":"a:b"}"#, "{}", "missing field"),
            ("sha256:", "sha512:", "not a digest"),
            ("null}", "null}{", "trailing"),
            ("null}", "", "EOF"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            let error = Claim::decode(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(told), "{error:?} does not tell {told:?}");
        }
        let deep = good.replace("null", &"[".repeat(50_000));
        assert!(Claim::decode(deep.as_bytes()).is_err());
        let long = good.replace("null", &format!("\"{}\"", "x".repeat(PAYLOAD_MAX)));
        assert!(Claim::decode(long.as_bytes()).is_err());
    }

    #[test]
    fn names_cannot_be_read_as_others() {
        for (name, tag) in [
            ("a:b", "c"),
            ("a", "b:c"),
            ("", "a"),
            ("a", ""),
            ("a/b", "c"),
            ("a", "b@c"),
            ("ä", "b"),
            ("a\n", "b"),
            ("{name}", "b"),
        ] {
            assert!(
                Version::new(name, tag, Digest::of(b"")).is_err(),
                "{name:?} {tag:?}"
            );
        }
        assert!(Version::new(&"x".repeat(129), "a", Digest::of(b"")).is_err());
        assert!(Version::new("c++", "v1.0_rc-2", Digest::of(b"")).is_ok());
    }
}
