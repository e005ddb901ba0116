//! The lines of a Dockerfile: comments taken out, continued ones joined, here documents with what they belong to.

use std::ops::Range;

use crate::problem::{Problem, Source};

/// An instruction and what stands behind it.
#[derive(Debug)]
pub(super) struct Line {
    /// As it is written.
    pub(super) instruction: String,
    /// Where.
    pub(super) word: Range<usize>,
    /// What stands behind it, in one line.
    pub(super) rest: String,
    /// Where that begins and ends.
    pub(super) rest_span: Range<usize>,
    /// The text of a here document, and the words of the line without its mark; whether variables in it mean anything.
    pub(super) here: Option<Here>,
}

/// A here document.
#[derive(Debug)]
pub(super) struct Here {
    /// Its lines.
    pub(super) text: String,
    /// Whether its mark is quoted, so that `$` stands for itself.
    pub(super) is_literal: bool,
}

/// Splits the text.
pub(super) fn read(source: Source<'_>) -> Result<Vec<Line>, Problem> {
    let mut lines = Vec::new();
    let mut rest = Numbered {
        text: source.text.trim_start_matches('\u{feff}'),
        at: source.text.len() - source.text.trim_start_matches('\u{feff}').len(),
    };
    directives(source, &rest)?;
    while let Some((start, raw)) = rest.next() {
        let trimmed = raw.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let word_at = start + (raw.len() - trimmed.len());
        let mut joined = String::new();
        let mut end = start + raw.len();
        let mut piece = trimmed;
        while let Some(open) = piece.trim_end().strip_suffix('\\') {
            joined.push_str(open);
            // Comments and blank lines between are no end.
            let next = loop {
                match rest.next() {
                    Some((_, line)) if line.trim().is_empty() || line.trim_start().starts_with('#') => {}
                    next => break next,
                }
            };
            let Some((next_at, line)) = next else {
                piece = "";
                break;
            };
            end = next_at + line.len();
            piece = line;
        }
        joined.push_str(piece);
        let joined = joined.trim_end();
        let (instruction, behind) = joined.split_once(char::is_whitespace).unwrap_or((joined, ""));
        let word = word_at..word_at + instruction.len();
        let mut line = Line {
            instruction: instruction.to_owned(),
            rest_span: (word.end + 1).min(end)..end,
            word,
            rest: behind.trim().to_owned(),
            here: None,
        };
        if line.rest.is_empty() {
            line.rest_span = line.word.clone();
        }
        here(source, &mut line, &mut rest)?;
        lines.push(line);
    }
    Ok(lines)
}

/// `# escape=` changes what everything else means.
fn directives(source: Source<'_>, rest: &Numbered<'_>) -> Result<(), Problem> {
    let rest = Numbered {
        text: rest.text,
        at: rest.at,
    };
    for (start, line) in rest {
        let Some(comment) = line.trim_start().strip_prefix('#') else {
            return Ok(());
        };
        let Some((name, value)) = comment.split_once('=') else {
            return Ok(());
        };
        if name.trim().eq_ignore_ascii_case("escape") && value.trim() != "\\" {
            let message = format!(
                "lines are continued with a backslash, not with {:?}",
                value.trim()
            );
            return Err(source.problem(start..start + line.len(), message));
        }
    }
    Ok(())
}

/// Takes the lines of a here document, if the line opens one.
fn here(source: Source<'_>, line: &mut Line, rest: &mut Numbered<'_>) -> Result<(), Problem> {
    let takes = ["run", "copy", "add"].contains(&line.instruction.to_ascii_lowercase().as_str());
    let Some(at) = line.rest.find("<<").filter(|_| takes) else {
        return Ok(());
    };
    let behind = &line.rest[at + 2..];
    // A shell's own: `cat <<EOF` behind other words of RUN is read the same way, `<<<` and `<< 2` are not.
    let opens_run = line.instruction.eq_ignore_ascii_case("run");
    let (strips_tabs, mark) = match behind.strip_prefix('-') {
        Some(mark) => (true, mark),
        None => (false, behind),
    };
    let word: String = mark.chars().take_while(|c| !c.is_whitespace()).collect();
    let name = word.trim_matches(|c| c == '"' || c == '\'');
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if !is_name {
        return Ok(());
    }
    let is_literal = name.len() != word.len();
    let mark_len = behind.len() - mark.len() + word.len();
    let others = [&line.rest[..at], &line.rest[at + 2 + mark_len..]].concat();
    if others.contains("<<") {
        let message = "one here document a line is read: use several instructions".to_owned();
        return Err(source.problem(line.rest_span.clone(), message));
    }
    let mut text = String::new();
    loop {
        let Some((_, next)) = rest.next() else {
            let message = format!("the here document has no end: a line that is {name} alone");
            return Err(source.problem(line.rest_span.clone(), message));
        };
        let next = if strips_tabs {
            next.trim_start_matches('\t')
        } else {
            next
        };
        if next == name {
            break;
        }
        text.push_str(next);
        text.push('\n');
    }
    if opens_run && !others.trim().is_empty() {
        // The shell reads it itself.
        line.rest = format!("{}\n{text}{name}\n", line.rest);
        return Ok(());
    }
    line.rest = others.trim().to_owned();
    line.here = Some(Here { text, is_literal });
    Ok(())
}

/// The lines of a text with the places where they begin; what ends them is not in them.
struct Numbered<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Iterator for Numbered<'t> {
    type Item = (usize, &'t str);

    fn next(&mut self) -> Option<(usize, &'t str)> {
        if self.text.is_empty() {
            return None;
        }
        let start = self.at;
        let (line, rest) = self.text.split_once('\n').unwrap_or((self.text, ""));
        self.at += self.text.len() - rest.len();
        self.text = rest;
        Some((start, line.strip_suffix('\r').unwrap_or(line)))
    }
}
