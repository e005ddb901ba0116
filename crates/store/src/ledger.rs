//! `gc/condemned.json`: blobs that are to be removed, and how publishers keep theirs off it.
//!
//! Why nothing is removed that a name needs, whoever publishes while garbage is collected:
//!
//! 1. A blob is *condemned* when no name reaches it, with the time. The list is swapped like names are: who changes it has seen all of it.
//! 2. A blob is *doomed*, again by a swap of the list, when a later collection finds that no name reaches it, and that it has been on the
//!    list for the whole grace. Then the collection begins another *epoch*: it notes the list's generation among the names. It reads the
//!    names that were written since it looked, and spares what they reach. Only then it removes what is doomed, and only within
//!    [`DELETE_WITHIN`] of the swap; last, all that was doomed leaves the list, by a third swap. The first and the third of these swaps
//!    count the *generation* up.
//! 3. A publisher, who has written everything, reads the epoch and then *claims* what its manifest needs: it takes those blobs off the
//!    list by a swap, or sees that none is on it.
//!    - What is doomed may be removed at any moment. The publisher waits until it has left the list. If nothing happens for [`PATIENCE`],
//!      which is far longer than [`DELETE_WITHIN`], the collector has ended, and the blob is taken off as if it was condemned only.
//!    - What was there when the publisher looked may have been removed before it claimed. Then the generation has changed since, and it
//!      looks for every blob again; what has gone it sends again, and claims anew.
//! 4. The name is written only while the epoch is the one that was read, in one step with looking; else the publisher claims again.
//!    - A collection that began its epoch before the publisher read it had doomed before, and the claim saw that.
//!    - One that begins its epoch after the name was written reads the name, and spares what it needs.
//!    - One in between makes the publisher claim again.
//!
//! So an upload, and its last step too, may take as long as they like; the grace only spares publishers to send again what they
//! have just sent. No clock but that of collectors is compared with any other, and theirs only through the grace.
//!
//! What is not covered: programs that know nothing of the list. `skopeo copy` into the folder of a store leaves out blobs that are
//! there; if those were condemned a grace ago and a collection runs before it writes `index.json`, they are gone.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use firebrick_digest::Digest;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::fetch::AGAIN;
use crate::name::Name;
use crate::objects::{Objects, Swap, Version};
use crate::store::Store;

pub(crate) const LEDGER_KEY: &str = "gc/condemned.json";
/// The list has at most so many bytes, and so many blobs.
pub(crate) const LEDGER_MAX: u64 = 64 << 20;
pub(crate) const BLOBS_MAX: usize = 500_000;

/// How long after dooming blobs a collector may begin to remove one.
pub(crate) const DELETE_WITHIN: Duration = Duration::from_secs(30);
/// How long nothing may happen to doomed blobs until their collector counts as ended. A request that was begun in time ends before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
/// How often the list is looked at while waiting.
const POLL: Duration = Duration::from_millis(100);
/// How often the list is written again because others wrote it meanwhile.
pub(crate) const ATTEMPTS: u32 = 60;
/// How often something is published anew because blobs that it needs have gone.
pub(crate) const ANEW: u32 = 5;

/// Blobs, with when they were condemned: milliseconds since 1970, by the collector's clock.
pub(crate) type Since = BTreeMap<Digest, u64>;

/// The list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) generation: u64,
    pub(crate) condemned: Since,
    pub(crate) doomed: Since,
}

/// What lies in the object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    generation: u64,
    condemned: BTreeMap<String, u64>,
    doomed: BTreeMap<String, u64>,
}

