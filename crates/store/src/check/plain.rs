//! Whole files, against the digests beside them.

use std::sync::atomic::Ordering;

use firebrick_digest::{Digest, Hasher};

use super::{Check, Checked, words};
use crate::error::StoreError;
use crate::plain::PlainImage;
use crate::store::Progress;

/// Bytes that are read at a time.
const RANGE_LEN: u64 = 4 << 20;

impl Check<'_> {
    /// Reads the whole files of the store. `of` is how many bytes there are to read in all.
    pub(super) fn whole_files(
        &self,
        files: &[PlainImage],
        of: u64,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        for file in files {
            match self.whole_file(file, of) {
                Ok(Some(None)) => {}
                Ok(Some(Some(problem))) => checked.spoiled.push((file.key.clone(), problem)),
                Ok(None) => checked.unverified.push(file.key.clone()),
                Err(StoreError::Stopped) => return Err(StoreError::Stopped),
                Err(error) => checked.spoiled.push((file.key.clone(), words(&error))),
            }
            checked.whole.add(file.size);
        }
        Ok(())
    }

    /// What is wrong with a file; nothing at all if there is no digest beside it.
    fn whole_file(&self, file: &PlainImage, of: u64) -> Result<Option<Option<String>>, StoreError> {
        let mut problem = None;
        // It may be written while it is read, and the way here may spoil it.
        for _ in 0..2 {
            let Some(expected) = self.store.plain_digest(&file.key)? else {
                return Ok(None);
            };
            let found = self.whole_digest(file, of)?;
            if found == expected {
                return Ok(Some(None));
            }
            problem = Some(format!(
                "has the digest {found}, and {expected} is said beside it"
            ));
        }
        Ok(Some(problem))
    }

    fn whole_digest(&self, file: &PlainImage, of: u64) -> Result<Digest, StoreError> {
        let objects = self.store.plain_objects()?;
        let len = objects.size(&file.key)?.unwrap_or(0);
        let (mut hasher, mut at) = (Hasher::new(), 0);
        while at < len {
            self.check_stop()?;
            let end = len.min(at + RANGE_LEN);
            hasher.update(&objects.get_range(&file.key, at..end)?);
            let done = self.done.fetch_add(end - at, Ordering::Relaxed) + (end - at);
            (self.store.progress)(Progress::Check {
                done: done.min(of),
                of,
            });
            at = end;
        }
        Ok(hasher.finish())
    }
}
