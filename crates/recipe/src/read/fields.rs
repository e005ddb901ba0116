//! The fields that are more than one value: files, commands, variables, and options of the command line.

use super::walk::{Table, Value, Walk};
use super::{agent_user, init};
use crate::recipe::{Command, CopySource, Recipe, StepKind};
use crate::{Checks, values};

/// `{ source | text | link | folder, to, mode, owner }`.
pub(super) fn file(walk: &mut Walk<'_>, file: &Table<'_>, value: &Value<'_>) -> Option<StepKind> {
    walk.known(
        file,
        &["folder", "link", "mode", "owner", "source", "text", "to"],
        "a file",
    );
    let to = walk.text(file, "to", values::path);
    walk.needs(file, "to", value.span());
    let ways: Vec<&str> = ["source", "text", "link", "folder"]
        .into_iter()
        .filter(|key| file.get(key).is_some())
        .collect();
    let [way] = ways[..] else {
        walk.wrong(
            file.span(),
            "a file has one of: source, text, link, folder = true".to_owned(),
        );
        return None;
    };
    let source = match way {
        "source" => walk.text(file, way, source_path).map(CopySource::Path),
        "text" => walk.text(file, way, |text| Ok(CopySource::Text(text.to_owned()))),
        "link" => walk.text(file, way, |target| {
            match target.is_empty() || target.len() > 4095 {
                true => Err("a link leads somewhere".to_owned()),
                false => values::plain(target).map(|()| CopySource::Link(target.to_owned())),
            }
        }),
        _ => match walk.boolean(file, way) {
            Some(true) => Some(CopySource::Folder),
            Some(false) => {
                walk.wrong(
                    file.span(),
                    "folder = false says nothing: leave it out".to_owned(),
                );
                None
            }
            None => None,
        },
    };
    if way == "link"
        && let Some(at) = file.key_span("mode")
    {
        walk.wrong(at, "a link has no mode of its own".to_owned());
    }
    Some(StepKind::Copy {
        source: source?,
        to: to?,
        mode: walk.mode(file, "mode"),
        owner: walk.text(file, "owner", values::owner),
    })
}

/// A path from the recipe's folder, which it does not leave.
pub(crate) fn source_path(text: &str) -> Result<String, String> {
    let leaves = text.starts_with('/') || text.split('/').any(|name| name == "..");
    match text.is_empty() || leaves {
        true => Err(format!(
            "{text:?} is no path in the recipe's folder: files come from there and below"
        )),
        false => values::plain(text).map(|()| text.to_owned()),
    }
}

/// A script, or a list of words.
pub(super) fn command(walk: &mut Walk<'_>, value: &Value<'_>) -> Option<Command> {
    let check = |text: &str| match text.contains('\0') {
        true => Err("a command has no NUL in it".to_owned()),
        false => Ok(text.to_owned()),
    };
    match value.as_array() {
        None => match walk.parsed(value, check)? {
            script if script.trim().is_empty() => {
                walk.wrong(value.span(), "the command is empty".to_owned());
                None
            }
            script => Some(Command::Shell(script)),
        },
        Some(items) => {
            let words: Vec<String> = items.iter().filter_map(|item| walk.parsed(item, check)).collect();
            if words.first().is_none_or(String::is_empty) {
                walk.wrong(value.span(), "the command is empty".to_owned());
                return None;
            }
            Some(Command::Exec(words))
        }
    }
}

/// `{ NAME = "value" }`, in the order of the text.
pub(super) fn variables(walk: &mut Walk<'_>, table: &Table<'_>, key: &str) -> Vec<(String, String)> {
    let Some(value) = table.get(key) else {
        return Vec::new();
    };
    let Some(inner) = walk.item_table(&value, "variables are a table: { NAME = \"value\" }") else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (name, value) in inner.entries() {
        if let Err(message) = values::variable(name) {
            walk.wrong(inner.key_span(name).unwrap_or_default(), message);
        }
        let text = walk.parsed(&value, |text| match text.contains('\0') {
            true => Err("a variable has no NUL in it".to_owned()),
            false => Ok(text.to_owned()),
        });
        all.extend(text.map(|text| (name.to_owned(), text)));
    }
    all
}

