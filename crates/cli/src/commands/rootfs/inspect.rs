//! `firebrick rootfs inspect`.

mod report;

use std::ffi::OsString;
use std::path::PathBuf;

use firebrick_ext4::read as ext4;
use firebrick_squashfs::read as squashfs;
use serde_json::{Value, json};

use crate::error::write_stdout;
use crate::home::Home;
use crate::image_file::{ImageFile, printable};
use crate::talk::Talk;
use crate::text;
use crate::volume::Volume;

/// Show what an image is: filesystem, sizes, and what it runs
///
/// Or write a report of what is in it, as one page of HTML, or the bill of materials of its packages.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image: a name or a path
    image: OsString,

    /// Print a JSON object
    #[arg(long)]
    json: bool,

    /// Write one page that shows what fills the image, and needs nothing but a browser
    #[arg(long, value_name = "FILE", conflicts_with = "json", help_heading = "Report")]
    html: Option<PathBuf>,

    /// Put this drawing of a boot, by run or boot --timeline, onto the page
    #[arg(long, value_name = "SVG", requires = "html", help_heading = "Report")]
    timeline: Option<PathBuf>,

    /// Print the bill of materials: SPDX 2.3 or CycloneDX 1.6, as JSON
    #[arg(long, value_enum, value_name = "FORMAT", conflicts_with_all = ["json", "html"], help_heading = "Bill of materials")]
    sbom: Option<SbomFormat>,

    /// Write the bill of materials to this file
    #[arg(
        short,
        long,
        value_name = "FILE",
        requires = "sbom",
        conflicts_with = "html",
        help_heading = "Bill of materials"
    )]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SbomFormat {
    /// SPDX 2.3
    Spdx,
    /// CycloneDX 1.6
    Cyclonedx,
}

pub(crate) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let image = ImageFile::open(home, &args.image)?;
    let config = image.image_json()?;
    if let Some(path) = &args.html {
        let facts = rows(&image, config.as_ref());
        return report::html(&image, facts, path, args.timeline.as_deref());
    }
    if let Some(format) = args.sbom {
        return report::sbom(&image, config.as_ref(), format, args.output.as_deref(), talk);
    }
    if args.json {
        return write_stdout(&text::json_line(&to_json(&image, config)));
    }
    let rows: Vec<Vec<String>> = rows(&image, config.as_ref())
        .into_iter()
        .map(|(name, value)| vec![format!("{name}:"), value])
        .collect();
    write_stdout(text::table(&rows).as_bytes())
}

fn to_json(image: &ImageFile, config: Option<Value>) -> Value {
    let mut object = match &image.filesystem {
        Volume::Ext4(filesystem) => ext4_json(filesystem.summary()),
        Volume::Squashfs(filesystem) => squashfs_json(filesystem.summary()),
    };
    object["path"] = json!(image.path.to_string_lossy());
    object["format"] = json!(image.filesystem.name());
    object["size_bytes"] = json!(image.size_bytes);
    object["allocated_bytes"] = json!(image.allocated_bytes);
    object["modified_unix"] = json!(image.modified.map(text::unix_seconds));
    object["guest"] = json!(image.has_guest());
    object["image"] = json!(config);
    object
}

fn ext4_json(summary: &ext4::Summary) -> Value {
    json!({
        "label": String::from_utf8_lossy(&summary.label),
        "uuid": summary.uuid_text(),
        "block_size": summary.block_size,
        "blocks": summary.blocks,
        "free_blocks": summary.free_blocks,
        "reserved_blocks": summary.reserved_blocks,
        "inodes": summary.inodes,
        "free_inodes": summary.free_inodes,
        "inode_size": summary.inode_size,
        "groups": summary.groups,
        "features": summary.features.names(),
        "clean": summary.state.clean,
        "errors": summary.state.errors,
        "created_unix": summary.created.map(|time| time.seconds),
    })
}

fn squashfs_json(summary: &squashfs::Summary) -> Value {
    json!({
        "compression": summary.compression.name(),
        "block_size": summary.block_size,
        "bytes_used": summary.bytes_used,
        "inodes": summary.inodes,
        "fragments": summary.fragments,
        "owners": summary.ids,
        "xattrs": summary.has_xattrs,
        "created_unix": summary.made_unix,
    })
}

fn rows(image: &ImageFile, config: Option<&Value>) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("path", printable(image.path.as_os_str().as_encoded_bytes())),
        (
            "size",
            format!(
                "{} ({} on disk)",
                text::bytes(image.size_bytes),
                text::bytes(image.allocated_bytes)
            ),
        ),
    ];
    match &image.filesystem {
        Volume::Ext4(filesystem) => rows.extend(ext4_rows(filesystem.summary())),
        Volume::Squashfs(filesystem) => rows.extend(squashfs_rows(filesystem.summary())),
    }
    rows.push(("guest", if image.has_guest() { "yes" } else { "none" }.to_owned()));
    let Some(config) = config else {
        return rows;
    };
    for (name, key) in [
        ("source", "ImageDigest"),
        ("created", "Created"),
        ("entrypoint", "Entrypoint"),
        ("command", "Cmd"),
        ("environment", "Env"),
        ("user", "User"),
        ("folder", "WorkingDir"),
        ("stop signal", "StopSignal"),
    ] {
        if let Some(value) = config.get(key) {
            rows.push((name, plain(value)));
        }
    }
    rows
}

fn ext4_rows(summary: &ext4::Summary) -> Vec<(&'static str, String)> {
    let block = u64::from(summary.block_size);
    let state = match (summary.state.clean, summary.state.errors) {
        (_, true) => "has errors (e2fsck -f repairs them)",
        (true, false) => "clean",
        (false, false) => "not cleanly unmounted",
    };
    let label = match summary.label.is_empty() {
        true => "none".to_owned(),
        false => printable(&summary.label),
    };
    vec![
        (
            "filesystem",
            format!(
                "ext4, {state}, blocks of {block} bytes in {}",
                text::count(summary.groups.into(), "group")
            ),
        ),
        ("free", text::bytes(summary.free_blocks.saturating_mul(block))),
        (
            "inodes",
            format!("{}, {} free", summary.inodes, summary.free_inodes),
        ),
        ("label", label),
        ("UUID", summary.uuid_text()),
        ("features", summary.features.names().join(" ")),
    ]
}

fn squashfs_rows(summary: &squashfs::Summary) -> Vec<(&'static str, String)> {
    vec![
        (
            "filesystem",
            format!(
                "squashfs, read-only, {}, blocks of {} bytes",
                summary.compression, summary.block_size
            ),
        ),
        ("inodes", summary.inodes.to_string()),
        ("made", text::utc(summary.made_unix.into())),
    ]
}

/// A string as it is, anything else as JSON in one line.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text.as_bytes()),
        other => other.to_string(),
    }
}
