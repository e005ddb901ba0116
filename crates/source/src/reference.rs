//! How an OCI image is named: the transports that `skopeo` users know.
//!
//! A *transport* says where an image lies, a *selector* which image of several there. Syntax and the decisions
//! behind it: `docs/sources.md`.

mod bare;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use firebrick_digest::Digest;
use firebrick_registry::{NameError, RegistryReference};

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
    #[error(transparent)]
    Name(#[from] NameError),
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
        return registry(rest);
    }
    if let Some(problem) = bare::check(text) {
        return Err(problem);
    }
    let Some((transport, rest)) = text.split_once(':') else {
        return registry(text);
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
        _ => registry(text),
    }
}

fn registry(text: &str) -> Result<Reference, Problem> {
    Ok(Reference::Registry(text.parse()?))
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

#[cfg(test)]
mod tests;
