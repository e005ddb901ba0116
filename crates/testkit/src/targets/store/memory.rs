//! An object store in memory: what hostile bytes are put into for a store to read.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use firebrick_digest::Digest;
use firebrick_store::{ObjectEntry, ObjectError, Objects, Swap, Version};

/// Objects by key.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

impl Memory {
    pub(super) fn new(objects: impl IntoIterator<Item = (String, Vec<u8>)>) -> Memory {
        Memory(Mutex::new(objects.into_iter().collect()))
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing(key: &str) -> ObjectError {
        ObjectError::Missing {
            address: "memory".to_owned(),
            key: key.to_owned(),
        }
    }
}

fn version(bytes: &[u8]) -> Version {
    Version(Digest::of(bytes).to_string())
}

impl Objects for Memory {
    fn address(&self) -> &str {
        "memory"
    }

    fn size(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        Ok(self.objects().get(key).map(|bytes| bytes.len() as u64))
    }

    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, Version)>, ObjectError> {
        match self.objects().get(key) {
            Some(bytes) if bytes.len() as u64 > limit => Err(ObjectError::TooLarge {
                address: "memory".to_owned(),
                key: key.to_owned(),
                limit,
            }),
            found => Ok(found.map(|bytes| (bytes.clone(), version(bytes)))),
        }
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
        let objects = self.objects();
        let bytes = objects.get(key).ok_or_else(|| Memory::missing(key))?;
        let found = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .and_then(|(start, end)| bytes.get(start..end));
        found.map(<[u8]>::to_vec).ok_or_else(|| ObjectError::Short {
            address: "memory".to_owned(),
            key: key.to_owned(),
            expected: range.end.saturating_sub(range.start),
            found: (bytes.len() as u64).saturating_sub(range.start),
        })
    }

    fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.objects().insert(key.to_owned(), bytes);
        Ok(())
    }

    fn swap(&self, key: &str, bytes: Vec<u8>, expected: Option<&Version>) -> Result<Swap, ObjectError> {
        let mut objects = self.objects();
        if objects.get(key).map(|there| version(there)).as_ref() != expected {
            return Ok(Swap::Changed);
        }
        objects.insert(key.to_owned(), bytes);
        Ok(Swap::Done)
    }

    fn can_swap(&self) -> Result<bool, ObjectError> {
        Ok(true)
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.objects().remove(key);
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, ObjectError> {
        let objects = self.objects();
        let below = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(below.map(entry).collect())
    }

    fn list_top(&self) -> Result<Vec<ObjectEntry>, ObjectError> {
        let objects = self.objects();
        let top = objects.iter().filter(|(key, _)| !key.contains('/'));
        Ok(top.map(entry).collect())
    }

    fn put_file(&self, key: &str, _: &File, _: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError> {
        Err(Memory::missing(key))
    }

    fn get_file(&self, key: &str, _: &File, _: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError> {
        Err(Memory::missing(key))
    }
}

fn entry((key, bytes): (&String, &Vec<u8>)) -> ObjectEntry {
    ObjectEntry {
        key: key.clone(),
        len: bytes.len() as u64,
        modified: SystemTime::UNIX_EPOCH,
    }
}
