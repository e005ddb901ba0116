//! An open bucket, and what it does in one request or a few.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use firebrick_store::{ObjectEntry as Entry, ObjectError, Objects, Swap, Version};
use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutOptions};
use tokio::runtime::Runtime;

use crate::address::Address;
use crate::client;
use crate::error::{Attempt, BucketError, Words, trouble};
use crate::options::Options;
use crate::provider::{Opened, Setup};
use crate::trouble::Trouble;

/// The most entries of a listing: a store that never ends one must not fill the memory.
const ENTRIES: usize = 10_000_000;
/// A listing that brought so many entries more has moved on.
const PAGE: usize = 1000;

/// Objects in a bucket, below a prefix.
pub struct Bucket {
    /// As a user would write it.
    text: String,
    prefix: String,
    pub(crate) opened: Opened,
    pub(crate) options: Options,
    /// Whether any request has shown that the bucket is there.
    seen: AtomicBool,
    runtime: Runtime,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("address", &self.text)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// Opens the bucket at `address`. Nobody is asked yet.
    ///
    /// # Errors
    /// [`BucketError`] if the address or the options cannot be used.
    pub fn open(address: &str, options: Options) -> Result<Bucket, BucketError> {
        let parsed = Address::parse(address)?;
        let wire = client::wire(address, &options)?;
        let setup = Setup {
            text: address,
            address: &parsed,
            options: &options,
            wire: &wire,
        };
        let opened = setup.open()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bucket")
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| BucketError::Client {
                address: address.to_owned(),
                source: error.into(),
            })?;
        Ok(Bucket {
            text: address.trim_end_matches('/').to_owned(),
            prefix: parsed.prefix,
            opened,
            options,
            seen: AtomicBool::new(false),
            runtime,
        })
    }

    pub(crate) fn attempt<'a>(&'a self, action: &'static str, key: &'a str) -> Attempt<'a> {
        Attempt {
            address: &self.text,
            key,
            action,
        }
    }

    /// The key in the bucket.
    pub(crate) fn path(&self, attempt: Attempt<'_>) -> Result<Path, ObjectError> {
        let key = attempt.key;
        let full = if self.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}/{key}", self.prefix)
        };
        let path = Path::parse(&full).map_err(|error| attempt.failed(Words(error.to_string())))?;
        // What the library would tidy up is another key than the one that was asked for.
        match path.as_ref() == full && !key.is_empty() {
            true => Ok(path),
            false => Err(attempt.failed(Words("this is no key of an object".to_owned()))),
        }
    }

    /// Takes note that the bucket answered as one that is there.
    pub(crate) fn saw(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }

    /// What the store says of an object's content, for conditional writes.
    pub(crate) fn version(&self, e_tag: Option<String>, generation: Option<String>) -> Version {
        let version = if self.opened.by_generation {
            generation
        } else {
            e_tag
        };
        Version(version.unwrap_or_default())
    }

    pub(crate) async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, ObjectError> {
        let attempt = self.attempt("read", key);
        let path = self.path(attempt)?;
        match self.opened.patient.head(&path).await {
            Ok(meta) => {
                self.saw();
                Ok(Some(meta))
            }
            Err(object_store::Error::NotFound { .. }) if self.seen.load(Ordering::Relaxed) => Ok(None),
            // This answer has no words that tell a missing bucket from a missing object; that to another question does.
            Err(object_store::Error::NotFound { .. }) => {
                let options = GetOptions {
                    range: Some(GetRange::Bounded(0..1)),
                    ..GetOptions::default()
                };
                match self.opened.patient.get_opts(&path, options).await {
                    Err(object_store::Error::NotFound { .. }) => {
                        self.saw();
                        Ok(None)
                    }
                    Err(error) => Err(attempt.error(&error)),
                    // It was written just now.
                    Ok(found) => Ok(Some(found.meta)),
                }
            }
            Err(error) => Err(attempt.error(&error)),
        }
    }

    async fn get_small(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, Version)>, ObjectError> {
        let attempt = self.attempt("read", key);
        let mut bytes = Vec::new();
        let found = self
            .fetch(attempt, None, Some(limit), &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .await;
        match found {
            Ok(found) => Ok(Some((bytes, found))),
            Err(ObjectError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get_exactly(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
        let attempt = self.attempt("read", key);
        let len = range.end.saturating_sub(range.start);
        if len == 0 {
            let found = self.head(key).await?.ok_or_else(|| attempt.missing())?;
            let short = || attempt.short(range.start, found.size);
            return if found.size < range.start {
                Err(short())
            } else {
                Ok(Vec::new())
            };
        }
        let mut bytes = Vec::with_capacity(usize::try_from(len.min(64 << 20)).unwrap_or(0));
        self.fetch(attempt, Some(range), None, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        Ok(bytes)
    }

    async fn write(&self, key: &str, bytes: Vec<u8>) -> Result<(), ObjectError> {
        let attempt = self.attempt("write", key);
        let path = self.path(attempt)?;
        let written = self
            .opened
            .patient
            .put_opts(&path, bytes.into(), PutOptions::default())
            .await;
        written.map_err(|error| attempt.error(&error))?;
        self.saw();
        Ok(())
    }

    pub(crate) async fn remove(&self, key: &str) -> Result<(), ObjectError> {
        let attempt = self.attempt("remove", key);
        let path = self.path(attempt)?;
        match self.opened.patient.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(attempt.error(&error)),
        }
    }

    async fn entries(&self, prefix: &str) -> Result<Vec<Entry>, ObjectError> {
        let attempt = self.attempt("list", prefix);
        let below = [self.prefix.as_str(), prefix.trim_end_matches('/')];
        let below: Vec<&str> = below.into_iter().filter(|part| !part.is_empty()).collect();
        let root = Path::parse(below.join("/")).map_err(|error| attempt.failed(Words(error.to_string())))?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut waits = self.options.waits();
        let mut last: Option<Path> = None;
        loop {
            let before = entries.len();
            let mut listed = match &last {
                None => self.opened.patient.list(Some(&root)),
                Some(last) => self.opened.patient.list_with_offset(Some(&root), last),
            };
            let broken = loop {
                // Pages without entries, each of which promises another, come as nothing here.
                let patience = self.options.silence.saturating_mul(10);
                let Ok(next) = tokio::time::timeout(patience, listed.next()).await else {
                    return Err(attempt.failed(Words("its listing does not end".to_owned())));
                };
                match next {
                    None => break None,
                    Some(Err(error)) => break Some(error),
                    Some(Ok(meta)) => {
                        last = Some(meta.location.clone());
                        entries.extend(self.entry(meta));
                    }
                }
                if entries.len() > ENTRIES {
                    return Err(attempt.failed(Words(format!("it has more than {ENTRIES} objects"))));
                }
            };
            if entries.len().saturating_sub(before) >= PAGE {
                waits = self.options.waits();
            }
            // The library asks again where it got no answer, but not where one broke off.
            match (broken, waits.next()) {
                (None, _) => break,
                (Some(error), Some(wait)) if broke_off(&error) => {
                    tokio::time::sleep(wait).await;
                }
                (Some(error), _) => return Err(attempt.error(&error)),
            }
        }
        self.saw();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries.dedup_by(|a, b| a.key == b.key);
        Ok(entries)
    }

    /// Objects that lie directly below the prefix.
    async fn top(&self) -> Result<Vec<Entry>, ObjectError> {
        let attempt = self.attempt("list", "");
        let root = Path::parse(&self.prefix).map_err(|error| attempt.failed(Words(error.to_string())))?;
        let mut waits = self.options.waits();
        let listed = loop {
            match self.opened.patient.list_with_delimiter(Some(&root)).await {
                Ok(listed) => break listed,
                Err(error) if broke_off(&error) => match waits.next() {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(attempt.error(&error)),
                },
                Err(error) => return Err(attempt.error(&error)),
            }
        };
        self.saw();
        let mut entries: Vec<Entry> = listed
            .objects
            .into_iter()
            .filter_map(|meta| self.entry(meta))
            .collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    /// An object as we call it; nothing for what lies elsewhere.
    fn entry(&self, meta: ObjectMeta) -> Option<Entry> {
        let full = meta.location.as_ref();
        let key = match self.prefix.as_str() {
            "" => full,
            prefix => full.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        Some(Entry {
            key: key.to_owned(),
            len: meta.size,
            modified: SystemTime::from(meta.last_modified),
        })
    }
}

/// Whether an answer came, but not to its end.
pub(crate) fn broke_off(error: &object_store::Error) -> bool {
    matches!(
        trouble(error),
        Some(Trouble::Broken { .. } | Trouble::Silent { .. } | Trouble::Slow { .. })
    )
}

impl Objects for Bucket {
    fn address(&self) -> &str {
        &self.text
    }

    fn size(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        let found = self.runtime.block_on(self.head(key))?;
        Ok(found.map(|meta| meta.size))
    }

    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, Version)>, ObjectError> {
        self.runtime.block_on(self.get_small(key, limit))
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
        self.runtime.block_on(self.get_exactly(key, range))
    }

    fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.runtime.block_on(self.write(key, bytes))
    }

    fn swap(&self, key: &str, bytes: Vec<u8>, expected: Option<&Version>) -> Result<Swap, ObjectError> {
        self.runtime
            .block_on(self.replace(key, bytes.into(), expected))
            .map(|(swap, _)| swap)
    }

    fn can_swap(&self) -> Result<bool, ObjectError> {
        self.runtime.block_on(self.probe())
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.runtime.block_on(self.remove(key))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, ObjectError> {
        self.runtime.block_on(self.entries(prefix))
    }

    fn list_top(&self) -> Result<Vec<Entry>, ObjectError> {
        self.runtime.block_on(self.top())
    }

    fn put_file(&self, key: &str, file: &File, moved: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError> {
        self.runtime.block_on(self.upload(key, file, moved))
    }

    fn get_file(&self, key: &str, file: &File, moved: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError> {
        self.runtime.block_on(self.download(key, file, moved))
    }
}
