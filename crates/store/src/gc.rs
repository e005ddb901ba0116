//! Garbage collection: removing what no name reaches, while others publish.
//!
//! A collection reads the list of condemned blobs, lists the blobs, then follows the names, in that order: what was published before the
//! names were read is reached, and who publishes later has claimed its blobs (`ledger.rs` has the whole argument). What is not
//! reached is put on the list, and removed by a collection at least the grace later. Names go first, then manifests, then
//! other blobs; so an ended collection leaves a right store, and the next one goes on.
//!
//! If a document that a name needs is missing or damaged, nobody knows which blobs it names, and nothing is condemned or removed.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use firebrick_digest::Digest;

use crate::error::StoreError;
use crate::folder::PARTIAL;
use crate::index::{Index, Published, look_twice};
use crate::layout::{BLOBS, INDEX_KEY, blob_key};
use crate::ledger::{ATTEMPTS, BLOBS_MAX, DELETE_WITHIN, Ledger, PATIENCE, Since, settled};
use crate::manifest::MANIFEST_MAX;
use crate::name::Tagged;
use crate::objects::{Entry, ObjectError, Objects, Swap, Version};
use crate::reach::{Link, Reached, roots, walk};
use crate::store::Store;

/// Requests at a time.
const THREADS: usize = 8;
/// Blobs that are doomed together. The names are read anew for the next.
const ROUND: usize = 2000;

/// What is collected.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Changes nothing, and tells what would happen.
    pub dry_run: bool,
    /// How long a blob must have been unreached. What is sent and has no name yet counts as such, so with a short grace uploads send
    /// things twice. Zero removes at once, files that are being written too, and is for stores to which nobody writes meanwhile.
    pub grace: Duration,
    /// How many versions each name keeps, the current one among them (which it keeps always); `None` for all.
    pub keep: Option<usize>,
    /// The time.
    pub now: SystemTime,
}

/// A number of blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Their bytes together.
    pub bytes: u64,
}

impl Amount {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What a collection came to, or would.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// Older versions whose names were taken away, by name.
    pub dropped: Vec<Published>,
    /// Blobs and manifests that were removed.
    pub deleted: Amount,
    /// Those that nothing reaches and that are removed after the grace.
    pub condemned: Amount,
    /// Those that names reach.
    pub kept: Amount,
    /// Files of writes that were ended, which were removed.
    pub leftovers: Amount,
}

impl Store {
    /// Removes what no name reaches. Registries do that by themselves.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] from registries, and from buckets that cannot swap unless the grace is zero;
    /// [`StoreError::Corrupt`] if a document that a name needs is missing or damaged: then nothing is removed.
    pub fn collect(&self, options: &GcOptions) -> Result<Collected, StoreError> {
        self.collect_within(options, DELETE_WITHIN, PATIENCE)
    }

    fn collect_within(
        &self,
        options: &GcOptions,
        within: Duration,
        patience: Duration,
    ) -> Result<Collected, StoreError> {
        let unsupported = |action| StoreError::Unsupported {
            address: self.backend().address().to_owned(),
            action,
        };
        let objects = self.backend().objects();
        let objects =
            objects.ok_or_else(|| unsupported("be collected from outside: it does that by itself"))?;
        let swaps = options.dry_run || self.backend().can_swap()?;
        if !swaps && !options.grace.is_zero() {
            return Err(unsupported(
                "be collected while others write to it, since it does not swap objects; with no grace it can, while nobody does",
            ));
        }
        let gc = Gc {
            store: self,
            objects,
            options,
            swaps,
            within,
            patience,
            started: Instant::now(),
        };
        gc.run()
    }
}

struct Gc<'a> {
    store: &'a Store,
    objects: &'a dyn Objects,
    options: &'a GcOptions,
    swaps: bool,
    within: Duration,
    patience: Duration,
    started: Instant,
}

/// What one look at the store says.
#[derive(Default)]
struct Verdict {
    /// What the list is to be, before anything is doomed.
    condemned: Since,
    /// What may be removed, with lengths.
    due: Vec<(Digest, u64)>,
    waiting: Amount,
    kept: Amount,
    /// What names reach.
    reached: HashMap<Digest, Link>,
}

