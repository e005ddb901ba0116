//! What names content: its media type, digest and size.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use firebrick_digest::{Digest, Mismatch};
use serde_json::{Value, json};

use crate::error::RegistryError;

/// Names content (<https://github.com/opencontainers/image-spec/blob/main/descriptor.md>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What kind of content.
    pub media_type: String,
    /// The content's digest.
    pub digest: Digest,
    /// The content's size in bytes.
    pub size: u64,
    /// Of a manifest, what kind of artifact it is.
    pub artifact_type: Option<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Describes these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    /// As it stands in manifests and indexes.
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "mediaType": self.media_type,
            "digest": self.digest.to_string(),
            "size": self.size,
        });
        if let Some(artifact_type) = &self.artifact_type {
            json["artifactType"] = json!(artifact_type);
        }
        if !self.annotations.is_empty() {
            json["annotations"] = json!(self.annotations);
        }
        json
    }

    /// Reads one; nothing where it is none, or has a digest by another algorithm than SHA-256.
    pub fn from_json(json: &Value) -> Option<Descriptor> {
        let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_owned);
        let annotations = json.get("annotations").and_then(Value::as_object);
        Some(Descriptor {
            media_type: text("mediaType")?,
            digest: text("digest")?.parse().ok()?,
            size: json.get("size")?.as_u64()?,
            artifact_type: text("artifactType"),
            annotations: annotations
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect(),
        })
    }

    pub(crate) fn verify(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let actual = Descriptor::of(&self.media_type, bytes);
        let mismatch = match (actual.size == self.size, actual.digest == self.digest) {
            (true, true) => return Ok(()),
            (false, _) => Mismatch::Length {
                expected: self.size,
                actual: actual.size,
                at_least: false,
            },
            (_, false) => Mismatch::Digest {
                expected: self.digest,
                actual: actual.digest,
            },
        };
        Err(RegistryError::Mismatch {
            what: format!("manifest {}", self.digest),
            mismatch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_back() {
        let mut descriptor = Descriptor::of("text/plain", b"abc");
        for artifact_type in [None, Some("application/x".to_owned())] {
            descriptor.artifact_type = artifact_type;
            assert_eq!(
                Descriptor::from_json(&descriptor.to_json()),
                Some(descriptor.clone())
            );
            descriptor.annotations.insert("a".to_owned(), "b".to_owned());
        }
        for broken in [
            json!(null),
            json!([]),
            json!({"mediaType": "x", "digest": "sha512:00", "size": 3}),
            json!({"mediaType": "x", "digest": descriptor.digest.to_string(), "size": -3}),
        ] {
            assert_eq!(Descriptor::from_json(&broken), None, "{broken}");
        }
        descriptor.verify(b"abc").unwrap();
        assert!(descriptor.verify(b"abd").is_err() && descriptor.verify(b"ab").is_err());
    }
}
