//! A store in an OCI registry: each name is a repository, each tag of it a tag there.
//!
//! Registries cannot compare and swap, so a version gets a tag of its own first, `TAG.vTIME-DIGEST`, and the name's tag is moved
//! afterwards: of two writers at once one is overtaken, but the versions of both stay. What was pushed by other programs has no
//! such tag until it is replaced.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use firebrick_digest::Digest;
use firebrick_registry::{
    self as oci, ManifestName, OnRetry, RegistryError, RegistryOptions, Repository, RepositoryName,
};

use crate::backend::{Backend, Replaced};
use crate::error::StoreError;
use crate::index::Published;
use crate::manifest::{Descriptor, MANIFEST, MANIFEST_MAX};
use crate::name::{Name, Tag, Tagged};
use crate::objects::Objects;

/// Longest tag, so that a version's tag fits what registries take.
const TAG_MAX: usize = 48;
/// Requests at a time where each image is asked about.
const REQUESTS: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Registry {
    /// Host and path above the repositories.
    base: String,
    address: String,
    options: RegistryOptions,
    on_retry: Retries,
    repositories: Mutex<HashMap<Name, Arc<Repository>>>,
}

struct Retries(OnRetry);

impl std::fmt::Debug for Retries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Retries")
    }
}

impl Registry {
    /// The store below `base`, which is `HOST[:PORT][/PATH]`. Nobody is asked yet.
    pub fn new(base: &str, options: RegistryOptions, on_retry: OnRetry) -> Registry {
        let base = base.trim_end_matches('/').to_owned();
        Registry {
            address: format!("oci://{base}"),
            base,
            options,
            on_retry: Retries(on_retry),
            repositories: Mutex::default(),
        }
    }

    fn repository_name(&self, name: &Name) -> Result<RepositoryName, StoreError> {
        format!("{}/{name}", self.base)
            .parse()
            .map_err(|source| StoreError::NoRepository {
                address: self.address.clone(),
                name: name.to_string(),
                source,
            })
    }

    fn repository(&self, name: &Name) -> Result<Arc<Repository>, StoreError> {
        let mut all = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(name) {
            return Ok(Arc::clone(known));
        }
        let repository = Repository::new(
            &self.repository_name(name)?,
            &self.options,
            Arc::clone(&self.on_retry.0),
        )?;
        Ok(Arc::clone(
            all.entry(name.clone()).or_insert(Arc::new(repository)),
        ))
    }

    /// The names below the base.
    fn names(&self) -> Result<Vec<Name>, StoreError> {
        let path = self.base.split_once('/').map_or("", |(_, path)| path);
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        // Any repository can be asked what others there are.
        let probe = self.repository(&"catalog".parse().expect("this is a name"))?;
        let found = match probe.catalog(&prefix) {
            Err(RegistryError::Unsupported { .. }) => {
                return Err(StoreError::Unsupported {
                    address: self.address.clone(),
                    action: "list the images in it: give the name of one",
                });
            }
            found => found?,
        };
        Ok(found
            .iter()
            .filter_map(|one| one.repository.strip_prefix(&prefix)?.parse().ok())
            .collect())
    }

    /// The versions of a name; of its tags only those that `tag` is, if it is any.
    fn versions_of(&self, name: &Name, tag: Option<&Tag>) -> Result<Vec<Published>, StoreError> {
        let repository = self.repository(name)?;
        let all = repository.tags()?;
        let mut versions: Vec<Published> = all
            .iter()
            .filter_map(|text| version_of(name, text.as_str()))
            .collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version.time));
        let is_current = |text: &&oci::Tag| {
            let text = text.as_str();
            version_of(name, text).is_none() && !text.starts_with("sha256-") && text.parse::<Tag>().is_ok()
        };
        let mut found = Vec::new();
        for text in all.iter().filter(is_current) {
            let own: Tag = text
                .as_str()
                .parse()
                .map_err(|_| not_there(&self.address, name))?;
            if tag.is_some_and(|tag| *tag != own) {
                continue;
            }
            let tagged = Tagged {
                name: name.clone(),
                tag: own,
            };
            let Some(manifest) = repository.manifest(&ManifestName::Tag(text.clone()), MANIFEST_MAX)? else {
                continue;
            };
            let known = versions
                .iter()
                .find(|version| version.tagged == tagged && version.digest == manifest.digest);
            found.push(Published {
                time: known.map_or(0, |version| version.time),
                manifest_size: manifest.bytes.len() as u64,
                ..published(&tagged, manifest.digest, true)
            });
        }
        versions.retain(|version| {
            tag.is_none_or(|tag| version.tagged.tag == *tag)
                && !found
                    .iter()
                    .any(|one| (&one.tagged, one.digest) == (&version.tagged, version.digest))
        });
        found.extend(versions);
        found.sort_by(|a, b| (&a.tagged, !a.current).cmp(&(&b.tagged, !b.current)));
        Ok(found)
    }
}

