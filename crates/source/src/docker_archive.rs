//! `docker-archive:`: what `docker save` writes.
//!
//! `manifest.json` lists images, each with the file of its config and the files of its layers; those are mostly
//! uncompressed and may be links to one another. Newer Dockers write an OCI layout into the same tar and let
//! `manifest.json` name its blobs; then those files' digests are known, and checked.
//! Format: <https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format>
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::path::Path;
use std::sync::Arc;

use firebrick_digest::Digest;
use firebrick_registry::quote::quoted;
use serde::Deserialize;

use crate::config::{ImageConfig, parse_config};
use crate::error::{Part, SourceError};
use crate::options::{Limits, Options};
use crate::platform::Platform;
use crate::reference::{Reference, Selector};
use crate::resolve;
use crate::tarindex::{Member, TarIndex};

/// One image of the archive, its config read.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) config: ImageConfig,
    pub(crate) config_digest: Digest,
    pub(crate) platform: Platform,
    /// The layers' files, each with the digest its name promises.
    pub(crate) layers: Vec<(Member, Option<Digest>)>,
}

/// One image in `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SavedImage {
    /// The file of its config.
    pub config: String,
    /// Its names.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// The files of its layers, lowest first.
    #[serde(default)]
    pub layers: Option<Vec<String>>,
}

/// Parses the `manifest.json` of `docker save`.
///
/// # Errors
/// [`SourceError::Json`] or [`SourceError::Limit`].
pub fn parse_saved(bytes: &[u8], limits: &Limits) -> Result<Vec<SavedImage>, SourceError> {
    let place = "manifest.json".to_owned();
    let images: Vec<SavedImage> = serde_json::from_slice(bytes).map_err(|source| SourceError::Json {
        part: Part::Manifest,
        place: place.clone(),
        source: source.into(),
    })?;
    let most = images
        .iter()
        .map(|image| image.layers.as_ref().map_or(0, Vec::len))
        .max()
        .unwrap_or(0);
    if most > limits.layers {
        return Err(SourceError::Limit {
            part: Part::Manifest,
            place,
            what: "its number of layers",
            found: u64::try_from(most).unwrap_or(u64::MAX),
            limit: u64::try_from(limits.layers).unwrap_or(u64::MAX),
        });
    }
    Ok(images)
}

pub(crate) fn open(
    archive: &Arc<TarIndex>,
    place: &Path,
    selector: Option<&Selector>,
    options: &Options,
) -> Result<Opened, SourceError> {
    let limits = &options.limits;
    let bytes = archive.read_small(Part::Manifest, "manifest.json", limits.manifest_bytes)?;
    let images = parse_saved(&bytes, limits)?;
    let wanted = options.platform.clone().unwrap_or_default();
    let candidates = select(images, place, selector)?;
    // One name may stand for several platforms.
    let mut available = Vec::new();
    for image in &candidates {
        let (config, digest, platform) = read_config(archive, image, limits)?;
        let platform = match platform {
            Some(platform) if wanted.distance_to(&platform).is_none() => {
                available.push(quoted(&platform.to_string()));
                continue;
            }
            Some(platform) => platform,
            None => wanted,
        };
        return open_image(archive, image, config, digest, platform);
    }
    Err(SourceError::NoPlatform { wanted, available })
}

fn read_config(
    archive: &TarIndex,
    image: &SavedImage,
    limits: &Limits,
) -> Result<(ImageConfig, Digest, Option<Platform>), SourceError> {
    let bytes = archive.read_small(Part::Config, &image.config, limits.config_bytes)?;
    if let Some(promised) = digest_in_name(&image.config) {
        resolve::verify(Part::Config, promised, None, &bytes)?;
    }
    let (config, platform) = parse_config(&bytes, &quoted(&image.config))?;
    Ok((config, Digest::of(&bytes), platform))
}

fn open_image(
    archive: &TarIndex,
    image: &SavedImage,
    config: ImageConfig,
    config_digest: Digest,
    platform: Platform,
) -> Result<Opened, SourceError> {
    let names = image.layers.as_deref().unwrap_or(&[]);
    if names.len() != config.diff_ids.len() {
        return Err(SourceError::LayerCount {
            layers: names.len(),
            diff_ids: config.diff_ids.len(),
        });
    }
    let layers = names
        .iter()
        .enumerate()
        .map(|(layer, name)| {
            let member = archive.member(Part::Layer(layer), name)?;
            let digest = digest_in_name(&member.name);
            Ok((member, digest))
        })
        .collect::<Result<_, SourceError>>()?;
    Ok(Opened {
        config,
        config_digest,
        platform,
        layers,
    })
}

/// Old archives name the config `HEX.json`; OCI-style ones name every blob `blobs/sha256/HEX`. Layer folders of old
/// archives are named by an ID that is no digest of the file.
fn digest_in_name(name: &str) -> Option<Digest> {
    let hex = match name.strip_prefix("blobs/sha256/") {
        Some(hex) => hex,
        None => name.strip_suffix(".json")?,
    };
    format!("sha256:{hex}").parse().ok()
}

fn select(
    mut images: Vec<SavedImage>,
    place: &Path,
    selector: Option<&Selector>,
) -> Result<Vec<SavedImage>, SourceError> {
    if images.is_empty() {
        return Err(SourceError::Empty {
            place: place.to_owned(),
        });
    }
    let available = |images: &[SavedImage]| {
        let mut all = Vec::new();
        for (index, image) in images.iter().enumerate() {
            match image.repo_tags.as_deref() {
                None | Some([]) => all.push(format!("@{index}")),
                Some(tags) => all.extend(tags.iter().map(|tag| quoted(tag))),
            }
        }
        all.dedup();
        all
    };
    let found: Vec<SavedImage> = match selector {
        None if images.len() == 1 => return Ok(images),
        None if one_name(&images) => return Ok(images),
        None => {
            return Err(SourceError::Ambiguous {
                transport: "docker-archive",
                place: place.to_owned(),
                available: available(&images),
            });
        }
        Some(Selector::Index(index)) if *index < images.len() => return Ok(vec![images.swap_remove(*index)]),
        Some(Selector::Index(_)) => Vec::new(),
        Some(Selector::Digest(digest)) => {
            let by_config = |image: &&SavedImage| digest_in_name(&image.config) == Some(*digest);
            images.iter().filter(by_config).cloned().collect()
        }
        Some(Selector::Name(name)) => {
            let full = full_name(name);
            let by_name = |image: &&SavedImage| {
                let tags = image.repo_tags.as_deref().unwrap_or(&[]);
                tags.iter()
                    .any(|tag| tag == name || full.is_some() && full_name(tag) == full)
            };
            images.iter().filter(by_name).cloned().collect()
        }
    };
    if found.is_empty() {
        return Err(SourceError::NoImage {
            wanted: selector.map(Selector::to_string).unwrap_or_default(),
            transport: "docker-archive",
            place: place.to_owned(),
            available: available(&images),
        });
    }
    Ok(found)
}

/// Whether all images have the same names: then they differ by platform only.
fn one_name(images: &[SavedImage]) -> bool {
    let first = images.first().and_then(|image| image.repo_tags.as_ref());
    first.is_some_and(|tags| !tags.is_empty()) && images.iter().all(|image| image.repo_tags.as_ref() == first)
}

/// `busybox`, `busybox:latest` and `docker.io/library/busybox:latest` are one name.
fn full_name(name: &str) -> Option<String> {
    match format!("docker://{name}").parse() {
        Ok(Reference::Registry(reference)) => Some(reference.to_string()),
        _ => None,
    }
}
