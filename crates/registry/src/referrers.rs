//! Artifacts that are about another: signatures, SBOMs. Each names its *subject*, and the registry lists the *referrers* of that.
//!
//! Older registries know no subjects. There the list is an index under a tag made of the subject's digest, which whoever pushes a
//! referrer keeps: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers>. Two who change it at
//! once may undo each other's change, since such registries compare nothing. So threads that share a [`Repository`] take turns, and
//! everyone looks afterwards, and changes it again until the change is there.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::sync::PoisonError;

use firebrick_digest::Digest;
use serde_json::{Value, json};

use crate::access::Access;
use crate::address::{percent_encoded, shown};
use crate::answer::header;
use crate::attempts::{Cause, Failure};
use crate::descriptor::Descriptor;
use crate::error::RegistryError;
use crate::media_type::OCI_INDEX;
use crate::name::{ManifestName, Tag};
use crate::repository::Repository;

/// The longest list, in bytes: what every registry must take as a manifest.
const INDEX_MAX: u64 = 4 << 20;

impl Repository {
    /// The manifests whose subject is `subject`, maybe only those of one artifact type, in the order of the registry.
    ///
    /// What another pushed without saying so is not among them; what somebody removed may be.
    ///
    /// # Errors
    /// [`RegistryError`] if the list cannot be read.
    pub fn referrers(
        &self,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let listed = match self.listed_referrers(subject, artifact_type)? {
            Some(listed) => listed,
            None => self.tagged_referrers(subject)?.unwrap_or_default(),
        };
        // A registry may filter, but need not.
        let is_wanted = |descriptor: &Descriptor| {
            artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted))
        };
        Ok(listed
            .iter()
            .filter_map(Descriptor::from_json)
            .filter(is_wanted)
            .collect())
    }

    /// Puts a manifest that names `subject` as its own subject, and sees to it that it is listed among its referrers.
    ///
    /// # Errors
    /// [`RegistryError::Mismatch`] if `referrer` does not describe `bytes`; nothing is sent then. After any other error the manifest
    /// may be there and not be listed; doing it again is harmless.
    pub fn add_referrer(
        &self,
        subject: Digest,
        referrer: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        referrer.verify(bytes)?;
        let pushed = self.put_manifest(&referrer.digest.into(), &referrer.media_type, bytes)?;
        if pushed.lists_referrer {
            return Ok(());
        }
        self.change_tagged(subject, "add to", &|listed| {
            let is_new = !names(listed, referrer.digest);
            if is_new {
                listed.push(referrer.to_json());
            }
            is_new
        })
    }

    /// Takes a manifest off the list of its subject's referrers, where such a list is kept by whoever pushes. For use before
    /// [`Repository::delete_manifest`].
    ///
    /// # Errors
    /// [`RegistryError`] if the list cannot be changed.
    pub fn remove_referrer(&self, subject: Digest, referrer: Digest) -> Result<(), RegistryError> {
        if self.listed_referrers(subject, None)?.is_some() {
            return Ok(());
        }
        self.change_tagged(subject, "remove from", &|listed| {
            let before = listed.len();
            listed.retain(|entry| !names(std::slice::from_ref(entry), referrer));
            listed.len() < before
        })
    }

    /// The list that the registry itself keeps, or nothing where it keeps none.
    fn listed_referrers(
        &self,
        subject: Digest,
        artifact_type: Option<&str>,
    ) -> Result<Option<Vec<Value>>, RegistryError> {
        let filter = artifact_type.map(|wanted| format!("?artifactType={}", percent_encoded(wanted)));
        let url = self.url(&format!("referrers/{subject}{}", filter.unwrap_or_default()));
        let mut all = Vec::new();
        let (mut is_index, mut is_begun) = (true, false);
        let read = self.pages(Access::Pull, &url, &mut |page| {
            is_begun = true;
            // Some answer every question, with a page for people.
            is_index &= header(&page.headers, "content-type").is_some_and(|said| said.starts_with(OCI_INDEX));
            if is_index {
                all.extend(manifests_of(&url, page.parse(&url)?)?);
            }
            Ok(all.len())
        });
        match read {
            Ok(()) => Ok(is_index.then_some(all)),
            Err(
                RegistryError::NotFound { .. }
                | RegistryError::Status {
                    status: 400 | 405 | 501,
                    ..
                },
            ) if !is_begun => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The list under the tag of the subject, or nothing where there is no such tag.
    fn tagged_referrers(&self, subject: Digest) -> Result<Option<Vec<Value>>, RegistryError> {
        let tag = ManifestName::Tag(Tag::of_referrers(subject));
        let Some(index) = self.manifest(&tag, INDEX_MAX)? else {
            return Ok(None);
        };
        let place = format!("{}:{tag}", self.name());
        let document = serde_json::from_slice(&index.bytes).map_err(|source| RegistryError::Json {
            url: place.clone(),
            source: source.into(),
        })?;
        manifests_of(&place, document).map(Some)
    }

    /// Changes the list under the tag until the change is there. `change` says whether there was anything to change.
    fn change_tagged(
        &self,
        subject: Digest,
        action: &'static str,
        change: &dyn Fn(&mut Vec<Value>) -> bool,
    ) -> Result<(), RegistryError> {
        let tag = ManifestName::Tag(Tag::of_referrers(subject));
        let url = self.url(&format!("manifests/{tag}"));
        let _turn = self.referrers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempts = self.client.attempts(action, &url);
        loop {
            let mut listed = self.tagged_referrers(subject)?.unwrap_or_default();
            if !change(&mut listed) {
                return Ok(());
            }
            let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed});
            self.put_manifest(&tag, OCI_INDEX, index.to_string().as_bytes())?;
            let mut listed = self.tagged_referrers(subject)?.unwrap_or_default();
            if !change(&mut listed) {
                return Ok(());
            }
            attempts.failed(Failure::Passing {
                cause: Cause::Transport(
                    "somebody else changed the list of referrers at the same time".into(),
                ),
                retry_after: None,
            })?;
        }
    }
}

/// The entries of an index, as they stand: they are others', and may hold what we do not know.
fn manifests_of(place: &str, mut document: Value) -> Result<Vec<Value>, RegistryError> {
    match document.get_mut("manifests").map(Value::take) {
        Some(Value::Array(manifests)) => Ok(manifests),
        Some(Value::Null) => Ok(Vec::new()),
        _ => Err(RegistryError::Protocol {
            url: shown(place),
            problem: "the list of referrers is no image index",
        }),
    }
}

fn names(listed: &[Value], digest: Digest) -> bool {
    let text = digest.to_string();
    listed.iter().any(|entry| entry["digest"] == text.as_str())
}
