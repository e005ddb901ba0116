//! Resolves an image reference and yields its config and its layers' byte streams, verified.
//!
//! A [`Reference`] names an OCI image wherever it lies: in a registry, in a layout or archive on disk, or as a plain
//! tar or folder. [`open`] finds the image for one [`Platform`] there and yields an [`OciImage`]: its [`ImageConfig`]
//! and its [`Layer`]s, whose bytes are read (as stored, mostly compressed) from any thread. What comes from a registry
//! is kept in a [`Cache`]. Layers can also be made here, and joined to an [`OciImage`] that nobody has stored.
//!
//! ```text
//! Reference ─► index ─► manifest ─► config          (small documents, bounded, verified: resolve, manifest, config)
//!                                └► layers ─► bytes  (verified as they pass: image; from a registry: download, cache)
//! ```
//!
//! Decisions and formats: `docs/sources.md`.
#![forbid(unsafe_code)]

mod cache;
mod config;
mod dirtar;
mod docker_archive;
mod download;
mod error;
mod fetch;
mod holes;
mod image;
mod layout;
mod made;
mod manifest;
mod oci;
mod options;
mod platform;
mod reference;
mod registry;
mod resolve;
mod spool;
mod tarindex;

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use firebrick_digest::Digest;

pub use cache::{Cache, CachedBlob, Prune, Pruned};
pub use config::{ImageConfig, parse_config};
pub use docker_archive::{SavedImage, parse_saved};
pub use error::{Part, SourceError};
pub use fetch::{fetch_file, fetch_unverified};
pub use firebrick_registry::{
    Credentials, JsonError, Proxy, RegistryError, RegistryOptions, RegistryReference, Retry, Trouble,
};
pub use image::{Layer, OciImage};
pub use manifest::{Descriptor, Document, Index, Manifest, parse_document};
pub use options::{Event, Limits, Options};
pub use platform::{ParsePlatformError, Platform};
pub use reference::{ParseReferenceError, Reference, Selector};

use download::Downloads;
use image::LayerSource;
use layout::Layout;
use oci::Store;
use registry::Registry;
use resolve::Resolved;
use tarindex::TarIndex;

/// Opens the image that `reference` names.
///
/// Reads manifest and config, verified; layers are only looked for. From a registry nothing more is fetched before
/// [`OciImage::prefetch`] or the first [`Layer::open`].
///
/// # Errors
/// [`SourceError`]; its groups say whether another try, another choice or other input may help.
pub fn open(reference: &Reference, options: &Options) -> Result<OciImage, SourceError> {
    let image = match reference {
        Reference::Registry(name) => open_registry(reference, Registry::new(name, options)?, options),
        Reference::OciLayout { path, selector } => {
            let store = Store::Folder(Arc::new(Layout::open(path)?));
            let resolved = oci::open(&store, path, selector.as_ref(), options)?;
            stored_image(reference, &store, resolved)
        }
        Reference::OciArchive { path, selector } => {
            let archive = open_archive(path, options)?;
            open_oci_archive(reference, archive, path, selector.as_ref(), options)
        }
        Reference::DockerArchive { path, selector } => {
            let archive = open_archive(path, options)?;
            if archive.contains("manifest.json") {
                open_docker_archive(reference, &archive, path, selector.as_ref(), options)
            } else if archive.contains("index.json") {
                open_oci_archive(reference, archive, path, selector.as_ref(), options)
            } else {
                Err(SourceError::NotAnArchive {
                    path: path.clone(),
                    expected: "a docker archive",
                    lacks: "manifest.json",
                })
            }
        }
        Reference::DockerDaemon { name } => Err(SourceError::DockerDaemon { name: name.clone() }),
        Reference::Tar { path } => {
            let metadata =
                std::fs::metadata(path).map_err(|source| image::file_error("examine", path, source))?;
            // A pipe ends; a device need not.
            let kind = metadata.file_type();
            if !kind.is_file() && !kind.is_fifo() {
                return Err(SourceError::NotAnArchive {
                    path: path.clone(),
                    expected: "a tar",
                    lacks: "bytes of its own: it is a folder or a device",
                });
            }
            let size = metadata.is_file().then_some(metadata.len());
            Ok(plain_image(
                reference,
                LayerSource::File(path.clone()),
                size,
                options,
            ))
        }
        Reference::Made { name } => Err(SourceError::OnlyMade { name: name.clone() }),
        Reference::Dir { path } => {
            dirtar::open(path)?;
            Ok(plain_image(
                reference,
                LayerSource::Folder(path.clone()),
                None,
                options,
            ))
        }
    }?;
    tell_resolved(&image, options);
    Ok(image)
}

