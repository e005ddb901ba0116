//! What a store's names reach: every blob that it must keep, also of images that are not ours.
//!
//! A *document* is a manifest or an index; it points at documents and at *leaves*, which point nowhere. Documents are read as far as
//! OCI defines them, and whatever else in them looks like a digest counts as pointed at: a blob that is kept for nothing costs
//! room, one that is removed wrongly costs an image.

use std::collections::{HashMap, HashSet};

use firebrick_digest::Digest;
use serde_json::Value;

use crate::error::StoreError;
use crate::index::{INDEX, Index, is_referrer};
use crate::manifest::{Descriptor, MANIFEST};
use crate::objects::ObjectError;

/// Reads the bytes of a document, and verifies them.
pub(crate) type Read<'a> = dyn Fn(&Digest) -> Result<Vec<u8>, StoreError> + Sync + 'a;

/// How a blob is pointed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It points nowhere.
    Leaf,
    /// Of an unknown type. If it is JSON, it is read like a document, else it is a leaf.
    Perhaps,
    /// A manifest or an index.
    Document,
}

/// Something that is pointed at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) digest: Digest,
    /// Its length in bytes, where whoever points at it says so.
    pub(crate) size: Option<u64>,
    pub(crate) kind: Kind,
    /// Whether a name or an image is broken without it.
    pub(crate) required: bool,
    /// Whether it says something about a document that it does not keep alive.
    referrer: bool,
}

/// What some documents reach.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// Everything, by digest.
    pub(crate) links: HashMap<Digest, Link>,
    /// Documents that could not be read, with the reason. What they point at is not among the links.
    pub(crate) troubles: Vec<(Link, StoreError)>,
}

/// What the names of `index.json` point at first.
pub(crate) fn roots(index: &Index) -> Vec<Link> {
    let mut roots: Vec<Link> = index
        .manifests
        .iter()
        .map(|one| Link {
            required: true,
            referrer: is_referrer(one),
            ..link(one)
        })
        .collect();
    index
        .other
        .values()
        .for_each(|value| mentions(value, Kind::Perhaps, &mut roots));
    roots
}

/// A manifest that must be there, of so many bytes; 0 where that is not known.
pub(crate) fn manifest(digest: Digest, size: u64) -> Link {
    Link {
        required: true,
        size: (size > 0).then_some(size),
        ..link(&Descriptor::new(MANIFEST, digest, size))
    }
}

fn link(descriptor: &Descriptor) -> Link {
    Link {
        digest: descriptor.digest,
        size: Some(descriptor.size),
        kind: if is_document(&descriptor.media_type) {
            Kind::Document
        } else {
            Kind::Perhaps
        },
        required: false,
        referrer: false,
    }
}

fn is_document(media_type: &str) -> bool {
    matches!(
        media_type,
        MANIFEST
            | INDEX
            | "application/vnd.oci.artifact.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
            | "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws"
    )
}

/// Follows `roots` to their ends, a level at a time, by `threads` threads.
///
/// # Errors
/// [`StoreError::Stopped`] alone; whatever else goes wrong is among the troubles.
pub(crate) fn walk(roots: Vec<Link>, threads: usize, read: &Read<'_>) -> Result<Reached, StoreError> {
    let mut reached = Reached::default();
    let mut opened = HashSet::new();
    let mut level = roots;
    while !level.is_empty() {
        let mut documents = Vec::new();
        for link in level {
            let known = reached.links.entry(link.digest).or_insert(link);
            known.required |= link.required;
            known.kind = known.kind.max(link.kind);
            known.size = known.size.or(link.size);
            if link.kind > Kind::Leaf && opened.insert(link.digest) {
                documents.push(link);
            }
        }
        let below = crate::parallel::map(threads, &documents, |link| match children(link, read) {
            Err(StoreError::Stopped) => Err(StoreError::Stopped),
            other => Ok(other),
        })?;
        level = Vec::new();
        for (link, below) in documents.into_iter().zip(below) {
            match below {
                Ok(links) => level.extend(links),
                Err(error) => reached.troubles.push((link, error)),
            }
        }
    }
    Ok(reached)
}

/// What a document points at.
fn children(link: &Link, read: &Read<'_>) -> Result<Vec<Link>, StoreError> {
    let perhaps = link.kind == Kind::Perhaps;
    let bytes = match read(&link.digest) {
        // Indexes may name images that nobody has copied; what is unknown may be anything, and large.
        Err(StoreError::Object(ObjectError::Missing { .. })) if !link.required => return Ok(Vec::new()),
        Err(StoreError::Object(ObjectError::TooLarge { .. })) if perhaps => return Ok(Vec::new()),
        bytes => bytes?,
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(document)) => Ok(pointed_at(&document, perhaps, link.referrer)),
        _ if perhaps => Ok(Vec::new()),
        Ok(_) => Err(unreadable(link, "it is no JSON object".to_owned())),
        Err(error) => Err(unreadable(link, error.to_string())),
    }
}

fn unreadable(link: &Link, problem: String) -> StoreError {
    StoreError::Corrupt {
        address: "the store".to_owned(),
        what: format!("manifest {}", link.digest),
        problem,
    }
}

