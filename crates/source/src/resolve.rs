//! From descriptors to one image: walks indexes, chooses the platform, reads manifest and config.
//!
//! Where the documents lie is behind [`Blobs`]; everything read through it has been verified against its digest.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use firebrick_digest::{Digest, Mismatch};
use firebrick_registry::quote::quoted;

use crate::config::{ImageConfig, parse_config};
use crate::error::{Part, SourceError};
use crate::manifest::{Descriptor, Document, Manifest, parse_document};
use crate::options::{Limits, Options};
use crate::platform::Platform;

/// Where an image's small documents come from.
pub(crate) trait Blobs {
    /// Reads a whole document of at most `limit` bytes and verifies it.
    fn document(&self, part: Part, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, SourceError>;
}

/// One image, all its documents read.
pub(crate) struct Resolved {
    pub(crate) manifest: Manifest,
    pub(crate) manifest_digest: Option<Digest>,
    pub(crate) config_digest: Option<Digest>,
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
}

/// Finds the image for the wanted platform among `roots`.
pub(crate) fn resolve(
    blobs: &dyn Blobs,
    roots: Vec<Descriptor>,
    options: &Options,
) -> Result<Resolved, SourceError> {
    let mut resolver = Resolver {
        blobs,
        limits: &options.limits,
        documents: 0,
    };
    let wanted = options.platform.clone().unwrap_or_default();
    let mut leaves = Vec::new();
    resolver.flatten(roots, 1, &mut leaves)?;
    let leaf = resolver.choose(leaves, &wanted)?;
    resolver.load(leaf, &wanted)
}

/// As [`resolve`], where the first document has been read already (registries give it under a tag).
pub(crate) fn resolve_document(
    blobs: &dyn Blobs,
    document: Document,
    digest: Digest,
    options: &Options,
) -> Result<Resolved, SourceError> {
    match document {
        Document::Index(index) => resolve(blobs, index.manifests, options),
        Document::Manifest(manifest) => {
            let mut resolver = Resolver {
                blobs,
                limits: &options.limits,
                documents: 0,
            };
            let leaf = Leaf {
                digest,
                platform: None,
                source: LeafSource::Manifest(manifest),
            };
            resolver.load(leaf, &options.platform.clone().unwrap_or_default())
        }
    }
}

struct Resolver<'a> {
    blobs: &'a dyn Blobs,
    limits: &'a Limits,
    documents: usize,
}

/// A manifest in some index.
struct Leaf {
    digest: Digest,
    platform: Option<Platform>,
    source: LeafSource,
}

enum LeafSource {
    Descriptor(Descriptor),
    Manifest(Manifest),
}

