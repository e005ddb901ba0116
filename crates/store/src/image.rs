//! A published image, as its documents and tables tell of it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use firebrick_digest::Digest;

use crate::backend::Backend;
use crate::cache::TableCache;
use crate::error::StoreError;
use crate::fetch::{AGAIN, Fetching};
use crate::id::Id;
use crate::manifest::{CONFIG_MAX, Config, MANIFEST_MAX, Manifest};
use crate::name::Name;
use crate::seal::{Opener, Seal, stored_max};
use crate::table::{Entry, ROOT_MAX, Root, Segment, decode_root, decode_segment};
use crate::told::Told;

/// A version of an image in a store. Nothing of its content is read yet.
#[derive(Debug)]
pub struct Image {
    pub(crate) name: Name,
    /// Digest of its manifest.
    pub digest: Digest,
    /// What it tells of itself.
    pub config: Told,
    pub(crate) manifest: Manifest,
    /// Bytes of the manifest, as it was read.
    pub(crate) manifest_size: u64,
    blobs: HashMap<Digest, u64>,
}

/// Where images are read: a store, and what this host keeps of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) cache: Option<&'a TableCache>,
    pub(crate) stop: &'a AtomicBool,
}

impl Source<'_> {
    fn address(&self) -> String {
        self.backend.address().to_owned()
    }

    fn corrupt(&self, what: impl std::fmt::Display, problem: impl Into<String>) -> StoreError {
        StoreError::Corrupt {
            address: self.address(),
            what: what.to_string(),
            problem: problem.into(),
        }
    }

    /// Bytes by their digest, from the cache or by `read`, which is asked again for what is not right; verified.
    pub(crate) fn verified(
        &self,
        what: &str,
        digest: &Digest,
        limit: u64,
        read: impl Fn() -> Result<Vec<u8>, StoreError>,
    ) -> Result<Vec<u8>, StoreError> {
        let kept = self.cache.and_then(|cache| cache.get(&digest.hex(), limit));
        if let Some(bytes) = kept.filter(|bytes| Digest::of(bytes) == *digest) {
            return Ok(bytes);
        }
        let mut tries = 0;
        let bytes = loop {
            let bytes = read()?;
            let found = Digest::of(&bytes);
            if found == *digest {
                break bytes;
            }
            if tries == AGAIN {
                return Err(self.corrupt(
                    format_args!("{what} {digest}"),
                    format!("its bytes have the digest {found}"),
                ));
            }
            tries += 1;
        };
        if let Some(cache) = self.cache {
            cache.put(&digest.hex(), &bytes);
        }
        Ok(bytes)
    }

    /// The manifest with a digest, as it is.
    pub(crate) fn manifest(&self, name: &Name, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        self.verified("manifest", digest, MANIFEST_MAX, || {
            let found = self.backend.read_manifest(name, digest, MANIFEST_MAX)?;
            // A name means it, so it is not that there is no such image.
            found.ok_or_else(|| self.corrupt(format_args!("manifest {digest}"), "it is missing"))
        })
    }

    /// The image with a digest.
    pub(crate) fn image(&self, name: &Name, digest: &Digest) -> Result<Image, StoreError> {
        let bytes = self.manifest(name, digest)?;
        let manifest = Manifest::decode_image(&bytes).map_err(|problem| StoreError::Foreign {
            address: self.address(),
            what: format!("manifest {digest}"),
            problem,
        })?;
        let about = &manifest.config;
        let config = self.verified("config", &about.digest, CONFIG_MAX, || {
            self.backend.read_blob(name, &about.digest, 0..about.size)
        })?;
        let config = Told::decode(&config)
            .map_err(|problem| self.corrupt(format_args!("config {}", about.digest), problem))?;
        let blobs = manifest
            .layers
            .iter()
            .map(|layer| (layer.digest, layer.size))
            .collect();
        Ok(Image {
            name: name.clone(),
            digest: *digest,
            config,
            manifest,
            manifest_size: bytes.len() as u64,
            blobs,
        })
    }

    /// The whole config of an image.
    pub(crate) fn config(&self, image: &Image, seal: &Seal) -> Result<Config, StoreError> {
        image.check_key(seal)?;
        let what = format_args!("config {}", image.manifest.config.digest);
        let config = image.config.config(seal);
        config.map_err(|problem| self.corrupt(what, problem))
    }

    /// The root of an image's table.
    pub(crate) fn root(&self, image: &Image, seal: &Seal) -> Result<Root, StoreError> {
        let config = self.config(image, seal)?;
        let what = || format!("table of {}", image.digest);
        let len = usize::try_from(config.table_len)
            .ok()
            .filter(|len| *len <= ROOT_MAX);
        let len = len.ok_or_else(|| self.corrupt(what(), format!("it has {} bytes", config.table_len)))?;
        let decode = |bytes: &[u8]| {
            decode_root(bytes, |blob| image.blob_len(blob)).map_err(|problem| self.corrupt(what(), problem))
        };
        if let Some(bytes) = self.kept(&config.table_id, len, seal) {
            return decode(&bytes);
        }
        let [blob, ..] = &image.manifest.layers[..] else {
            return Err(self.corrupt(what(), "there is none"));
        };
        if blob.size > stored_max(len) as u64 {
            return Err(self.corrupt(what(), format!("{len} bytes take {}", blob.size)));
        }
        let mut opener = Opener::new(seal)?;
        let mut tries = 0;
        let bytes = loop {
            let stored = self.backend.read_blob(&image.name, &blob.digest, 0..blob.size)?;
            match opener.open(&config.table_id, &stored, len) {
                Ok(bytes) => break bytes.to_vec(),
                Err(_) if tries < AGAIN => tries += 1,
                Err(source) => {
                    return Err(StoreError::Chunk {
                        address: self.address(),
                        blob: blob.digest,
                        id: config.table_id,
                        source,
                    });
                }
            }
        };
        let root = decode(&bytes)?;
        if let Some(cache) = self.cache {
            cache.put(&config.table_id.hex(), &bytes);
        }
        match root.image_len == config.size {
            true => Ok(root),
            false => Err(self.corrupt(
                what(),
                format!("it is of {} bytes, the image of {}", root.image_len, config.size),
            )),
        }
    }

    /// A segment or root from the cache, if it is right.
    fn kept(&self, id: &Id, len: usize, seal: &Seal) -> Option<Vec<u8>> {
        let kept = self.cache?.get(&id.hex(), len as u64)?;
        (kept.len() == len && seal.id(&kept) == *id).then_some(kept)
    }

    /// The entries of some segments, each in its place. `came` is told of bytes that came from the store.
    pub(crate) fn segments(
        &self,
        image: &Image,
        segments: &[Segment],
        seal: &Seal,
        came: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Vec<Entry>>, StoreError> {
        let decode = |segment: &Segment, bytes: &[u8]| {
            decode_segment(bytes, segment.len, |blob| image.blob_len(blob)).map_err(|problem| {
                self.corrupt(
                    format_args!("segment {} of {}", segment.at.id, image.digest),
                    problem,
                )
            })
        };
        let mut found: HashMap<Id, Vec<u8>> = HashMap::new();
        let mut wanted = Vec::new();
        for segment in segments {
            let len = usize::try_from(segment.at.len).unwrap_or(usize::MAX);
            match self.kept(&segment.at.id, len, seal) {
                Some(bytes) => drop(found.insert(segment.at.id, bytes)),
                None => wanted.push(segment.at),
            }
        }
        let found = Mutex::new(found);
        let fetching = Fetching {
            backend: self.backend,
            name: &image.name,
            seal,
            threads: 4,
            stop: self.stop,
            came,
        };
        fetching.chunks(wanted, &|locator, bytes| {
            if let Some(cache) = self.cache {
                cache.put(&locator.id.hex(), bytes);
            }
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert(locator.id, bytes.to_vec());
            Ok(())
        })?;
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let bytes = |segment: &Segment| {
            found
                .get(&segment.at.id)
                .expect("it was kept, or fetched without an error")
        };
        segments
            .iter()
            .map(|segment| decode(segment, bytes(segment)))
            .collect()
    }
}

impl Image {
    pub(crate) fn blob_len(&self, blob: &Digest) -> Option<u64> {
        self.blobs.get(blob).copied()
    }

    /// Refuses a seal that its chunks do not have.
    fn check_key(&self, seal: &Seal) -> Result<(), StoreError> {
        let (wanted, given) = (self.config.key.as_deref(), seal.fingerprint());
        match wanted {
            Some(wanted) if given != Some(wanted) => Err(StoreError::Key {
                what: format!("{}@{}", self.name, self.digest),
                wanted: wanted.to_owned(),
                given: given.map(str::to_owned),
            }),
            _ => Ok(()),
        }
    }

    /// How its chunks are sealed, given a key that may be for others.
    pub(crate) fn seal<'a>(&self, keys: &'a Seal) -> Result<&'a Seal, StoreError> {
        const PLAIN: &Seal = &Seal::PLAIN;
        self.check_key(keys)?;
        Ok(if self.config.key.is_some() { keys } else { PLAIN })
    }
}
