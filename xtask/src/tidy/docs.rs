//! Rules about Markdown: links lead somewhere, and every figure that we print was measured.

use std::collections::BTreeSet;

use super::{Finding, Source};

/// Opens a stretch of Markdown whose numbers were all measured in the run it names.
const FIGURES: &str = "<!-- figures: ";
const FIGURES_END: &str = "<!-- end of figures -->";

/// Relative links name a tracked file or folder, and an anchor that the file has.
pub(super) fn links(sources: &[Source]) -> Vec<Finding> {
    let files: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_markdown(source)) {
        for (line, target) in targets(&source.text) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let full = if path.is_empty() {
                source.path.clone()
            } else {
                join(&source.path, path)
            };
            let folder = format!("{}/", full.trim_end_matches('/'));
            let is_folder = full.is_empty() || files.iter().any(|file| file.starts_with(&folder));
            if !files.contains(full.as_str()) && !is_folder {
                findings.push(Finding::new(
                    source,
                    line,
                    format!("link to {target}: there is no {full}"),
                ));
            } else if !anchor.is_empty() {
                let headed = sources
                    .iter()
                    .find(|other| other.path == full)
                    .map(|other| headings(&other.text));
                if !headed.is_some_and(|headings| headings.contains(anchor)) {
                    findings.push(Finding::new(
                        source,
                        line,
                        format!("link to {target}: no heading #{anchor}"),
                    ));
                }
            }
        }
    }
    findings
}

/// Every page in docs/ is linked from docs/README.md.
pub(super) fn indexed(sources: &[Source]) -> Vec<Finding> {
    let index = sources.iter().find(|source| source.path == "docs/README.md");
    let linked: BTreeSet<String> = index
        .iter()
        .flat_map(|page| targets(&page.text))
        .map(|(_, target)| join("docs/README.md", target))
        .collect();
    sources
        .iter()
        .filter(|source| {
            is_markdown(source) && source.path.starts_with("docs/") && source.path != "docs/README.md"
        })
        .filter(|source| !linked.contains(&source.path))
        .map(|source| Finding::new(source, 0, "is not linked from docs/README.md"))
        .collect()
}

/// Numbers between the `figures` marks stand in the file that the first mark names.
pub(super) fn figures(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_markdown(source)) {
        let mut measured: Option<(&str, BTreeSet<String>)> = None;
        for (index, line) in source.text.lines().enumerate() {
            if let Some(name) = line
                .strip_prefix(FIGURES)
                .and_then(|rest| rest.strip_suffix(" -->"))
            {
                let run = sources.iter().find(|other| other.path == name);
                if run.is_none() {
                    findings.push(Finding::new(source, index + 1, format!("there is no {name}")));
                }
                measured = run.map(|run| (name, numbers(&run.text)));
            } else if line == FIGURES_END {
                measured = None;
            } else if let Some((name, known)) = &measured {
                for number in numbers(line).difference(known) {
                    findings.push(Finding::new(
                        source,
                        index + 1,
                        format!("{number} is not in {name}"),
                    ));
                }
            }
        }
    }
    findings
}

fn is_markdown(source: &Source) -> bool {
    source.path.ends_with(".md")
}

/// Link targets of a Markdown text with their 1-based lines; fenced code, and links to other hosts, are left out.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let target = rest[..rest.find(')').unwrap_or(rest.len())].trim_matches(['<', '>']);
            if !target.contains("://") && !target.starts_with("mailto:") && !target.is_empty() {
                found.push((index + 1, target));
            }
        }
    }
    found
}

/// `link` as seen from the folder of `from`, without `.` and `..`.
fn join(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The anchors of a Markdown text, as the common hosts make them from headings.
fn headings(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| {
            line.strip_prefix('#')
                .map(|rest| rest.trim_start_matches('#').trim())
        })
        .map(|heading| {
            let kept = heading.to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Numbers as they are written, such as `3`, `0.19` or `76,000`.
fn numbers(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')
        .map(|word| word.trim_matches(['.', ',']).to_owned())
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{printed, source};
    use super::*;

    #[test]
    fn links_resolve() {
        let page = source(
            "docs/a.md",
            "# One Two\n[b](../b.md#x-y) [c](https://x.y/z) [d](#one-two) [e](sub) [f](../)",
        );
        let files = [page, source("b.md", "## X, y"), source("docs/sub/c.md", "")];
        assert_eq!(printed(&links(&files)), Vec::<String>::new());
    }

    #[test]
    fn a_broken_link_is_found() {
        let page = source(
            "docs/a.md",
            "x\n[b](../none.md) [c](#none)\n```\n[d](none.md)\n```\n",
        );
        assert_eq!(
            printed(&links(&[page])),
            [
                "docs/a.md:2: link to ../none.md: there is no none.md",
                "docs/a.md:2: link to #none: no heading #none"
            ]
        );
    }

    #[test]
    fn a_page_outside_the_index_is_found() {
        let files = [
            source("docs/README.md", "[a](a.md)"),
            source("docs/a.md", ""),
            source("docs/b.md", ""),
        ];
        assert_eq!(
            printed(&indexed(&files)),
            ["docs/b.md: is not linked from docs/README.md"]
        );
    }

    #[test]
    fn an_unmeasured_figure_is_found() {
        let readme = |row: &str| {
            source(
                "README.md",
                &format!("{FIGURES}bench/runs/r/summary.md -->\n{row}\n{FIGURES_END}\n9"),
            )
        };
        let run = source("bench/runs/r/summary.md", "| devbox | 4.61 s | 76,012 | 0.19 |");
        assert_eq!(
            figures(&[readme("| devbox | 4.61 s | 76,012, 0.19. |"), run.clone()]),
            []
        );
        assert_eq!(
            printed(&figures(&[readme("| devbox | 4.6 s |"), run])),
            ["README.md:2: 4.6 is not in bench/runs/r/summary.md"]
        );
        assert_eq!(
            printed(&figures(&[readme("1")])),
            ["README.md:1: there is no bench/runs/r/summary.md"]
        );
    }
}
