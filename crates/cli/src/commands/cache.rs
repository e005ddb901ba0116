//! `firebrick cache …`.

use std::time::{Duration, SystemTime};

use firebrick_source::{Cache, CachedBlob, Prune};
use serde_json::json;

use crate::error::write_stdout;
use crate::home::Home;
use crate::talk::Talk;
use crate::text;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Prune(PruneArgs),
}

/// List the downloaded layers and manifests, longest unused first
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print a JSON array of objects with digest, size, last use, and whether the download is unfinished
    #[arg(long)]
    json: bool,
}

/// Delete downloaded layers and manifests
///
/// Without flags everything goes, except downloads that are under way.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Only what was not used for so many days
    #[arg(long, value_name = "DAYS", conflicts_with = "keep")]
    older_than: Option<u64>,

    /// Only what was used longest ago, until this much is left: in MiB or with a unit
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    keep: Option<u64>,

    /// Print a JSON object with what was deleted, and the bytes freed and left
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: Command, talk: &Talk) -> anyhow::Result<()> {
    let home = Home::of_process()?;
    match command {
        Command::List(args) => list(&args, &home, talk),
        Command::Prune(args) => prune(&args, &home, talk),
    }
}

fn list(args: &ListArgs, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let blobs = Cache::existing(home.cache()).list()?; // looking must not make folders

    if args.json {
        return write_stdout(&text::json_line(&blobs.iter().map(to_json).collect::<Vec<_>>()));
    }
    if blobs.is_empty() {
        talk.say(&format!("the cache in {} is empty", home.cache().display()));
        return Ok(());
    }
    let now = SystemTime::now();
    let mut rows = vec![["DIGEST", "SIZE", "LAST USED", ""].map(String::from).to_vec()];
    rows.extend(blobs.iter().map(|blob| {
        let age = now.duration_since(blob.last_used).unwrap_or_default();
        let state = if blob.partial { "unfinished" } else { "" };
        vec![
            blob.digest.to_string(),
            text::bytes(blob.size_bytes),
            text::ago(age),
            state.to_owned(),
        ]
    }));
    write_stdout(text::table(&rows).as_bytes())?;
    let total = blobs.iter().map(|blob| blob.size_bytes).sum();
    talk.say(&format!("{} in {}", text::bytes(total), home.cache().display()));
    Ok(())
}

fn prune(args: &PruneArgs, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let rule = match (args.older_than, args.keep) {
        (Some(days), _) => {
            let age = Duration::from_secs(days.saturating_mul(24 * 3600));
            Prune::UnusedSince(
                SystemTime::now()
                    .checked_sub(age)
                    .unwrap_or(SystemTime::UNIX_EPOCH),
            )
        }
        (None, Some(bytes)) => Prune::DownTo(bytes),
        (None, None) => Prune::All,
    };
    let pruned = match home.cache().is_dir() {
        true => Cache::open(home.cache())?.prune(rule)?,
        false => Default::default(),
    };
    for blob in &pruned.removed {
        talk.detail(&format!(
            "deleted {} ({})",
            blob.digest,
            text::bytes(blob.size_bytes)
        ));
    }
    if args.json {
        return write_stdout(&text::json_line(&json!({
            "removed": pruned.removed.iter().map(to_json).collect::<Vec<_>>(),
            "freed_bytes": pruned.freed_bytes,
            "left_bytes": pruned.left_bytes,
        })));
    }
    let count = u64::try_from(pruned.removed.len()).unwrap_or(u64::MAX);
    talk.say(&format!(
        "deleted {}, freed {}; {} left",
        text::count(count, "blob"),
        text::bytes(pruned.freed_bytes),
        text::bytes(pruned.left_bytes),
    ));
    Ok(())
}

fn to_json(blob: &CachedBlob) -> serde_json::Value {
    json!({
        "digest": blob.digest.to_string(),
        "size_bytes": blob.size_bytes,
        "last_used_unix": text::unix_seconds(blob.last_used),
        "partial": blob.partial,
    })
}
