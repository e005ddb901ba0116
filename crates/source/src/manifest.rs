//! Manifests and image indexes, in OCI's and in Docker's words.
//!
//! A *descriptor* names content by media type, digest and size. A *manifest* lists a config and layers; an *index*
//! lists manifests (and other indexes), each maybe for a platform.
//! Formats: <https://github.com/opencontainers/image-spec/blob/main/manifest.md>, `image-index.md` beside it, and
//! <https://distribution.github.io/distribution/spec/manifest-v2-2/>.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use firebrick_digest::Digest;
use firebrick_registry::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use firebrick_registry::quote::quoted;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Part, SourceError};
use crate::options::Limits;
use crate::platform::Platform;

const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";
const CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
const LAYERS: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// What a document of a layout or registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An image index (Docker: manifest list).
    Index(Index),
    /// One image's manifest.
    Manifest(Manifest),
}

/// An image index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its manifests and indexes, in order.
    pub manifests: Vec<Descriptor>,
}

/// One image's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Names content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What kind of content; empty where it was left out.
    #[serde(default)]
    pub media_type: String,
    /// The content's digest as written, maybe by an algorithm we do not know.
    pub digest: String,
    /// The content's size in bytes.
    pub size: u64,
    /// Annotations.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What the image runs on, in an index.
    #[serde(default)]
    platform: Option<RawPlatform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "null_is_empty")]
    annotations: BTreeMap<String, String>,
    fs_layers: Option<IgnoredAny>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

impl Descriptor {
    /// The digest.
    ///
    /// # Errors
    /// [`SourceError::DigestAlgorithm`] if it is not a SHA-256.
    pub fn digest(&self, part: Part) -> Result<Digest, SourceError> {
        self.digest.parse().map_err(|_| SourceError::DigestAlgorithm {
            part,
            digest: quoted(&self.digest),
        })
    }

    /// What the image runs on, if the descriptor says so.
    pub fn platform(&self) -> Option<Platform> {
        let raw = self
            .platform
            .as_ref()
            .filter(|raw| !raw.architecture.is_empty())?;
        Some(Platform {
            os: match raw.os.as_str() {
                "" => "linux".to_owned(),
                os => os.to_owned(),
            },
            architecture: raw.architecture.clone(),
            variant: raw.variant.clone().filter(|variant| !variant.is_empty()),
        })
    }

    pub(crate) fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_INDEX)
    }

    /// An index may also list things that are no images: attestations, signatures, other artifacts.
    pub(crate) fn may_be_image(&self) -> bool {
        let known = matches!(
            self.media_type.as_str(),
            "" | OCI_INDEX | DOCKER_INDEX | OCI_MANIFEST | DOCKER_MANIFEST
        ) || self.media_type.starts_with(DOCKER_SCHEMA1);
        known && !self.annotations.contains_key("vnd.docker.reference.type")
    }
}

