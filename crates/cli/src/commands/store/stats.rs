//! `firebrick store stats`.

mod page;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use firebrick_store::{ImageStats, Stats};
use serde_json::{Value, json};

use crate::error::write_stdout;
use crate::home::Home;
use crate::remote::{self, StoreArgs};
use crate::talk::{Steps, Talk};
use crate::{text, whole};

/// Show what a store holds, and what its images share
///
/// Reads tables only.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,

    /// Count older versions, too
    #[arg(long)]
    history: bool,

    /// Draw which images share how much into this file: one page that needs nothing but a browser
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let store = args
        .store
        .open_existing(home, remote::listener(&Arc::new(Steps::new(talk, 1)), talk))?;
    let address = store.backend().address();
    let counting = || format!("cannot count {address}");
    let mut versions = store.backend().versions().with_context(counting)?;
    versions.retain(|version| args.history || version.current);
    let stats = store
        .stats(&versions, &args.store.seal()?)
        .with_context(counting)?;
    for (version, error) in &stats.unread {
        talk.warn(&format!("{} is not counted: {error}", version.tagged));
    }
    if let Some(path) = &args.html {
        return whole::write(path, page::html(&stats, address).as_bytes());
    }
    if args.json {
        return write_stdout(&text::json_line(&to_json(&stats)));
    }
    let mut rows = vec![
        ["IMAGE", "SIZE", "DATA", "OWN", "SHARED", "STORED", "OWN STORED"]
            .map(String::from)
            .to_vec(),
    ];
    rows.extend(stats.images.iter().map(|image| {
        let bytes = [
            image.logical,
            image.data,
            image.own,
            image.shared,
            image.compressed,
            image.own_compressed,
        ];
        std::iter::once(names(image))
            .chain(bytes.map(text::bytes))
            .collect()
    }));
    let mut out = text::table(&rows);
    out.push_str(&format!(
        "{}: {}, of which {} are data; {} of it differ, stored in {}\n",
        text::count(stats.images.len() as u64, "image"),
        text::bytes(stats.logical),
        text::bytes(stats.data),
        text::bytes(stats.unique),
        text::bytes(stats.compressed),
    ));
    write_stdout(out.as_bytes())
}

/// What an image is called; the first name and how many more.
fn names(image: &ImageStats) -> String {
    let first = image.names.first().map(ToString::to_string).unwrap_or_default();
    match image.names.len() {
        0 | 1 => first,
        more => format!("{first} (+{})", more - 1),
    }
}

fn to_json(stats: &Stats) -> Value {
    let images = stats.images.iter().map(|image| {
        json!({
            "names": image.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "digest": image.digest.map(|digest| digest.to_string()),
            "logical_bytes": image.logical,
            "data_bytes": image.data,
            "unique_bytes": image.unique,
            "own_bytes": image.own,
            "shared_bytes": image.shared,
            "stored_bytes": image.compressed,
            "own_stored_bytes": image.own_compressed,
        })
    });
    let sharing = stats
        .sharing
        .iter()
        .map(|pair| json!({ "a": pair.a, "b": pair.b, "bytes": pair.bytes }));
    json!({
        "logical_bytes": stats.logical,
        "data_bytes": stats.data,
        "unique_bytes": stats.unique,
        "stored_bytes": stats.compressed,
        "images": images.collect::<Vec<_>>(),
        "sharing": sharing.collect::<Vec<_>>(),
    })
}
