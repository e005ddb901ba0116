//! Everything that can go wrong between a reference and its layers' bytes.
//!
//! Variants fall into four groups: the bytes are *corrupt* (trying again cannot help), they are *unsupported*, the
//! *choice* does not name one image, or the *host* or registry failed.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use firebrick_digest::{Digest, Mismatch};
use firebrick_registry::{JsonError, RegistryError, RegistryReference, Trouble};

use crate::platform::Platform;

/// Which part of an OCI image an error speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// An image index, or the `index.json` of a layout.
    Index,
    /// The image's manifest.
    Manifest,
    /// The image's config.
    Config,
    /// A layer, counted from 0 (the lowest).
    Layer(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Index => f.write_str("the image index"),
            Part::Manifest => f.write_str("the manifest"),
            Part::Config => f.write_str("the config"),
            Part::Layer(index) => write!(f, "layer {index}"),
        }
    }
}

/// Why an OCI image cannot be had from its reference.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    // Corrupt.
    /// The text is not the JSON that the specification asks for.
    #[error("{part} ({place}) is not valid")]
    Json {
        /// What was read.
        part: Part,
        /// Where it lies, or its digest.
        place: String,
        /// The parser's words.
        source: JsonError,
    },
    /// Content is not what its descriptor promised.
    #[error("{part} ({promised}) is not what was promised: {mismatch}")]
    Mismatch {
        /// What was read.
        part: Part,
        /// The digest that its descriptor gives.
        promised: Digest,
        /// Expected and found.
        mismatch: Mismatch,
    },
    /// A document breaks a rule of its format.
    #[error("{part} ({place}) is malformed: {problem}")]
    Malformed {
        /// What was read.
        part: Part,
        /// Where it lies, or its digest.
        place: String,
        /// The broken rule.
        problem: &'static str,
    },
    /// A single file is not what its digest promises.
    #[error("{url} is not what was promised: its digest is {actual}, expected {promised}")]
    FileMismatch {
        /// Its address.
        url: String,
        /// The digest that it is pinned to.
        promised: Digest,
        /// The digest that it has.
        actual: Digest,
    },
    /// A single file is longer than can be.
    #[error("{url} has more than {limit} bytes")]
    FileTooLong {
        /// Its address.
        url: String,
        /// The most that it may have.
        limit: u64,
    },
    /// The config and the manifest disagree on the layers.
    #[error("the manifest has {layers} layers, but the config has {diff_ids} diff IDs")]
    LayerCount {
        /// Layers in the manifest.
        layers: usize,
        /// Diff IDs in the config.
        diff_ids: usize,
    },
    /// A limit of [`crate::Limits`] is exceeded.
    #[error("{part} ({place}): {what} is {found}, over the limit of {limit}")]
    Limit {
        /// What was read.
        part: Part,
        /// Where it lies, or its digest.
        place: String,
        /// What is limited, e.g. "its size in bytes".
        what: &'static str,
        /// What was found, or was promised.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A tar archive cannot be read.
    #[error("archive {path:?} is damaged at byte {offset}: {problem}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Where, in bytes of the (uncompressed) archive.
        offset: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// An archive or layout lacks a file that its own documents name.
    #[error("{part}: {name:?} is missing from {place:?}")]
    Missing {
        /// What was looked for.
        part: Part,
        /// The file's name in there.
        name: String,
        /// The archive or layout.
        place: PathBuf,
    },
    /// A name or link leads out of the layout or archive that holds it.
    #[error("{name:?} leads outside {place:?}")]
    Outside {
        /// The name.
        name: String,
        /// The archive or layout.
        place: PathBuf,
    },
    /// Links of an archive lead to one another without end.
    #[error("{name:?} in {place:?} is a loop of links")]
    LinkLoop {
        /// The name.
        name: String,
        /// The archive.
        place: PathBuf,
    },

    // Unsupported.
    /// An image that is made here has no name to open it by.
    #[error("{name} is made here: it lies nowhere that it could be opened from")]
    OnlyMade {
        /// What it is called.
        name: String,
    },
    /// A stream was wanted twice.
    #[error("layer {layer} is a stream that has been read already")]
    OpenedTwice {
        /// Counted from 0.
        layer: usize,
    },
    /// A running Docker daemon would be needed.
    #[error("docker-daemon:{name}: firebrick does not talk to a Docker daemon")]
    DockerDaemon {
        /// The image.
        name: String,
    },
    /// Docker's manifests of before 2016, which name no config.
    #[error("{place}: schema 1 manifests are not supported")]
    Schema1 {
        /// Where the manifest lies.
        place: String,
    },
    /// A layer that must not be distributed, or lies elsewhere by intent.
    #[error(
        "layer {layer} has media type {media_type:?}: non-distributable (foreign) layers are not supported"
    )]
    ForeignLayer {
        /// Counted from 0.
        layer: usize,
        /// Its media type.
        media_type: String,
    },
    /// A media type that is not of a container image.
    #[error("{part} has media type {media_type:?}, which is not supported")]
    MediaType {
        /// What was read.
        part: Part,
        /// Its media type.
        media_type: String,
    },
    /// A digest by another algorithm than SHA-256, or no digest at all.
    #[error("{part} has digest {digest:?}: only sha256 is supported")]
    DigestAlgorithm {
        /// What has that digest.
        part: Part,
        /// The digest as written.
        digest: String,
    },
    /// An archive that is compressed with something else than gzip.
    #[error("archive {path:?} is compressed with {format}, which is not supported for archives")]
    ArchiveCompression {
        /// The archive.
        path: PathBuf,
        /// The compression's name.
        format: &'static str,
    },
    /// A tar that is neither of the archives we know.
    #[error("{path:?} is not {expected}: it has no {lacks}")]
    NotAnArchive {
        /// The file or folder.
        path: PathBuf,
        /// What was asked for.
        expected: &'static str,
        /// The file that must be inside.
        lacks: &'static str,
    },
    /// A folder holds something that a layer cannot carry.
    #[error("{path:?} cannot be put in a layer: {problem}")]
    Unrepresentable {
        /// The file, below the folder.
        path: PathBuf,
        /// Why not.
        problem: &'static str,
    },

    // Choice.
    /// No image for the platform.
    #[error("no image for {wanted}; there is: {}", list(.available))]
    NoPlatform {
        /// What was asked for, or this machine's platform.
        wanted: Platform,
        /// What there is.
        available: Vec<String>,
    },
    /// No image of that name.
    #[error("no image {wanted:?} in {place:?}; there is: {}", list(.available))]
    NoImage {
        /// The selector.
        wanted: String,
        /// How the place is named: `oci`, `oci-archive` or `docker-archive`.
        transport: &'static str,
        /// The archive or layout.
        place: PathBuf,
        /// What there is, as selectors.
        available: Vec<String>,
    },
    /// Several images and no selector.
    #[error("{place:?} holds several images; name one of: {}", list(.available))]
    Ambiguous {
        /// How the place is named: `oci`, `oci-archive` or `docker-archive`.
        transport: &'static str,
        /// The archive or layout.
        place: PathBuf,
        /// What there is, as selectors.
        available: Vec<String>,
    },
    /// Nothing at all.
    #[error("{place:?} holds no image")]
    Empty {
        /// The archive or layout.
        place: PathBuf,
    },

    // Host.
    /// The host's file system failed.
    #[error("cannot {action} {path:?}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file changed while it was read.
    #[error("{path:?} changed while it was read: {what}")]
    Changed {
        /// The file.
        path: PathBuf,
        /// What about it.
        what: &'static str,
    },
    /// Whoever was to make a layer cannot begin.
    #[error("layer {layer} cannot be made")]
    Producer {
        /// Counted from 0.
        layer: usize,
        /// Why not.
        source: io::Error,
    },
    /// The registry has no such image.
    #[error("{reference} does not exist{}", detail(.message))]
    NotFound {
        /// The image.
        reference: Box<RegistryReference>,
        /// The registry's own words, maybe none.
        message: String,
    },
    /// The registry did not give what it was asked for.
    #[error(transparent)]
    Registry(RegistryError),
    /// The download was given up because nobody wanted it any more.
    #[error("the download of layer {layer} was cancelled")]
    Cancelled {
        /// Counted from 0.
        layer: usize,
    },
    /// A failure that several readers share.
    #[error(transparent)]
    Shared(#[from] Arc<SourceError>),
}