fn published(tagged: &Tagged, digest: Digest, current: bool) -> Published {
    Published {
        tagged: tagged.clone(),
        digest,
        manifest_size: 0,
        image_size: 0,
        time: 0,
        current,
    }
}

/// The version as one names it.
fn shown(version: &Published) -> String {
    match version.current {
        true => version.tagged.to_string(),
        false => format!("{}@{}", version.tagged, version.digest),
    }
}

/// What to name so that these versions go: a name that has its current one among them loses all.
fn named(removed: &[Published]) -> Vec<String> {
    let is_named = |one: &&Published| {
        let goes = |other: &Published| other.current && other.tagged == one.tagged;
        one.current || !removed.iter().any(goes)
    };
    removed.iter().filter(is_named).map(shown).collect()
}

fn not_there(address: &str, name: &Name) -> StoreError {
    StoreError::NoImage {
        address: address.to_owned(),
        name: name.to_string(),
        known: Vec::new(),
    }
}

/// The tag that a version keeps.
fn version_tag(version: &Published) -> Result<oci::Tag, StoreError> {
    let text = format!(
        "{}.v{}-{}",
        version.tagged.tag,
        version.time,
        version.digest.hex()
    );
    match text.parse() {
        Ok(tag) if version.tagged.tag.as_str().len() <= TAG_MAX => Ok(tag),
        _ => Err(StoreError::Unsupported {
            address: version.tagged.to_string(),
            action: "be a name in a registry: there a tag has at most 48 letters",
        }),
    }
}

/// The version that a tag keeps, if it is one of those.
fn version_of(name: &Name, text: &str) -> Option<Published> {
    let (rest, hex) = text.rsplit_once('-')?;
    let (tag, time) = rest.rsplit_once(".v")?;
    let tagged = Tagged {
        name: name.clone(),
        tag: tag.parse().ok()?,
    };
    let digest = format!("sha256:{hex}").parse().ok()?;
    Some(Published {
        time: time.parse().ok()?,
        ..published(&tagged, digest, false)
    })
}

/// A tag of ours as one of theirs: ours are a part of those.
fn their(tag: &Tag) -> oci::Tag {
    tag.as_str().parse().expect("what we take for a tag is one")
}

impl Backend for Registry {
    fn address(&self) -> &str {
        &self.address
    }