/// Keys whose value is one of a few words.
const CHOICES: [(&str, &str, &[&str]); 4] = [
    ("format", "format", &["ext4", "squashfs"]),
    ("init_target", "init-target", &["image", "minimal"]),
    ("profile", "profile", &["containerd"]),
    ("compression", "compression", &["zstd", "gzip", "lz4", "xz"]),
];

/// The keys that are options of the command line, too.
pub(super) fn options(walk: &mut Walk<'_>, table: &Table<'_>, recipe: &mut Recipe, checks: &Checks<'_>) {
    for (key, option, words) in CHOICES {
        let chosen = walk.text(table, key, |text| match words.contains(&text) {
            true => Ok(text.to_owned()),
            false => Err(format!("{text:?} is none of: {}", words.join(", "))),
        });
        recipe.options.extend(chosen.map(|text| (option, text)));
    }
    for (key, option) in [("journal", "journal"), ("online_resize", "online-resize")] {
        if walk.boolean(table, key) == Some(true) {
            recipe.options.insert(option, "true".to_owned());
        }
    }
    for key in ["size", "free", "block_size"] {
        let option = if key == "block_size" { "block-size" } else { key };
        let size = walk.text_or_number(table, key, |text| match (key, text) {
            ("size", "auto" | "min") => Ok(text.to_owned()),
            _ => values::size(text).map(|()| text.to_owned()),
        });
        recipe.options.extend(size.map(|text| (option, text)));
    }
    for (key, option) in [("inodes", "inodes"), ("compression_level", "compression-level")] {
        let number = walk.number(table, key);
        recipe
            .options
            .extend(number.map(|number| (option, number.to_string())));
    }
    let label = walk.text(table, "label", |text| match text.len() <= 16 {
        true => values::plain(text).map(|()| text.to_owned()),
        false => Err(format!(
            "{text:?} has {} bytes, at most 16 are possible",
            text.len()
        )),
    });
    recipe.options.extend(label.map(|text| ("label", text)));
    checked_options(walk, table, recipe, checks);
}

/// Those whose text somebody else takes.
fn checked_options(walk: &mut Walk<'_>, table: &Table<'_>, recipe: &mut Recipe, checks: &Checks<'_>) {
    type Parse<'a> = &'a dyn Fn(&str) -> Result<String, String>;
    let platform: Parse<'_> = &|text| (checks.platform)(text).map(|()| text.to_owned());
    let uuid: Parse<'_> = &|text| {
        let hex = text.chars().filter(char::is_ascii_hexdigit).count();
        match hex == 32 && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
            true => Ok(text.to_owned()),
            false => Err(format!("{text:?} is no UUID")),
        }
    };
    let words: Parse<'_> = &|text| match text.contains('"') {
        true => Err("a quote cannot stand on a kernel command line".to_owned()),
        false => values::plain(text).map(|()| text.to_owned()),
    };
    for (key, option, parse) in [
        ("platform", "platform", platform),
        ("init", "init", &init as Parse<'_>),
        ("agent_user", "agent-user", &agent_user),
        ("uuid", "uuid", uuid),
        ("guest_options", "guest-options", words),
    ] {
        let text = walk.text(table, key, parse);
        recipe.options.extend(text.map(|text| (option, text)));
    }
    if let Some(value) = table.get("agent") {
        match value.as_str() {
            Some(path) if path == "none" || source_path(path).is_ok() => {
                recipe.options.insert("agent", path.to_owned());
            }
            Some(_) => {
                walk.parsed(&value, source_path);
            }
            None => {
                if walk.boolean(table, "agent") == Some(false) {
                    recipe.options.insert("agent", "none".to_owned());
                }
            }
        }
    }
}