/// Parses a manifest or an index from its bytes.
///
/// `media_type` is what the descriptor or the registry calls it; words that are not of a manifest are ignored, as
/// plain web servers send such. `place` only serves messages.
///
/// # Errors
/// Any [`SourceError`] of the *corrupt* and *unsupported* groups; never a panic, in memory linear in `bytes`.
pub fn parse_document(
    bytes: &[u8],
    media_type: Option<&str>,
    place: &str,
    limits: &Limits,
) -> Result<Document, SourceError> {
    let part = Part::Manifest;
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if found > limits.manifest_bytes {
        return Err(SourceError::Limit {
            part,
            place: place.to_owned(),
            what: "its size in bytes",
            found,
            limit: limits.manifest_bytes,
        });
    }
    if media_type.is_some_and(|media_type| media_type.starts_with(DOCKER_SCHEMA1)) {
        return Err(SourceError::Schema1 {
            place: place.to_owned(),
        });
    }
    let raw: RawDocument = serde_json::from_slice(bytes).map_err(|source| SourceError::Json {
        part: part.clone(),
        place: place.to_owned(),
        source: source.into(),
    })?;
    let schema1 = raw
        .media_type
        .as_deref()
        .is_some_and(|own| own.starts_with(DOCKER_SCHEMA1));
    if schema1 || raw.schema_version == Some(1) || raw.fs_layers.is_some() {
        return Err(SourceError::Schema1 {
            place: place.to_owned(),
        });
    }
    check_kind(&raw, media_type, place)?;
    if let Some(manifests) = raw.manifests {
        return Ok(Document::Index(Index { manifests }));
    }
    let malformed = |problem| SourceError::Malformed {
        part: Part::Manifest,
        place: place.to_owned(),
        problem,
    };
    let manifest = Manifest {
        config: raw
            .config
            .ok_or_else(|| malformed("it has neither a config nor manifests"))?,
        layers: raw.layers.unwrap_or_default(),
        annotations: raw.annotations,
    };
    check_manifest(&manifest, place, limits)?;
    Ok(Document::Manifest(manifest))
}

/// A document must not be readable as both kinds, whoever names it
/// (<https://github.com/opencontainers/image-spec/security/advisories/GHSA-77vh-xpmg-72qh>).
fn check_kind(raw: &RawDocument, media_type: Option<&str>, place: &str) -> Result<(), SourceError> {
    let malformed = |problem| SourceError::Malformed {
        part: Part::Manifest,
        place: place.to_owned(),
        problem,
    };
    if raw.schema_version.is_some_and(|version| version != 2) {
        return Err(malformed("its schemaVersion is not 2"));
    }
    let is_index = raw.manifests.is_some();
    if is_index && (raw.layers.is_some() || raw.config.is_some()) {
        return Err(malformed("it is both a manifest and an index"));
    }
    for said in [media_type, raw.media_type.as_deref()].into_iter().flatten() {
        let says_index = match said {
            OCI_INDEX | DOCKER_INDEX => true,
            OCI_MANIFEST | DOCKER_MANIFEST => false,
            _ => continue,
        };
        if says_index != is_index {
            return Err(malformed("its media type does not fit its content"));
        }
    }
    Ok(())
}

fn check_manifest(manifest: &Manifest, place: &str, limits: &Limits) -> Result<(), SourceError> {
    let config_type = manifest.config.media_type.as_str();
    if !config_type.is_empty() && !CONFIGS.contains(&config_type) {
        return Err(SourceError::MediaType {
            part: Part::Config,
            media_type: quoted(config_type),
        });
    }
    if manifest.config.size > limits.config_bytes {
        return Err(SourceError::Limit {
            part: Part::Config,
            place: quoted(&manifest.config.digest),
            what: "its size in bytes",
            found: manifest.config.size,
            limit: limits.config_bytes,
        });
    }
    if manifest.layers.len() > limits.layers {
        return Err(SourceError::Limit {
            part: Part::Manifest,
            place: place.to_owned(),
            what: "its number of layers",
            found: u64::try_from(manifest.layers.len()).unwrap_or(u64::MAX),
            limit: u64::try_from(limits.layers).unwrap_or(u64::MAX),
        });
    }
    for (index, layer) in manifest.layers.iter().enumerate() {
        check_layer_type(index, &layer.media_type)?;
        layer.digest(Part::Layer(index))?;
    }
    Ok(())
}

/// The media type decides what a layer may be, not how it is compressed: that shows in its first bytes.
fn check_layer_type(layer: usize, media_type: &str) -> Result<(), SourceError> {
    if media_type.is_empty() || LAYERS.contains(&media_type) {
        return Ok(());
    }
    let media_type = quoted(media_type);
    if media_type.contains("nondistributable") || media_type.contains("foreign") {
        return Err(SourceError::ForeignLayer { layer, media_type });
    }
    Err(SourceError::MediaType {
        part: Part::Layer(layer),
        media_type,
    })
}
