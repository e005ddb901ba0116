//! Why an image is not published, fetched or found.

use std::io;
use std::path::PathBuf;

use firebrick_digest::Digest;
use firebrick_registry::{NameError, RegistryError};

use crate::objects::ObjectError;
use crate::seal::BadChunk;

/// What went wrong with a store, or with an image in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    // What the store says is wrong: another try gives the same.
    /// A document or table breaks its format.
    #[error("{what} in {address} is not right: {problem}")]
    Corrupt {
        /// The store.
        address: String,
        /// Which document or table, with its digest.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A chunk is not what the table promises.
    #[error("chunk {id} in blob {blob} of {address} is damaged")]
    Chunk {
        /// The store.
        address: String,
        /// The blob that holds it.
        blob: Digest,
        /// Which chunk.
        id: crate::id::Id,
        /// What is wrong with it.
        source: BadChunk,
    },

    /// An archive is not what an import takes.
    #[error("{what} in the archive is not right: {problem}")]
    BadArchive {
        /// Which part of it.
        what: String,
        /// What is wrong with it.
        problem: String,
    },

    // Nothing is wrong; something is not there or not supported.
    /// No such name.
    #[error("{address} has no image {name}")]
    NoImage {
        /// The store.
        address: String,
        /// What was asked for.
        name: String,
        /// Some that there are.
        known: Vec<String>,
    },
    /// Published by something else, or by a later firebrick.
    #[error("{what} in {address} is no image that this firebrick reads: {problem}")]
    Foreign {
        /// The store.
        address: String,
        /// Which manifest.
        what: String,
        /// Why not.
        problem: String,
    },
    /// The image is sealed for another key, or for any.
    #[error("{what} is encrypted for the key {wanted}, and {}", match given { Some(given) => format!("the given key is {given}"), None => "no key was given".to_owned() })]
    Key {
        /// The image.
        what: String,
        /// Whose key it needs.
        wanted: String,
        /// Whose key was given.
        given: Option<String>,
    },
    /// The store cannot do such a thing.
    #[error("{address} cannot {action}")]
    Unsupported {
        /// The store.
        address: String,
        /// What was asked of it.
        action: &'static str,
    },
    /// A registry removes an image with all its names, and some of them are to stay.
    #[error("{address} removes images only, each with all its names, and {} {} the same image", others.join(", "), if others.len() == 1 { "is" } else { "are" })]
    Shared {
        /// The store.
        address: String,
        /// What was to be removed.
        names: Vec<String>,
        /// The names of an image among them that are to stay.
        others: Vec<String>,
    },

    /// A registry has no room for such a name.
    #[error("{name:?} cannot be a repository in {address}")]
    NoRepository {
        /// The store.
        address: String,
        /// The image's name.
        name: String,
        /// Why not.
        source: NameError,
    },

    // The store or this host failed.
    /// The registry failed.
    #[error(transparent)]
    Registry(Box<RegistryError>),
    /// The store failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A file of this host failed.
    #[error("cannot {action} {path:?}")]
    File {
        /// What was tried: read, write, …
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An archive failed, or who reads or writes it.
    #[error("cannot {action} the archive")]
    Archive {
        /// What was tried: read, write.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The image's file changed while it was read.
    #[error("{path:?} changed while it was read")]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// Another process fetches to the same place.
    #[error("another download to {path:?} is going on")]
    Busy {
        /// Where to.
        path: PathBuf,
    },
    /// Others changed the names all the time.
    #[error("{address} changed {attempts} times while {name} was being written to its names")]
    Contended {
        /// The store.
        address: String,
        /// The name that was to be written.
        name: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// There is no memory for compression.
    #[error("cannot prepare for compression")]
    Memory(#[source] io::Error),
    /// Somebody asked for an end.
    #[error("stopped")]
    Stopped,
}

impl From<RegistryError> for StoreError {
    fn from(error: RegistryError) -> StoreError {
        StoreError::Registry(Box::new(error))
    }
}
