//! The documents of a published image: an OCI manifest whose config tells what the image is, and whose layers are its blobs.
//!
//! Format: <https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidelines-for-artifact-usage>

use std::collections::BTreeMap;

use firebrick_digest::Digest;
use serde::{Deserialize, Serialize};

use crate::table::BUNDLE_MAX;

/// Media type of an OCI manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What a manifest of an image of ours is.
pub const ARTIFACT: &str = "application/vnd.firebrick.image.v1";
/// Media type of its config.
pub(crate) const CONFIG: &str = "application/vnd.firebrick.image.config.v1+json";
/// Media type of the root of its table.
pub(crate) const ROOT: &str = "application/vnd.firebrick.image.table.v1";
/// Media type of chunks beside each other.
pub(crate) const BUNDLE: &str = "application/vnd.firebrick.image.bundle.v1";

/// A manifest has at most so many bytes: registries take no more.
pub(crate) const MANIFEST_MAX: u64 = 4 << 20;
/// A config has at most so many bytes.
pub(crate) const CONFIG_MAX: u64 = 1 << 20;

/// What points at a blob or manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Digest of its bytes.
    #[serde(with = "as_text")]
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// What kind of artifact a manifest is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What we do not know of, and keep.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Descriptor {
    /// Points at `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Points at a blob of `size` bytes.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
            other: serde_json::Map::new(),
        }
    }
}

pub(crate) mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use super::Deserialize;

    pub(crate) fn serialize<S: serde::Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>, T: FromStr<Err: Display>>(
        from: D,
    ) -> Result<T, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An OCI manifest. Also of what is no image of ours, as far as one must look to see that.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Descriptor,
    /// The table's root, then the bundles.
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What an image is, apart from its bytes. Who publishes it says so; nothing here is needed to read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct About {
    /// Processor, as OCI names it: `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// The filesystem: `ext4`.
    pub format: String,
    /// The filesystem's label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What the image was made of, as a digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_key: Option<String>,
    /// The version of the agent in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_version: Option<String>,
    /// What a kernel must have to boot it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernel_needs: Vec<String>,
    /// Anything else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The config of a published image. Of a sealed one it is stored sealed: [`crate::Told`] is what it tells then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// What the image is.
    #[serde(flatten)]
    pub about: About,
    /// Length of the image, in bytes.
    pub size: u64,
    /// Bytes of it that are no hole.
    pub data: u64,
    /// Digest of what is in the image, wherever its chunks lie: equal for equal images (of one key).
    #[serde(with = "as_text")]
    pub content: Digest,
    /// Bytes of the table's root before compression.
    pub table_len: u64,
    /// Its id.
    #[serde(with = "as_text")]
    pub table_id: crate::id::Id,
    /// Tells whose key the chunks are sealed with; `None` for nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Manifest {
    pub(crate) fn of_image(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            artifact_type: Some(ARTIFACT.to_owned()),
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("nothing in a manifest fails to be JSON")
    }

    /// Reads the manifest of an image of ours.
    pub(crate) fn decode_image(bytes: &[u8]) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if manifest.artifact_type.as_deref() != Some(ARTIFACT) {
            let what = manifest.artifact_type.unwrap_or(manifest.config.media_type);
            return Err(format!("it is {what:?}"));
        }
        if manifest.config.size > CONFIG_MAX {
            return Err(format!("its config has {} bytes", manifest.config.size));
        }
        match manifest.layers.first() {
            Some(root) if root.media_type == ROOT => {}
            _ => return Err("its first layer is no table".to_owned()),
        }
        if let Some(large) = manifest.layers.iter().find(|layer| layer.size > BUNDLE_MAX) {
            return Err(format!("its blob {} has {} bytes", large.digest, large.size));
        }
        Ok(manifest)
    }

    /// Config and layers: all that must be there for the image to be.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}
