//! How an OCI image is named: the transports that `skopeo` users know.
//!
//! A *transport* says where an image lies, a *selector* which image of several there. Syntax and the decisions
//! behind it: `docs/sources.md`.

mod bare;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use firebrick_digest::Digest;

/// Where an OCI image lies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reference {
    /// `python:3.12-alpine` or `docker://…`: a repository in a registry.
    Registry(RegistryReference),
    /// `oci:DIR[:TAG]`: an OCI image layout.
    OciLayout {
        /// The folder that holds `index.json`.
        path: PathBuf,
        /// Which image, where the layout holds several.
        selector: Option<Selector>,
    },
    /// `oci-archive:FILE[:TAG]`: a tar of an OCI image layout.
    OciArchive {
        /// The tar file, maybe gzip-compressed.
        path: PathBuf,
        /// Which image, where the archive holds several.
        selector: Option<Selector>,
    },
    /// `docker-archive:FILE[:REF]`: what `docker save` writes.
    DockerArchive {
        /// The tar file, maybe gzip-compressed.
        path: PathBuf,
        /// Which image, where the archive holds several.
        selector: Option<Selector>,
    },
    /// `docker-daemon:REF`: understood, but never opened; firebrick needs no daemon.
    DockerDaemon {
        /// The image's name as the daemon knows it.
        name: String,
    },
    /// `tar:FILE`: one root filesystem as a tar, maybe compressed.
    Tar {
        /// The tar file.
        path: PathBuf,
    },
    /// No place: its layers are made here ([`OciImage::from_layers`](crate::OciImage::from_layers)). No text is parsed to this.
    Made {
        /// What it is, for people.
        name: String,
    },
    /// `dir:PATH`: one root filesystem as a folder.
    Dir {
        /// The folder that becomes `/`.
        path: PathBuf,
    },
}

/// Which image of several in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// By tag or by name.
    Name(String),
    /// By the digest of its manifest or index, written `@sha256:…`.
    Digest(Digest),
    /// By its 0-based place in the archive, written `@N` (docker-archive only).
    Index(usize),
}

/// A repository in a registry, with a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryReference {
    /// The registry's host and maybe port, e.g. `docker.io` or `localhost:5000`.
    pub registry: String,
    /// The repository in full, e.g. `library/python`.
    pub repository: String,
    /// The tag; `latest` if neither tag nor digest was written.
    pub tag: Option<String>,
    /// The digest of the manifest or index; where both are given it decides, and the tag is only for people.
    pub digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not an image reference: {problem}")]
pub struct ParseReferenceError {
    text: String,
    problem: Problem,
}

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
enum Problem {
    #[error("it is empty")]
    Empty,
    #[error("a path must follow the transport")]
    NoPath,
    #[error("write a repository's name, not a web address")]
    WebAddress,
    #[error("it is a path: write {0}")]
    Path(String),
    #[error("{0}")]
    Found(String),
    #[error("{0}")]
    OtherTransport(String),
    #[error("repository names are lower-case letters, digits and single separators, at most 255 bytes")]
    Repository,
    #[error("the registry's host and port are malformed")]
    Registry,
    #[error("a tag is up to 128 letters, digits, '_', '.' and '-', and starts with a letter, digit or '_'")]
    Tag,
    #[error("after '@' stands sha256: and 64 lower-case hex digits")]
    Digest,
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Reference, ParseReferenceError> {
        parse(text).map_err(|problem| ParseReferenceError::new(text, problem))
    }
}

impl ParseReferenceError {
    fn new(text: &str, problem: Problem) -> ParseReferenceError {
        ParseReferenceError {
            text: text.chars().take(300).collect(),
            problem,
        }
    }
}

impl Reference {
    /// Parses what a person has written. As [`Reference::from_str`], but a bare name that is also a file or an
    /// image layout here is an error, which says how to write either.
    ///
    /// # Errors
    /// [`ParseReferenceError`], ready to be shown.
    pub fn from_argument(text: &str) -> Result<Reference, ParseReferenceError> {
        match bare::found(text) {
            Some(problem) => Err(ParseReferenceError::new(text, problem)),
            None => text.parse(),
        }
    }
}

