//! `firebrick cache …`.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use firebrick_digest::Digest;
use firebrick_sandbox::{CachedStep, PruneSteps};
use firebrick_source::{Cache, CachedBlob, Prune};
use firebrick_store::{Kept, KeptKind, PruneKept};
use serde_json::json;

use crate::downloads::{self, Download};
use crate::error::write_stdout;
use crate::home::Home;
use crate::images::{self, Unfinished};
use crate::talk::Talk;
use crate::{remote, steps, text};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Prune(PruneArgs),
}

/// List downloads, what scripts made, and what was read of stores, longest unused first
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print a JSON array of objects with kind, digest, files, size, last use, and whether the download is unfinished
    #[arg(long)]
    json: bool,
}

/// Delete downloads, what scripts made, and what was read of stores
///
/// Without flags everything goes, except downloads that are under way and images that are being read lazily.
#[derive(Debug, clap::Args)]
pub(crate) struct PruneArgs {
    /// Only what was not used for so many days
    #[arg(long, value_name = "DAYS", conflicts_with = "keep")]
    older_than: Option<u64>,

    /// Only what was used longest ago, until this much is left: in MiB or with a unit. What was read of stores goes first, then what scripts made
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

/// What a line of the list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Blob,
    Unfinished,
    Script,
    /// What was read of an image without fetching it.
    Chunks,
    /// All small things of stores together: there are hundreds of an image.
    Tables,
    /// All marks of what a user was told once.
    Told,
    /// What came of an image whose download was ended.
    Image,
    /// A single file, such as a kernel.
    File,
    UnfinishedFile,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Blob | What::Unfinished => "blob",
            What::Script => "script",
            What::Chunks => "chunks",
            What::Tables => "tables",
            What::Told => "told",
            What::Image => "image",
            What::File | What::UnfinishedFile => "file",
        }
    }
}

/// One thing of the cache, or several of a kind.
struct Item {
    what: What,
    /// Of an image: its name. Of a single file: what asked for it.
    name: Option<String>,
    /// Of chunks: their image's.
    digest: Option<Digest>,
    files: u64,
    size_bytes: u64,
    /// Of several: the last.
    last_used: SystemTime,
}

impl From<CachedBlob> for Item {
    fn from(blob: CachedBlob) -> Item {
        Item {
            what: if blob.partial {
                What::Unfinished
            } else {
                What::Blob
            },
            name: None,
            digest: Some(blob.digest),
            files: 1,
            size_bytes: blob.size_bytes,
            last_used: blob.last_used,
        }
    }
}

impl From<CachedStep> for Item {
    fn from(step: CachedStep) -> Item {
        Item {
            what: What::Script,
            name: None,
            digest: Some(step.diff_id),
            files: 1,
            size_bytes: step.size_bytes,
            last_used: step.last_used,
        }
    }
}

/// A thing of which nobody but this command keeps account.
struct Loose {
    path: PathBuf,
    item: Item,
}

impl From<Unfinished> for Loose {
    fn from(image: Unfinished) -> Loose {
        Loose {
            path: image.path,
            item: Item {
                what: What::Image,
                name: Some(image.name),
                digest: None,
                files: 1,
                size_bytes: image.size_bytes,
                last_used: image.modified,
            },
        }
    }
}

impl From<Download> for Loose {
    fn from(download: Download) -> Loose {
        Loose {
            path: download.path,
            item: Item {
                what: if download.is_part {
                    What::UnfinishedFile
                } else {
                    What::File
                },
                name: Some(download.asked_by.to_owned()),
                digest: Some(download.digest),
                files: 1,
                size_bytes: download.size_bytes,
                last_used: download.last_used,
            },
        }
    }
}

/// Single files, and what came of images whose downloads were ended; longest unused first.
fn loose(home: &Home) -> Vec<Loose> {
    let mut all: Vec<Loose> = downloads::all(home).into_iter().map(Loose::from).collect();
    all.extend(images::unfinished(home).into_iter().map(Loose::from));
    all.sort_by_key(|one| one.item.last_used);
    all
}

impl Item {
    /// What stores keep: images one by one, small things together.
    fn of_stores(kept: Vec<Kept>) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        for one in kept {
            let (what, digest) = match one.kind {
                KeptKind::Chunks => (What::Chunks, Some(one.key)),
                KeptKind::Table => (What::Tables, None),
                KeptKind::Told => (What::Told, None),
            };
            let same = items
                .iter_mut()
                .find(|item| digest.is_none() && item.what == what);
            match same {
                Some(item) => {
                    item.files += 1;
                    item.size_bytes += one.size_bytes;
                    item.last_used = item.last_used.max(one.last_used);
                }
                None => items.push(Item {
                    what,
                    name: None,
                    digest,
                    files: 1,
                    size_bytes: one.size_bytes,
                    last_used: one.last_used,
                }),
            }
        }
        items
    }

    fn digest(&self) -> String {
        self.digest.map_or("-".to_owned(), |digest| digest.to_string())
    }

    fn about(&self) -> String {
        match self.what {
            What::Blob => String::new(),
            What::Unfinished => "unfinished".to_owned(),
            What::Script => "of a script".to_owned(),
            What::Chunks => "read lazily".to_owned(),
            What::Tables => format!("{} of stores and images", text::count(self.files, "table")),
            What::Told => format!("{} given", text::count(self.files, "warning")),
            What::Image => format!("unfinished image {}", self.name.as_deref().unwrap_or_default()),
            What::File => format!("for {}", self.name.as_deref().unwrap_or_default()),
            What::UnfinishedFile => format!("for {}, unfinished", self.name.as_deref().unwrap_or_default()),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "kind": self.what.name(),
            "name": self.name,
            "digest": self.digest.map(|digest| digest.to_string()),
            "files": self.files,
            "size_bytes": self.size_bytes,
            "last_used_unix": text::unix_seconds(self.last_used),
            "partial": matches!(self.what, What::Unfinished | What::Image | What::UnfinishedFile),
            "script": self.what == What::Script,
        })
    }
}

