//! `firebrick rootfs du`.

use std::cmp::Reverse;

use firebrick_inventory::{Bytes, NodeId, Usage};
use serde_json::{Value, json};

use super::place::Place;
use crate::error::write_stdout;
use crate::home::Home;
use crate::survey::Survey;
use crate::text;
use crate::volume::FileType;

/// Show what fills an image: folders, packages or files, the largest first
///
/// Counts as du(1) would in the mounted image: a file with several names once. SIZE is how long things are, ON DISK what they
/// take in the image; in a squashfs, compressed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// What to add up
    #[arg(long, value_enum, default_value_t = By::Directory)]
    by: By,

    /// How many levels of folders to show
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: usize,

    /// Show this many only
    #[arg(long, value_name = "N")]
    top: Option<usize>,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// By package; what no package owns is one line
    Package,
    /// By folder
    Directory,
    /// By file
    File,
}

/// A line.
struct Row {
    bytes: Bytes,
    /// What it is called.
    text: String,
    /// More about it, for programs.
    more: Value,
}

pub(crate) fn run(args: &Args, home: &Home) -> anyhow::Result<()> {
    let image = args.place.open(home)?;
    let survey = Survey::of(&image)?;
    let start = survey.find(args.place.path())?;
    let usage = Usage::of(&survey.listing);
    let mut rows = match args.by {
        By::Package => by_package(&survey, start)?,
        By::Directory => by_directory(&survey, &usage, start, args.depth),
        By::File => by_file(&survey, &usage, start),
    };
    rows.sort_by_key(|row| (Reverse(row.bytes.stored), Reverse(row.bytes.apparent)));
    rows.truncate(args.top.unwrap_or(usize::MAX));
    let total = total(&survey, start);
    if args.json {
        return write_stdout(&text::json_line(&to_json(args, &survey, start, &rows, total)));
    }
    let mut table = vec![["SIZE", "ON DISK", "FILES", "WHAT"].map(str::to_owned).to_vec()];
    let line = |bytes: Bytes, what: &str| {
        vec![
            text::bytes(bytes.apparent),
            text::bytes(bytes.stored),
            bytes.files.to_string(),
            what.to_owned(),
        ]
    };
    table.extend(rows.iter().map(|row| line(row.bytes, &row.text)));
    table.push(line(total, "total"));
    write_stdout(text::table(&table).as_bytes())
}

/// Everything at or below a node, each inode once.
fn total(survey: &Survey<'_>, start: NodeId) -> Bytes {
    let mut seen = std::collections::HashSet::new();
    let mut total = Bytes::default();
    for id in survey.listing.below(start) {
        let entry = survey.listing.entry(id);
        if seen.insert(entry.inode) {
            total.add(Bytes {
                apparent: entry.size,
                stored: entry.stored,
                files: u64::from(entry.file_type != FileType::Directory),
            });
        }
    }
    total
}

fn by_package(survey: &Survey<'_>, start: NodeId) -> anyhow::Result<Vec<Row>> {
    let inventory = survey.inventory()?;
    let sums = Usage::by_package(&survey.listing, &inventory, start);
    Ok(sums
        .into_iter()
        .map(|(id, bytes)| match id.map(|id| inventory.package(id)) {
            Some(package) => Row {
                bytes,
                text: format!("{} {} ({})", package.name, package.version, package.ecosystem),
                more: json!({
                    "package": package.name,
                    "version": package.version,
                    "ecosystem": package.ecosystem.name(),
                }),
            },
            None => Row {
                bytes,
                text: "of no package".to_owned(),
                more: json!({ "package": null }),
            },
        })
        .collect())
}

fn by_directory(survey: &Survey<'_>, usage: &Usage, start: NodeId, depth: usize) -> Vec<Row> {
    let listing = &survey.listing;
    let from = listing.depth(start);
    let shown = |id: &NodeId| {
        let is_directory = listing.entry(*id).file_type == FileType::Directory;
        *id != start && is_directory && listing.depth(*id) - from <= depth
    };
    let ids = listing.below(start).filter(shown);
    ids.map(|id| row(survey, usage, id)).collect()
}

fn by_file(survey: &Survey<'_>, usage: &Usage, start: NodeId) -> Vec<Row> {
    let listing = &survey.listing;
    let is_file = |id: &NodeId| listing.entry(*id).file_type != FileType::Directory && listing.is_first(*id);
    let ids = listing.below(start).filter(is_file);
    ids.map(|id| row(survey, usage, id)).collect()
}

fn row(survey: &Survey<'_>, usage: &Usage, id: NodeId) -> Row {
    let path = survey.listing.path(id);
    Row {
        bytes: usage.below(id),
        text: survey.shown(id),
        more: json!({ "path": format!("/{}", String::from_utf8_lossy(&path)) }),
    }
}

fn to_json(args: &Args, survey: &Survey<'_>, start: NodeId, rows: &[Row], total: Bytes) -> Value {
    let with = |mut object: Value, bytes: Bytes| {
        object["size_bytes"] = json!(bytes.apparent);
        object["stored_bytes"] = json!(bytes.stored);
        object["files"] = json!(bytes.files);
        object
    };
    let entries: Vec<Value> = rows.iter().map(|row| with(row.more.clone(), row.bytes)).collect();
    json!({
        "path": survey.shown(start),
        "by": match args.by {
            By::Package => "package",
            By::Directory => "directory",
            By::File => "file",
        },
        "total": with(json!({}), total),
        "entries": entries,
    })
}
