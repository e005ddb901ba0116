//! One page of HTML that shows what fills an image. It needs no network and no file beside it.
//!
//! - the *page* is written here, with every table: it says all of importance without a script;
//! - the *map* (`map`) is the data that the script draws as a treemap, cut down to what can be seen;
//! - *spare* things (`spare`) are what images rarely need.
//!
//! Every name in an image is hostile. Text goes through `escape` or, in the script's data, through JSON without `<`; the script
//! puts it into text nodes only. The page's own policy allows exactly its script and its style, by digest.

mod map;
mod spare;
mod tables;

use std::fmt::Write as _;

use firebrick_digest::Digest;

use crate::text::size;
use crate::{Duplicates, Inventory, Listing, Usage, printable};

const STYLE: &str = include_str!("report/report.css");
const SCRIPT: &str = include_str!("report/report.js");

/// What the page says beside what is in the image.
#[derive(Clone, Debug, Default)]
pub struct Page<'a> {
    /// The image's name.
    pub name: &'a str,
    /// Facts about the image: what it is called and what it is.
    pub facts: Vec<(String, String)>,
    /// The names of the layers that [`crate::Entry::layer`] counts, where the image tells of them.
    pub layers: Option<&'a [String]>,
    /// Why it does not.
    pub no_layers: &'a str,
    /// Whether the image stores the content of duplicates once.
    pub shares_duplicates: bool,
    /// Length of the image file in bytes.
    pub image_bytes: u64,
    /// A drawing of how the image boots, as SVG.
    pub timeline: Option<&'a [u8]>,
    /// The version of firebrick.
    pub tool_version: &'a str,
}

/// What the page is about.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    /// Everything with a name.
    pub listing: &'a Listing,
    /// Its packages.
    pub inventory: &'a Inventory,
    /// Its sizes.
    pub usage: &'a Usage,
    /// Its duplicates.
    pub duplicates: &'a Duplicates,
}

/// Writes the page.
pub fn html(page: &Page<'_>, findings: Findings<'_>) -> Vec<u8> {
    let mut out = String::new();
    head(&mut out, page);
    summary(&mut out, page, findings);
    treemap(&mut out, page, findings);
    tables::packages(&mut out, findings);
    tables::files(&mut out, findings);
    tables::duplicates(&mut out, page, findings);
    tables::spare(&mut out, findings);
    tables::layers(&mut out, page, findings);
    timeline(&mut out, page);
    facts(&mut out, page, findings);
    put(
        &mut out,
        format_args!(
            "</main>\n<footer>Made by firebrick {} without mounting or running anything.</footer>\n\
             <script type=\"application/json\" id=\"data\">{}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
            escape(page.tool_version),
            map::json(page, findings),
        ),
    );
    out.into_bytes()
}

/// Writes into a String, which cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

fn head(out: &mut String, page: &Page<'_>) {
    let name = escape(page.name);
    put(
        out,
        format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'sha256-{}'; \
             style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{name}: what is in it</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n",
            base64(Digest::of(SCRIPT.as_bytes()).as_bytes()),
            base64(Digest::of(STYLE.as_bytes()).as_bytes()),
        ),
    );
}

/// The name, and the numbers that matter most.
fn summary(out: &mut String, page: &Page<'_>, findings: Findings<'_>) {
    let total = findings.usage.total();
    let system = findings
        .inventory
        .release()
        .and_then(|release| release.pretty_name.as_deref())
        .unwrap_or("root filesystem image");
    put(
        out,
        format_args!(
            "<header>\n<h1>{}</h1>\n<p class=\"sub\">{}</p>\n</header>\n<dl class=\"cards\">\n",
            escape(page.name),
            escape(system)
        ),
    );
    let wasted = match page.shares_duplicates {
        true => "stored once".to_owned(),
        false => size(findings.duplicates.wasted),
    };
    let groups = findings.duplicates.groups.len();
    let cards = [
        ("Image file", size(page.image_bytes), String::new()),
        (
            "Content",
            size(total.stored),
            format!("{} long", size(total.apparent)),
        ),
        (
            "Files",
            grouped(total.files),
            format!(
                "{} names",
                grouped(u64::try_from(findings.listing.len()).unwrap_or(0))
            ),
        ),
        (
            "Packages",
            grouped(u64::try_from(findings.inventory.packages().len()).unwrap_or(0)),
            tables::ecosystems(findings.inventory),
        ),
        (
            "Duplicates",
            wasted,
            format!(
                "{} contents more than once",
                grouped(u64::try_from(groups).unwrap_or(0))
            ),
        ),
    ];
    for (name, value, more) in cards {
        put(
            out,
            format_args!(
                "<div><dt>{name}</dt><dd><b>{}</b><span>{}</span></dd></div>\n",
                escape(&value),
                escape(&more)
            ),
        );
    }
    out.push_str("</dl>\n");
}

