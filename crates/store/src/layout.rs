//! A store as an OCI image layout of objects: a folder's, or a bucket's.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>. Blobs and manifests lie in `blobs/sha256/`, and never
//! change; names lie in `index.json`, which is replaced by compare-and-swap.

use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;

use firebrick_digest::Digest;

use crate::backend::{Backend, Replaced};
use crate::error::StoreError;
use crate::index::{Index, Published, look, look_twice, version};
use crate::manifest::Descriptor;
use crate::name::{Name, Tagged};
use crate::objects::{Objects, Swap};

pub(crate) const INDEX_KEY: &str = "index.json";
pub(crate) const BLOBS: &str = "blobs/sha256/";
pub(crate) const LAYOUT_KEY: &str = "oci-layout";
pub(crate) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// How often names are written again because others wrote them meanwhile.
const ATTEMPTS: u32 = 60;

/// See the module.
#[derive(Debug)]
pub struct Layout<O> {
    objects: O,
    swaps: OnceLock<bool>,
}

/// Where a blob or manifest lies.
pub(crate) fn blob_key(digest: &Digest) -> String {
    format!("{BLOBS}{}", digest.hex())
}

impl<O: Objects> Layout<O> {
    /// The store in `objects`, which may be empty yet.
    pub fn new(objects: O) -> Layout<O> {
        Layout {
            objects,
            swaps: OnceLock::new(),
        }
    }

    /// Changes the names, unless `change` gives nothing. It is called again on what others have written meanwhile; it must come to the
    /// same then. Tells whether looking and writing were one step.
    fn change<T>(
        &self,
        name: &dyn std::fmt::Display,
        mut change: impl FnMut(&mut Index) -> Option<T>,
        there: impl Fn(&Index) -> bool,
    ) -> Result<Option<(T, bool)>, StoreError> {
        let atomic = self.can_swap()?;
        for attempt in 0..ATTEMPTS {
            let (mut index, version) = look_twice(&self.objects)?;
            let Some(result) = change(&mut index) else {
                return Ok(None);
            };
            let bytes = index.encode();
            let swapped = if atomic {
                self.objects.swap(INDEX_KEY, bytes, version.as_ref())?
            } else {
                self.objects.put(INDEX_KEY, bytes)?;
                // Who wrote at the same moment has had time to overwrite it.
                std::thread::sleep(Duration::from_millis(200));
                Swap::Unknown
            };
            let is_done = match swapped {
                Swap::Done => true,
                Swap::Changed => false,
                Swap::Unknown => there(&look(&self.objects)?.0),
            };
            if is_done {
                // After the index: see `look`.
                if self.objects.size(LAYOUT_KEY)?.is_none() {
                    self.objects.put(LAYOUT_KEY, LAYOUT.to_vec())?;
                }
                return Ok(Some((result, atomic)));
            }
            std::thread::sleep(pause(attempt, name));
        }
        Err(StoreError::Contended {
            address: self.objects.address().to_owned(),
            name: name.to_string(),
            attempts: ATTEMPTS,
        })
    }
}

/// How long to wait before another attempt: longer each time, and not as long as others wait.
fn pause(attempt: u32, name: &dyn std::fmt::Display) -> Duration {
    let who = format!(
        "{name} {attempt} {} {:?}",
        std::process::id(),
        std::thread::current().id()
    );
    let [share, ..] = *Digest::of(who.as_bytes()).as_bytes();
    Duration::from_millis((5 << attempt.min(6)) * (64 + u64::from(share)) / 256)
}

impl<O: Objects> Backend for Layout<O> {
    fn address(&self) -> &str {
        self.objects.address()
    }

