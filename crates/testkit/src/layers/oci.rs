//! OCI image layouts made of layers.
//! Format: <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use firebrick_digest::Digest;
use serde_json::{Value, json};

use super::{Layer, tar::to_tar};

/// How a layer's tar is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// gzip, one member.
    Gzip,
    /// zstd, one frame.
    Zstd,
}

impl Compression {
    /// The bytes as they are stored.
    pub fn compress(self, tar: &[u8]) -> Vec<u8> {
        let memory = "writing to memory cannot fail";
        match self {
            Compression::None => tar.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).expect(memory);
                encoder.finish().expect(memory)
            }
            Compression::Zstd => zstd::encode_all(tar, 1).expect(memory),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// What goes into a layout beside its layers.
#[derive(Clone, Debug)]
pub struct Options {
    /// The tag in the index.
    pub tag: String,
    /// How the layers are stored.
    pub compression: Compression,
    /// `created` of the config.
    pub created: String,
    /// The `config` object of the config (Entrypoint, Env and so on).
    pub config: Value,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            tag: "latest".to_owned(),
            compression: Compression::Gzip,
            created: "2024-01-02T03:04:05Z".to_owned(),
            config: json!({}),
        }
    }
}

/// [`Options::default`]'s `created`, in seconds since 1970.
pub const DEFAULT_CREATED: i64 = 1_704_164_645;

/// A layer as it is stored.
#[derive(Clone)]
pub struct Blob {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The digest of the uncompressed bytes, as the config tells it.
    pub diff_id: Digest,
    /// What the manifest says it is.
    pub media_type: String,
}

impl Blob {
    /// Stores a layer's bytes (which may be no tar at all).
    pub fn of_tar(tar: &[u8], compression: Compression) -> Blob {
        Blob {
            bytes: compression.compress(tar),
            diff_id: Digest::of(tar),
            media_type: compression.media_type().to_owned(),
        }
    }

    /// Takes a real layer as it is: gzip, zstd or plain.
    ///
    /// # Errors
    /// If it cannot be decompressed.
    pub fn found(bytes: Vec<u8>) -> anyhow::Result<Blob> {
        let (compression, diff_id) = match bytes.as_slice() {
            [0x1f, 0x8b, ..] => {
                let mut tar = Vec::new();
                flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut tar)?;
                (Compression::Gzip, Digest::of(&tar))
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => (Compression::Zstd, Digest::of(&zstd::decode_all(&bytes[..])?)),
            _ => (Compression::None, Digest::of(&bytes)),
        };
        Ok(Blob {
            bytes,
            diff_id,
            media_type: compression.media_type().to_owned(),
        })
    }
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}

/// The config of an image of these layers.
pub(crate) fn config(blobs: &[Blob], options: &Options) -> Value {
    let diff_ids: Vec<_> = blobs.iter().map(|blob| blob.diff_id.to_string()).collect();
    json!({
        "created": options.created,
        "architecture": architecture(),
        "os": "linux",
        "config": options.config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": blobs.iter().map(|_| json!({"created": options.created})).collect::<Vec<_>>(),
    })
}

/// Writes an OCI image layout of `layers`, lowest first, into the folder `dir` (made if missing).
///
/// # Errors
/// What the host fails with.
pub fn write_layout(dir: &Path, layers: &[Layer], options: &Options) -> anyhow::Result<()> {
    let blob = |layer| Blob::of_tar(&to_tar(layer), options.compression);
    write_layout_of_blobs(dir, &layers.iter().map(blob).collect::<Vec<_>>(), options)
}

/// As [`write_layout`], of layers as they are stored; `options.compression` does not count.
///
/// # Errors
/// What the host fails with.
pub fn write_layout_of_blobs(dir: &Path, layers: &[Blob], options: &Options) -> anyhow::Result<()> {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let store = |bytes: &[u8], media_type: &str| -> anyhow::Result<Value> {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()}))
    };
    let descriptors = layers
        .iter()
        .map(|blob| store(&blob.bytes, &blob.media_type))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let config = store(
        config(layers, options).to_string().as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    )?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config,
        "layers": descriptors,
    });
    let mut entry = store(manifest.to_string().as_bytes(), manifest_type)?;
    entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": options.tag});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    std::fs::write(dir.join("index.json"), index.to_string())?;
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

/// The layers of a real OCI image layout, lowest first, as stored: reads the first manifest of the index.
///
/// # Errors
/// If the layout is not one.
pub fn layer_blobs(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    use anyhow::Context as _;
    let blob = |descriptor: &Value| -> anyhow::Result<PathBuf> {
        let digest: Digest = descriptor["digest"].as_str().context("no digest")?.parse()?;
        Ok(dir.join("blobs/sha256").join(digest.hex()))
    };
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(dir.join("index.json"))?)?;
    while let Some(first) = manifest["manifests"].get(0) {
        manifest = serde_json::from_slice(&std::fs::read(blob(first)?)?)?;
    }
    manifest["layers"]
        .as_array()
        .context("no layers")?
        .iter()
        .map(blob)
        .collect()
}
