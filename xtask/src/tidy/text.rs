//! Rules about the text of files: sizes, words that must not stay, places that nobody else has, front pages.

use super::{Finding, Source, lexer};

/// A file of Rust or of a script may not be longer, its tests included.
const LINES: usize = 800;
/// Half of the Rust files may not be longer than this.
const MEDIAN: usize = 300;

/// Words that stand for unfinished work, wherever they are. Split, so that this file does not find itself.
const UNFINISHED: [&str; 2] = [concat!("FIX", "ME"), concat!("XX", "X:")];
/// Code that must not be there: lints are expected with a reason, never allowed, and nothing is left undone.
const FORBIDDEN: [(&str, &str); 4] = [
    (concat!("#[al", "low("), "use #[expect(…, reason = \"…\")]"),
    (concat!("#![al", "low("), "use #![expect(…, reason = \"…\")]"),
    (
        concat!("to", "do!("),
        "finish it, or return an error that says it is not supported",
    ),
    (
        concat!("unimple", "mented!("),
        "finish it, or return an error that says it is not supported",
    ),
];
/// Places that only one machine or one workplace has, and hosts that the package tools choose for themselves.
const PLACES: [&str; 9] = [
    concat!("/wo", "rk/"),
    concat!("/tmp/", "wt/"),
    concat!("/tmp/", "target/"),
    concat!("/tmp/", "bw/"),
    concat!("crates", ".io"),
    concat!("deb.", "debian.org"),
    concat!("py", "pi.org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
];

/// No file is longer than 800 lines, and half of the Rust files stay well below.
pub(super) fn sizes(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_program(source)) {
        let lines = source.text.lines().count();
        if lines > LINES {
            findings.push(Finding::new(
                source,
                0,
                format!("{lines} lines, {LINES} are allowed"),
            ));
        }
    }
    let mut rust: Vec<(usize, &Source)> = sources
        .iter()
        .filter(|s| is_rust(s))
        .map(|s| (s.text.lines().count(), s))
        .collect();
    rust.sort_by_key(|(lines, _)| *lines);
    if let Some((lines, source)) = rust.get(rust.len() / 2)
        && *lines > MEDIAN
    {
        findings.push(Finding::new(
            source,
            0,
            format!("the median Rust file has {lines} lines, {MEDIAN} are allowed"),
        ));
    }
    findings
}

/// Nothing is left undone or allowed without a reason.
pub(super) fn words(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !is_data(source)) {
        for (line, text) in numbered(&source.text) {
            for word in UNFINISHED.iter().filter(|word| text.contains(**word)) {
                findings.push(Finding::new(
                    source,
                    line,
                    format!("{word} is left: finish it or file an issue"),
                ));
            }
        }
    }
    for source in sources.iter().filter(|source| is_rust(source)) {
        for (line, text) in numbered(&lexer::code(&source.text)) {
            for (word, instead) in FORBIDDEN.iter().filter(|(word, _)| text.contains(word)) {
                findings.push(Finding::new(source, line, format!("{word}…: {instead}")));
            }
        }
    }
    findings
}

/// No tracked file names a path of one machine or the host of a package registry.
pub(super) fn places(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources
        .iter()
        .filter(|source| !source.path.ends_with("Cargo.lock"))
    {
        for (line, text) in numbered(&source.text) {
            for place in PLACES.iter().filter(|place| names(text, place)) {
                findings.push(Finding::new(
                    source,
                    line,
                    format!("names {place}, which other machines lack"),
                ));
            }
        }
    }
    findings
}

/// Whether `text` names `place`; a path counts only where it begins, not as the tail of another one.
fn names(text: &str, place: &str) -> bool {
    text.match_indices(place).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !place.starts_with('/') || !before.is_some_and(|c| c.is_alphanumeric() || "._-$})~".contains(c))
    })
}

/// Every Rust file opens with a `//!` page that tells its nouns.
pub(super) fn front_pages(sources: &[Source]) -> Vec<Finding> {
    sources
        .iter()
        .filter(|source| is_rust(source) && !source.text.trim_start().starts_with("//!"))
        .filter(|source| !source.text.trim_start().starts_with("#!/"))
        .map(|source| Finding::new(source, 1, "does not open with a `//!` page"))
        .collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn is_rust(source: &Source) -> bool {
    source.path.ends_with(".rs")
}

/// Rust, or a script: by its name or by its first line.
fn is_program(source: &Source) -> bool {
    is_rust(source)
        || source.path.ends_with(".py")
        || source.path.ends_with(".sh")
        || source.text.starts_with("#!")
}

/// Files whose words are not ours: locked versions, kept measurements, licences.
fn is_data(source: &Source) -> bool {
    source.path.ends_with("Cargo.lock")
        || source.path.contains("/runs/")
        || source.path.starts_with("LICENSE")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{printed, source};
    use super::*;

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(sizes(&[source("a.py", &"x\n".repeat(800))]), []);
        assert_eq!(
            printed(&sizes(&[source("a.py", &"x\n".repeat(801))])),
            ["a.py: 801 lines, 800 are allowed"]
        );
        assert_eq!(
            printed(&sizes(&[source(
                "run",
                &format!("#!/bin/sh\n{}", "x\n".repeat(800))
            )]))
            .len(),
            1
        );
        assert_eq!(sizes(&[source("data.csv", &"x\n".repeat(900))]), []);
    }

    #[test]
    fn a_high_median_is_found() {
        let files = [
            source("a.rs", "x"),
            source("b.rs", &"x\n".repeat(301)),
            source("c.rs", &"x\n".repeat(302)),
        ];
        assert_eq!(
            printed(&sizes(&files)),
            ["b.rs: the median Rust file has 301 lines, 300 are allowed"]
        );
        assert_eq!(sizes(&files[..1]), []);
    }

    #[test]
    fn unfinished_work_is_found() {
        for word in UNFINISHED {
            assert_eq!(words(&[source("a.md", &format!("ok\n{word} later"))]).len(), 1);
            assert_eq!(words(&[source("bench/runs/a/raw.csv", word)]), []);
        }
        for (word, _) in FORBIDDEN {
            assert_eq!(
                words(&[source("a.rs", &format!("//! x\n{word} x)]"))]).len(),
                1,
                "{word}"
            );
            assert_eq!(
                words(&[source("a.rs", &format!("//! x\nf(\"{word}\"); // {word}"))]),
                [],
                "{word} in text"
            );
        }
    }

    #[test]
    fn places_of_one_machine_are_found() {
        for place in PLACES {
            assert_eq!(
                places(&[source("a.md", &format!("see {place}x"))]).len(),
                1,
                "{place}"
            );
            assert_eq!(places(&[source("Cargo.lock", place)]), []);
        }
        assert_eq!(
            places(&[source(
                "a.md",
                concat!("kept in bench/wo", "rk/ and $HOME/wo", "rk/")
            )]),
            []
        );
    }

    #[test]
    fn a_missing_front_page_is_found() {
        assert_eq!(front_pages(&[source("a.rs", "\n//! What it is.\nuse x;")]), []);
        assert_eq!(
            printed(&front_pages(&[source("a.rs", "use x;")])),
            ["a.rs:1: does not open with a `//!` page"]
        );
    }
}
