//! Everything that can go wrong between us and a registry.
//!
//! Variants fall into three groups: the bytes are *corrupt* (trying again cannot help), what is wanted is *unsupported*, or
//! the *host* or registry failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use firebrick_digest::{Digest, Mismatch};

use crate::quote::JsonError;
use crate::trouble::{self, Trouble};

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    // Corrupt.
    /// Content is not what its digest promised.
    #[error("{what} is not what was promised: {mismatch}")]
    Mismatch {
        /// What was read, e.g. `manifest sha256:… of host/repository`.
        what: String,
        /// Expected and found.
        mismatch: Mismatch,
    },
    /// The registry's digest header does not describe the manifest it came with.
    #[error("the registry says that the manifest of {name} is {header}, but its bytes are {actual}")]
    DigestHeader {
        /// The registry, the repository and the tag.
        name: String,
        /// The header's digest.
        header: Digest,
        /// The bytes' digest.
        actual: Digest,
    },
    /// The registry keeps what it was given under another digest than ours.
    #[error("{url}: the registry took {expected} for {found}")]
    Stored {
        /// The address.
        url: String,
        /// What we sent.
        expected: Digest,
        /// What the registry says that it was.
        found: Digest,
    },
    /// An answer is longer than it may be.
    #[error("{url}: its size in bytes is at least {found}, over the limit of {limit}")]
    TooLarge {
        /// The address.
        url: String,
        /// How many bytes came before we stopped.
        found: u64,
        /// How many there may be.
        limit: u64,
    },
    /// A listing does not end.
    #[error("{url}: the listing has more than {limit} {what}")]
    Endless {
        /// The address.
        url: String,
        /// What there is too much of: pages, entries, bytes.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A blob ends before the bytes that were asked for.
    #[error("{digest} in {repository} has {found} bytes, but bytes up to {expected} were asked for")]
    Short {
        /// The registry and the repository.
        repository: String,
        /// The blob.
        digest: Digest,
        /// The end of what was asked for, in bytes from the blob's start.
        expected: u64,
        /// How many bytes there are.
        found: u64,
    },
    /// An answer is not the JSON that the specification asks for.
    #[error("the answer of {url} is not valid")]
    Json {
        /// The address.
        url: String,
        /// The parser's words.
        source: JsonError,
    },

    // Unsupported.
    /// The registry does not do such things.
    #[error("{registry} does not support to {action}{}", detail(.message))]
    Unsupported {
        /// The registry.
        registry: String,
        /// What was wanted.
        action: &'static str,
        /// The registry's own words, maybe none.
        message: String,
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
    /// The registry has no such thing.
    #[error("{name} does not exist{}", detail(.message))]
    NotFound {
        /// What, with its registry and repository.
        name: String,
        /// The registry's own words, maybe none.
        message: String,
    },
    /// The registry's options are wrong.
    #[error("{option} {value:?} is not usable")]
    Option {
        /// Which option.
        option: &'static str,
        /// Its value.
        value: String,
    },
    /// The registry could not be reached, or the connection broke, each time it was tried.
    #[error("cannot {action} {url} ({attempts} tries)")]
    Transport {
        /// What was being done: read, write, remove.
        action: &'static str,
        /// The address.
        url: String,
        /// How often it was tried in a row.
        attempts: u32,
        /// The last failure.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry answered with a failure.
    #[error("{url} answers {status}{}", detail(.message))]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own words, maybe none.
        message: String,
    },
    /// The registry wants other credentials, or any.
    #[error("{registry} does not let us {action} {repository}{}", detail(.message))]
    Unauthorized {
        /// The registry.
        registry: String,
        /// What was being done: read, write, remove from.
        action: &'static str,
        /// The repository.
        repository: String,
        /// The registry's own words, maybe none.
        message: String,
        /// Credentials were sent.
        with_credentials: bool,
    },
    /// The registry asks for a longer pause than we are willing to wait.
    #[error("{url} answers {status} and asks to wait {} s", .wait.as_secs())]
    Busy {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The pause.
        wait: Duration,
    },
    /// An answer of the registry that breaks the protocol.
    #[error("{url}: {problem}")]
    Protocol {
        /// The address.
        url: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A credential helper failed, or is not there.
    #[error("credential helper {helper:?} for {registry} failed: {message}")]
    CredentialHelper {
        /// The program.
        helper: String,
        /// The file that asks for it.
        config: PathBuf,
        /// The registry.
        registry: String,
        /// What went wrong, never a secret.
        message: String,
    },
    /// Docker's config file cannot be used.
    #[error("Docker config {path:?} is not usable: {problem}")]
    DockerConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl RegistryError {
    /// What the user could do about it, as a sentence without a full stop.
    pub fn hint(&self) -> Option<String> {
        match self {
            RegistryError::Unauthorized {
                registry,
                with_credentials: false,
                ..
            } => Some(format!(
                "log in with `docker login {registry}`; for a public image check its name"
            )),
            RegistryError::Unauthorized { registry, .. } => Some(format!(
                "check the account's rights, or log in again with `docker login {registry}`"
            )),
            _ => None,
        }
    }

    /// What is in the way of the registry, if that can be told.
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            RegistryError::Transport { source, .. } => trouble::trouble(source.as_ref()),
            _ => None,
        }
    }

    /// Whether the failure is of the content itself, so that another try would bring the same.
    pub fn is_corrupt(&self) -> bool {
        matches!(
            self,
            RegistryError::Mismatch { .. }
                | RegistryError::DigestHeader { .. }
                | RegistryError::Stored { .. }
                | RegistryError::TooLarge { .. }
                | RegistryError::Endless { .. }
                | RegistryError::Short { .. }
                | RegistryError::Json { .. }
        )
    }
}

fn detail(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(": {message}"),
    }
}
