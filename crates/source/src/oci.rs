//! `oci:` and `oci-archive:`: image layouts, in a folder or in a tar.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use firebrick_digest::Digest;
use firebrick_registry::quote::quoted;

use crate::error::{Part, SourceError};
use crate::image::LayerSource;
use crate::layout::Layout;
use crate::manifest::{Descriptor, Document, Index, parse_document};
use crate::options::Options;
use crate::reference::Selector;
use crate::resolve::{self, Blobs, Resolved};
use crate::tarindex::TarIndex;

/// Where a layout's files lie.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    Folder(Arc<Layout>),
    Archive(Arc<TarIndex>),
}

impl Store {
    fn read_small(&self, part: Part, name: &str, limit: u64) -> Result<Vec<u8>, SourceError> {
        match self {
            Store::Folder(layout) => layout.read_small(part, name, limit),
            Store::Archive(archive) => archive.read_small(part, name, limit),
        }
    }

    fn transport(&self) -> &'static str {
        match self {
            Store::Folder(_) => "oci",
            Store::Archive(_) => "oci-archive",
        }
    }

    /// Where a layer's bytes are.
    pub(crate) fn layer(&self, layer: usize, digest: Digest) -> Result<LayerSource, SourceError> {
        match self {
            Store::Folder(layout) => {
                // Told now, not after half an image has been written.
                layout.open_blob(Part::Layer(layer), digest)?;
                Ok(LayerSource::Layout(Arc::clone(layout)))
            }
            Store::Archive(archive) => archive
                .member(Part::Layer(layer), &format!("blobs/sha256/{}", digest.hex()))
                .map(LayerSource::Member),
        }
    }
}

impl Blobs for Store {
    fn document(&self, part: Part, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, SourceError> {
        resolve::check_size(&part, descriptor, limit)?;
        let digest = descriptor.digest(part.clone())?;
        let bytes = self.read_small(part.clone(), &format!("blobs/sha256/{}", digest.hex()), limit)?;
        resolve::verify(part, digest, Some(descriptor.size), &bytes)?;
        Ok(bytes)
    }
}

/// Finds the wanted image of a layout.
pub(crate) fn open(
    store: &Store,
    place: &Path,
    selector: Option<&Selector>,
    options: &Options,
) -> Result<Resolved, SourceError> {
    let bytes = store.read_small(Part::Index, "index.json", options.limits.manifest_bytes)?;
    let index = match parse_document(&bytes, None, "index.json", &options.limits)? {
        Document::Index(index) => index,
        Document::Manifest(_) => {
            return Err(SourceError::Malformed {
                part: Part::Index,
                place: "index.json".to_owned(),
                problem: "it is a manifest, not an index",
            });
        }
    };
    let roots = select(index, store.transport(), place, selector)?;
    resolve::resolve(store, roots, options)
}

/// Picks the descriptors that the selector means: one, or several that differ by platform.
fn select(
    index: Index,
    transport: &'static str,
    place: &Path,
    selector: Option<&Selector>,
) -> Result<Vec<Descriptor>, SourceError> {
    let images: Vec<Descriptor> = index
        .manifests
        .into_iter()
        .filter(Descriptor::may_be_image)
        .collect();
    if images.is_empty() {
        return Err(SourceError::Empty {
            place: place.to_owned(),
        });
    }
    let available = || {
        let names: BTreeSet<String> = images.iter().map(selector_of).collect();
        names.into_iter().collect::<Vec<String>>()
    };
    let Some(selector) = selector else {
        let names: BTreeSet<Option<&str>> = images.iter().map(name_of).collect();
        // Without names, several images are one for several platforms, if each says for which.
        let told_apart = names.len() == 1
            && (images.len() == 1 || names.contains(&None) == images.iter().all(|i| i.platform().is_some()));
        if told_apart {
            return Ok(images);
        }
        return Err(SourceError::Ambiguous {
            transport,
            place: place.to_owned(),
            available: available(),
        });
    };
    let matching = |test: &dyn Fn(&Descriptor) -> bool| -> Vec<Descriptor> {
        images.iter().filter(|image| test(image)).cloned().collect()
    };
    let found = match selector {
        Selector::Digest(digest) => matching(&|image| image.digest == digest.to_string()),
        Selector::Index(_) => Vec::new(),
        // The exact name first; then the tag that ends a full name, if it is the only one so called.
        Selector::Name(name) => match matching(&|image| names_of(image).any(|own| own == name)) {
            exact if !exact.is_empty() => exact,
            _ => {
                let by_tag = matching(&|image| names_of(image).any(|own| tag_of(own) == Some(name)));
                let names: BTreeSet<Option<&str>> = by_tag.iter().map(name_of).collect();
                if names.len() > 1 {
                    return Err(SourceError::Ambiguous {
                        transport,
                        place: place.to_owned(),
                        available: by_tag.iter().map(selector_of).collect(),
                    });
                }
                by_tag
            }
        },
    };
    if found.is_empty() {
        return Err(SourceError::NoImage {
            wanted: selector.to_string(),
            transport,
            place: place.to_owned(),
            available: available(),
        });
    }
    Ok(found)
}

fn names_of(image: &Descriptor) -> impl Iterator<Item = &str> {
    ["org.opencontainers.image.ref.name", "io.containerd.image.name"]
        .into_iter()
        .filter_map(|key| image.annotations.get(key))
        .map(String::as_str)
}

fn name_of(image: &Descriptor) -> Option<&str> {
    names_of(image).next()
}

fn tag_of(name: &str) -> Option<&str> {
    name.rsplit_once(':')
        .map(|(_, tag)| tag)
        .filter(|tag| !tag.contains('/'))
}

/// What a user writes to mean this image.
fn selector_of(image: &Descriptor) -> String {
    match name_of(image) {
        Some(name) => quoted(name),
        None => format!("@{}", quoted(&image.digest)),
    }
}
