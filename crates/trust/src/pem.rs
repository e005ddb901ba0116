//! PEM: base64 between lines that say what it is (<https://www.rfc-editor.org/rfc/rfc7468>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::TrustError;

/// A file with a key has at most so many bytes; real ones have a few hundred.
pub(crate) const PEM_MAX: usize = 64 << 10;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The one block of a text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Block<'t> {
    /// What stands behind `BEGIN`.
    pub(crate) label: &'t str,
    /// Lines between `BEGIN` and `END`.
    lines: Vec<&'t str>,
}

impl<'t> Block<'t> {
    /// Finds the only block in `text`. Words before and behind it are allowed, as openssl writes them.
    pub(crate) fn find(text: &'t [u8], what: &'static str) -> Result<Block<'t>, TrustError> {
        let wrong = |problem: &str| TrustError::Corrupt {
            what,
            problem: problem.to_owned(),
        };
        if text.len() > PEM_MAX {
            return Err(wrong("it has more than 64 KiB"));
        }
        let not_text = match text.first() {
            Some(0x30) => "it is binary (DER); `openssl pkey -inform DER` turns it into PEM",
            _ => "it is no text",
        };
        let text = std::str::from_utf8(text).map_err(|_| wrong(not_text))?;
        let mut found: Option<Block<'t>> = None;
        let mut open: Option<Block<'t>> = None;
        for line in text.lines().map(str::trim_end) {
            let named = |mark| line.strip_prefix(mark)?.strip_suffix(DASHES);
            match (&mut open, named(BEGIN), named(END)) {
                (None, Some(label), _) => {
                    let lines = Vec::new();
                    open = Some(Block { label, lines });
                }
                (Some(block), None, Some(label)) if block.label == label => {
                    // Parameters of a curve stand before the key that uses them, and say nothing more.
                    if label != "EC PARAMETERS" && found.replace(block.clone()).is_some() {
                        return Err(wrong("it holds more than one key"));
                    }
                    open = None;
                }
                (Some(_), Some(_), _) | (_, _, Some(_)) => {
                    return Err(wrong("its BEGIN and END lines do not match"));
                }
                (Some(block), None, None) => block.lines.push(line),
                (None, None, None) => {}
            }
        }
        match open {
            Some(_) => Err(wrong("its END line is missing")),
            None => found.ok_or_else(|| wrong("it holds no BEGIN line: it is no PEM")),
        }
    }

    /// Whether its content needs a password, in the way of files before PKCS#8.
    pub(crate) fn encrypted(&self) -> bool {
        self.lines
            .iter()
            .any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
    }

    /// Its content.
    pub(crate) fn bytes(&self, what: &'static str) -> Result<Vec<u8>, TrustError> {
        // The decoder's error would tell a byte of a secret.
        STANDARD
            .decode(self.lines.concat())
            .map_err(|_| TrustError::Corrupt {
                what,
                problem: "what stands between its BEGIN and END lines is not base64".to_owned(),
            })
    }
}

/// The text of a block.
pub(crate) fn encode(label: &str, bytes: &[u8]) -> String {
    let mut text = format!("{BEGIN}{label}{DASHES}\n");
    let content = STANDARD.encode(bytes);
    let mut rest = content.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = behind;
    }
    text + END + label + DASHES + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Result<Vec<u8>, String> {
        let block = Block::find(text.as_bytes(), "a test").map_err(|error| error.to_string())?;
        block.bytes("a test").map_err(|error| error.to_string())
    }

    #[test]
    fn blocks_come_back() {
        for len in [1, 47, 48, 49, 96, 500] {
            let content = vec![7; len];
            let text = encode("PUBLIC KEY", &content);
            assert!(text.lines().all(|line| line.len() <= 64));
            assert_eq!(bytes(&text).unwrap(), content);
            let windows = text.replace('\n', "\r\n");
            assert_eq!(
                bytes(&format!("Key: of a friend\n{windows}\nbye")).unwrap(),
                content
            );
        }
    }

    #[test]
    fn what_is_no_block_is_told() {
        let block = encode("PUBLIC KEY", b"abc");
        for (text, told) in [
            (String::new(), "no BEGIN line"),
            ("ssh-ed25519 AAAA me".to_owned(), "no BEGIN line"),
            (block.clone() + &block, "more than one key"),
            (
                block.replace("-----END PUBLIC KEY-----", ""),
                "END line is missing",
            ),
            (block.replace("END PUBLIC", "END PRIVATE"), "do not match"),
            (block.replace("-----BEGIN PUBLIC KEY-----", ""), "do not match"),
            (block.replace("YWJj", "YW%j"), "not base64"),
            ("x".repeat(PEM_MAX) + &block, "64 KiB"),
        ] {
            let error = bytes(&text).unwrap_err();
            assert!(error.contains(told), "{error:?} does not tell {told:?}");
        }
        let told = |bytes: &[u8]| Block::find(bytes, "a test").err().unwrap().to_string();
        assert!(told(b"\x30\x80\xff").contains("DER"));
        assert!(told(b"\xff").contains("no text"));
    }
}