impl Ledger {
    fn decode(bytes: &[u8]) -> Result<Ledger, String> {
        let written: Written = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if written.version != 1 {
            return Err(format!("its version is {}, not 1", written.version));
        }
        let since = |list: BTreeMap<String, u64>| {
            list.into_iter()
                .map(|(text, since)| Ok((text.parse().map_err(|_| format!("{text:?} is no digest"))?, since)))
                .collect::<Result<Since, String>>()
        };
        Ok(Ledger {
            generation: written.generation,
            condemned: since(written.condemned)?,
            doomed: since(written.doomed)?,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let texts = |list: &Since| {
            list.iter()
                .map(|(blob, since)| (blob.to_string(), *since))
                .collect()
        };
        let written = Written {
            version: 1,
            generation: self.generation,
            condemned: texts(&self.condemned),
            doomed: texts(&self.doomed),
        };
        serde_json::to_vec(&written).expect("nothing in a list fails to be JSON")
    }

    /// Reads the list; an empty one where none is. What is no list is asked for again.
    pub(crate) fn read(objects: &dyn Objects) -> Result<(Ledger, Option<Version>), StoreError> {
        let mut tries = 0;
        loop {
            let Some((bytes, version)) = objects.get(LEDGER_KEY, LEDGER_MAX)? else {
                return Ok((Ledger::default(), None));
            };
            match Ledger::decode(&bytes) {
                Ok(ledger) => return Ok((ledger, Some(version))),
                Err(_) if tries < AGAIN => tries += 1,
                Err(problem) => {
                    return Err(StoreError::Corrupt {
                        address: objects.address().to_owned(),
                        what: LEDGER_KEY.to_owned(),
                        problem,
                    });
                }
            }
        }
    }

    /// Writes the list over the one that was read, where that is still there.
    /// In a store that cannot swap, it is written anyhow: garbage is collected there while nobody publishes.
    pub(crate) fn write(
        &self,
        objects: &dyn Objects,
        over: Option<&Version>,
        swaps: bool,
    ) -> Result<Swap, StoreError> {
        let bytes = self.encode();
        if swaps {
            return Ok(objects.swap(LEDGER_KEY, bytes, over)?);
        }
        objects.put(LEDGER_KEY, bytes)?;
        Ok(Swap::Done)
    }

    /// Whether any of some blobs is doomed.
    fn dooms(&self, blobs: &[Digest]) -> bool {
        !self.doomed.is_empty() && blobs.iter().any(|blob| self.doomed.contains_key(blob))
    }

    /// Takes blobs off the list, and says whether any was on it.
    fn spare(&mut self, blobs: &[Digest]) -> bool {
        let before = self.doomed.len() + self.condemned.len();
        for blob in blobs {
            self.doomed.remove(blob);
            self.condemned.remove(blob);
        }
        self.doomed.len() + self.condemned.len() < before
    }
}

/// The list, as soon as no blob of those that `matters` asks about is doomed, or their collector has ended.
pub(crate) fn settled(
    store: &Store,
    objects: &dyn Objects,
    patience: Duration,
    matters: impl Fn(&Ledger) -> bool,
) -> Result<(Ledger, Option<Version>), StoreError> {
    let mut seen: Option<(u64, Instant)> = None;
    loop {
        let (ledger, version) = Ledger::read(objects)?;
        if !matters(&ledger) {
            return Ok((ledger, version));
        }
        if store.stop.load(Ordering::Relaxed) {
            return Err(StoreError::Stopped);
        }
        match seen {
            Some((generation, at)) if generation == ledger.generation => {
                if at.elapsed() >= patience {
                    return Ok((ledger, version));
                }
            }
            _ => seen = Some((ledger.generation, Instant::now())),
        }
        std::thread::sleep(POLL.min(patience));
    }
}

/// What a publisher holds on to while it works, so that its blobs are not collected: see the module.
///
/// Taken before it looks whether any blob is there; used after it has written everything, to write the name.
#[derive(Debug)]
#[must_use = "it keeps nothing until a name is written with it"]
pub struct Claim<'a> {
    store: &'a Store,
    objects: Option<&'a dyn Objects>,
    generation: u64,
    patience: Duration,
}

/// What became of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled<T> {
    /// It is written, and everything that it needs is there.
    Named(T),
    /// These blobs were removed meanwhile. They must be written again, and then the name, under a claim of its own.
    Gone(Vec<Digest>),
}

