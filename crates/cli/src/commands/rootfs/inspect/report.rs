//! The page and the bill of materials of `firebrick rootfs inspect`.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use firebrick_customise::parse_rfc3339;
use firebrick_inventory::report::{Findings, Page};
use firebrick_inventory::sbom::{Subject, cyclonedx, spdx};
use firebrick_inventory::{Duplicates, Usage};
use serde_json::Value;

use super::SbomFormat;
use crate::error::write_stdout;
use crate::image_file::ImageFile;
use crate::images;
use crate::survey::Survey;
use crate::talk::Talk;
use crate::volume::Volume;
use crate::whole;

/// Longest drawing that is taken, in bytes.
const TIMELINE_MAX: u64 = 4 << 20;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Writes the page.
pub(super) fn html(
    image: &ImageFile,
    facts: Vec<(&'static str, String)>,
    path: &Path,
    timeline: Option<&Path>,
) -> anyhow::Result<()> {
    let timeline = timeline.map(drawing).transpose()?;
    let survey = Survey::of(image)?;
    let inventory = survey.inventory()?;
    let duplicates = Duplicates::find(&survey.listing, &survey)
        .with_context(|| format!("cannot compare the files of {:?}", image.path))?;
    let usage = Usage::of(&survey.listing);
    let shares_duplicates = match &image.filesystem {
        Volume::Ext4(_) => false,
        Volume::Squashfs(filesystem) => filesystem.summary().shares_duplicates,
    };
    let name = images::name_of(&image.path);
    let page = Page {
        name: &name,
        facts: facts
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        layers: survey.layers.as_ref().map(|layers| layers.names.as_slice()),
        no_layers: match image.filesystem {
            Volume::Squashfs(_) => "A squashfs does not tell which layer a file came with.",
            Volume::Ext4(_) => {
                "The image does not tell which layer a file came with: no firebrick made it, or an older one."
            }
        },
        shares_duplicates,
        image_bytes: image.size_bytes,
        timeline: timeline.as_deref(),
        tool_version: VERSION,
    };
    let findings = Findings {
        listing: &survey.listing,
        inventory: &inventory,
        usage: &usage,
        duplicates: &duplicates,
    };
    whole::write(path, &firebrick_inventory::report::html(&page, findings))?;
    write_stdout(format!("{}\n", path.display()).as_bytes())
}

/// The drawing in a file.
fn drawing(path: &Path) -> anyhow::Result<Vec<u8>> {
    let reading = || format!("cannot read the timeline {path:?}");
    let len = fs::metadata(path).with_context(reading)?.len();
    anyhow::ensure!(len <= TIMELINE_MAX, "{}: it is too long to be one", reading());
    let bytes = fs::read(path).with_context(reading)?;
    anyhow::ensure!(
        bytes.windows(4).any(|window| window == b"<svg"),
        "{}: it is no SVG",
        reading()
    );
    Ok(bytes)
}

/// Prints or writes the bill of materials.
pub(super) fn sbom(
    image: &ImageFile,
    config: Option<&Value>,
    format: SbomFormat,
    output: Option<&Path>,
    talk: &Talk,
) -> anyhow::Result<()> {
    let survey = Survey::of(image)?;
    let inventory = survey.inventory()?;
    let text = |key: &str| config.and_then(|config| config.get(key)?.as_str());
    let name = images::name_of(&image.path);
    let subject = Subject {
        name: &name,
        source: text("ImageDigest"),
        created: created(image, text("Created"))?,
        tool_version: VERSION,
    };
    let bytes = match format {
        SbomFormat::Spdx => spdx(&subject, &survey.listing, &inventory),
        SbomFormat::Cyclonedx => cyclonedx(&subject, &survey.listing, &inventory),
    };
    for remark in inventory.remarks() {
        talk.warn(remark);
    }
    match output {
        Some(path) => whole::write(path, &bytes),
        None => write_stdout(&bytes),
    }
}

/// `SOURCE_DATE_EPOCH`, else when the OCI image was made, else the filesystem: never now, so that the same image gives the same bytes.
fn created(image: &ImageFile, config: Option<&str>) -> anyhow::Result<i64> {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").unwrap_or_default();
    if !epoch.is_empty() {
        return epoch
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is {epoch:?}, expected seconds since 1970"));
    }
    let filesystem = match &image.filesystem {
        Volume::Ext4(filesystem) => filesystem.summary().created.map(|time| time.seconds),
        Volume::Squashfs(filesystem) => Some(filesystem.summary().made_unix.into()),
    };
    Ok(config.and_then(parse_rfc3339).or(filesystem).unwrap_or(0))
}
