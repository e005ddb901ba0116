//! What is wrong with a text, where, and what was probably meant.

use std::fmt;
use std::ops::Range;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the text, mostly a path.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The whole line.
    pub text: String,
    /// How many characters of it are meant.
    pub width: usize,
    /// What is wrong.
    pub message: String,
}

/// All that is wrong with a text, in its order. At least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            file,
            line,
            column,
            text,
            width,
            message,
        } = self;
        writeln!(f, "{file}:{line}:{column}: {message}")?;
        let shown: String = text.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
        writeln!(f, "{line:>4} | {shown}")?;
        write!(
            f,
            "     | {}{}",
            " ".repeat(column - 1),
            "^".repeat((*width).max(1))
        )
    }
}

/// A text with a name, in which places are bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'t> {
    pub(crate) name: &'t str,
    pub(crate) text: &'t str,
}

impl Source<'_> {
    /// A problem with these bytes of the text.
    pub(crate) fn problem(&self, at: Range<usize>, message: String) -> Problem {
        let start = floor(self.text, at.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = &self.text[line_start..];
        let line = line.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let end = floor(self.text, at.end.max(start))
            .min(line_start + line.len())
            .max(start);
        Problem {
            file: self.name.to_owned(),
            line: self.line_of(start),
            column: self.text[line_start..start].chars().count() + 1,
            text: line.chars().take(200).collect(),
            width: self.text[start..end].chars().count(),
            message,
        }
    }

    /// The line of a byte, from 1.
    pub(crate) fn line_of(&self, at: usize) -> usize {
        self.text[..floor(self.text, at)].matches('\n').count() + 1
    }
}

/// The last place at or before `at` where a character begins.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// ` (did you mean "x"?)`, if one of `known` is near.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let lower = word.to_lowercase().replace('-', "_");
    let near = known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min();
    match near {
        Some((_, known)) => format!("; did you mean {known:?}?"),
        None => String::new(),
    }
}