    fn blob_size(&self, _name: &Name, blob: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.objects.size(&blob_key(blob))?)
    }

    fn read_blob(&self, _name: &Name, blob: &Digest, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        Ok(self.objects.get_range(&blob_key(blob), range)?)
    }

    fn write_blob(&self, _name: &Name, blob: &Digest, bytes: Vec<u8>) -> Result<(), StoreError> {
        Ok(self.objects.put(&blob_key(blob), bytes)?)
    }

    fn mount_blob(&self, name: &Name, blob: &Digest, _from: &Name) -> Result<bool, StoreError> {
        Ok(self.blob_size(name, blob)?.is_some())
    }

    fn read_manifest(
        &self,
        _name: &Name,
        digest: &Digest,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.objects.get(&blob_key(digest), limit)?;
        Ok(found.map(|(bytes, _)| bytes))
    }

    fn write_manifest(&self, _name: &Name, digest: &Digest, bytes: Vec<u8>) -> Result<(), StoreError> {
        Ok(self.objects.put(&blob_key(digest), bytes)?)
    }

    fn versions(&self) -> Result<Vec<Published>, StoreError> {
        Ok(look(&self.objects)?.0.versions())
    }

    fn history(&self, tagged: &Tagged) -> Result<Vec<Published>, StoreError> {
        let mut versions = self.versions()?;
        versions.retain(|version| version.tagged == *tagged);
        Ok(versions)
    }

    fn can_swap(&self) -> Result<bool, StoreError> {
        if let Some(known) = self.swaps.get() {
            return Ok(*known);
        }
        let can = self.objects.can_swap()?;
        Ok(*self.swaps.get_or_init(|| can))
    }

    fn epoch(&self) -> Result<u64, StoreError> {
        Ok(look(&self.objects)?.0.epoch())
    }

    fn begin_epoch(&self, epoch: u64) -> Result<(), StoreError> {
        let set = |index: &mut Index| {
            index.set_epoch(epoch);
            Some(())
        };
        self.change(&INDEX_KEY, set, |index| index.epoch() == epoch)?;
        Ok(())
    }

    fn publish(&self, published: &Published, epoch: u64) -> Result<Option<Replaced>, StoreError> {
        let is_ours =
            |version: &Published| version.tagged == published.tagged && version.digest == published.digest;
        let changed = self.change(
            &published.tagged,
            |index| {
                if index.epoch() != epoch {
                    return None;
                }
                let current = |version: &Published| version.current && version.tagged == published.tagged;
                let previous = index.versions().into_iter().find(current);
                index.publish(published);
                let previous = previous.map(|previous| previous.digest);
                Some(previous.filter(|digest| *digest != published.digest))
            },
            |index| index.versions().iter().any(is_ours),
        )?;
        Ok(changed.map(|(previous, atomic)| Replaced { previous, atomic }))
    }

    fn remove(&self, name: &Name, which: &dyn Fn(&Published) -> bool) -> Result<Vec<Published>, StoreError> {
        let picked = |version: &Published| version.tagged.name == *name && which(version);
        // Nothing to remove is no reason to write.
        if !self.versions()?.iter().any(picked) {
            return Ok(Vec::new());
        }
        let changed = self.change(
            name,
            |index| {
                let removed = index.remove(&picked);
                index.forget_orphans();
                Some(removed)
            },
            |index| !index.versions().iter().any(picked),
        )?;
        Ok(changed.map_or_else(Vec::new, |(removed, _)| removed))
    }

    fn forget(&self, entries: &[Digest]) -> Result<(), StoreError> {
        let is_one = |one: &Descriptor| entries.contains(&one.digest) && version(one).is_none();
        self.change(
            &INDEX_KEY,
            |index| {
                index.manifests.retain(|one| !is_one(one));
                Some(())
            },
            |index| !index.manifests.iter().any(is_one),
        )?;
        Ok(())
    }

    fn referrers(&self, _name: &Name, subject: &Digest) -> Result<Vec<Descriptor>, StoreError> {
        Ok(look(&self.objects)?.0.referrers(subject))
    }

    fn refer(
        &self,
        name: &Name,
        subject: &Digest,
        referrer: &Descriptor,
        epoch: u64,
    ) -> Result<bool, StoreError> {
        let there = |index: &Index| {
            index
                .referrers(subject)
                .iter()
                .any(|one| one.digest == referrer.digest)
        };
        let add =
            |index: &mut Index| (index.epoch() == epoch).then(|| index.refer(subject, referrer.clone()));
        Ok(self.change(name, add, there)?.is_some())
    }

    fn objects(&self) -> Option<&dyn Objects> {
        Some(&self.objects)
    }
}
