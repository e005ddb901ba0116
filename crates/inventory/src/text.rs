//! Bytes from outside as text: nothing here can move a cursor or end a string.

/// Bytes of a name for people: what would move a terminal's cursor, or make a text run the other way, is written as an escape.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character.is_control() || character == '\\' || is_invisible(character) {
                true => text.extend(character.escape_default()),
                false => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Characters that reorder or hide others.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

/// A field of a database as text, cut to what a field may be long.
pub(crate) fn field(bytes: &[u8]) -> String {
    const LEN_MAX: usize = 1024;
    let bytes = bytes.trim_ascii();
    let text = String::from_utf8_lossy(bytes.get(..LEN_MAX).unwrap_or(bytes));
    text.chars()
        .map(
            |character| match character.is_control() || is_invisible(character) {
                true => '\u{fffd}',
                false => character,
            },
        )
        .collect()
}

/// As [`field`]; `None` of nothing.
pub(crate) fn some_field(bytes: &[u8]) -> Option<String> {
    Some(field(bytes)).filter(|text| !text.is_empty())
}

/// `512 B`, `9.4 KiB`, `12.0 MiB`, `1.3 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = [("TiB", 40_u32), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (name, shift) in units {
        let unit = 1_u128.checked_shl(shift).unwrap_or(1);
        if u128::from(bytes) >= unit {
            let half = unit.checked_div(2).unwrap_or(0);
            let tenths = u128::from(bytes)
                .saturating_mul(10)
                .saturating_add(half)
                .checked_div(unit)
                .unwrap_or(0);
            return format!(
                "{}.{} {name}",
                tenths.checked_div(10).unwrap_or(0),
                tenths.checked_rem(10).unwrap_or(0)
            );
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(printable(b"caf\xc3\xa9"), "caf\u{e9}");
        assert_eq!(printable(b"a\x1b[2J\n\\"), "a\\u{1b}[2J\\n\\\\");
        assert_eq!(printable(b"\xff"), "\\xff");
        assert_eq!(printable("a\u{202e}gpj".as_bytes()), "a\\u{202e}gpj");
        assert_eq!(field(b" a\x1b\n "), "a\u{fffd}");
        assert_eq!(some_field(b" \n"), None);
        assert_eq!(field(&[b'x'; 5000]).len(), 1024);
    }

    #[test]
    fn sizes_round_to_a_tenth() {
        for (bytes, text) in [
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((12 << 20) + 53_000, "12.1 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
