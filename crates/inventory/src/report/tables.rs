//! The tables of the page.

use super::{Findings, Page, escape, grouped, put, spare};
use crate::text::size;
use crate::usage::own;
use crate::{Bytes, Ecosystem, Inventory, NodeId, Usage, printable};

/// Rows of a table, at most.
const ROWS: usize = 100;

/// Rows that are shown without asking.
const SHOWN: usize = 12;

/// Paths of one group of duplicates, at most.
const PATHS: usize = 6;

/// `310 deb, 12 pypi`.
pub(super) fn ecosystems(inventory: &Inventory) -> String {
    let counts = Ecosystem::ALL.into_iter().filter_map(|ecosystem| {
        let packages = inventory.packages().iter();
        let count = packages.filter(|package| package.ecosystem == ecosystem).count();
        (count > 0).then(|| format!("{count} {ecosystem}"))
    });
    counts.collect::<Vec<_>>().join(", ")
}

/// Begins a section with a table of these columns; those that begin with `#` hold numbers, one without a name bars.
fn begin(out: &mut String, title: &str, columns: &[&str]) {
    put(
        out,
        format_args!("<section>\n<h2>{title}</h2>\n<div class=\"scroll\"><table>\n<thead><tr>"),
    );
    for column in columns {
        match column.strip_prefix('#') {
            _ if column.is_empty() => out.push_str("<th class=\"b\"></th>"),
            Some(name) => put(out, format_args!("<th scope=\"col\" class=\"n\">{name}</th>")),
            None => put(out, format_args!("<th scope=\"col\">{column}</th>")),
        }
    }
    out.push_str("</tr></thead>\n");
}

/// The rows, those behind the first few folded away.
fn rows(out: &mut String, rows: &[String], all: usize) {
    let shown = rows.len().min(SHOWN);
    put(out, format_args!("<tbody>{}</tbody>\n", rows[..shown].concat()));
    if rows.len() > shown {
        put(
            out,
            format_args!("<tbody class=\"more\">{}</tbody>\n", rows[shown..].concat()),
        );
    }
    out.push_str("</table></div>\n");
    if all > rows.len() {
        put(
            out,
            format_args!(
                "<p class=\"help\">and {} more</p>\n",
                all.saturating_sub(rows.len())
            ),
        );
    }
    out.push_str("</section>\n");
}

/// A bar without a style, which the page's policy would not allow: part of the largest in a table.
fn bar(part: u64, of: u64) -> String {
    let width = u128::from(part)
        .saturating_mul(1000)
        .checked_div(u128::from(of))
        .unwrap_or(0)
        .min(1000);
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"ground\" \
         width=\"1000\" height=\"10\"/><rect width=\"{width}\" height=\"10\"/></svg>"
    )
}

/// `12.3 %` of the whole.
fn share(part: u64, of: u64) -> String {
    let tenths = u128::from(part)
        .saturating_mul(1000)
        .checked_div(u128::from(of))
        .unwrap_or(0);
    let (whole, tenth) = (tenths.checked_div(10), tenths.checked_rem(10));
    format!("{}.{} %", whole.unwrap_or(0), tenth.unwrap_or(0))
}

pub(super) fn packages(out: &mut String, findings: Findings<'_>) {
    let inventory = findings.inventory;
    if inventory.packages().is_empty() {
        return;
    }
    let sums = Usage::by_package(findings.listing, inventory, NodeId::ROOT);
    let total = findings.usage.total().stored;
    let largest = sums.first().map_or(0, |(_, bytes)| bytes.stored);
    let row = |(id, bytes): &(Option<crate::PackageId>, Bytes)| {
        let (name, version, kind, licences) = match id.map(|id| inventory.package(id)) {
            Some(package) => (
                escape(&package.name),
                escape(&package.version),
                package.ecosystem.name(),
                escape(&package.licences.join(", ")),
            ),
            None => (
                "<i>of no package</i>".to_owned(),
                String::new(),
                "",
                String::new(),
            ),
        };
        format!(
            "<tr><th scope=\"row\">{name}</th><td>{version}</td><td>{kind}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"b\">{}</td><td class=\"n\">{}</td><td class=\"cut\">{licences}</td></tr>\n",
            size(bytes.stored),
            share(bytes.stored, total),
            bar(bytes.stored, largest),
            grouped(bytes.files),
        )
    };
    let owning: Vec<_> = sums.iter().filter(|(_, bytes)| bytes.stored > 0).collect();
    let made: Vec<String> = owning.iter().take(ROWS).map(|sum| row(sum)).collect();
    let columns = [
        "Package",
        "Version",
        "Kind",
        "#Takes",
        "#Share",
        "",
        "#Files",
        "Licences, as the package says",
    ];
    begin(out, "Packages", &columns);
    rows(out, &made, owning.len());
}

