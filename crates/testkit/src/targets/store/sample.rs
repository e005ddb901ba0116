//! A published image whose parts are known one by one, so that any of them can be put in another's place and the digests made right.
//!
//! Tables are written here as `table.rs` of the store documents them, and by none of its code.

use firebrick_digest::Digest;
use firebrick_store::{ARTIFACT, Id};
use serde_json::{Value, json};

/// Objects of a store, by key.
pub(super) type Held = Vec<(String, Vec<u8>)>;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The parts of an image.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// The bundle with the chunks.
    chunks: Vec<u8>,
    /// The bundle with the table's segments.
    segments: Vec<u8>,
    /// The root of the table.
    pub(super) root: Vec<u8>,
    /// In bytes.
    pub(super) image_len: u64,
    /// The bytes of the first segment, which covers [`Sample::FIRST_LEN`].
    pub(super) first: Vec<u8>,
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).expect("there is memory")
}

/// Adds a blob.
pub(super) fn hold(objects: &mut Held, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    objects.push((format!("blobs/sha256/{}", digest.hex()), bytes.to_vec()));
    digest
}

/// Puts something in the place of an object.
pub(super) fn put(objects: &mut Held, key: &str, bytes: &[u8]) {
    objects.retain(|(known, _)| known != key);
    objects.push((key.to_owned(), bytes.to_vec()));
}

fn number(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("it is small").to_le_bytes()
}

/// Where some bytes lie in the first blob of a list.
fn locator(offset: usize, stored: usize, content: &[u8]) -> Vec<u8> {
    let numbers = [0, offset, stored, content.len()].map(number).concat();
    [&numbers, &Id::of(content).as_bytes()[..]].concat()
}

/// A list of one blob.
fn blobs(blob: &[u8]) -> Vec<u8> {
    [&number(1)[..], Digest::of(blob).as_bytes()].concat()
}

fn root(image_len: u64, segments: &[u8], entries: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut root = b"FBROOT1\n".to_vec();
    root.extend(image_len.to_le_bytes());
    root.extend(blobs(segments));
    root.extend(number(entries.len()));
    for (len, at) in entries {
        root.extend(len.to_le_bytes());
        root.extend(at);
    }
    root
}

impl Sample {
    /// What the first segment covers, in bytes.
    pub(super) const FIRST_LEN: u64 = 4096 + 8192 + 8192;

    /// Three chunks with a hole between, in two segments.
    pub(super) fn new() -> Sample {
        let contents = [1_u32, 2, 3].map(|seed| seed.to_le_bytes().repeat(1024 * seed as usize));
        let frames = contents.clone().map(|content| frame(&content));
        let chunks = frames.concat();
        let chunk = |number: usize| {
            let offset = frames[..number].iter().map(Vec::len).sum();
            let at = locator(offset, frames[number].len(), &contents[number]);
            [&[1], &at[..]].concat()
        };
        let hole = [&[0][..], &8192_u64.to_le_bytes()].concat();
        let segment = |entries: &[Vec<u8>]| {
            let head = [&blobs(&chunks)[..], &number(entries.len())].concat();
            [head, entries.concat()].concat()
        };
        let (first, second) = (segment(&[chunk(0), hole, chunk(1)]), segment(&[chunk(2)]));
        let stored = [frame(&first), frame(&second)];
        let segments = stored.concat();
        let at = [
            locator(0, stored[0].len(), &first),
            locator(stored[0].len(), stored[1].len(), &second),
        ];
        let image_len = Sample::FIRST_LEN + 12288;
        let entries = [Sample::FIRST_LEN, 12288].into_iter().zip(at);
        Sample {
            root: root(image_len, &segments, &entries.collect::<Vec<_>>()),
            chunks,
            segments,
            image_len,
            first,
        }
    }

    /// The same with one segment, which is to cover `len` bytes.
    pub(super) fn with_segment(self, bytes: &[u8], len: u64) -> Sample {
        let segments = frame(bytes);
        let at = locator(0, segments.len(), bytes);
        Sample {
            root: root(len, &segments, &[(len, at)]),
            segments,
            image_len: len,
            ..self
        }
    }

    /// The same with another root, of an image of `len` bytes.
    pub(super) fn with_root(self, bytes: &[u8], len: u64) -> Sample {
        Sample {
            root: bytes.to_vec(),
            image_len: len,
            ..self
        }
    }

    pub(super) fn config(&self) -> Vec<u8> {
        let config = json!({
            "architecture": "amd64", "os": "linux", "format": "ext4", "size": self.image_len, "data": 24576,
            "content": Digest::of(b"content").to_string(), "tableLen": self.root.len(),
            "tableId": Id::of(&self.root).to_string(),
        });
        config.to_string().into_bytes()
    }

    pub(super) fn manifest(&self, config: &[u8]) -> Vec<u8> {
        let descriptor = |kind: &str, bytes: &[u8]| {
            let kind = format!("application/vnd.firebrick.image.{kind}");
            json!({ "mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len() })
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT,
            "config": descriptor("config.v1+json", config),
            "layers": [
                descriptor("table.v1", &frame(&self.root)),
                descriptor("bundle.v1", &self.segments),
                descriptor("bundle.v1", &self.chunks),
            ],
        });
        manifest.to_string().into_bytes()
    }

    /// All objects, with these documents in place of its own, and a second name for the same image.
    pub(super) fn objects(&self, config: Option<&[u8]>, manifest: Option<&[u8]>) -> Held {
        let config = config.map_or_else(|| self.config(), <[u8]>::to_vec);
        let manifest = manifest.map_or_else(|| self.manifest(&config), <[u8]>::to_vec);
        let mut objects = Held::new();
        // The same in a manifest of its own.
        let (root, twin) = (frame(&self.root), [&manifest[..], b"\n"].concat());
        for bytes in [&self.chunks, &self.segments, &root, &config, &manifest, &twin] {
            hold(&mut objects, bytes);
        }
        put(&mut objects, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        put(
            &mut objects,
            "index.json",
            &index(&[current(&manifest), named(&twin, "twin:v1")]),
        );
        objects
    }
}

/// An index with these entries.
pub(super) fn index(entries: &[Value]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "manifests": entries })
        .to_string()
        .into_bytes()
}

/// What an index says of a manifest.
pub(super) fn entry(manifest: &[u8], key: &str, value: &str) -> Value {
    json!({
        "mediaType": MANIFEST, "digest": Digest::of(manifest).to_string(), "size": manifest.len(),
        "annotations": { key: value, "dev.firebrick.published": "1700000000" },
    })
}

/// What it says of the current version of `app`.
pub(super) fn current(manifest: &[u8]) -> Value {
    named(manifest, "app:latest")
}

fn named(manifest: &[u8], name: &str) -> Value {
    entry(manifest, "org.opencontainers.image.ref.name", name)
}
