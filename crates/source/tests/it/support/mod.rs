//! Images made for tests, servers, and what all tests say alike.

pub(crate) mod registry;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use firebrick_digest::Digest;
use firebrick_source::{Event, Layer, OciImage, Options, Platform, Reference, SourceError};
pub(crate) use firebrick_testkit::random::noise;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What the tests build images for, so that they say the same on every machine.
pub(crate) const PLATFORM: &str = "linux/amd64";

pub(crate) fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

/// Options for `PLATFORM` with short pauses.
pub(crate) fn options() -> Options {
    let mut options = Options {
        platform: Some(platform(PLATFORM)),
        ..Options::default()
    };
    options.registry.retry.first_delay = Duration::from_millis(20);
    options.registry.retry.attempts = 4;
    options.registry.read_timeout = Duration::from_secs(20);
    options
}

/// Options that keep what they are told.
pub(crate) fn recorded(mut options: Options) -> (Options, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&events);
    options.events = Arc::new(move |event| copy.lock().unwrap().push(event));
    (options, events)
}

pub(crate) fn open(reference: &str, options: &Options) -> Result<OciImage, SourceError> {
    let reference: Reference = reference.parse().unwrap();
    firebrick_source::open(&reference, options)
}

/// The whole error as a person sees it: text, causes, hint.
pub(crate) fn refusal(reference: &str, options: &Options) -> String {
    match open(reference, options) {
        Ok(image) => panic!("{reference} was opened: {:?}", image.manifest_digest),
        Err(error) => chain(&error),
    }
}

pub(crate) fn chain(error: &SourceError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!(" (hint: {hint})"));
    }
    text
}

pub(crate) fn read(layer: &Layer) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    layer
        .open()
        .map_err(std::io::Error::other)?
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A tar of plain files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A descriptor as JSON, with more members (each after a comma) at its end.
pub(crate) fn descriptor(media_type: &str, bytes: &[u8], more: &str) -> String {
    let digest = Digest::of(bytes);
    let len = bytes.len();
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{len}{more}}}"#)
}

pub(crate) fn config_json(platform: &str, diff_ids: &[Digest]) -> String {
    let platform: Platform = platform.parse().unwrap();
    let variant = platform
        .variant
        .map_or(String::new(), |variant| format!(r#","variant":"{variant}""#));
    let ids: Vec<String> = diff_ids.iter().map(|id| format!("\"{id}\"")).collect();
    format!(
        r#"{{"architecture":"{}","os":"{}"{variant},"config":{{"Env":["A=1"],"Cmd":["/bin/sh"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        platform.architecture,
        platform.os,
        ids.join(",")
    )
}

pub(crate) fn manifest_json(config: &str, layers: &[String]) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]}}"#,
        descriptor(OCI_CONFIG, config.as_bytes(), ""),
        layers.join(",")
    )
}

/// An OCI layout under construction.
pub(crate) struct LayoutDir {
    folder: tempfile::TempDir,
}

impl LayoutDir {
    pub(crate) fn new() -> LayoutDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        fs::write(
            folder.path().join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        LayoutDir { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn reference(&self) -> String {
        format!("oci:{}", self.path().display())
    }

    pub(crate) fn blob_path(&self, bytes: &[u8]) -> PathBuf {
        self.path().join("blobs/sha256").join(Digest::of(bytes).hex())
    }

    pub(crate) fn put(&self, bytes: &[u8]) {
        fs::write(self.blob_path(bytes), bytes).unwrap();
    }

    /// Adds an image of these uncompressed layers and yields its manifest's descriptor.
    pub(crate) fn image(&self, platform: &str, layers: &[Vec<u8>], more: &str) -> String {
        let stored: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let descriptors: Vec<String> = stored
            .iter()
            .map(|layer| descriptor(&format!("{OCI_LAYER}+gzip"), layer, ""))
            .collect();
        let config = config_json(platform, &diff_ids);
        let manifest = manifest_json(&config, &descriptors);
        stored.iter().for_each(|layer| self.put(layer));
        self.put(config.as_bytes());
        self.put(manifest.as_bytes());
        descriptor(OCI_MANIFEST, manifest.as_bytes(), more)
    }

    /// Adds an index blob and yields its descriptor.
    pub(crate) fn index(&self, descriptors: &[String], more: &str) -> String {
        let index = index_json(descriptors);
        self.put(index.as_bytes());
        descriptor(OCI_INDEX, index.as_bytes(), more)
    }

    pub(crate) fn finish(&self, descriptors: &[String]) {
        fs::write(self.path().join("index.json"), index_json(descriptors)).unwrap();
    }

    /// A layout with one image of one layer; yields the layer as stored.
    pub(crate) fn simple() -> (LayoutDir, Vec<u8>) {
        let layout = LayoutDir::new();
        let layer = tar(&[("hello", b"world")]);
        let image = layout.image(PLATFORM, std::slice::from_ref(&layer), "");
        layout.finish(&[image]);
        (layout, gzip(&layer))
    }

    /// The layout as a tar, with the entries in a stated order.
    pub(crate) fn to_tar(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_dir_all("", self.path()).unwrap();
        builder.into_inner().unwrap()
    }
}

pub(crate) fn index_json(descriptors: &[String]) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
        descriptors.join(",")
    )
}

/// `,"annotations":{…}` with a name.
pub(crate) fn named(name: &str) -> String {
    format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#)
}

/// `,"platform":{…}`.
pub(crate) fn for_platform(text: &str) -> String {
    let Platform {
        os,
        architecture,
        variant,
    } = text.parse().unwrap();
    let variant = variant.map_or(String::new(), |variant| format!(r#","variant":"{variant}""#));
    format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}"#)
}