fn tell_resolved(image: &OciImage, options: &Options) {
    (options.events)(Event::Resolved {
        manifest: image.manifest_digest,
        platform: image.platform.clone(),
        layers: image.layers.len(),
    });
}

fn open_archive(path: &Path, options: &Options) -> Result<Arc<TarIndex>, SourceError> {
    let file = spool::open(path, options)?;
    TarIndex::read(file, path, options.limits.archive_entries).map(Arc::new)
}

fn open_oci_archive(
    reference: &Reference,
    archive: Arc<TarIndex>,
    path: &Path,
    selector: Option<&Selector>,
    options: &Options,
) -> Result<OciImage, SourceError> {
    if !archive.contains("index.json") {
        return Err(SourceError::NotAnArchive {
            path: path.to_owned(),
            expected: "an OCI archive",
            lacks: "index.json",
        });
    }
    let store = Store::Archive(archive);
    let resolved = oci::open(&store, path, selector, options)?;
    stored_image(reference, &store, resolved)
}

fn open_docker_archive(
    reference: &Reference,
    archive: &Arc<TarIndex>,
    path: &Path,
    selector: Option<&Selector>,
    options: &Options,
) -> Result<OciImage, SourceError> {
    let opened = docker_archive::open(archive, path, selector, options)?;
    let layers = opened
        .layers
        .into_iter()
        .zip(&opened.config.diff_ids)
        .enumerate()
        .map(|(index, ((member, digest), diff_id))| Layer {
            index,
            digest,
            diff_id: Some(*diff_id),
            size: Some(member.len),
            media_type: None,
            source: LayerSource::Member(member),
        })
        .collect();
    Ok(OciImage {
        reference: reference.clone(),
        manifest_digest: None,
        config_digest: Some(opened.config_digest),
        platform: opened.platform,
        config: opened.config,
        annotations: std::collections::BTreeMap::new(),
        layers,
    })
}

fn stored_image(reference: &Reference, store: &Store, resolved: Resolved) -> Result<OciImage, SourceError> {
    image_of(reference, resolved, |layer, digest, _| store.layer(layer, digest))
}

fn open_registry(
    reference: &Reference,
    registry: Registry,
    options: &Options,
) -> Result<OciImage, SourceError> {
    let resolved = registry.open(options)?;
    let layers = resolved
        .manifest
        .layers
        .iter()
        .enumerate()
        .map(|(layer, descriptor)| Ok((descriptor.digest(Part::Layer(layer))?, descriptor.size)))
        .collect::<Result<Vec<(Digest, u64)>, SourceError>>()?;
    let downloads = Arc::new(Downloads::new(&layers, Box::new(registry), options));
    image_of(reference, resolved, |_, _, _| {
        Ok(LayerSource::Download(Arc::clone(&downloads)))
    })
}

fn image_of(
    reference: &Reference,
    resolved: Resolved,
    source: impl Fn(usize, Digest, u64) -> Result<LayerSource, SourceError>,
) -> Result<OciImage, SourceError> {
    let layers = resolved
        .manifest
        .layers
        .iter()
        .zip(&resolved.config.diff_ids)
        .enumerate()
        .map(|(index, (descriptor, diff_id))| {
            let digest = descriptor.digest(Part::Layer(index))?;
            Ok(Layer {
                index,
                digest: Some(digest),
                diff_id: Some(*diff_id),
                size: Some(descriptor.size),
                media_type: Some(descriptor.media_type.clone()).filter(|media_type| !media_type.is_empty()),
                source: source(index, digest, descriptor.size)?,
            })
        })
        .collect::<Result<_, SourceError>>()?;
    Ok(OciImage {
        reference: reference.clone(),
        manifest_digest: resolved.manifest_digest,
        config_digest: resolved.config_digest,
        platform: resolved.platform,
        config: resolved.config,
        annotations: resolved.manifest.annotations,
        layers,
    })
}

/// A root filesystem without config: one layer, for the wanted platform by the user's word.
fn plain_image(reference: &Reference, source: LayerSource, size: Option<u64>, options: &Options) -> OciImage {
    OciImage {
        reference: reference.clone(),
        manifest_digest: None,
        config_digest: None,
        platform: options.platform.clone().unwrap_or_default(),
        config: ImageConfig::default(),
        annotations: std::collections::BTreeMap::new(),
        layers: vec![Layer {
            index: 0,
            digest: None,
            diff_id: None,
            size,
            media_type: None,
            source,
        }],
    }
}
