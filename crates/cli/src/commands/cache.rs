//! `firebrick cache …`.

use std::time::{Duration, SystemTime};

use firebrick_sandbox::{CachedStep, PruneSteps};
use firebrick_source::{Cache, CachedBlob, Prune};
use serde_json::json;

use crate::error::write_stdout;
use crate::home::Home;
use crate::talk::Talk;
use crate::{steps, text};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Prune(PruneArgs),
}

/// List the downloaded layers and manifests and what scripts made, longest unused first
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print a JSON array of objects with digest, size, last use, whether it is a script's, and whether the download is unfinished
    #[arg(long)]
    json: bool,
}

/// Delete downloaded layers and manifests and what scripts made
///
/// Without flags everything goes, except downloads that are under way.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Only what was not used for so many days
    #[arg(long, value_name = "DAYS", conflicts_with = "keep")]
    older_than: Option<u64>,

    /// Only what was used longest ago, until this much is left: in MiB or with a unit. What scripts made goes first
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

/// One thing of the cache.
enum Item {
    Blob(CachedBlob),
    Step(CachedStep),
}

impl Item {
    fn last_used(&self) -> SystemTime {
        match self {
            Item::Blob(blob) => blob.last_used,
            Item::Step(step) => step.last_used,
        }
    }

    fn size_bytes(&self) -> u64 {
        match self {
            Item::Blob(blob) => blob.size_bytes,
            Item::Step(step) => step.size_bytes,
        }
    }

    fn digest(&self) -> String {
        match self {
            Item::Blob(blob) => blob.digest.to_string(),
            Item::Step(step) => step.diff_id.to_string(),
        }
    }

    fn state(&self) -> &'static str {
        match self {
            Item::Blob(blob) if blob.partial => "unfinished",
            Item::Blob(_) => "",
            Item::Step(_) => "of a script",
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "digest": self.digest(),
            "size_bytes": self.size_bytes(),
            "last_used_unix": text::unix_seconds(self.last_used()),
            "partial": matches!(self, Item::Blob(blob) if blob.partial),
            "script": matches!(self, Item::Step(_)),
        })
    }
}

fn list(args: &ListArgs, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let blobs = Cache::existing(home.cache()).list()?; // looking must not make folders
    let made = steps::cache(home).list()?;
    let mut items: Vec<Item> = blobs.into_iter().map(Item::Blob).collect();
    items.extend(made.into_iter().map(Item::Step));
    items.sort_by_key(Item::last_used);

    if args.json {
        return write_stdout(&text::json_line(
            &items.iter().map(Item::to_json).collect::<Vec<_>>(),
        ));
    }
    if items.is_empty() {
        talk.say(&format!("the cache in {} is empty", home.cache().display()));
        return Ok(());
    }
    let now = SystemTime::now();
    let mut rows = vec![["DIGEST", "SIZE", "LAST USED", ""].map(String::from).to_vec()];
    rows.extend(items.iter().map(|item| {
        let age = now.duration_since(item.last_used()).unwrap_or_default();
        vec![
            item.digest(),
            text::bytes(item.size_bytes()),
            text::ago(age),
            item.state().to_owned(),
        ]
    }));
    write_stdout(text::table(&rows).as_bytes())?;
    let total = items.iter().map(Item::size_bytes).sum();
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
    let steps_rule = match rule {
        Prune::All => PruneSteps::All,
        Prune::UnusedSince(time) => PruneSteps::UnusedSince(time),
        Prune::DownTo(bytes) => PruneSteps::DownTo(bytes.saturating_sub(pruned.left_bytes)),
    };
    let steps = steps::cache(home).prune(steps_rule)?;
    let freed_bytes = pruned.freed_bytes + steps.removed.iter().map(|step| step.size_bytes).sum::<u64>();
    let left_bytes = pruned.left_bytes + steps.left_bytes;
    let mut removed: Vec<Item> = pruned.removed.into_iter().map(Item::Blob).collect();
    removed.extend(steps.removed.into_iter().map(Item::Step));
    for item in &removed {
        talk.detail(&format!(
            "deleted {} ({})",
            item.digest(),
            text::bytes(item.size_bytes())
        ));
    }
    if args.json {
        return write_stdout(&text::json_line(&json!({
            "removed": removed.iter().map(Item::to_json).collect::<Vec<_>>(),
            "freed_bytes": freed_bytes,
            "left_bytes": left_bytes,
        })));
    }
    let count = u64::try_from(removed.len()).unwrap_or(u64::MAX);
    talk.say(&format!(
        "deleted {}, freed {}; {} left",
        text::count(count, "blob"),
        text::bytes(freed_bytes),
        text::bytes(left_bytes),
    ));
    Ok(())
}
