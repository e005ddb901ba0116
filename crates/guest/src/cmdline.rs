//! The kernel command line: what the host can tell a guest before the agent answers. `docs/guest.md` lists the options.

use alloc::string::String;
use alloc::vec::Vec;

/// Words that an image keeps for the guest, as if they stood before the kernel's.
const IMAGE_WORDS: &str = "/etc/firebrick/cmdline";

/// A parsed command line.
#[derive(Debug, Default, Clone)]
pub struct Cmdline {
    words: Vec<(String, Option<String>)>,
}

impl Cmdline {
    /// Parses as the kernel does: words are parted by white space outside double quotes, quotes are dropped, and
    /// what follows `--` is not for the kernel.
    pub fn parse(text: &str) -> Cmdline {
        let mut words = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let mut quoted = false;
            let end = rest
                .find(|letter: char| {
                    quoted ^= letter == '"';
                    letter.is_ascii_whitespace() && !quoted
                })
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            if word == "--" {
                break;
            }
            let word = word.replace('"', "");
            words.push(match word.split_once('=') {
                Some((name, value)) => (name.into(), Some(value.into())),
                None => (word, None),
            });
            rest = after.trim_start();
        }
        Cmdline { words }
    }

    /// This machine's: the words that the image keeps, then those of the kernel, which count more. Needs `/proc`.
    pub fn of_this_machine() -> Cmdline {
        let mut cmdline = Cmdline::parse(&crate::file::text(IMAGE_WORDS));
        let kernels = Cmdline::parse(&crate::file::text("/proc/cmdline"));
        cmdline.words.extend(kernels.words);
        cmdline
    }

    /// The value of `name=value`; the last one counts.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.words
            .iter()
            .rev()
            .find(|(word, _)| word == name)?
            .1
            .as_deref()
    }

    /// Whether `name` stands there without a value, and behind it nothing that takes it back.
    pub fn flag_unless(&self, name: &str, taken_back_by: &str) -> bool {
        let last = self
            .words
            .iter()
            .rfind(|(word, value)| value.is_none() && (word == name || word == taken_back_by));
        last.is_some_and(|(word, _)| word == name)
    }
}

/// A number of bytes, with `K`, `M`, `G` or `T` (powers of 1024) or without.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (text.get(..text.len().checked_sub(1)?)?, 1u64 << 10),
        b'M' => (text.get(..text.len().checked_sub(1)?)?, 1 << 20),
        b'G' => (text.get(..text.len().checked_sub(1)?)?, 1 << 30),
        b'T' => (text.get(..text.len().checked_sub(1)?)?, 1 << 40),
        _ => (text, 1),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_values() {
        let line = Cmdline::parse(
            " console=ttyS0 ro root=/dev/vda  init=\"/a b\" \"x=1 2\" ro=5 root=/dev/vdb -- rw\n",
        );
        assert_eq!(line.value("console"), Some("ttyS0"));
        assert_eq!(line.value("root"), Some("/dev/vdb"), "the last one counts");
        assert_eq!(line.value("init"), Some("/a b"));
        assert_eq!(line.value("x"), Some("1 2"));
        assert_eq!(
            [("ro", "rw"), ("rw", "ro"), ("console", "")].map(|(name, other)| line.flag_unless(name, other)),
            [true, false, false]
        );
        assert_eq!(line.value("missing"), None);
        assert!(
            !Cmdline::parse("rw quiet ro").flag_unless("rw", "ro"),
            "the last one counts"
        );
        assert!(Cmdline::parse("ro rw quiet").flag_unless("rw", "ro"));
    }

    #[test]
    fn odd_lines_are_harmless() {
        for text in ["", "   ", "\"", "=", "a=\"b", "\"\"", "--", "é=ü \u{a0}"] {
            let _ = Cmdline::parse(text).value("a");
        }
        assert_eq!(Cmdline::parse("=v").value(""), Some("v"));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65_536),
            ("1g", 1 << 30),
            ("512M", 512 << 20),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "M",
            "-1",
            "+1",
            "1P",
            "1 M",
            "99999999999G",
            "18446744073709551616",
            "1é",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