impl From<RegistryError> for SourceError {
    fn from(error: RegistryError) -> SourceError {
        match error {
            RegistryError::File { action, path, source } => SourceError::File { action, path, source },
            error => SourceError::Registry(error),
        }
    }
}

impl SourceError {
    /// What the user could do about it, as a sentence without a full stop.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            SourceError::DockerDaemon { name } => {
                format!("run `docker save -o image.tar {name}` and use docker-archive:image.tar")
            }
            SourceError::Schema1 { .. } => "push the image again with a current Docker, or copy it with skopeo".into(),
            SourceError::NoPlatform { .. } => "choose one with --platform".into(),
            SourceError::NoImage { transport, place, available, .. }
            | SourceError::Ambiguous { transport, place, available } => {
                let image = available.first().map_or("TAG", String::as_str);
                format!("write the image after a colon, e.g. {transport}:{}:{image}", place.display())
            }
            SourceError::Missing { part: Part::Index, place, .. } => {
                format!("an image layout has an index.json; a plain root filesystem is dir:{}", place.display())
            }
            SourceError::ArchiveCompression { path, .. } => {
                format!("decompress {} first", path.display())
            }
            SourceError::NotAnArchive { expected, .. } if expected.contains("docker") => {
                "for a plain root filesystem use tar:FILE; for an OCI layout in a tar use oci-archive:FILE".into()
            }
            SourceError::NotAnArchive { .. } => {
                "for a plain root filesystem use tar:FILE or dir:PATH; for `docker save` use docker-archive:FILE".into()
            }
            SourceError::Registry(error) => return error.hint(),
            SourceError::Limit { .. } => "raise the limit if the image is trusted".into(),
            SourceError::Shared(error) => return error.hint(),
            _ => return None,
        };
        Some(hint)
    }

    /// What is in the way of the registry, if that can be told.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            SourceError::Registry(error) => error.trouble(),
            SourceError::Shared(error) => error.trouble(),
            _ => None,
        }
    }

    /// Whether the failure is of the content itself, so that another try would bring the same.
    pub fn is_corrupt(&self) -> bool {
        match self {
            SourceError::Shared(error) => error.is_corrupt(),
            SourceError::Registry(error) => error.is_corrupt(),
            error => matches!(
                error,
                SourceError::Json { .. }
                    | SourceError::FileMismatch { .. }
                    | SourceError::Mismatch { .. }
                    | SourceError::Malformed { .. }
                    | SourceError::LayerCount { .. }
                    | SourceError::Limit { .. }
                    | SourceError::Archive { .. }
                    | SourceError::Missing { .. }
                    | SourceError::Outside { .. }
                    | SourceError::LinkLoop { .. }
            ),
        }
    }

    /// The error as readers give it.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match self.is_corrupt() {
            true => io::ErrorKind::InvalidData,
            false => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

fn list(items: &[String]) -> String {
    match items {
        [] => "nothing".to_owned(),
        items if items.len() > 20 => {
            let shown: Vec<&str> = items.iter().take(20).map(String::as_str).collect();
            format!("{} and more ({} in all)", shown.join(", "), items.len())
        }
        items => items.join(", "),
    }
}

fn detail(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}