impl Gc<'_> {
    fn run(&self) -> Result<Collected, StoreError> {
        let mut collected = Collected {
            dropped: self.drop_versions()?,
            ..Collected::default()
        };
        let mut contended = 0;
        while contended < ATTEMPTS {
            let (ledger, version) = settled(self.store, self.objects, self.patience, |ledger| {
                !self.options.dry_run && !ledger.doomed.is_empty()
            })?;
            let verdict = self.look(&ledger, &collected.dropped)?;
            (collected.condemned, collected.kept) = (verdict.waiting, verdict.kept);
            if self.options.dry_run {
                verdict
                    .due
                    .iter()
                    .for_each(|(_, len)| collected.deleted.add(*len));
                self.leftovers(&mut collected)?;
                return Ok(collected);
            }
            match self.round(&ledger, version.as_ref(), verdict, &mut collected.deleted)? {
                Round::Changed => contended += 1,
                Round::More => contended = 0,
                Round::Last => {
                    self.leftovers(&mut collected)?;
                    return Ok(collected);
                }
            }
        }
        Err(StoreError::Contended {
            address: self.objects.address().to_owned(),
            name: crate::ledger::LEDGER_KEY.to_owned(),
            attempts: ATTEMPTS,
        })
    }

    /// Takes names from versions that are too old.
    fn drop_versions(&self) -> Result<Vec<Published>, StoreError> {
        let Some(keep) = self.options.keep else {
            return Ok(Vec::new());
        };
        let backend = self.store.backend();
        let mut dropped: Vec<Published> = Vec::new();
        let mut count = 0;
        let mut last: Option<Tagged> = None;
        for version in backend.versions()? {
            if last.as_ref() != Some(&version.tagged) {
                count = 0;
                last = Some(version.tagged.clone());
            }
            count += 1;
            if count > keep.max(1) && !version.current {
                dropped.push(version);
            }
        }
        if self.options.dry_run {
            return Ok(dropped);
        }
        let names: BTreeSet<_> = dropped.iter().map(|version| &version.tagged.name).collect();
        let mut removed = Vec::new();
        for name in names {
            // A version that has become the current one meanwhile is not the one that was looked at.
            removed.extend(backend.remove(name, &|version| dropped.contains(version))?);
        }
        Ok(removed)
    }

    /// Follows the names, and judges every blob.
    fn look(&self, ledger: &Ledger, dropped: &[Published]) -> Result<Verdict, StoreError> {
        let blobs = self.objects.list(BLOBS)?;
        let reached = self.reached(dropped)?;
        let grace = millis(self.options.grace);
        let (now, passed) = (
            millis_since_1970(self.options.now),
            millis(self.started.elapsed()),
        );
        let mut verdict = Verdict {
            reached: reached.links,
            ..Verdict::default()
        };
        for Entry { key, len, .. } in blobs {
            // What has no digest for a name is none of ours.
            let Some(digest) = key
                .strip_prefix(BLOBS)
                .and_then(|hex| format!("sha256:{hex}").parse().ok())
            else {
                continue;
            };
            if verdict.reached.contains_key(&digest) {
                verdict.kept.add(len);
                continue;
            }
            let since = ledger
                .doomed
                .get(&digest)
                .or_else(|| ledger.condemned.get(&digest));
            let is_due = grace == 0 || since.is_some_and(|since| since.saturating_add(grace) <= now);
            if !is_due {
                verdict.waiting.add(len);
            }
            if since.is_some() || verdict.condemned.len() < BLOBS_MAX {
                verdict
                    .condemned
                    .insert(digest, since.copied().unwrap_or(now.saturating_add(passed)));
                if is_due {
                    verdict.due.push((digest, len));
                }
            }
        }
        Ok(verdict)
    }

    fn reached(&self, dropped: &[Published]) -> Result<Reached, StoreError> {
        let mut index = self.names()?;
        if self.options.dry_run && !dropped.is_empty() {
            index.remove(&|version| dropped.contains(version));
            index.forget_orphans();
        }
        self.below(roots(&index))
    }

    /// The names, if all of them can be followed.
    fn names(&self) -> Result<Index, StoreError> {
        let (index, _) = look_twice(self.objects)?;
        let Some(foreign) = index.foreign.first() else {
            return Ok(index);
        };
        let digest = foreign.get("digest").and_then(serde_json::Value::as_str);
        Err(self.corrupt(
            INDEX_KEY.to_owned(),
            format!(
                "nobody knows which blobs {:?} needs, whose digest is no SHA-256",
                digest.unwrap_or("")
            ),
        ))
    }

    /// What some documents reach, if all of them can be read.
    fn below(&self, roots: Vec<Link>) -> Result<Reached, StoreError> {
        let read = |digest: &Digest| {
            if self.store.stop.load(Ordering::Relaxed) {
                return Err(StoreError::Stopped);
            }
            let key = blob_key(digest);
            self.store
                .source()
                .verified("manifest", digest, MANIFEST_MAX, || {
                    let found = self.objects.get(&key, MANIFEST_MAX)?;
                    found
                        .map(|(bytes, _)| bytes)
                        .ok_or_else(|| missing(self.objects.address(), &key))
                })
        };
        let mut reached = walk(roots, THREADS, &read)?;
        match reached.troubles.pop() {
            None => Ok(reached),
            Some((link, StoreError::Object(ObjectError::Missing { .. }))) => Err(self.corrupt(
                format!("manifest {}", link.digest),
                "it is missing, so that nobody knows which blobs it needs".to_owned(),
            )),
            Some((_, error)) => Err(error),
        }
    }

    fn corrupt(&self, what: String, problem: String) -> StoreError {
        let address = self.objects.address().to_owned();
        StoreError::Corrupt {
            address,
            what,
            problem,
        }
    }

    /// Writes the list, and removes what is due, up to a number.
    fn round(
        &self,
        ledger: &Ledger,
        version: Option<&Version>,
        verdict: Verdict,
        deleted: &mut Amount,
    ) -> Result<Round, StoreError> {
        let mut next = Ledger {
            condemned: verdict.condemned,
            doomed: Since::new(),
            ..*ledger
        };
        let more = verdict.due.len() > ROUND;
        let due = &verdict.due[..verdict.due.len().min(ROUND)];
        for (digest, _) in due {
            if let Some(since) = next.condemned.remove(digest) {
                next.doomed.insert(*digest, since);
            }
        }
        if !next.doomed.is_empty() || !ledger.doomed.is_empty() {
            next.generation = next.generation.wrapping_add(1);
        }
        let order = self.manifests_first(due)?;
        let begun = Instant::now();
        if next != *ledger && !self.written(&next, version)? {
            return Ok(Round::Changed);
        }
        if due.is_empty() {
            return Ok(Round::Last);
        }
        let gone = Mutex::new(Vec::new());
        let removed = self.named_since(&next, &verdict.reached).and_then(|named| {
            let mut parts = order.iter();
            parts.try_for_each(|some| self.delete(some, &named, begun, &gone))
        });
        let gone = gone.into_inner().unwrap_or_else(PoisonError::into_inner);
        gone.iter().for_each(|(_, len)| deleted.add(*len));
        // What is left of this round, if anything failed, is condemned as before.
        let cleared = self.clear(&next, &gone);
        removed.and(cleared)?;
        Ok(if more || gone.len() < due.len() {
            Round::More
        } else {
            Round::Last
        })
    }

    /// Begins an epoch, and tells what names reach that were written since the store was looked at.
    fn named_since(
        &self,
        written: &Ledger,
        known: &HashMap<Digest, Link>,
    ) -> Result<HashMap<Digest, Link>, StoreError> {
        if !self.swaps {
            return Ok(HashMap::new());
        }
        self.store.backend().begin_epoch(written.generation)?;
        let mut new = roots(&self.names()?);
        new.retain(|link| !known.contains_key(&link.digest));
        Ok(self.below(new)?.links)
    }

    /// Writes the list over the one that was read, and says whether it is there.
    fn written(&self, next: &Ledger, over: Option<&Version>) -> Result<bool, StoreError> {
        Ok(match next.write(self.objects, over, self.swaps)? {
            Swap::Done => true,
            Swap::Changed => false,
            // A generation dooms once, and publishers, who may have written since, doom nothing.
            Swap::Unknown => {
                let (now, _) = Ledger::read(self.objects)?;
                !next.doomed.is_empty() && now.generation == next.generation && now.doomed == next.doomed
            }
        })
    }

    /// What is removed first, and what then. What is no manifest may be taken for one.
    fn manifests_first(&self, due: &[(Digest, u64)]) -> Result<[Vec<(Digest, u64)>; 2], StoreError> {
        let is_manifest = crate::parallel::map(THREADS, due, |(digest, len)| {
            if *len > MANIFEST_MAX {
                return Ok(false);
            }
            let found = self.objects.get(&blob_key(digest), MANIFEST_MAX)?;
            let json = found.and_then(|(bytes, _)| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
            Ok(json.is_some_and(|json| json.get("layers").or(json.get("manifests")).is_some()))
        })?;
        let part = |wanted: bool| {
            let parts = due.iter().zip(&is_manifest).filter(|(_, is)| **is == wanted);
            parts.map(|(blob, _)| *blob).collect()
        };
        Ok([part(true), part(false)])
    }

    /// Removes blobs but those that have a name now, as long as there is time.
    fn delete(
        &self,
        blobs: &[(Digest, u64)],
        named: &HashMap<Digest, Link>,
        begun: Instant,
        gone: &Mutex<Vec<(Digest, u64)>>,
    ) -> Result<(), StoreError> {
        crate::parallel::map(THREADS, blobs, |blob| {
            if self.store.stop.load(Ordering::Relaxed) {
                return Err(StoreError::Stopped);
            }
            if begun.elapsed() < self.within && !named.contains_key(&blob.0) {
                self.objects.delete(&blob_key(&blob.0))?;
                gone.lock().unwrap_or_else(PoisonError::into_inner).push(*blob);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Takes what was doomed off the list; what is still there is condemned again, since when it was.
    fn clear(&self, written: &Ledger, gone: &[(Digest, u64)]) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            let (mut ledger, version) = Ledger::read(self.objects)?;
            if ledger.generation != written.generation {
                // Another collector thought that we had ended, and does our work.
                return Ok(());
            }
            ledger.condemned.append(&mut ledger.doomed);
            for (digest, _) in gone {
                ledger.condemned.remove(digest);
            }
            ledger.generation = ledger.generation.wrapping_add(1);
            // Where nobody knows whether it was written, the generation tells.
            if ledger.write(self.objects, version.as_ref(), self.swaps)? == Swap::Done {
                return Ok(());
            }
        }
        Err(StoreError::Contended {
            address: self.objects.address().to_owned(),
            name: crate::ledger::LEDGER_KEY.to_owned(),
            attempts: ATTEMPTS,
        })
    }

    /// Files of writes that were ended, in a folder.
    fn leftovers(&self, collected: &mut Collected) -> Result<(), StoreError> {
        for left in self.objects.list(&format!("{PARTIAL}/"))? {
            let age = self.options.now.duration_since(left.modified).unwrap_or_default();
            if age >= self.options.grace {
                collected.leftovers.add(left.len);
                if !self.options.dry_run {
                    self.objects.delete(&left.key)?;
                }
            }
        }
        Ok(())
    }
}

enum Round {
    /// Somebody else wrote the list, and nothing was done.
    Changed,
    /// There is more to remove.
    More,
    Last,
}

pub(crate) fn missing(address: &str, key: &str) -> StoreError {
    StoreError::Object(ObjectError::Missing {
        address: address.to_owned(),
        key: key.to_owned(),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn millis_since_1970(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests;
