//! `firebrick rootfs diff`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

use firebrick_inventory::{Change, Ecosystem, Inventory, NodeId};
use serde_json::{Value, json};

use crate::error::{say, write_stdout};
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::survey::Survey;
use crate::text;
use crate::volume::FileType;

/// The images differ, and nobody asked for a budget.
const DIFFERENT: u8 = 1;
/// The second image has grown by more than the budget.
const OVER_BUDGET: u8 = 3;

/// Show what one image has otherwise than another: files and packages
///
/// Compared are content, type, mode, owner, extended attributes, where links lead, and devices; times are not. `+` is only in
/// B, `-` only in A, `~` in both and different.
///
/// Exit code 0: nothing differs. 1: something does. 2: firebrick failed. With --budget, 0: B has not grown by more; 3: it has.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image that is compared with: a name or a path
    #[arg(value_name = "A")]
    old: OsString,

    /// The image that is compared: a name or a path
    #[arg(value_name = "B")]
    new: OsString,

    /// Fail with 3 if the contents of all files are together by more than this longer in B
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    budget: Option<u64>,

    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, home: &Home) -> anyhow::Result<ExitCode> {
    let (a, b) = (
        ImageFile::open(home, &args.old)?,
        ImageFile::open(home, &args.new)?,
    );
    let comparison = Comparison::new(&a, &b)?;
    match args.json {
        true => write_stdout(&text::json_line(&comparison.to_json()))?,
        false => write_stdout(comparison.to_text().as_bytes())?,
    }
    let growth = comparison.growth();
    Ok(match args.budget {
        Some(budget) if growth > i128::from(budget) => {
            say(&format!(
                "the contents have grown by {}, the budget is {}",
                signed(growth),
                text::bytes(budget)
            ));
            ExitCode::from(OVER_BUDGET)
        }
        None if !comparison.changes.is_empty() => ExitCode::from(DIFFERENT),
        _ => ExitCode::SUCCESS,
    })
}

/// Two images, and what is not the same.
struct Comparison<'a> {
    old: Side<'a>,
    new: Side<'a>,
    changes: Vec<Change>,
    packages: Vec<PackageChange>,
}

struct Side<'a> {
    survey: Survey<'a>,
    inventory: Inventory,
}

/// A package of which the images have other versions.
#[derive(Debug, PartialEq, Eq)]
struct PackageChange {
    ecosystem: Ecosystem,
    name: String,
    old: Vec<String>,
    new: Vec<String>,
}

/// How many paths, and how long what they hold is.
#[derive(Debug, Default)]
struct Sum {
    paths: u64,
    bytes: i128,
}

impl Sum {
    fn add(&mut self, bytes: i128) {
        self.paths += 1;
        self.bytes += bytes;
    }
}

impl<'a> Side<'a> {
    fn new(image: &'a ImageFile) -> anyhow::Result<Side<'a>> {
        let survey = Survey::of(image)?;
        Ok(Side {
            inventory: survey.inventory()?,
            survey,
        })
    }

    /// The length of a regular file's content.
    fn len(&self, id: NodeId) -> u64 {
        let entry = self.survey.listing.entry(id);
        match entry.file_type {
            FileType::Regular => entry.size,
            _ => 0,
        }
    }

    /// The length of all regular files, those with several names once.
    fn total(&self) -> i128 {
        let listing = &self.survey.listing;
        let first = listing.ids().filter(|id| listing.is_first(*id));
        first.map(|id| i128::from(self.len(id))).sum()
    }

    fn owner(&self, id: NodeId) -> Option<&str> {
        let owner = self.inventory.owner(id)?;
        Some(&self.inventory.package(owner).name)
    }

    fn versions(&self) -> BTreeMap<(Ecosystem, &str, &str), Vec<String>> {
        let mut versions: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for package in self.inventory.packages() {
            let architecture = package.architecture.as_deref().unwrap_or_default();
            let key = (package.ecosystem, package.name.as_str(), architecture);
            versions.entry(key).or_default().push(package.version.clone());
        }
        versions.values_mut().for_each(|versions| versions.sort());
        versions
    }
}

impl<'a> Comparison<'a> {
    fn new(a: &'a ImageFile, b: &'a ImageFile) -> anyhow::Result<Comparison<'a>> {
        let (old, new) = (Side::new(a)?, Side::new(b)?);
        let diff = firebrick_inventory::diff(
            (&old.survey.listing, &old.survey),
            (&new.survey.listing, &new.survey),
        )
        .map_err(|error| {
            anyhow::Error::new(error).context(format!("cannot compare {:?} with {:?}", a.path, b.path))
        })?;
        let (was, is) = (old.versions(), new.versions());
        let mut keys: Vec<_> = was.keys().chain(is.keys()).copied().collect();
        keys.sort();
        keys.dedup();
        let packages = keys
            .into_iter()
            .map(|key| PackageChange {
                ecosystem: key.0,
                name: key.1.to_owned(),
                old: was.get(&key).cloned().unwrap_or_default(),
                new: is.get(&key).cloned().unwrap_or_default(),
            })
            .filter(|change| change.old != change.new)
            .collect();
        Ok(Comparison {
            old,
            new,
            changes: diff.changes,
            packages,
        })
    }