impl Store {
    /// Begins to publish something that [`Store::upload`] and its like do not: a signature, say.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn claim(&self) -> Result<Claim<'_>, StoreError> {
        let objects = self.backend().objects();
        Ok(Claim {
            store: self,
            objects,
            generation: match objects {
                Some(objects) => Ledger::read(objects)?.0.generation,
                None => 0,
            },
            patience: PATIENCE,
        })
    }
}

impl Claim<'_> {
    /// Writes a name that needs `blobs` (its manifest among them), so that none of them is collected before or after. `write` is given
    /// the epoch to write in, and called again if it gives nothing, since a collection has begun another.
    ///
    /// # Errors
    /// [`StoreError`], and those of `write`.
    pub fn name<T>(
        mut self,
        name: &Name,
        blobs: &[Digest],
        mut write: impl FnMut(u64) -> Result<Option<T>, StoreError>,
    ) -> Result<Settled<T>, StoreError> {
        for _ in 0..ATTEMPTS {
            let epoch = self.store.backend().epoch()?;
            let gone = self.settle(name, blobs)?;
            if !gone.is_empty() {
                return Ok(Settled::Gone(gone));
            }
            if let Some(written) = write(epoch)? {
                return Ok(Settled::Named(written));
            }
        }
        Err(StoreError::Contended {
            address: self.store.backend().address().to_owned(),
            name: name.to_string(),
            attempts: ATTEMPTS,
        })
    }

    /// Keeps blobs and manifests from being collected until the grace is over. Gives those that have gone since the last look.
    fn settle(&mut self, name: &Name, blobs: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        // A registry collects by itself, and keeps what was sent for a while.
        let Some(objects) = self.objects else {
            return Ok(Vec::new());
        };
        let (mut swaps, mut doomed) = (None, false);
        for _ in 0..ATTEMPTS {
            let (mut ledger, version) =
                settled(self.store, objects, self.patience, |ledger| ledger.dooms(blobs))?;
            // What a dead collector doomed may have gone.
            doomed |= ledger.dooms(blobs);
            let generation = ledger.generation;
            if ledger.spare(blobs) {
                let swaps = match swaps {
                    Some(swaps) => swaps,
                    None => *swaps.insert(self.store.backend().can_swap()?),
                };
                // Where nobody knows whether it was written, another look finds the blobs on the list or not.
                if ledger.write(objects, version.as_ref(), swaps)? != Swap::Done {
                    continue;
                }
            }
            let looked = std::mem::replace(&mut self.generation, generation);
            return match looked == generation && !doomed {
                true => Ok(Vec::new()),
                false => self.missing(name, blobs),
            };
        }
        Err(StoreError::Contended {
            address: objects.address().to_owned(),
            name: LEDGER_KEY.to_owned(),
            attempts: ATTEMPTS,
        })
    }

    fn missing(&self, name: &Name, blobs: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let there = crate::parallel::map(8, blobs, |blob| self.store.backend().blob_size(name, blob))?;
        let absent = blobs.iter().zip(there).filter(|(_, size)| size.is_none());
        Ok(absent.map(|(blob, _)| *blob).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_comes_back_or_is_refused() {
        let since: Since = [(Digest::of(b"a"), 5)].into();
        let ledger = Ledger {
            generation: 7,
            condemned: since.clone(),
            doomed: since,
        };
        assert_eq!(Ledger::decode(&ledger.encode()).unwrap(), ledger);
        let other = |from: &str, to: &str| {
            let text = String::from_utf8(ledger.encode()).unwrap();
            Ledger::decode(text.replace(from, to).as_bytes()).unwrap_err()
        };
        assert!(other("\"version\":1", "\"version\":2").contains("version is 2"));
        assert!(other("sha256:", "sha1:").contains("no digest"));
        assert!(other("generation", "whatever").contains("whatever"));
    }
}
