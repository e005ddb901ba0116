//! What images are called in a store: `NAME[:TAG]` and `NAME[:TAG]@DIGEST`.

use std::fmt;
use std::str::FromStr;

use firebrick_digest::Digest;

/// The name of an image: what is behind `rootfs-` in its file's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// One of an image's names inside its name; `latest` where none is said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseNameError {
    /// The name.
    #[error(
        "{0:?} is no name: it has up to 64 letters, digits, dots, dashes, underscores and pluses, and begins with a letter or digit"
    )]
    Name(String),
    /// The tag.
    #[error(
        "{0:?} is no tag: it has up to 64 letters, digits, dots, dashes and underscores, and does not begin with a dot or dash"
    )]
    Tag(String),
    /// The digest.
    #[error("{0:?} is no digest: it is sha256: and 64 hex digits")]
    Digest(String),
}

const LEN_MAX: usize = 64;

fn fits(text: &str, first: impl Fn(u8) -> bool, rest: impl Fn(u8) -> bool) -> bool {
    (1..=LEN_MAX).contains(&text.len()) && text.bytes().next().is_some_and(first) && text.bytes().all(rest)
}

/// As much of a wrong text as an error shows.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

impl FromStr for Name {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Name, ParseNameError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
        match fits(text, |first| first.is_ascii_alphanumeric(), good) {
            true => Ok(Name(text.to_owned())),
            false => Err(ParseNameError::Name(shown(text))),
        }
    }
}

impl FromStr for Tag {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Tag, ParseNameError> {
        let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match fits(text, first, |byte| first(byte) || b".-".contains(&byte)) {
            true => Ok(Tag(text.to_owned())),
            false => Err(ParseNameError::Tag(shown(text))),
        }
    }
}

impl Default for Tag {
    fn default() -> Tag {
        Tag("latest".to_owned())
    }
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `NAME:TAG`, the one thing in a store that changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tagged {
    /// Which image.
    pub name: Name,
    /// Under which of its tags.
    pub tag: Tag,
}

impl fmt::Display for Tagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

impl FromStr for Tagged {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Tagged, ParseNameError> {
        let (name, tag) = match text.split_once(':') {
            Some((name, tag)) => (name, tag.parse()?),
            None => (text, Tag::default()),
        };
        Ok(Tagged {
            name: name.parse()?,
            tag,
        })
    }
}

/// One version of an image: the current one of a tag, or the one with a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Name and tag.
    pub tagged: Tagged,
    /// Which version; `None` for the current one.
    pub digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Reference, ParseNameError> {
        let (tagged, digest) = match text.split_once('@') {
            Some((tagged, digest)) => {
                let parsed = digest
                    .parse()
                    .map_err(|_| ParseNameError::Digest(shown(digest)))?;
                (tagged, Some(parsed))
            }
            None => (text, None),
        };
        Ok(Reference {
            tagged: tagged.parse()?,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Some(digest) => write!(f, "{}@{digest}", self.tagged),
            None => self.tagged.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "-x",
            "a b",
            "a\n",
            "ü",
            "a:",
            "a:.x",
            "a:b:c",
            "a:b/c",
            "a@",
            "a@sha256:1",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        let digest = Digest::of(b"x");
        for (good, shown) in [
            ("python", "python:latest".to_owned()),
            ("c++:v1.2-rc_1", "c++:v1.2-rc_1".to_owned()),
            (&*format!("a@{digest}"), format!("a:latest@{digest}")),
            (&*format!("a:b@{digest}"), format!("a:b@{digest}")),
        ] {
            assert_eq!(good.parse::<Reference>().unwrap().to_string(), shown);
        }
        assert!("x".repeat(65).parse::<Name>().is_err());
        assert!("x".repeat(65).parse::<Tag>().is_err());
    }
}