    fn blob_size(&self, name: &Name, blob: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.repository(name)?.blob_exists(*blob)?)
    }

    fn read_blob(&self, name: &Name, blob: &Digest, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        Ok(self.repository(name)?.read_blob(*blob, range)?)
    }

    fn write_blob(&self, name: &Name, blob: &Digest, bytes: Vec<u8>) -> Result<(), StoreError> {
        Ok(self.repository(name)?.upload_blob(*blob, &bytes)?)
    }

    fn mount_blob(&self, name: &Name, blob: &Digest, from: &Name) -> Result<bool, StoreError> {
        let repository = self.repository(name)?;
        if repository.blob_exists(*blob)?.is_some() {
            return Ok(true);
        }
        Ok(repository.mount_blob(*blob, &self.repository_name(from)?)?)
    }

    fn read_manifest(&self, name: &Name, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.repository(name)?.manifest(&(*digest).into(), limit)?;
        Ok(found.map(|manifest| manifest.bytes))
    }

    fn write_manifest(&self, name: &Name, digest: &Digest, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.repository(name)?
            .put_manifest(&(*digest).into(), MANIFEST, &bytes)?;
        Ok(())
    }

    fn versions(&self) -> Result<Vec<Published>, StoreError> {
        let names = self.names()?;
        Ok(crate::parallel::map(REQUESTS, &names, |name| self.versions_of(name, None))?.concat())
    }

    fn history(&self, tagged: &Tagged) -> Result<Vec<Published>, StoreError> {
        self.versions_of(&tagged.name, Some(&tagged.tag))
    }

    fn can_swap(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn epoch(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn begin_epoch(&self, _epoch: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn publish(&self, version: &Published, _epoch: u64) -> Result<Option<Replaced>, StoreError> {
        let repository = self.repository(&version.tagged.name)?;
        let read = |name: ManifestName| repository.manifest(&name, MANIFEST_MAX);
        let own =
            read(version.digest.into())?.ok_or_else(|| not_there(&self.address, &version.tagged.name))?;
        let put =
            |tag: oci::Tag, bytes: &[u8]| repository.put_manifest(&ManifestName::Tag(tag), MANIFEST, bytes);
        put(version_tag(version)?, &own.bytes)?;
        let previous =
            read(ManifestName::Tag(their(&version.tagged.tag)))?.filter(|one| one.digest != version.digest);
        if let Some(previous) = &previous {
            let there = self.versions_of(&version.tagged.name, Some(&version.tagged.tag))?;
            let kept = there
                .iter()
                .any(|one| one.digest == previous.digest && one.time > 0);
            if !kept {
                put(
                    version_tag(&published(&version.tagged, previous.digest, false))?,
                    &previous.bytes,
                )?;
            }
        }
        put(their(&version.tagged.tag), &own.bytes)?;
        Ok(Some(Replaced {
            previous: previous.map(|one| one.digest),
            atomic: false,
        }))
    }

    fn remove(&self, name: &Name, which: &dyn Fn(&Published) -> bool) -> Result<Vec<Published>, StoreError> {
        let all = self.versions_of(name, None)?;
        let (removed, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(which);
        let repository = self.repository(name)?;
        let mut tags: Vec<(oci::Tag, Digest)> = Vec::new();
        for text in repository.tags()? {
            let version = version_of(name, text.as_str());
            let is_of = |one: &&Published| match &version {
                Some(version) => (&one.tagged, one.digest) == (&version.tagged, version.digest),
                None => one.current && one.tagged.tag.as_str() == text.as_str(),
            };
            tags.extend(removed.iter().find(is_of).map(|one| (text.clone(), one.digest)));
        }
        let others = |digest: &Digest| -> Vec<String> {
            let same = kept.iter().filter(|one| one.digest == *digest);
            same.map(shown).collect()
        };
        // First those of images that keep other names: if that cannot be done, nothing has gone yet.
        tags.sort_by_key(|(_, digest)| others(digest).is_empty());
        for (tag, digest) in tags {
            match repository.delete_tag(&tag) {
                Ok(_) => {}
                // docker-registry 2: then only the manifest goes, and every tag of it with it.
                Err(RegistryError::Unsupported { .. }) if others(&digest).is_empty() => {
                    repository.delete_manifest(digest)?;
                }
                Err(RegistryError::Unsupported { .. }) => {
                    return Err(StoreError::Shared {
                        address: self.address.clone(),
                        names: named(&removed),
                        others: others(&digest),
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(removed)
    }

    /// Registries have no entries but names.
    fn forget(&self, _entries: &[Digest]) -> Result<(), StoreError> {
        Ok(())
    }

    fn referrers(&self, name: &Name, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        let found = self.repository(name)?.referrers(*subject, None)?;
        Ok(found.into_iter().map(Descriptor::from).collect())
    }

    fn refer(
        &self,
        name: &Name,
        subject: &Digest,
        referrer: &Descriptor,
        _epoch: u64,
    ) -> Result<bool, StoreError> {
        let repository = self.repository(name)?;
        let bytes = self.read_manifest(name, &referrer.digest, MANIFEST_MAX)?;
        let bytes = bytes.ok_or_else(|| not_there(&self.address, name))?;
        repository.add_referrer(*subject, &referrer.into(), &bytes)?;
        Ok(true)
    }

    fn objects(&self) -> Option<&dyn Objects> {
        None
    }
}

impl From<oci::Descriptor> for Descriptor {
    fn from(theirs: oci::Descriptor) -> Descriptor {
        Descriptor {
            artifact_type: theirs.artifact_type,
            annotations: theirs.annotations,
            ..Descriptor::new(&theirs.media_type, theirs.digest, theirs.size)
        }
    }
}

impl From<&Descriptor> for oci::Descriptor {
    fn from(ours: &Descriptor) -> oci::Descriptor {
        oci::Descriptor {
            media_type: ours.media_type.clone(),
            digest: ours.digest,
            size: ours.size,
            artifact_type: ours.artifact_type.clone(),
            annotations: ours.annotations.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_its_tag() {
        let version = Published {
            time: 1_700_000_000,
            ..published(&"app:v1.v2-x".parse().unwrap(), Digest::of(b"x"), false)
        };
        let tag = version_tag(&version).unwrap();
        assert_eq!(
            version_of(&"app".parse().unwrap(), tag.as_str()),
            Some(version.clone())
        );
        for other in ["latest", "v1.v2-x", "latest.v1-abc", "sha256-0", "x.vx-1"] {
            assert_eq!(version_of(&"app".parse().unwrap(), other), None);
        }
        let long = Published {
            tagged: format!("a:{}", "x".repeat(49)).parse().unwrap(),
            ..version
        };
        assert!(version_tag(&long).is_err());
    }
}
