//! Rust text with its comments and literals blanked.
//!
//! The rules count braces and look for words; a brace in a string or a word in a comment must not count. [`code`]
//! returns text of the same length and the same lines in which only code is left. It knows strings with escapes, raw
//! strings, byte and C strings, characters, lifetimes, line comments and nested block comments; it need not be more
//! exact than rustc, which has accepted the text before.

/// Blanks everything that is not code; newlines stay.
pub(super) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = at
            + if rest.starts_with(b"//") {
                rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
            } else if rest.starts_with(b"/*") {
                block_comment(rest)
            } else if let Some(length) = raw_string(rest, at.checked_sub(1).map(|before| bytes[before])) {
                length
            } else if rest[0] == b'"' {
                string(rest)
            } else if rest[0] == b'\'' {
                character(rest)
            } else {
                at += 1;
                continue;
            };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while at < rest.len() && depth > 0 {
        if rest[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
        } else {
            at += 1;
        }
    }
    at.min(rest.len())
}

/// The length of a raw string that begins here (`r"`, `r#"`, also after `b` or `c`).
fn raw_string(rest: &[u8], before: Option<u8>) -> Option<usize> {
    let inside_word = before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let prefix = match rest {
        [b'r', ..] if !inside_word => 1,
        [b'b' | b'c', b'r', ..] if !inside_word => 2,
        _ => return None,
    };
    let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    let body = prefix + hashes + 1;
    let length = rest[body..]
        .windows(close.len())
        .position(|window| window == close);
    Some(length.map_or(rest.len(), |length| body + length + close.len()))
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The length of a character literal, or 1 for the tick of a lifetime.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).position(|&b| b == b'\'');
        return close.map_or(1, |close| close + 4);
    }
    // One character of up to four bytes, then the closing tick; a lifetime has no closing tick there.
    let width = match rest.get(1) {
        Some(byte) if *byte >= 0xf0 => 4,
        Some(byte) if *byte >= 0xe0 => 3,
        Some(byte) if *byte >= 0xc0 => 2,
        _ => 1,
    };
    if rest.get(1 + width) == Some(&b'\'') {
        width + 2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left, with runs of blanks as one.
    fn left(text: &str) -> String {
        assert_eq!(code(text).len(), text.len());
        code(text).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_go() {
        assert_eq!(left("a // { b\nc /* { /* } */ { */ d"), "a c d");
        assert_eq!(code("a // b\nc").lines().count(), 2);
    }

    #[test]
    fn strings_go() {
        assert_eq!(left(r#"a("{ \" {", b"{", c) "#), "a( , b , c)");
        assert_eq!(left("x(r#\"{ \" { \"#, br\"\\\", y)"), "x( , , y)");
        assert_eq!(left("var\"{\""), "var");
    }

    #[test]
    fn characters_go_and_lifetimes_stay() {
        assert_eq!(left(r"('{', '\'', '\\', '\u{7b}', 'é', b'{')"), "( , , , , , b )");
        assert_eq!(left("fn a<'x>(b: &'x str) {}"), "fn a< x>(b: & x str) {}");
    }
}
