//! Words from outside, made fit for a message: short, and unable to move a terminal's cursor.

/// At most 150 characters of `text`, control characters escaped.
pub fn quoted(text: &str) -> String {
    quoted_to(150, text)
}

/// At most `max` characters of `text`, control characters escaped.
pub fn quoted_to(max: usize, text: &str) -> String {
    let mut out = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == max {
            out.push('…');
            break;
        }
        match is_unsafe(character) {
            true => out.extend(character.escape_unicode()),
            false => out.push(character),
        }
    }
    out
}

/// Control characters, and those that turn the direction of text or show as nothing.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// What a JSON parser says, without more than a little of what it read.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct JsonError {
    message: String,
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> JsonError {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let words = error.to_string();
        let words = quoted(words.strip_suffix(&place).unwrap_or(&words));
        JsonError {
            message: format!("{words}{place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotations_are_short_and_tame() {
        assert_eq!(quoted("plain text"), "plain text");
        assert_eq!(quoted("\u{1b}[2J\n\u{202e}"), "\\u{1b}[2J\\u{a}\\u{202e}");
        assert_eq!(quoted(&"x".repeat(150)), "x".repeat(150));
        assert_eq!(quoted(&"é".repeat(5000)), "é".repeat(150) + "…");
    }

    #[test]
    fn parsers_words_keep_their_place() {
        let text = format!("\n[\"{}\\u001b[2J\"]", "x".repeat(1 << 20));
        let error = serde_json::from_str::<Vec<u64>>(&text).unwrap_err();
        let long = error.to_string();
        let error = JsonError::from(error).to_string();
        assert!(long.len() > 1 << 20 && error.len() < 250, "{error}");
        assert!(error.starts_with("invalid type: string \"xxx"), "{error}");
        assert!(error.contains("… at line 2 column "), "{error}");
        let error = serde_json::from_str::<Vec<u64>>("[\"\u{1b}\"]").unwrap_err();
        assert_eq!(
            JsonError::from(error).to_string(),
            "control character (\\u0000-\\u001F) found while parsing a string at line 1 column 3"
        );
        let error = serde_json::from_str::<Vec<u64>>(r#"["\u001b[31m"]"#).unwrap_err();
        let error = JsonError::from(error).to_string();
        assert!(!error.contains('\u{1b}') && error.contains("[31m"), "{error}");
    }
}