    fn growth(&self) -> i128 {
        self.new.total() - self.old.total()
    }

    /// Added, removed, changed.
    fn sums(&self) -> [Sum; 3] {
        let mut sums = <[Sum; 3]>::default();
        let [added, removed, changed] = &mut sums;
        for change in &self.changes {
            match change {
                Change::Added(id) => added.add(self.new.len(*id).into()),
                Change::Removed(id) => removed.add(self.old.len(*id).into()),
                Change::Changed { old, new, .. } => {
                    changed.add(i128::from(self.new.len(*new)) - i128::from(self.old.len(*old)));
                }
            }
        }
        sums
    }

    fn to_text(&self) -> String {
        let mut rows: Vec<Vec<String>> = Vec::new();
        for change in &self.changes {
            let (side, id, mark) = match change {
                Change::Added(id) => (&self.new, *id, "+"),
                Change::Removed(id) => (&self.old, *id, "-"),
                Change::Changed { new, .. } => (&self.new, *new, "~"),
            };
            let (size, how) = match change {
                Change::Changed { old, new, aspects } => {
                    let names: Vec<&str> = aspects.iter().map(|aspect| aspect.name()).collect();
                    let growth = i128::from(self.new.len(*new)) - i128::from(self.old.len(*old));
                    (signed(growth), names.join(", "))
                }
                _ => (text::bytes(side.len(id)), String::new()),
            };
            let owner = side.owner(id).map(|name| format!("({name})")).unwrap_or_default();
            rows.push(vec![
                format!("{mark} {}", side.survey.shown(id)),
                size,
                owner,
                how,
            ]);
        }
        let mut text = text::table(&rows);
        for change in &self.packages {
            text += &format!(
                "{} {}: {} -> {}\n",
                change.ecosystem,
                change.name,
                versions(&change.old),
                versions(&change.new)
            );
        }
        let [added, removed, changed] = self.sums();
        if self.changes.is_empty() {
            return text + "nothing differs\n";
        }
        text + &format!(
            "{} added ({}), {} removed ({}), {} changed ({}); contents {}\n",
            added.paths,
            signed(added.bytes).trim_start_matches('+'),
            removed.paths,
            signed(removed.bytes).trim_start_matches('+'),
            changed.paths,
            signed(changed.bytes),
            signed(self.growth())
        )
    }

    fn to_json(&self) -> Value {
        let changes: Vec<Value> = self
            .changes
            .iter()
            .map(|change| self.change_json(change))
            .collect();
        let packages: Vec<Value> = self
            .packages
            .iter()
            .map(|change| {
                json!({
                    "ecosystem": change.ecosystem.name(),
                    "name": change.name,
                    "old_versions": change.old,
                    "new_versions": change.new,
                })
            })
            .collect();
        let [added, removed, changed] = self.sums();
        let sum = |sum: Sum| json!({ "paths": sum.paths, "bytes": number(sum.bytes) });
        json!({
            "same": self.changes.is_empty(),
            "changes": changes,
            "packages": packages,
            "added": sum(added),
            "removed": sum(removed),
            "changed": sum(changed),
            "old_bytes": number(self.old.total()),
            "new_bytes": number(self.new.total()),
            "growth_bytes": number(self.growth()),
        })
    }

    fn change_json(&self, change: &Change) -> Value {
        let (side, id, kind) = match change {
            Change::Added(id) => (&self.new, *id, "added"),
            Change::Removed(id) => (&self.old, *id, "removed"),
            Change::Changed { new, .. } => (&self.new, *new, "changed"),
        };
        let path = side.survey.listing.path(id);
        let mut object = json!({
            "kind": kind,
            "path": format!("/{}", String::from_utf8_lossy(&path)),
            "type": side.survey.listing.entry(id).file_type.to_string(),
            "package": side.owner(id),
        });
        if std::str::from_utf8(&path).is_err() {
            object["path_hex"] = Value::String(path.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        match change {
            Change::Added(id) => object["new_bytes"] = json!(self.new.len(*id)),
            Change::Removed(id) => object["old_bytes"] = json!(self.old.len(*id)),
            Change::Changed { old, new, aspects } => {
                object["old_bytes"] = json!(self.old.len(*old));
                object["new_bytes"] = json!(self.new.len(*new));
                object["aspects"] = aspects.iter().map(|aspect| json!(aspect.name())).collect();
            }
        }
        object
    }
}

/// `none`, `1.2`, `1.2, 1.3`.
fn versions(versions: &[String]) -> String {
    match versions {
        [] => "none".to_owned(),
        some => some.join(", "),
    }
}

/// `+1.2 MiB`, `-3 B`, `0 B`.
fn signed(bytes: i128) -> String {
    let size = text::bytes(u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX));
    match bytes {
        0 => size,
        1.. => format!("+{size}"),
        _ => format!("-{size}"),
    }
}

/// Sums of file lengths are far from the limits of JSON's readers, unless an image lies.
fn number(bytes: i128) -> i64 {
    i64::try_from(bytes).unwrap_or(if bytes < 0 { i64::MIN } else { i64::MAX })
}
