//! Names as people write them: a repository in a registry, a tag, both together.
//!
//! Grammar: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>. What is shorter than
//! that means Docker Hub, as Docker has it.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::fmt;
use std::str::FromStr;

use firebrick_digest::Digest;

/// A registry and a repository in it. Written out, the registry always stands first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepositoryName {
    /// The registry's host and maybe port, e.g. `docker.io` or `localhost:5000`.
    pub registry: String,
    /// The repository in full, e.g. `library/python`.
    pub repository: String,
}

/// A well-formed tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(String);

/// How a manifest is asked for: what the distribution specification calls a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// By what the repository calls it, for now.
    Tag(Tag),
    /// By its own digest.
    Digest(Digest),
}

/// A repository in a registry, with a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryReference {
    /// The registry and the repository.
    pub name: RepositoryName,
    /// The tag; `latest` if neither tag nor digest was written.
    pub tag: Option<Tag>,
    /// The digest of the manifest or index; where both are given it decides, and the tag is only for people.
    pub digest: Option<Digest>,
}

/// Why a text is not such a name.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// There is no text.
    #[error("it is empty")]
    Empty,
    /// The repository's part is no such name.
    #[error("repository names are lower-case letters, digits and single separators, at most 255 bytes")]
    Repository,
    /// The registry's part is no host.
    #[error("the registry's host and port are malformed")]
    Registry,
    /// Nothing follows the registry.
    #[error("after the registry's host stand a slash and the repository's name")]
    NoRepository,
    /// The tag's part is no tag.
    #[error("a tag is up to 128 letters, digits, '_', '.' and '-', and starts with a letter, digit or '_'")]
    Tag,
    /// The digest's part is no SHA-256.
    #[error("after '@' stands sha256: and 64 lower-case hex digits")]
    Digest,
}

impl FromStr for RepositoryName {
    type Err = NameError;

    /// Takes `HOST[:PORT]/PATH`. What stands before the first slash is the host, dots or not: nobody's store is on Docker Hub by
    /// accident.
    fn from_str(text: &str) -> Result<RepositoryName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let (registry, repository) = text.split_once('/').ok_or(NameError::NoRepository)?;
        RepositoryName::new(registry, repository)
    }
}

impl RepositoryName {
    fn new(registry: &str, repository: &str) -> Result<RepositoryName, NameError> {
        if !host_is_well_formed(registry) {
            return Err(NameError::Registry);
        }
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        if !is_repository(repository) {
            return Err(NameError::Repository);
        }
        let repository = match registry == "docker.io" && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        Ok(RepositoryName {
            registry: registry.to_owned(),
            repository,
        })
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Tag, NameError> {
        match is_tag(text) {
            true => Ok(Tag(text.to_owned())),
            false => Err(NameError::Tag),
        }
    }
}

impl Tag {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Under which the referrers of a manifest are listed where the registry does not list them by itself
    /// (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema>).
    pub fn of_referrers(subject: Digest) -> Tag {
        Tag(format!("sha256-{}", subject.hex()))
    }
}

impl From<Digest> for ManifestName {
    fn from(digest: Digest) -> ManifestName {
        ManifestName::Digest(digest)
    }
}

impl From<Tag> for ManifestName {
    fn from(tag: Tag) -> ManifestName {
        ManifestName::Tag(tag)
    }
}

impl FromStr for RegistryReference {
    type Err = NameError;

    /// Takes what Docker takes: what does not begin with a host is on Docker Hub.
    fn from_str(text: &str) -> Result<RegistryReference, NameError> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|_| NameError::Digest)?)),
            None => (text, None),
        };
        // A colon after the last slash starts the tag; any other belongs to the registry's port.
        let last = name
            .rfind('/')
            .map_or(name, |slash| name.get(slash..).unwrap_or(""));
        let (name, tag) = match last.contains(':') && !last.ends_with(']') {
            true => name
                .rsplit_once(':')
                .map_or((name, None), |(name, tag)| (name, Some(tag))),
            false => (name, None),
        };
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(Tag("latest".to_owned())),
            (tag, _) => tag.map(str::parse).transpose()?,
        };
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if is_host(host) => (host, rest),
            _ => ("docker.io", name),
        };
        Ok(RegistryReference {
            name: RepositoryName::new(registry, repository)?,
            tag,
            digest,
        })
    }
}

impl RegistryReference {
    /// What the manifest is asked for by: the digest if there is one, else the tag.
    pub fn manifest_name(&self) -> ManifestName {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => ManifestName::Digest(*digest),
            (None, Some(tag)) => ManifestName::Tag(tag.clone()),
            (None, None) => ManifestName::Tag(Tag("latest".to_owned())),
        }
    }
}

/// Docker's rule: the part before the first slash is a host if it could not be a folder of Docker Hub.
fn is_host(text: &str) -> bool {
    text == "localhost"
        || text.contains(['.', ':', '['])
        || text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn host_is_well_formed(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return false;
                }
                ("ipv6", port)
            }
            None => return false,
        },
        None => match text.find(':') {
            Some(colon) => text.split_at(colon),
            None => (text, ""),
        },
    };
    let port_is_good = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let host_is_good = !host.is_empty()
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    port_is_good && host_is_good
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    let first = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first && tag.len() <= 128 && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_repository(name: &str) -> bool {
    name.len() <= 255 && name.split('/').all(is_path_component)
}

/// Lower-case letters and digits, joined by one dot, one or two underscores, or any number of dashes.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes.split(alphanumeric).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
    })
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ManifestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestName::Tag(tag) => tag.fmt(f),
            ManifestName::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_begins_with_its_host() {
        for (text, expected) in [
            ("lab/images", "lab/images"),
            ("localhost:5000/a/b", "localhost:5000/a/b"),
            ("index.docker.io/joe/x", "docker.io/joe/x"),
            ("docker.io/x", "docker.io/library/x"),
        ] {
            let name: RepositoryName = text.parse().unwrap();
            assert_eq!(name.to_string(), expected, "{text}");
            assert_eq!(expected.parse(), Ok(name));
        }
        for (text, why) in [
            ("", NameError::Empty),
            ("images", NameError::NoRepository),
            ("lab/", NameError::Repository),
            ("lab/x:v1", NameError::Repository),
            ("lab/../x", NameError::Repository),
            ("lab:0/x", NameError::Registry),
            ("joe@lab/x", NameError::Registry),
            ("https://lab/x", NameError::Registry),
        ] {
            assert_eq!(text.parse::<RepositoryName>(), Err(why), "{text}");
        }
    }

    #[test]
    fn tags_cannot_lead_elsewhere() {
        for text in ["", "..", "a/b", "-a", "a b", "a?b", "a%2fb", &"x".repeat(129)] {
            assert_eq!(text.parse::<Tag>(), Err(NameError::Tag), "{text}");
        }
        assert_eq!("_1.x-Y".parse::<Tag>().unwrap().as_str(), "_1.x-Y");
    }
}
