//! Writes on the condition that a known content is there, and whether a store means it.
//!
//! A condition is sent with the write (`If-None-Match`, `If-Match`, Google's `x-goog-if-generation-match`); the store looks and
//! writes in one step. Such a write must not be repeated blindly: where the answer to the first try was lost, a second may find
//! what the first has written, and call it somebody else's. So every try after a lost answer is followed by a look.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use bytes::Bytes;
use firebrick_store::{ObjectError, Swap, Version};
use object_store::{Error, ObjectStore as _, PutMode, PutOptions, PutPayload, UpdateVersion};

use crate::bucket::Bucket;
use crate::error::{Attempt, trouble};
use crate::trouble::Trouble;

/// Statuses of stores that do not know conditions.
const NOT_KNOWN: [u16; 3] = [405, 501, 505];

impl Bucket {
    /// Writes only where `expected` is, and gives the version of what it wrote where the store told it.
    pub(crate) async fn replace(
        &self,
        key: &str,
        bytes: Bytes,
        expected: Option<&Version>,
    ) -> Result<(Swap, Option<Version>), ObjectError> {
        let attempt = self.attempt("write", key);
        let path = self.path(attempt)?;
        let mode = self.mode(attempt, expected)?;
        let mut waits = self.options.waits();
        // Whether an earlier try may have been carried out.
        let mut is_lost = false;
        loop {
            let options = PutOptions::from(mode.clone());
            let payload = PutPayload::from(bytes.clone());
            let error = match self.opened.once.put_opts(&path, payload, options).await {
                Ok(put) => {
                    self.saw();
                    return Ok((Swap::Done, Some(self.version(put.e_tag, put.version))));
                }
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. }) => {
                    self.saw();
                    if is_lost {
                        return self.look(attempt, &bytes).await;
                    }
                    return Ok((Swap::Changed, None));
                }
                Err(error) => error,
            };
            is_lost |= match trouble(&error) {
                Some(Trouble::Unreachable { .. }) => false,
                // The others say that the request came to nothing.
                Some(Trouble::Broken { .. } | Trouble::Silent { .. } | Trouble::Slow { .. }) | None => true,
                Some(_) => return Err(self.unwritten(attempt, &error)),
            };
            match waits.next() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(attempt.error(&error)),
            }
        }
    }

    fn mode(&self, attempt: Attempt<'_>, expected: Option<&Version>) -> Result<PutMode, ObjectError> {
        let Some(Version(version)) = expected else {
            return Ok(PutMode::Create);
        };
        if version.is_empty() {
            return Err(unsupported(attempt));
        }
        let (version, e_tag) = match self.opened.by_generation {
            true => (Some(version.clone()), None),
            false => (None, Some(version.clone())),
        };
        Ok(PutMode::Update(UpdateVersion { e_tag, version }))
    }

    fn unwritten(&self, attempt: Attempt<'_>, error: &Error) -> ObjectError {
        match trouble(error) {
            Some(Trouble::Refused(refusal)) if NOT_KNOWN.contains(&refusal.status) => unsupported(attempt),
            _ => attempt.error(error),
        }
    }

    /// What is there after a try whose answer was lost, and one that found the condition broken.
    async fn look(&self, attempt: Attempt<'_>, ours: &[u8]) -> Result<(Swap, Option<Version>), ObjectError> {
        let mut there = Vec::new();
        let limit = Some(ours.len() as u64);
        let found = self
            .fetch(attempt, None, limit, &mut |piece| {
                there.extend_from_slice(piece);
                Ok(())
            })
            .await;
        match found {
            Ok(version) if there == ours => Ok((Swap::Done, Some(version))),
            Ok(_) | Err(ObjectError::TooLarge { .. } | ObjectError::Missing { .. }) => {
                Ok((Swap::Unknown, None))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether conditions are kept, tried with an object of a random name.
    pub(crate) async fn probe(&self) -> Result<bool, ObjectError> {
        let key = format!("probe/{:016x}{:016x}", random(), random());
        let tried = self.try_conditions(&key).await;
        // Also where it went wrong: what is left would be nobody's.
        let removed = self.remove(&key).await;
        let tried = match tried {
            Err(ObjectError::Unsupported { .. }) => false,
            tried => tried?,
        };
        removed.map(|()| tried)
    }

    async fn try_conditions(&self, key: &str) -> Result<bool, ObjectError> {
        let write = async |text: &'static str, expected: Option<&Version>| {
            self.replace(key, Bytes::from_static(text.as_bytes()), expected)
                .await
        };
        // Nobody else writes here: where an answer was lost and what is there is not ours, the condition was kept.
        let is_kept = |swap: Swap| swap != Swap::Done;
        let (swap, first) = write("1", None).await?;
        if swap != Swap::Done || !is_kept(write("2", None).await?.0) {
            return Ok(false);
        }
        let first = match first.filter(|version| !version.0.is_empty()) {
            Some(version) => version,
            None => {
                let attempt = self.attempt("read", key);
                self.fetch(attempt, None, Some(1), &mut |_| Ok(())).await?
            }
        };
        let (swap, _) = write("3", Some(&first)).await?;
        if swap != Swap::Done {
            return Ok(false);
        }
        // The first content is not there any more.
        Ok(is_kept(write("4", Some(&first)).await?.0))
    }
}

fn unsupported(attempt: Attempt<'_>) -> ObjectError {
    ObjectError::Unsupported {
        address: attempt.address.to_owned(),
        action: "write on a condition",
    }
}

/// A number that nobody else has; the standard library seeds its hashes from the system.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
