//! Why a key, a payload, a policy or an origin is not used.

use std::io;
use std::path::PathBuf;

/// What is wrong with something that trust rests on. No text holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    // The bytes are wrong.
    /// A text or document breaks its format.
    #[error("{what} is not right: {problem}")]
    Corrupt {
        /// What was read: a private key, an origin, …
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A policy says what makes no sense.
    #[error("line {line}, column {column} of the policy: {problem}")]
    Policy {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong there.
        problem: String,
        /// Why a key that is named there is not used.
        source: Option<Box<TrustError>>,
    },

    // Nothing is wrong, but it is of no use here.
    /// A key of another kind.
    #[error("this is {found}, and {wanted} is needed")]
    Kind {
        /// What it is.
        found: String,
        /// What it should be, and how to come by that.
        wanted: &'static str,
    },
    /// A key that needs a password.
    #[error("this private key is encrypted, and firebrick asks for no passwords; {instead}")]
    Encrypted {
        /// What to do.
        instead: &'static str,
    },
    /// Written by a later firebrick.
    #[error("{what} is of version {found}, and this firebrick knows version 1")]
    Version {
        /// What was read.
        what: &'static str,
        /// Its version.
        found: String,
    },

    // The host failed.
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// A file cannot be read.
    #[error("cannot read {path:?}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