fn parse(text: &str) -> Result<Reference, Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Err(Problem::WebAddress);
    }
    if let Some(rest) = text.strip_prefix("docker://") {
        return parse_registry(rest).map(Reference::Registry);
    }
    if let Some(problem) = bare::check(text) {
        return Err(problem);
    }
    let Some((transport, rest)) = text.split_once(':') else {
        return parse_registry(text).map(Reference::Registry);
    };
    match transport {
        "oci" => split_path(rest, false).map(|(path, selector)| Reference::OciLayout { path, selector }),
        "oci-archive" => {
            split_path(rest, false).map(|(path, selector)| Reference::OciArchive { path, selector })
        }
        "docker-archive" => {
            split_path(rest, true).map(|(path, selector)| Reference::DockerArchive { path, selector })
        }
        "docker-daemon" if rest.is_empty() => Err(Problem::Empty),
        "docker-daemon" => Ok(Reference::DockerDaemon {
            name: rest.to_owned(),
        }),
        "tar" => whole_path(rest).map(|path| Reference::Tar { path }),
        "dir" => whole_path(rest).map(|path| Reference::Dir { path }),
        _ => parse_registry(text).map(Reference::Registry),
    }
}

fn whole_path(text: &str) -> Result<PathBuf, Problem> {
    if text.is_empty() {
        return Err(Problem::NoPath);
    }
    Ok(PathBuf::from(text))
}

/// Splits at the first colon, as `skopeo` does, so that the selector may hold colons of its own.
fn split_path(text: &str, by_index: bool) -> Result<(PathBuf, Option<Selector>), Problem> {
    let (path, selector) = text.split_once(':').unwrap_or((text, ""));
    let path = whole_path(path)?;
    let selector = match selector.strip_prefix('@') {
        None if selector.is_empty() => None,
        None => Some(Selector::Name(selector.to_owned())),
        Some(index) if by_index && !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()) => {
            Some(Selector::Index(index.parse().map_err(|_| Problem::Digest)?))
        }
        Some(digest) => Some(Selector::Digest(digest.parse().map_err(|_| Problem::Digest)?)),
    };
    Ok((path, selector))
}

fn parse_registry(text: &str) -> Result<RegistryReference, Problem> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse().map_err(|_| Problem::Digest)?)),
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
        return Err(Problem::Empty);
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(Problem::Tag);
    }
    let (registry, repository) = match name.split_once('/') {
        Some((host, rest)) if is_host(host) => (host, rest),
        _ => ("docker.io", name),
    };
    if !host_is_well_formed(registry) {
        return Err(Problem::Registry);
    }
    let registry = match registry {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    if !is_repository(repository) {
        return Err(Problem::Repository);
    }
    let repository = match registry == "docker.io" && !repository.contains('/') {
        true => format!("library/{repository}"),
        false => repository.to_owned(),
    };
    let tag = match (tag, &digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(RegistryReference {
        registry: registry.to_owned(),
        repository,
        tag,
        digest,
    })
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

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, selector) = match self {
            Reference::Registry(reference) => return fmt::Display::fmt(reference, f),
            Reference::DockerDaemon { name } => return write!(f, "docker-daemon:{name}"),
            Reference::Made { name } => return f.write_str(name),
            Reference::OciLayout { path, selector } => ("oci", path, selector),
            Reference::OciArchive { path, selector } => ("oci-archive", path, selector),
            Reference::DockerArchive { path, selector } => ("docker-archive", path, selector),
            Reference::Tar { path } => ("tar", path, &None),
            Reference::Dir { path } => ("dir", path, &None),
        };
        write!(f, "{transport}:{}", path.display())?;
        match selector {
            None => Ok(()),
            Some(selector) => write!(f, ":{selector}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Name(name) => f.write_str(name),
            Selector::Digest(digest) => write!(f, "@{digest}"),
            Selector::Index(index) => write!(f, "@{index}"),
        }
    }
}

impl fmt::Display for RegistryReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl RegistryReference {
    /// What stands after `/manifests/` in a request: the digest if there is one, else the tag.
    pub(crate) fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
