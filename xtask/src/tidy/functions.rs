//! How long a function may be.
//!
//! A function is counted from the line of its `fn` to the line of its closing brace. There are no exceptions.

use super::{Finding, Source, lexer};

/// Lines from `fn` to the closing brace.
const LINES: usize = 70;

/// A function and where it stands.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    /// 1-based line of its `fn`.
    line: usize,
    lines: usize,
}

/// No function is longer than 70 lines.
pub(super) fn lengths(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".rs")) {
        for function in functions(&source.text) {
            if function.lines > LINES {
                let message = format!(
                    "function {} has {} lines, {LINES} are allowed",
                    function.name, function.lines
                );
                findings.push(Finding::new(source, function.line, message));
            }
        }
    }
    findings
}

/// The functions of a file, outer and inner ones.
fn functions(text: &str) -> Vec<Function> {
    let code = lexer::code(text);
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
            continue;
        }
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(bytes, at) {
            let line = code[..at].matches('\n').count() + 1;
            let lines = code[at..end].matches('\n').count() + 1;
            found.push(Function { name, line, lines });
        }
    }
    found
}

/// The offset behind the closing brace of the function whose `fn` is at `start`; none for one without a body.
fn body_end(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b'{' => braces += 1,
            b'}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return Some(at + 1);
                }
            }
            b';' if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::{printed, source};
    use super::*;

    fn long(lines: usize) -> String {
        format!("//! x\nfn long() {{\n{}}}\n", "    a();\n".repeat(lines - 2))
    }

    #[test]
    fn functions_are_measured() {
        let text = "trait T {\n    fn none(a: [u8; 2]);\n}\nfn a() {\n    let s = \"}\";\n    fn b() {}\n}\n";
        let expected = [
            Function {
                name: "a".to_owned(),
                line: 4,
                lines: 4,
            },
            Function {
                name: "b".to_owned(),
                line: 6,
                lines: 1,
            },
        ];
        assert_eq!(functions(text), expected);
        assert_eq!(functions("type F = fn (u8);\nlet x: fn() = y;"), []);
    }

    #[test]
    fn a_long_function_is_found() {
        assert_eq!(
            printed(&lengths(&[source("a.rs", &long(70))])),
            Vec::<String>::new()
        );
        assert_eq!(
            printed(&lengths(&[source("a.rs", &long(71))])),
            ["a.rs:2: function long has 71 lines, 70 are allowed"]
        );
    }
}
