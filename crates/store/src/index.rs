//! `index.json`: the names of a folder or bucket, and the one object in it that changes.
//!
//! An OCI image index (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md#indexjson-file>): `NAME:TAG` stands
//! in the annotation that other tools look for, versions that were replaced keep theirs in one of ours. What others put
//! there stays.

use firebrick_digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::StoreError;
use crate::fetch::AGAIN;
use crate::layout::{INDEX_KEY, LAYOUT_KEY};
use crate::manifest::{ARTIFACT, Descriptor, MANIFEST};
use crate::name::Tagged;
use crate::objects::{Objects, Version};

/// Media type of an OCI index.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An index has at most so many bytes: a hundred thousand versions.
pub(crate) const INDEX_MAX: u64 = 64 << 20;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const WAS: &str = "dev.firebrick.was";
const PUBLISHED: &str = "dev.firebrick.published";
const IMAGE_SIZE: &str = "dev.firebrick.image-size";
const SUBJECT: &str = "dev.firebrick.subject";
const EPOCH: &str = "dev.firebrick.epoch";

/// How often names are read that shall be the same twice. Beyond that others write them all the time, and what was read last counts.
const LOOKS: usize = 5;

/// A version of an image under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its name and tag.
    pub tagged: Tagged,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Bytes of its manifest; 0 where that is not known.
    pub manifest_size: u64,
    /// Length of the image in bytes; 0 where that is not known.
    pub image_size: u64,
    /// When it was published, in seconds since 1970, by the publisher's clock; 0 where that is not known.
    pub time: u64,
    /// Whether the name means this version now.
    pub current: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
    /// Entries by other algorithms than SHA-256, as they were written.
    pub(crate) foreign: Vec<Value>,
    pub(crate) other: Map<String, Value>,
}

/// What lies in the object.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    schema_version: u32,
    #[serde(default = "media_type")]
    media_type: String,
    manifests: Vec<Value>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

fn media_type() -> String {
    INDEX.to_owned()
}

impl Index {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Index, String> {
        let written: Written = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if written.schema_version != 2 {
            return Err(format!("its schemaVersion is {}, not 2", written.schema_version));
        }
        let mut index = Index {
            other: written.other,
            ..Index::default()
        };
        for (place, entry) in written.manifests.into_iter().enumerate() {
            if is_foreign(&entry) {
                index.foreign.push(entry);
                continue;
            }
            let read = Descriptor::deserialize(entry);
            index
                .manifests
                .push(read.map_err(|error| format!("its entry {place} is not right: {error}"))?);
        }
        Ok(index)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let own = self.manifests.iter().map(serde_json::to_value);
        let own = own.map(|one| one.expect("nothing in a descriptor fails to be JSON"));
        let written = Written {
            schema_version: 2,
            media_type: media_type(),
            manifests: own.chain(self.foreign.iter().cloned()).collect(),
            other: self.other.clone(),
        };
        serde_json::to_vec_pretty(&written).expect("nothing in an index fails to be JSON")
    }

    /// The last collection of garbage that is noted; 0 where none is.
    pub(crate) fn epoch(&self) -> u64 {
        let noted = self.other.get("annotations").and_then(|all| all.get(EPOCH));
        noted
            .and_then(Value::as_str)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        let all = self.other.entry("annotations").or_insert(Value::Null);
        if !all.is_object() {
            *all = Value::Object(Map::new());
        }
        if let Value::Object(all) = all {
            all.insert(EPOCH.to_owned(), Value::String(epoch.to_string()));
        }
    }

    /// Every version of every name; of each name the current one first, then the others, last published first.
    pub(crate) fn versions(&self) -> Vec<Published> {
        let mut all: Vec<Published> = self.manifests.iter().rev().filter_map(version).collect();
        all.sort_by(|a, b| (&a.tagged, !a.current).cmp(&(&b.tagged, !b.current)));
        all
    }