fn pointed_at(document: &serde_json::Map<String, Value>, perhaps: bool, referrer: bool) -> Vec<Link> {
    let mut links = Vec::new();
    for (key, value) in document {
        let parts = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        match key.as_str() {
            "subject" if referrer => continue,
            "manifests" | "subject" => {
                links.extend(parts.iter().filter_map(descriptor).map(|one| link(&one)));
            }
            "layers" | "config" | "blobs" => {
                let leaf = |one: Descriptor| Link {
                    kind: if is_document(&one.media_type) {
                        Kind::Document
                    } else {
                        Kind::Leaf
                    },
                    required: true,
                    ..link(&one)
                };
                links.extend(parts.iter().filter_map(descriptor).map(leaf));
            }
            _ => {}
        }
        mentions(
            value,
            if perhaps { Kind::Perhaps } else { Kind::Leaf },
            &mut links,
        );
    }
    links
}

fn descriptor(value: &Value) -> Option<Descriptor> {
    serde::Deserialize::deserialize(value).ok()
}

/// Every text that is a digest, wherever it stands. JSON is nested no deeper than its reader allows.
fn mentions(value: &Value, kind: Kind, links: &mut Vec<Link>) {
    match value {
        Value::String(text) => links.extend(text.parse().ok().map(|digest| Link {
            digest,
            size: None,
            kind,
            required: false,
            referrer: false,
        })),
        Value::Array(values) => values.iter().for_each(|value| mentions(value, kind, links)),
        Value::Object(values) => values.values().for_each(|value| mentions(value, kind, links)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Documents(HashMap<Digest, Vec<u8>>);

    impl Documents {
        fn add(&mut self, value: &Value) -> Value {
            self.add_bytes(value.to_string().into_bytes(), MANIFEST)
        }

        fn add_bytes(&mut self, bytes: Vec<u8>, media_type: &str) -> Value {
            let digest = Digest::of(&bytes);
            let descriptor =
                json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()});
            self.0.insert(digest, bytes);
            descriptor
        }

        fn walk(&self, root: &Value) -> Reached {
            let index = Index::decode(
                &serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [root]})).unwrap(),
            );
            let read = |digest: &Digest| {
                self.0.get(digest).cloned().ok_or_else(|| {
                    StoreError::Object(ObjectError::Missing {
                        address: "here".to_owned(),
                        key: digest.to_string(),
                    })
                })
            };
            walk(roots(&index.unwrap()), 2, &read).unwrap()
        }
    }

    fn blob(content: &str) -> Value {
        json!({"mediaType": "x", "digest": Digest::of(content.as_bytes()).to_string(), "size": content.len()})
    }

    #[test]
    fn everything_below_is_reached_whoever_wrote_it() {
        let mut documents = Documents(HashMap::new());
        let image = documents.add(
            &json!({"config": blob("c"), "layers": [blob("l")], "foo": {"bar": [blob("odd")["digest"]]}}),
        );
        let old = documents.add(&json!({"fsLayers": [{"blobSum": blob("old")["digest"]}]}));
        let strange = documents.add_bytes(
            json!([[old["digest"]]]).to_string().into_bytes(),
            "application/x-strange",
        );
        let wrapped = documents.add_bytes(
            json!({"a": {"b": image["digest"]}}).to_string().into_bytes(),
            "application/x-wrap",
        );
        let absent = blob("of another platform");
        let index = documents.add(&json!({"manifests": [image, old, strange, wrapped, absent]}));
        let reached = documents.walk(&index);
        for content in ["c", "l", "odd", "old"] {
            assert!(
                reached.links.contains_key(&Digest::of(content.as_bytes())),
                "{content}"
            );
        }
        assert!(reached.troubles.is_empty(), "{:?}", reached.troubles);
        assert_eq!(reached.links.len(), 5 + 5);
        // Through a wrapper of an unknown type alone.
        assert!(documents.walk(&wrapped).links.contains_key(&Digest::of(b"l")));
    }

    #[test]
    fn what_must_be_there_is_missed() {
        let mut documents = Documents(HashMap::new());
        let mut absent = blob("image");
        absent["mediaType"] = json!(MANIFEST);
        assert_eq!(documents.walk(&absent).troubles.len(), 1);
        let text = documents.add_bytes(b"no document".to_vec(), MANIFEST);
        assert_eq!(documents.walk(&text).troubles.len(), 1);
        let leaf = documents.add_bytes(b"no document".to_vec(), "text/plain");
        assert!(documents.walk(&leaf).troubles.is_empty());
    }

    #[test]
    fn a_signature_does_not_keep_what_it_signs() {
        let mut documents = Documents(HashMap::new());
        let image = documents.add(&json!({"config": blob("c"), "layers": []}));
        let mut signature = documents.add(&json!({"config": blob("s"), "layers": [], "subject": image}));
        assert!(documents.walk(&signature).links.contains_key(&Digest::of(b"c")));
        signature["annotations"] = json!({"dev.firebrick.subject": image["digest"]});
        let reached = documents.walk(&signature);
        assert_eq!(reached.links.len(), 2);
    }
}
