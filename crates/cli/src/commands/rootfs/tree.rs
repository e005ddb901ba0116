//! `firebrick rootfs tree`.

use firebrick_inventory::{Inventory, NodeId, Usage, printable};
use serde_json::{Value, json};

use super::place::Place;
use crate::error::write_stdout;
use crate::home::Home;
use crate::survey::Survey;
use crate::text;
use crate::volume::FileType;

/// Show what is in an image as a tree, with sizes
///
/// The size of a folder is that of everything below it; a file with several names counts once, as for du. With --json, each
/// has its package, too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// How many levels to show
    #[arg(long, value_name = "N", default_value_t = 2)]
    depth: u8,

    /// Print a JSON object, with what a folder holds as "children"
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, home: &Home) -> anyhow::Result<()> {
    let image = args.place.open(home)?;
    let survey = Survey::of(&image)?;
    let start = survey.find(args.place.path())?;
    let usage = Usage::of(&survey.listing);
    if args.json {
        let inventory = survey.inventory()?;
        let shown = Shown {
            survey: &survey,
            usage: &usage,
            inventory: &inventory,
        };
        return write_stdout(&text::json_line(&shown.object(start, args.depth)));
    }
    write_stdout(lines(&survey, &usage, start, args.depth).as_bytes())
}

/// A line for each node, its size in front.
fn lines(survey: &Survey<'_>, usage: &Usage, start: NodeId, depth: u8) -> String {
    let listing = &survey.listing;
    let mut rows = vec![(start, survey.shown(start))];
    // What is still to come: a node, the lines that lead to it, and how many levels may follow.
    let mut todo: Vec<(NodeId, String, bool, u8)> = Vec::new();
    let push = |todo: &mut Vec<_>, id: NodeId, before: &str, levels: u8| {
        let children = listing.children(id);
        let from = todo.len();
        if levels > 0 {
            todo.extend(
                children
                    .iter()
                    .map(|id| (*id, before.to_owned(), false, levels - 1)),
            );
        }
        if let Some((_, _, is_last, _)) = todo.get_mut(from..).and_then(<[_]>::last_mut) {
            *is_last = true;
        }
        todo[from..].reverse();
    };
    push(&mut todo, start, "", depth);
    while let Some((id, before, is_last, levels)) = todo.pop() {
        let (branch, below) = if is_last {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        let node = listing.node(id);
        let mut line = format!("{before}{branch}{}", printable(&node.name));
        match &node.entry.target {
            Some(target) => line += &format!(" -> {}", printable(target)),
            None if node.entry.file_type == FileType::Directory => line.push('/'),
            None => {}
        }
        rows.push((id, line));
        push(&mut todo, id, &format!("{before}{below}"), levels);
    }
    let mut text = String::new();
    for (id, line) in rows {
        text += &format!("{:>10}  {line}\n", text::bytes(usage.below(id).apparent));
    }
    text
}

/// What a JSON object is made of.
struct Shown<'a> {
    survey: &'a Survey<'a>,
    usage: &'a Usage,
    inventory: &'a Inventory,
}

impl Shown<'_> {
    fn object(&self, id: NodeId, depth: u8) -> Value {
        let listing = &self.survey.listing;
        let node = listing.node(id);
        let (entry, below) = (&node.entry, self.usage.below(id));
        let mut object = json!({
            "name": String::from_utf8_lossy(&node.name),
            "type": entry.file_type.to_string(),
            "mode": format!("{:04o}", entry.mode),
            "uid": entry.uid,
            "gid": entry.gid,
            "size_bytes": entry.size,
            "total_bytes": below.apparent,
            "stored_bytes": below.stored,
            "files": below.files,
        });
        if std::str::from_utf8(&node.name).is_err() {
            object["name_hex"] = Value::String(node.name.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        if let Some(target) = &entry.target {
            object["target"] = json!(String::from_utf8_lossy(target));
        }
        if let Some(owner) = self.inventory.owner(id) {
            object["package"] = json!(self.inventory.package(owner).name);
        }
        if let (Some(layer), Some(layers)) = (entry.layer, &self.survey.layers) {
            object["layer"] = json!(layers.names.get(usize::from(layer)));
        }
        if entry.file_type == FileType::Directory && depth > 0 {
            let children = listing.children(id).iter();
            object["children"] = children.map(|child| self.object(*child, depth - 1)).collect();
        }
        object
    }
}