    /// Makes a version the current one of its name; the one that was it is kept behind it.
    pub(crate) fn publish(&mut self, published: &Published) {
        let name = published.tagged.to_string();
        self.manifests
            .retain(|one| !(one.digest == published.digest && name_of(one) == Some(&name)));
        for one in &mut self.manifests {
            if one.annotations.get(REF_NAME) == Some(&name) {
                one.annotations.remove(REF_NAME);
                one.annotations.insert(WAS.to_owned(), name.clone());
            }
        }
        let mut entry = Descriptor::new(MANIFEST, published.digest, published.manifest_size);
        entry.artifact_type = Some(ARTIFACT.to_owned());
        entry.annotations = [
            (REF_NAME, name),
            (PUBLISHED, published.time.to_string()),
            (IMAGE_SIZE, published.image_size.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        self.manifests.push(entry);
    }

    /// Removes the versions that `which` picks, and says what they were.
    pub(crate) fn remove(&mut self, which: &dyn Fn(&Published) -> bool) -> Vec<Published> {
        let removed: Vec<Published> = self.versions().into_iter().filter(which).collect();
        self.manifests
            .retain(|one| !version(one).is_some_and(|version| removed.contains(&version)));
        removed
    }

    /// What was said about a manifest.
    pub(crate) fn referrers(&self, subject: &Digest) -> Vec<Descriptor> {
        let subject = subject.to_string();
        let about = |one: &&Descriptor| one.annotations.get(SUBJECT) == Some(&subject);
        self.manifests.iter().filter(about).cloned().collect()
    }

    /// Adds what is said about a manifest.
    pub(crate) fn refer(&mut self, subject: &Digest, mut referrer: Descriptor) {
        referrer
            .annotations
            .insert(SUBJECT.to_owned(), subject.to_string());
        self.manifests.retain(|one| one.digest != referrer.digest);
        self.manifests.push(referrer);
    }

    /// Drops what is said about manifests that no name means any more.
    pub(crate) fn forget_orphans(&mut self) {
        let there: Vec<String> = self.manifests.iter().map(|one| one.digest.to_string()).collect();
        self.manifests.retain(|one| {
            one.annotations
                .get(SUBJECT)
                .is_none_or(|subject| there.contains(subject))
        });
    }
}

/// The names in a store, and which content of theirs that is. What is no index is asked for again.
pub(crate) fn look(objects: &dyn Objects) -> Result<(Index, Option<Version>), StoreError> {
    let mut tries = 0;
    loop {
        match decoded(objects, objects.get(INDEX_KEY, INDEX_MAX)?) {
            Err(_) if tries < AGAIN => tries += 1,
            found => return found,
        }
    }
}

/// The same for who acts on what is *not* among them. Nothing tells what digest an index should have, so damage on the way can hide
/// any name: it is read until the same comes twice.
pub(crate) fn look_twice(objects: &dyn Objects) -> Result<(Index, Option<Version>), StoreError> {
    let mut before = objects.get(INDEX_KEY, INDEX_MAX)?;
    for _ in 1..LOOKS {
        let found = objects.get(INDEX_KEY, INDEX_MAX)?;
        let is_same = found == before;
        before = found;
        if is_same {
            break;
        }
    }
    decoded(objects, before)
}

fn decoded(
    objects: &dyn Objects,
    found: Option<(Vec<u8>, Version)>,
) -> Result<(Index, Option<Version>), StoreError> {
    let corrupt = |problem| StoreError::Corrupt {
        address: objects.address().to_owned(),
        what: INDEX_KEY.to_owned(),
        problem,
    };
    match found {
        Some((bytes, version)) => Ok((Index::decode(&bytes).map_err(corrupt)?, Some(version))),
        // It is written after the first index; without names everything would look like garbage.
        None if objects.size(LAYOUT_KEY)?.is_some() => {
            Err(corrupt("it is gone, though the store had one".to_owned()))
        }
        None => Ok((Index::default(), None)),
    }
}

/// Whether an entry has a digest that we do not know how to make.
fn is_foreign(entry: &Value) -> bool {
    let digest = entry.get("digest").and_then(Value::as_str);
    let algorithm = digest.and_then(|digest| Some(digest.split_once(':')?.0));
    algorithm.is_some_and(|name| !name.is_empty() && name != "sha256")
}

/// Whether an entry says something about another, rather than being there for itself.
pub(crate) fn is_referrer(entry: &Descriptor) -> bool {
    entry.annotations.contains_key(SUBJECT)
}

/// The name that an entry has or had, whatever it is.
pub(crate) fn name_of(entry: &Descriptor) -> Option<&String> {
    entry
        .annotations
        .get(REF_NAME)
        .or_else(|| entry.annotations.get(WAS))
}

/// The version that an entry is, if its name could be one of ours.
pub(crate) fn version(entry: &Descriptor) -> Option<Published> {
    if is_referrer(entry) {
        return None;
    }
    let number = |key| {
        entry
            .annotations
            .get(key)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    Some(Published {
        tagged: name_of(entry)?.parse().ok()?,
        digest: entry.digest,
        manifest_size: entry.size,
        image_size: number(IMAGE_SIZE),
        time: number(PUBLISHED),
        current: entry.annotations.contains_key(REF_NAME),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(name: &str, content: &[u8], time: u64) -> Published {
        Published {
            tagged: name.parse().unwrap(),
            digest: Digest::of(content),
            manifest_size: content.len() as u64,
            image_size: 10,
            time,
            current: true,
        }
    }

    fn shown(index: &Index) -> Vec<String> {
        let one = |version: Published| format!("{} {} {}", version.tagged, version.time, version.current);
        index.versions().into_iter().map(one).collect()
    }

    #[test]
    fn a_name_keeps_its_versions() {
        let mut index = Index::default();
        let foreign = r#"{"mediaType":"m","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":1,"platform":{"os":"linux"}}"#;
        index.manifests.push(serde_json::from_str(foreign).unwrap());
        for (name, content, time) in [
            ("b", &b"1"[..], 1),
            ("a", b"2", 2),
            ("b", b"3", 3),
            ("b:x", b"3", 4),
            ("b", b"4", 5),
        ] {
            index.publish(&published(name, content, time));
        }
        let mut index = Index::decode(&index.encode()).unwrap();
        assert_eq!(
            shown(&index),
            [
                "a:latest 2 true",
                "b:latest 5 true",
                "b:latest 3 false",
                "b:latest 1 false",
                "b:x 4 true"
            ]
        );
        // An older version can come back, and is then no longer an older one.
        index.publish(&published("b", b"1", 6));
        assert_eq!(
            shown(&index)[1..4],
            ["b:latest 6 true", "b:latest 5 false", "b:latest 3 false"]
        );
        let removed = index.remove(&|version| version.tagged.to_string() == "b:latest" && !version.current);
        assert_eq!(removed.len(), 2);
        assert_eq!(
            shown(&index),
            ["a:latest 2 true", "b:latest 6 true", "b:x 4 true"]
        );
        assert_eq!(index.manifests[0].other["platform"]["os"], "linux");
    }

    #[test]
    fn what_is_said_goes_with_what_it_is_said_of() {
        let mut index = Index::default();
        index.publish(&published("a", b"1", 1));
        index.refer(&Digest::of(b"1"), Descriptor::of("m", b"signature"));
        assert_eq!(index.referrers(&Digest::of(b"1")).len(), 1);
        assert_eq!(shown(&index), ["a:latest 1 true"]);
        index.forget_orphans();
        assert_eq!(index.referrers(&Digest::of(b"1")).len(), 1);
        index.remove(&|_| true);
        index.forget_orphans();
        assert!(index.manifests.is_empty());
    }
}
