//! The picture of a store: a bar for each image, and a square for each pair.

use std::fmt::Write as _;

use firebrick_store::{ImageStats, Stats};

use super::names;
use crate::text;

/// Widest bar, in pixels.
const BAR: u64 = 520;
/// Pairs are drawn of so many images at most.
const PAIRS: usize = 60;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c1c1c;background:#fff}\
table{border-collapse:collapse}td,th{padding:.15rem .7rem .15rem 0;text-align:left;white-space:nowrap}td.n{text-align:right}\
.bar{display:flex;height:1rem}.own{background:#b5482a}.shared{background:#d9b48f}\
.pairs td{padding:0;width:1.4rem;height:1.4rem;border:1px solid #fff}.pairs th{font-weight:normal}\
@media(prefers-color-scheme:dark){body{background:#181614;color:#e8e4e0}.pairs td{border-color:#181614}}";

/// One page that needs nothing else.
pub(super) fn html(stats: &Stats, address: &str) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style><h1>{0}</h1><p>{1}: {2} of data, of which {3} differ, stored in {4}.</p>",
        escaped(address),
        text::count(stats.images.len() as u64, "image"),
        text::bytes(stats.data),
        text::bytes(stats.unique),
        text::bytes(stats.compressed),
    );
    bars(stats, &mut page);
    pairs(stats, &mut page);
    page.push_str("</html>\n");
    page
}

fn bars(stats: &Stats, page: &mut String) {
    let most = stats
        .images
        .iter()
        .map(|image| image.unique)
        .max()
        .unwrap_or(1)
        .max(1);
    page.push_str(
        "<h2>What only one image has, and what others have too</h2><table><tr><th>image<th>own<th>shared<th>",
    );
    for image in &stats.images {
        let width = |bytes: u64| u128::from(bytes) * u128::from(BAR) / u128::from(most);
        let _ = write!(
            page,
            "<tr><td>{}<td class=n>{}<td class=n>{}<td><div class=bar><span class=own style=\"width:{}px\"></span><span class=shared style=\"width:{}px\"></span></div>",
            escaped(&names(image)),
            text::bytes(image.own),
            text::bytes(image.shared),
            width(image.own),
            width(image.shared),
        );
    }
    page.push_str("</table>");
}

/// Each image's row says how much of it the others have.
fn pairs(stats: &Stats, page: &mut String) {
    let shown = stats.images.len().min(PAIRS);
    if shown < 2 {
        return;
    }
    page.push_str("<h2>How much of the row's image the column's has</h2><table class=pairs><tr><th>");
    for column in 0..shown {
        let _ = write!(page, "<th>{}", column + 1);
    }
    for (row, image) in stats.images.iter().take(shown).enumerate() {
        let _ = write!(page, "<tr><th>{} {}", row + 1, escaped(&names(image)));
        for column in 0..shown {
            let bytes = if row == column {
                image.unique
            } else {
                shared(stats, row, column)
            };
            let _ = write!(
                page,
                "<td title=\"{}\" style=\"background:rgb(181 72 42/{}%)\">",
                text::bytes(bytes),
                percent(bytes, image)
            );
        }
    }
    page.push_str("</table>");
    if shown < stats.images.len() {
        let _ = write!(page, "<p>The first {shown} of {} images.</p>", stats.images.len());
    }
}

fn shared(stats: &Stats, row: usize, column: usize) -> u64 {
    let (a, b) = (row.min(column), row.max(column));
    stats
        .sharing
        .iter()
        .find(|pair| (pair.a, pair.b) == (a, b))
        .map_or(0, |pair| pair.bytes)
}

fn percent(bytes: u64, image: &ImageStats) -> u128 {
    u128::from(bytes) * 100 / u128::from(image.unique.max(1))
}

/// Names are harmless; addresses come from users.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