impl Resolver<'_> {
    fn read(&mut self, descriptor: &Descriptor) -> Result<Document, SourceError> {
        self.documents = self.documents.saturating_add(1);
        if self.documents > self.limits.documents {
            return Err(limit(
                descriptor,
                "the number of documents to read",
                self.documents,
                self.limits.documents,
            ));
        }
        let part = if descriptor.is_index() {
            Part::Index
        } else {
            Part::Manifest
        };
        let bytes = self
            .blobs
            .document(part, descriptor, self.limits.manifest_bytes)?;
        parse_document(
            &bytes,
            Some(&descriptor.media_type),
            &descriptor.digest,
            self.limits,
        )
    }

    fn flatten(
        &mut self,
        from: Vec<Descriptor>,
        depth: usize,
        into: &mut Vec<Leaf>,
    ) -> Result<(), SourceError> {
        for descriptor in from {
            if !descriptor.may_be_image() {
                continue;
            }
            let digest = descriptor.digest(Part::Manifest)?;
            let platform = descriptor.platform();
            // A descriptor without media type may name either; only reading tells.
            if !descriptor.is_index() && !descriptor.media_type.is_empty() {
                into.push(Leaf {
                    digest,
                    platform,
                    source: LeafSource::Descriptor(descriptor),
                });
                continue;
            }
            if depth >= self.limits.index_depth && descriptor.is_index() {
                let found = depth.saturating_add(1);
                return Err(limit(
                    &descriptor,
                    "its depth of indexes in indexes",
                    found,
                    self.limits.index_depth,
                ));
            }
            match self.read(&descriptor)? {
                Document::Manifest(manifest) => into.push(Leaf {
                    digest,
                    platform,
                    source: LeafSource::Manifest(manifest),
                }),
                Document::Index(index) if depth >= self.limits.index_depth => {
                    drop(index);
                    let found = depth.saturating_add(1);
                    return Err(limit(
                        &descriptor,
                        "its depth of indexes in indexes",
                        found,
                        self.limits.index_depth,
                    ));
                }
                Document::Index(index) => self.flatten(index.manifests, depth.saturating_add(1), into)?,
            }
        }
        Ok(())
    }

    fn choose(&mut self, mut leaves: Vec<Leaf>, wanted: &Platform) -> Result<Leaf, SourceError> {
        if leaves.len() == 1 && leaves.iter().all(|leaf| leaf.platform.is_none()) {
            return Ok(leaves.remove(0));
        }
        for leaf in leaves.iter_mut().filter(|leaf| leaf.platform.is_none()) {
            let manifest = self.manifest(&leaf.source)?;
            let (_, platform) = self.config(&manifest)?;
            leaf.platform = platform;
            leaf.source = LeafSource::Manifest(manifest);
        }
        let mut available: Vec<String> = leaves
            .iter()
            .filter_map(|leaf| leaf.platform.as_ref())
            .map(|platform| quoted(&platform.to_string()))
            .collect();
        leaves
            .into_iter()
            .filter_map(|leaf| Some((wanted.distance_to(leaf.platform.as_ref()?)?, leaf)))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, leaf)| leaf)
            .ok_or_else(|| {
                available.sort();
                available.dedup();
                SourceError::NoPlatform {
                    wanted: wanted.clone(),
                    available,
                }
            })
    }

    fn manifest(&mut self, source: &LeafSource) -> Result<Manifest, SourceError> {
        match source {
            LeafSource::Manifest(manifest) => Ok(manifest.clone()),
            LeafSource::Descriptor(descriptor) => match self.read(descriptor)? {
                Document::Manifest(manifest) => Ok(manifest),
                Document::Index(_) => Err(SourceError::Malformed {
                    part: Part::Manifest,
                    place: quoted(&descriptor.digest),
                    problem: "its media type does not fit its content",
                }),
            },
        }
    }

    fn config(&self, manifest: &Manifest) -> Result<(ImageConfig, Option<Platform>), SourceError> {
        let bytes = self
            .blobs
            .document(Part::Config, &manifest.config, self.limits.config_bytes)?;
        parse_config(&bytes, &manifest.config.digest)
    }

    fn load(&mut self, leaf: Leaf, wanted: &Platform) -> Result<Resolved, SourceError> {
        let manifest = self.manifest(&leaf.source)?;
        let (config, own) = self.config(&manifest)?;
        if manifest.layers.len() != config.diff_ids.len() {
            return Err(SourceError::LayerCount {
                layers: manifest.layers.len(),
                diff_ids: config.diff_ids.len(),
            });
        }
        let platform = agreed_platform(wanted, leaf.platform, own)?;
        Ok(Resolved {
            manifest_digest: Some(leaf.digest),
            config_digest: Some(manifest.config.digest(Part::Config)?),
            manifest,
            config,
            platform,
        })
    }
}

/// Index and config both may name the platform. The config must fit; only its variant, which many builders leave
/// out, gives way to the index's.
pub(crate) fn agreed_platform(
    wanted: &Platform,
    index: Option<Platform>,
    config: Option<Platform>,
) -> Result<Platform, SourceError> {
    let fits = match (&index, &config) {
        (_, None) => true,
        (Some(_), Some(config)) => wanted.same_processor(config),
        (None, Some(config)) => wanted.distance_to(config).is_some(),
    };
    match (index, config) {
        (_, Some(config)) if !fits => Err(SourceError::NoPlatform {
            wanted: wanted.clone(),
            available: vec![quoted(&config.to_string())],
        }),
        (Some(index), _) => Ok(index),
        (None, Some(config)) => Ok(config),
        (None, None) => Ok(wanted.clone()),
    }
}

fn limit(descriptor: &Descriptor, what: &'static str, found: usize, limit: usize) -> SourceError {
    SourceError::Limit {
        part: Part::Index,
        place: quoted(&descriptor.digest),
        what,
        found: u64::try_from(found).unwrap_or(u64::MAX),
        limit: u64::try_from(limit).unwrap_or(u64::MAX),
    }
}

/// Checks a document's promised size against the limit before it is read.
pub(crate) fn check_size(part: &Part, descriptor: &Descriptor, limit: u64) -> Result<(), SourceError> {
    if descriptor.size > limit {
        return Err(SourceError::Limit {
            part: part.clone(),
            place: quoted(&descriptor.digest),
            what: "its size in bytes",
            found: descriptor.size,
            limit,
        });
    }
    Ok(())
}

/// Checks a document that was read whole.
pub(crate) fn verify(
    part: Part,
    promised: Digest,
    size: Option<u64>,
    bytes: &[u8],
) -> Result<(), SourceError> {
    let actual_len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mismatch = match size.filter(|&size| size != actual_len) {
        Some(expected) => Mismatch::Length {
            expected,
            actual: actual_len,
            at_least: false,
        },
        None => {
            let actual = Digest::of(bytes);
            if actual == promised {
                return Ok(());
            }
            Mismatch::Digest {
                expected: promised,
                actual,
            }
        }
    };
    Err(SourceError::Mismatch {
        part,
        promised,
        mismatch,
    })
}
