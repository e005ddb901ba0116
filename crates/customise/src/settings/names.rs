//! Values of settings, each checked when it is made, so that no text of a user's ends a line of a system file early.

use std::fmt;
use std::str::FromStr;

/// A text that is not such a value. Its text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: {expected}")]
pub struct BadValue {
    pub(crate) text: String,
    pub(crate) what: &'static str,
    pub(crate) expected: &'static str,
}

fn bad<T>(text: &str, what: &'static str, expected: &'static str) -> Result<T, BadValue> {
    Err(BadValue {
        text: text.to_owned(),
        what,
        expected,
    })
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $is_valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadValue;

            fn from_str(text: &str) -> Result<$name, BadValue> {
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(text) {
                    return Ok($name(text.to_owned()));
                }
                bad(text, $what, $expected)
            }
        }
    };
}

/// Longest host name, in bytes (`HOST_NAME_MAX`).
const HOSTNAME_LEN_MAX: usize = 64;
/// Longest part of a host name between dots, in bytes (RFC 1123).
const LABEL_LEN_MAX: usize = 63;
/// Longest name of a user or group, in bytes, as `useradd` has it.
const ACCOUNT_LEN_MAX: usize = 32;

text_type! {
    /// The name of a machine: letters, digits and hyphens, maybe with dots between (RFC 1123).
    Hostname, "host name", "expected letters, digits and hyphens, at most 64 in all", |text| {
        let is_label = |label: &str| {
            let within = (1..=LABEL_LEN_MAX).contains(&label.len());
            let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            within && letters && !label.starts_with('-') && !label.ends_with('-')
        };
        text.len() <= HOSTNAME_LEN_MAX && text.split('.').all(is_label)
    }
}

text_type! {
    /// The name of a user or group: lower case, digits, `_` and `-`, as `useradd` takes them.
    AccountName, "user or group name", "expected lower-case letters, digits, _ and -, a letter or _ first, at most 32", |text| {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let rest = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
        first && rest && text.len() <= ACCOUNT_LEN_MAX
    }
}

text_type! {
    /// A kernel module's name, maybe with parameters behind it, as a line of `modules-load.d`.
    ModuleLine, "kernel module", "expected letters, digits, _ and -", |text| {
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default();
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let is_plain = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        !name.is_empty() && is_name && words.all(is_plain)
    }
}

text_type! {
    /// A terminal's device below `/dev`, such as `ttyS0` or `hvc0`.
    Tty, "terminal", "expected the name of a device without /dev/, such as ttyS0 or hvc0", |text| {
        let letter = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        letter && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }
}

text_type! {
    /// What `crypt(5)` makes of a password: `$6$salt$hash` and the like.
    PasswordHash, "password hash",
    "expected what `openssl passwd -6` prints ($6$SALT$HASH), or \"ask\"; a password itself never stands in a file",
    |text| {
        let mut parts = text.split('$');
        let starts = parts.next() == Some("");
        let method = parts.next().unwrap_or_default();
        let known = ["1", "5", "6", "y", "gy", "7", "2a", "2b", "2y"].contains(&method);
        let rest: Vec<&str> = parts.collect();
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./$=,+-".contains(&byte));
        starts && known && rest.len() >= 2 && rest.iter().all(|part| !part.is_empty()) && plain
            && rest.last().is_some_and(|hash| hash.len() >= 22) && method != "1"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged<T: FromStr>(good: &[&str], wrong: &[&str]) {
        for text in good {
            assert!(text.parse::<T>().is_ok(), "{text:?}");
        }
        for text in wrong {
            assert!(text.parse::<T>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_value_can_end_a_line_or_a_field() {
        let long = "a".repeat(65);
        judged::<Hostname>(
            &["box", "Box-1", "a.b.c", "1"],
            &["", "a b", "a\n", "-a", "a-", "a..b", "ä", "a_b", &long],
        );
        judged::<AccountName>(
            &["app", "_apt", "www-data", "a1"],
            &["", "1a", "A", "a:b", "a\n", "root ", "-a", &long],
        );
        judged::<ModuleLine>(
            &["vsock", "vmw_vsock_virtio_transport", "loop max_loop=8"],
            &["", "a\nb", "../x", "a  b", "a #b", "a\tb"],
        );
        judged::<Tty>(
            &["ttyS0", "hvc0", "ttyAMA0"],
            &["", "/dev/ttyS0", "0", "tty S0", "a\n"],
        );
    }

    #[test]
    fn a_password_is_no_hash() {
        let hash = "$6$saltsalt$3SZcY5N/1GsYv6vMlBHWQyGg7hcSrC0VFXBhmqOHlbzqM7K2l4r9B";
        judged::<PasswordHash>(
            &[hash, "$y$j9T$abcdef$0123456789012345678901234567890123456789012"],
            &[
                "",
                "root",
                "secret$",
                "$6$",
                "$6$salt$",
                "$6$salt$short",
                "$6$a:b$0123456789012345678901",
                "*",
                "!",
                "$1$salt$0123456789012345678901",
                "$6$s\n$0123456789012345678901",
            ],
        );
        let said = "hunter2".parse::<PasswordHash>().unwrap_err().to_string();
        assert!(said.contains("openssl passwd -6"), "{said}");
    }
}
