//! Why an image could not be built.

use std::io;
use std::path::PathBuf;

use firebrick_digest::Digest;
use firebrick_ext4::{PlanError, WriteError};
use firebrick_layer::ScanError;
use firebrick_source::SourceError;
use firebrick_tree::MergeError;

use crate::fullness::Fullness;

/// Why an image could not be built. Nothing is left under the output's name that was not there before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A layer's bytes are not what the config says: retrying cannot help.
    #[error("layer {layer}: diff ID is {actual}, but the config says {expected}")]
    DiffId {
        /// The layer's place, from 0.
        layer: usize,
        /// What the config says.
        expected: Digest,
        /// What the bytes give.
        actual: Digest,
    },
    /// A layer cannot be opened.
    #[error("layer {layer} cannot be opened")]
    Open {
        /// The layer's place, from 0.
        layer: usize,
        /// Why.
        source: Box<SourceError>,
    },
    /// A layer cannot be read or is not a valid tar.
    #[error("layer {layer}{} cannot be scanned", named(*.digest))]
    Scan {
        /// The layer's place, from 0.
        layer: usize,
        /// Its digest as stored, if the source names one.
        digest: Option<Digest>,
        /// What is wrong.
        source: ScanError,
    },
    /// A layer does not fit those below it.
    #[error("layer {layer} cannot be merged with those below it")]
    Merge {
        /// The layer's place, from 0.
        layer: usize,
        /// What is wrong.
        source: MergeError,
    },
    /// The content does not fit the size that was asked for.
    #[error("the content does not fit: {0}")]
    DoesNotFit(Box<Fullness>),
    /// The tree cannot be an ext4 filesystem.
    #[error("the merged layers cannot become an ext4 filesystem")]
    Plan {
        /// Why not.
        source: PlanError,
    },
    /// The tree cannot be a squashfs filesystem.
    #[error("the merged layers cannot become a squashfs filesystem")]
    PlanSquashfs {
        /// Why not.
        source: firebrick_squashfs::PlanError,
    },
    /// The host failed while compressing or writing.
    #[error("cannot write {path:?}")]
    Squashfs {
        /// The output.
        path: PathBuf,
        /// What happened.
        source: firebrick_squashfs::WriteError,
    },
    /// firebrick's own layer could not be made.
    #[error("cannot make the layer that firebrick adds")]
    Customise {
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Whoever takes the merged tree failed.
    #[error("cannot hand on the merged tree")]
    Flatten {
        /// What happened.
        source: io::Error,
    },
    /// The host failed while writing metadata.
    #[error("cannot write {path:?}")]
    Metadata {
        /// The output.
        path: PathBuf,
        /// What happened.
        source: WriteError,
    },
    /// The host failed. The cause is `source`.
    #[error("cannot {doing} {path:?}")]
    Output {
        /// What was being done: `create`, `write`, `finish`.
        doing: &'static str,
        /// The output.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

fn named(digest: Option<Digest>) -> String {
    digest.map(|digest| format!(" ({digest})")).unwrap_or_default()
}

/// An error and its causes in one line, for crossing from one thread to another.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
