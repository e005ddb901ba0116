//! Why there is no sandbox, or no layer.

use std::io;
use std::path::PathBuf;

use crate::plan::UnpackError;
use crate::steps::Outcome;

/// Why a sandbox cannot be had, or a step gave no layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The host failed. The cause is `source`.
    #[error("cannot {doing} {path:?}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The kernel, or whoever set this machine or container up, lets nobody have the namespaces.
    #[error("this system gives no sandbox: {why}")]
    NoNamespaces {
        /// What failed, and how.
        why: String,
    },
    /// The keeper could not do its part.
    #[error("in the sandbox: {why}")]
    Inside {
        /// What failed, and how.
        why: String,
    },
    /// The keeper ended without a word: somebody killed it, or memory ran out.
    #[error("the sandbox ended unexpectedly while it was to {doing}")]
    Ended {
        /// What it was to do.
        doing: &'static str,
    },
    /// The base could not be unpacked into the sandbox.
    #[error("cannot unpack the image into the sandbox")]
    Unpack {
        /// Why not.
        source: UnpackError,
    },
    /// A step failed. Nothing of it is kept.
    #[error("{step} {outcome}")]
    Step {
        /// What the step is called.
        step: String,
        /// Whether it had the host's network.
        network: bool,
        /// How it ended.
        outcome: Outcome,
        /// The last lines that it printed.
        tail: String,
    },
    /// The step cannot be asked for like this.
    #[error("{step}: {why}")]
    BadStep {
        /// What the step is called.
        step: String,
        /// What is wrong.
        why: String,
    },
}

impl SandboxError {
    pub(crate) fn host(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> SandboxError {
        let path = path.into();
        move |source| SandboxError::Host { doing, path, source }
    }
}
