//! How signatures lie in a store: an OCI manifest whose layers are payloads, each with its signature in an annotation.
//!
//! That is cosign's layout (<https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md#storage>). Ours has a subject, which is the
//! signed manifest; cosign's own are found by a tag, and may have none. What a signature is for is said by its payload alone.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firebrick_digest::Digest;
use serde::{Deserialize, Serialize};

use crate::error::TrustError;
use crate::payload::PAYLOAD_MAX;
use crate::signature::Signature;

/// Media type of an OCI manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What a manifest of signatures is: cosign's word for those that have a subject.
pub const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// Media type of a payload.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Media type of a config that says nothing.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// That config.
pub const EMPTY_CONFIG: &[u8] = b"{}";
/// A manifest of signatures has at most so many bytes.
pub const MANIFEST_MAX: u64 = 1 << 20;
/// It is read as far as so many layers.
pub const LAYERS_MAX: usize = 64;

const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// A signature's base64 has at most so many bytes; the largest that anybody makes has five thousand.
const SIGNATURE_MAX: usize = 16 << 10;
const WHAT: &str = "a manifest of signatures";

/// The manifest that signatures are about, as they point at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// A signature in a manifest, whose payload lies beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Digest of the payload.
    pub payload: Digest,
    /// Its bytes, at most [`PAYLOAD_MAX`].
    pub payload_len: u64,
    /// The signature.
    pub signature: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes).to_string(),
        size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        annotations: BTreeMap::new(),
    }
}

/// The manifest of some signatures of `subject`. [`EMPTY_CONFIG`] and their payloads must lie beside it.
pub fn manifest_of(subject: &Subject, signatures: &[Signature]) -> Vec<u8> {
    let layer = |signature: &Signature| {
        let mut layer = descriptor(SIMPLE_SIGNING, &signature.payload);
        let text = STANDARD.encode(&signature.signature);
        layer.annotations.insert(ANNOTATION.to_owned(), text);
        layer
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        artifact_type: Some(ARTIFACT.to_owned()),
        config: descriptor(EMPTY, EMPTY_CONFIG),
        layers: signatures.iter().map(layer).collect(),
        subject: Some(Descriptor {
            media_type: subject.media_type.clone(),
            digest: subject.digest.to_string(),
            size: subject.size,
            annotations: BTreeMap::new(),
        }),
    };
    serde_json::to_vec(&manifest).expect("nothing in a manifest fails to be JSON")
}

/// The signatures in a manifest, of ours or of cosign's; instead of one that cannot be used, why.
///
/// # Errors
/// [`TrustError::Corrupt`] if it is no manifest, or holds no signature.
pub fn listed_in(bytes: &[u8]) -> Result<Vec<Result<Listed, String>>, TrustError> {
    let wrong = |problem| TrustError::Corrupt { what: WHAT, problem };
    if u64::try_from(bytes.len()).is_ok_and(|len| len > MANIFEST_MAX) {
        return Err(wrong(format!("it has {} bytes", bytes.len())));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    if manifest.schema_version != 2 {
        let found = manifest.schema_version;
        return Err(wrong(format!("its schemaVersion is {found}, not 2")));
    }
    let payloads = |layer: &&Descriptor| layer.media_type == SIMPLE_SIGNING;
    let mut found: Vec<_> = manifest
        .layers
        .iter()
        .filter(payloads)
        .take(LAYERS_MAX)
        .map(listed)
        .collect();
    match manifest.layers.iter().filter(payloads).count() {
        0 => return Err(wrong("it holds no signature".to_owned())),
        count if count > LAYERS_MAX => found.push(Err(format!(
            "of its {count} signatures only {LAYERS_MAX} were read"
        ))),
        _ => {}
    }
    Ok(found)
}

fn listed(layer: &Descriptor) -> Result<Listed, String> {
    let text = layer.annotations.get(ANNOTATION);
    let text = text.ok_or("a payload has no signature beside it")?;
    if text.len() > SIGNATURE_MAX {
        return Err(format!("a signature has {} bytes", text.len()));
    }
    if usize::try_from(layer.size).map_or(true, |len| len > PAYLOAD_MAX) {
        return Err(format!("a payload has {} bytes", layer.size));
    }
    let payload = layer.digest.parse();
    Ok(Listed {
        payload: payload.map_err(|error| format!("a payload's digest: {error}"))?,
        payload_len: layer.size,
        signature: STANDARD
            .decode(text)
            .map_err(|_| "a signature is not base64".to_owned())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(payload: &[u8]) -> Signature {
        Signature {
            payload: payload.to_vec(),
            signature: vec![1, 2, 255],
        }
    }

    fn sample(count: usize) -> String {
        let subject = Subject {
            media_type: MANIFEST.to_owned(),
            digest: Digest::of(b"image"),
            size: 5,
        };
        String::from_utf8(manifest_of(&subject, &vec![signature(b"payload"); count])).unwrap()
    }

    #[test]
    fn signatures_come_back() {
        let listed = listed_in(sample(2).as_bytes()).unwrap();
        let wanted = Listed {
            payload: Digest::of(b"payload"),
            payload_len: 7,
            signature: vec![1, 2, 255],
        };
        assert_eq!(listed, [Ok(wanted.clone()), Ok(wanted)]);
    }

    #[test]
    fn what_is_wrong_with_one_leaves_others() {
        let text = sample(2);
        let first = |from: &str, to: &str| text.replacen(from, to, 1);
        for (bad, told) in [
            (first(r#""AQL/""#, r#""AQL""#), "not base64"),
            (first(r#""size":7"#, r#""size":65537"#), "65537 bytes"),
            (
                first(r#""size":7"#, r#""size":18446744073709551615"#),
                "18446744073709551615 bytes",
            ),
            (first(ANNOTATION, "other"), "no signature beside"),
            (first(&Digest::of(b"payload").hex(), "../../x"), "not a digest"),
            (first("AQL/", &"A".repeat(SIGNATURE_MAX + 4)), "a signature has"),
        ] {
            assert_ne!(bad, text);
            let listed = listed_in(bad.as_bytes()).unwrap();
            assert!(listed[0].as_ref().unwrap_err().contains(told), "{listed:?}");
            assert!(listed[1].is_ok());
        }
        let many = listed_in(sample(LAYERS_MAX + 3).as_bytes()).unwrap();
        assert_eq!(many.iter().filter(|one| one.is_ok()).count(), LAYERS_MAX);
        assert!(many.last().unwrap().as_ref().unwrap_err().contains("67"));
    }

    #[test]
    fn other_manifests_are_told() {
        let text = sample(1);
        for (bad, told) in [
            (text.replace(SIMPLE_SIGNING, "text/spdx+json"), "no signature"),
            (
                text.replace(r#""schemaVersion":2"#, r#""schemaVersion":1"#),
                "schemaVersion",
            ),
            ("[]".to_owned(), "invalid"),
            ("{\"x\":".to_owned() + &"[".repeat(1 << 19), "EOF"),
            (" ".repeat(2 << 20), "2097152 bytes"),
        ] {
            let error = listed_in(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(told), "{error:?} does not tell {told:?}");
        }
    }
}
