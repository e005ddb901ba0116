//! An image in a registry: its documents and layers, and what the cache has of them.

use std::io::Read;
use std::sync::Arc;

use firebrick_digest::Digest;
use firebrick_registry::{RegistryError, RegistryReference, Repository};

use crate::cache::{Cache, Lookup};
use crate::download::{Job, Sink, Transfer};
use crate::error::{Part, SourceError};
use crate::manifest::{Descriptor, parse_document};
use crate::options::{Event, Options};
use crate::resolve::{self, Blobs, Resolved};

/// One image of one repository.
pub(crate) struct Registry {
    reference: RegistryReference,
    repository: Repository,
    cache: Option<Cache>,
    events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Registry {
    pub(crate) fn new(reference: &RegistryReference, options: &Options) -> Result<Registry, SourceError> {
        Ok(Registry {
            reference: reference.clone(),
            repository: Repository::new(&reference.name, &options.registry, options.on_retry())?,
            cache: options.cache.clone(),
            events: Arc::clone(&options.events),
        })
    }

    /// Finds the image that the reference names.
    pub(crate) fn open(&self, options: &Options) -> Result<Resolved, SourceError> {
        let limits = &options.limits;
        if let Some(digest) = self.reference.digest
            && let Some(bytes) = self.cached(digest, None, limits.manifest_bytes)?
        {
            let document = parse_document(&bytes, None, &digest.to_string(), limits)?;
            return resolve::resolve_document(self, document, digest, options);
        }
        let manifest = self
            .repository
            .unverified_manifest(&self.reference.manifest_name(), limits.manifest_bytes)
            .map_err(|error| self.failed(Part::Manifest, error))?;
        let (bytes, digest) = (manifest.bytes, manifest.digest);
        if let Some(promised) = self.reference.digest {
            resolve::verify(Part::Manifest, promised, None, &bytes)?;
        }
        let media_type = manifest.media_type.as_deref();
        let document = parse_document(&bytes, media_type, &self.reference.to_string(), limits)?;
        self.keep(digest, &bytes)?;
        resolve::resolve_document(self, document, digest, options)
    }

    fn cached(&self, digest: Digest, size: Option<u64>, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(cache) = &self.cache else {
            return Ok(None);
        };
        match cache.lookup(digest, size)? {
            Lookup::Absent => Ok(None),
            Lookup::Dropped => {
                (self.events)(Event::CorruptCacheEntry { digest });
                Ok(None)
            }
            Lookup::Found(file) => {
                let mut bytes = Vec::new();
                let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
                // What cannot be read, or is no document, is asked of the registry.
                Ok((read.is_ok() && bytes.len() as u64 <= limit).then_some(bytes))
            }
        }
    }

    fn keep(&self, digest: Digest, bytes: &[u8]) -> Result<(), SourceError> {
        match &self.cache {
            Some(cache) => cache.insert(digest, bytes),
            None => Ok(()),
        }
    }

    /// What the repository's failure means for the image.
    fn failed(&self, part: Part, error: RegistryError) -> SourceError {
        match error {
            RegistryError::NotFound { message, .. } => SourceError::NotFound {
                reference: Box::new(self.reference.clone()),
                message,
            },
            RegistryError::TooLarge { url, found, limit } => SourceError::Limit {
                part,
                place: url,
                what: "its size in bytes (at least)",
                found,
                limit,
            },
            error => error.into(),
        }
    }
}

impl Blobs for Registry {
    fn document(&self, part: Part, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, SourceError> {
        resolve::check_size(&part, descriptor, limit)?;
        let digest = descriptor.digest(part.clone())?;
        if let Some(bytes) = self.cached(digest, Some(descriptor.size), limit)? {
            return Ok(bytes);
        }
        let read = match part {
            Part::Config => self.repository.unverified_blob(digest, limit),
            _ => self
                .repository
                .unverified_manifest(&digest.into(), limit)
                .map(|manifest| manifest.bytes),
        };
        let bytes = read.map_err(|error| self.failed(part.clone(), error))?;
        resolve::verify(part, digest, Some(descriptor.size), &bytes)?;
        self.keep(digest, &bytes)?;
        Ok(bytes)
    }
}

impl Transfer for Registry {
    fn transfer(&self, job: &Job, start: u64, sink: &mut Sink<'_>) -> Result<(), SourceError> {
        let streamed = self
            .repository
            .stream_blob(job.digest, job.size, start, &mut |piece| sink(piece.bytes));
        streamed.map_err(|error| match error {
            SourceError::Registry(error) => self.failed(Part::Layer(job.layer), error),
            error => error,
        })
    }
}