pub(super) fn files(out: &mut String, findings: Findings<'_>) {
    let listing = findings.listing;
    let mut files: Vec<(NodeId, Bytes)> = listing
        .ids()
        .map(|id| (id, own(listing, id)))
        .filter(|(_, bytes)| bytes.files > 0 && bytes.stored > 0)
        .collect();
    files.sort_by_key(|(id, bytes)| (std::cmp::Reverse(bytes.stored), *id));
    let largest = files.first().map_or(0, |(_, bytes)| bytes.stored);
    let made: Vec<String> = files
        .iter()
        .take(ROWS)
        .map(|(id, bytes)| {
            let owner = findings.inventory.owner(*id);
            let owner = owner.map_or("", |owner| &findings.inventory.package(owner).name);
            format!(
                "<tr><th scope=\"row\" class=\"path\">/{}</th><td class=\"n\">{}</td><td class=\"b\">{}</td><td>{}</td></tr>\n",
                escape_path(&listing.path(*id)),
                size(bytes.stored),
                bar(bytes.stored, largest),
                escape(owner)
            )
        })
        .collect();
    begin(out, "Largest files", &["File", "#Takes", "", "Package"]);
    rows(out, &made, made.len());
}

/// The bytes of a path, made printable once and then escaped.
fn escape_path(path: &[u8]) -> String {
    let text = printable(path);
    // What is printable already has no more to escape but HTML.
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

pub(super) fn duplicates(out: &mut String, page: &Page<'_>, findings: Findings<'_>) {
    let groups = &findings.duplicates.groups;
    if groups.is_empty() {
        return;
    }
    let row = |group: &crate::Group| {
        let paths = group.nodes.iter().take(PATHS).map(|id| {
            let path = findings.listing.path(*id);
            format!("<span class=\"path\">/{}</span>", escape_path(&path))
        });
        let more = group.nodes.len().saturating_sub(PATHS);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!(
            "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"paths\">{}{more}</td></tr>\n",
            size(group.wasted),
            group.nodes.len(),
            size(group.size),
            paths.collect::<String>(),
        )
    };
    let made: Vec<String> = groups.iter().take(ROWS).map(row).collect();
    begin(
        out,
        "Duplicates",
        &[
            "#Wasted",
            "#Copies",
            "#Length",
            "Files of one content, hardlinks not among them",
        ],
    );
    rows(out, &made, groups.len());
    if page.shares_duplicates {
        out.push_str("<p class=\"help\">A squashfs stores the content of duplicates once, so they waste nothing here.</p>\n");
    }
}

pub(super) fn spare(out: &mut String, findings: Findings<'_>) {
    let sums = spare::sums(findings.listing, |id| own(findings.listing, id));
    let largest = sums.iter().map(|bytes| bytes.stored).max().unwrap_or(0);
    if largest == 0 {
        return;
    }
    let total = findings.usage.total().stored;
    let mut found: Vec<_> = spare::RULES
        .iter()
        .zip(sums)
        .filter(|(_, bytes)| bytes.files > 0)
        .collect();
    found.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.stored));
    let made: Vec<String> = found
        .iter()
        .map(|(rule, bytes)| {
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"b\">{}</td>\
                 <td class=\"n\">{}</td></tr>\n",
                rule.name,
                rule.place,
                size(bytes.stored),
                share(bytes.stored, total),
                bar(bytes.stored, largest),
                grouped(bytes.files)
            )
        })
        .collect();
    begin(
        out,
        "What an image rarely needs",
        &["What", "Where", "#Takes", "#Share", "", "#Files"],
    );
    rows(out, &made, made.len());
}

pub(super) fn layers(out: &mut String, page: &Page<'_>, findings: Findings<'_>) {
    let Some(names) = page.layers else {
        return;
    };
    let listing = findings.listing;
    let mut sums = vec![Bytes::default(); names.len()];
    for id in listing.ids() {
        let layer = listing.entry(id).layer.map(usize::from);
        if let Some(sum) = layer.and_then(|layer| sums.get_mut(layer)) {
            sum.add(own(listing, id));
        }
    }
    let largest = sums.iter().map(|bytes| bytes.stored).max().unwrap_or(0);
    let made: Vec<String> = names
        .iter()
        .zip(&sums)
        .map(|(name, bytes)| {
            format!(
                "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"b\">{}</td><td class=\"n\">{}</td></tr>\n",
                escape(name),
                size(bytes.stored),
                bar(bytes.stored, largest),
                grouped(bytes.files)
            )
        })
        .collect();
    begin(
        out,
        "Layers",
        &[
            "Layer, by the digest of its tar",
            "#Takes",
            "",
            "#Files with content",
        ],
    );
    rows(out, &made, made.len());
}