/// What was found. What may not be read is said, and left out: who may see a part of a cache sees that part.
fn seen<T, E>(found: Result<Vec<T>, E>, hidden: &mut bool, talk: &Talk) -> anyhow::Result<Vec<T>>
where
    E: std::error::Error + Send + Sync + 'static,
{
    found.or_else(|error| {
        let error = anyhow::Error::from(error);
        let is_denied = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
        if !is_denied {
            return Err(error);
        }
        *hidden = true;
        talk.warn(&format!("not shown: {error:#}"));
        Ok(Vec::new())
    })
}

fn list(args: &ListArgs, home: &Home, talk: &Talk) -> anyhow::Result<()> {
    let mut hidden = false;
    // Looking must not make folders.
    let blobs = seen(Cache::existing(home.cache()).list(), &mut hidden, talk)?;
    let made = seen(steps::cache(home).list(), &mut hidden, talk)?;
    let kept = seen(remote::cache(home).list(), &mut hidden, talk)?;
    let mut items: Vec<Item> = blobs.into_iter().map(Item::from).collect();
    items.extend(made.into_iter().map(Item::from));
    items.extend(Item::of_stores(kept));
    items.extend(loose(home).into_iter().map(|one| one.item));
    items.sort_by_key(|item| item.last_used);

    if args.json {
        return write_stdout(&text::json_line(
            &items.iter().map(Item::to_json).collect::<Vec<_>>(),
        ));
    }
    if items.is_empty() {
        if !hidden {
            talk.say(&format!("the cache in {} is empty", home.cache().display()));
        }
        return Ok(());
    }
    let now = SystemTime::now();
    let mut rows = vec![["DIGEST", "SIZE", "LAST USED", ""].map(String::from).to_vec()];
    rows.extend(items.iter().map(|item| {
        let age = now.duration_since(item.last_used).unwrap_or_default();
        vec![
            item.digest(),
            text::bytes(item.size_bytes),
            text::ago(age),
            item.about(),
        ]
    }));
    write_stdout(text::table(&rows).as_bytes())?;
    let total = items.iter().map(|item| item.size_bytes).sum();
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
    let left_bytes = pruned.left_bytes + steps.left_bytes;
    let kept_rule = match rule {
        Prune::All => PruneKept::All,
        Prune::UnusedSince(time) => PruneKept::UnusedSince(time),
        Prune::DownTo(bytes) => PruneKept::DownTo(bytes.saturating_sub(left_bytes)),
    };
    let kept = remote::cache(home).prune(kept_rule)?;
    let mut removed: Vec<Item> = pruned.removed.into_iter().map(Item::from).collect();
    removed.extend(steps.removed.into_iter().map(Item::from));
    removed.extend(Item::of_stores(kept.removed));
    let left_bytes = left_bytes + kept.left_bytes;
    let (gone, more_left) = prune_loose(rule, left_bytes, home)?;
    removed.extend(gone);
    report(&removed, left_bytes + more_left, args.json, talk)
}

/// Deletes what is loose, and tells how many bytes of such are left. `others` are the bytes of everything else that is left.
fn prune_loose(rule: Prune, others: u64, home: &Home) -> anyhow::Result<(Vec<Item>, u64)> {
    let all = loose(home);
    let mut left_bytes: u64 = all.iter().map(|one| one.item.size_bytes).sum();
    let mut removed = Vec::new();
    for one in all {
        let goes = match rule {
            Prune::All => true,
            Prune::UnusedSince(time) => one.item.last_used < time,
            Prune::DownTo(bytes) => others.saturating_add(left_bytes) > bytes,
        };
        if goes {
            fs::remove_file(&one.path).with_context(|| format!("cannot delete {:?}", one.path))?;
            left_bytes -= one.item.size_bytes;
            removed.push(one.item);
        }
    }
    Ok((removed, left_bytes))
}

fn report(removed: &[Item], left_bytes: u64, json: bool, talk: &Talk) -> anyhow::Result<()> {
    for item in removed {
        let what = [item.digest(), item.about()].join(" ");
        talk.detail(&format!(
            "deleted {} ({})",
            what.trim_start_matches("- ").trim_end(),
            text::bytes(item.size_bytes)
        ));
    }
    let freed_bytes = removed.iter().map(|item| item.size_bytes).sum();
    if json {
        return write_stdout(&text::json_line(&json!({
            "removed": removed.iter().map(Item::to_json).collect::<Vec<_>>(),
            "freed_bytes": freed_bytes,
            "left_bytes": left_bytes,
        })));
    }
    let files = removed.iter().map(|item| item.files).sum();
    talk.say(&format!(
        "deleted {}, freed {}; {} left",
        text::count(files, "file"),
        text::bytes(freed_bytes),
        text::bytes(left_bytes),
    ));
    Ok(())
}
