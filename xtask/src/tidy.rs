//! The house rules, as checks.
//!
//! A *source* is one tracked text file; a *rule* is a pure function from sources to *findings*; a finding names a
//! file, a line (1-based, 0 for the whole file) and what is wrong. Only [`run`] touches the disk.

mod docs;
mod functions;
mod lexer;
mod manifests;
mod text;

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};

/// One tracked text file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Path from the workspace root, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

/// One thing that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    pub(crate) fn new(source: &Source, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: source.path.clone(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}: {}", self.path, self.message),
            line => write!(out, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Checks the workspace at `root`, prints the findings, and tells whether there was none.
///
/// # Errors
/// When git or cargo cannot be asked, or a tracked file cannot be read.
pub(crate) fn run(root: &Path) -> Result<bool> {
    let sources = sources(root)?;
    let crates = manifests::crates(&crate::metadata(root, &["--no-deps"])?)?;
    let mut findings = check(&sources);
    findings.extend(manifests::directions(&crates));
    findings.extend(manifests::mapped(&crates, &sources));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} findings", sources.len(), findings.len());
    Ok(findings.is_empty())
}

/// Every rule that looks at files alone.
fn check(sources: &[Source]) -> Vec<Finding> {
    [
        text::sizes(sources),
        text::words(sources),
        text::places(sources),
        text::front_pages(sources),
        functions::lengths(sources),
        docs::links(sources),
        docs::indexed(sources),
        docs::figures(sources),
    ]
    .concat()
}

/// Reads every file that git tracks or would track; files that are not text are left out.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let listed = crate::output(
        root,
        "git",
        &["ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    )?;
    let mut sources = Vec::new();
    for path in String::from_utf8(listed)
        .context("a tracked path is not UTF-8")?
        .split('\0')
    {
        let full = root.join(path);
        if path.is_empty() || !full.is_file() {
            continue; // deleted in the work tree, or a link to a folder
        }
        let bytes = std::fs::read(&full).with_context(|| format!("cannot read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source {
                path: path.to_owned(),
                text,
            });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources.dedup_by(|a, b| a.path == b.path);
    Ok(sources)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A source for the rules' own tests.
    pub(crate) fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The findings as they are printed.
    pub(crate) fn printed(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn findings_name_file_and_line() {
        let file = source("a.rs", "");
        assert_eq!(Finding::new(&file, 3, "wrong").to_string(), "a.rs:3: wrong");
        assert_eq!(Finding::new(&file, 0, "wrong").to_string(), "a.rs: wrong");
    }
}