/// The frame that the script fills.
fn treemap(out: &mut String, page: &Page<'_>, findings: Findings<'_>) {
    let modes = [
        ("directory", "Folders", true),
        ("package", "Packages", !findings.inventory.packages().is_empty()),
        ("layer", "Layers", page.layers.is_some()),
    ];
    out.push_str("<section id=\"map\" hidden>\n<div class=\"bar\">\n<div class=\"modes\" role=\"group\" aria-label=\"Group by\">\n");
    for (mode, name, _) in modes.iter().filter(|(.., has)| *has) {
        put(
            out,
            format_args!(
                "<button type=\"button\" data-mode=\"{mode}\" aria-pressed=\"{}\">{name}</button>\n",
                *mode == "directory"
            ),
        );
    }
    out.push_str(
        "</div>\n<nav id=\"trail\" aria-label=\"Where the map is\"></nav>\n</div>\n\
         <div id=\"cells\" role=\"group\" aria-label=\"Map of sizes\"></div>\n<p id=\"said\" role=\"status\"></p>\n\
         <p class=\"help\">Area is what it takes in the image; folders themselves, and files that take nothing, are left out. Click or <kbd>Enter</kbd> goes in, <kbd>Esc</kbd> goes out, \
         arrows move.</p>\n<div id=\"tip\" hidden></div>\n</section>\n\
         <noscript><p class=\"help\">The map needs its script; the tables below say the same.</p></noscript>\n",
    );
    if page.layers.is_none() {
        put(
            out,
            format_args!("<p class=\"help\">{}</p>\n", escape(page.no_layers)),
        );
    }
}

fn timeline(out: &mut String, page: &Page<'_>) {
    if let Some(svg) = page.timeline {
        // As an image, so that nothing in it can run or load anything.
        put(
            out,
            format_args!(
                "<section>\n<h2>How it boots</h2>\n<div class=\"scroll\"><img class=\"timeline\" alt=\"The stages of a boot and how \
                 long each took\" src=\"data:image/svg+xml;base64,{}\"></div>\n</section>\n",
                base64(svg)
            ),
        );
    }
}

fn facts(out: &mut String, page: &Page<'_>, findings: Findings<'_>) {
    out.push_str("<section>\n<h2>The image</h2>\n<div class=\"scroll\"><table class=\"facts\">\n");
    for (name, value) in &page.facts {
        put(
            out,
            format_args!(
                "<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n",
                escape(name),
                escape(value)
            ),
        );
    }
    out.push_str("</table></div>\n");
    for remark in findings.inventory.remarks() {
        put(out, format_args!("<p class=\"remark\">{}</p>\n", escape(remark)));
    }
    out.push_str("</section>\n");
}

/// Text in HTML, in attributes too. What could hide or reorder text is shown as an escape.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for character in printable(text.as_bytes()).chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// `12,345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        let left = digits.len().saturating_sub(index);
        if index > 0 && left.checked_rem(3) == Some(0) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let word = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for (place, shift) in [18_u32, 12, 6, 0].into_iter().enumerate() {
            let digit = usize::try_from((word >> shift) & 63).unwrap_or(0);
            match place <= chunk.len() {
                true => out.push(DIGITS.get(digit).map_or('=', |digit| char::from(*digit))),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
