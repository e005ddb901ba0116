//! Named byte strings in a folder or a bucket: the small seam behind which a whole store lies.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::time::SystemTime;

/// What tells two contents of one key apart: an ETag, a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// An object as a listing tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its whole key, below the store's prefix.
    pub key: String,
    /// In bytes.
    pub len: u64,
    /// When it was last written, by the store's clock.
    pub modified: SystemTime,
}

/// What became of a write that was to replace a known content only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// The new content is there.
    Done,
    /// Another content was there, or one where none was expected. Nothing was written.
    Changed,
    /// The answer was lost on the way, and another content is there now: it may have been written over ours, or instead of it. What is
    /// there tells, to those who know what it means.
    Unknown,
}

/// Objects by key. Keys are relative paths of plain parts (`blobs/sha256/…`), below a prefix that the store knows.
///
/// Every method may be called from many threads at once, retries what may pass by itself, and holds no more than it gives.
pub trait Objects: fmt::Debug + Send + Sync {
    /// Where this is, as a user would write it: `s3://bucket/prefix`, `file:///dir`. No secrets.
    fn address(&self) -> &str;

    /// The length of an object in bytes, or nothing where none is.
    ///
    /// # Errors
    /// [`ObjectError`] if the store cannot say.
    fn size(&self, key: &str) -> Result<Option<u64>, ObjectError>;

    /// A whole small object and its version, or nothing where none is.
    ///
    /// # Errors
    /// [`ObjectError::TooLarge`] if it has more than `limit` bytes.
    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, Version)>, ObjectError>;

    /// Exactly the bytes of `range`.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] if there is no such object, [`ObjectError::Short`] if it ends before.
    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, ObjectError>;

    /// Writes an object whole or not at all, over what was there.
    ///
    /// # Errors
    /// [`ObjectError`] if it is not there for sure.
    fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), ObjectError>;

    /// Writes an object only where `expected` is (`None`: only where nothing is), in one step with looking.
    ///
    /// # Errors
    /// [`ObjectError`]; after one it is not known whether the write happened.
    fn swap(&self, key: &str, bytes: Vec<u8>, expected: Option<&Version>) -> Result<Swap, ObjectError>;

    /// Whether [`Objects::swap`] really looks. Tries it with an object that it removes again.
    ///
    /// # Errors
    /// [`ObjectError`] if that cannot be tried.
    fn can_swap(&self) -> Result<bool, ObjectError>;

    /// Removes an object; one that is not there is not an error.
    ///
    /// # Errors
    /// [`ObjectError`] if it may still be there.
    fn delete(&self, key: &str) -> Result<(), ObjectError>;

    /// Every object whose key begins with `prefix` (`""` or ending in `/`), in the order of keys.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn list(&self, prefix: &str) -> Result<Vec<Entry>, ObjectError>;

    /// Every object whose key has no `/`, in the order of keys. What lies deeper is not even looked at.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn list_top(&self) -> Result<Vec<Entry>, ObjectError>;

    /// Writes the whole of a file that may be larger than memory, whole or not at all. `moved` is told of bytes as they go.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn put_file(&self, key: &str, file: &File, moved: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError>;

    /// Appends a whole object to `file`, however large. `moved` is told of bytes as they come. Nothing says that they are right.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] if there is no such object.
    fn get_file(&self, key: &str, file: &File, moved: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError>;
}

/// Why a folder, bucket or registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// It has no such object.
    #[error("{address} has no {key}")]
    Missing {
        /// The store.
        address: String,
        /// The object.
        key: String,
    },
    /// An object ends before the bytes that were asked for.
    #[error("{key} in {address} gave {found} bytes, where {expected} were asked for")]
    Short {
        /// The store.
        address: String,
        /// The object.
        key: String,
        /// How many bytes were asked for.
        expected: u64,
        /// How many came.
        found: u64,
    },
    /// An object has more bytes than it may.
    #[error("{key} in {address} has more than {limit} bytes")]
    TooLarge {
        /// The store.
        address: String,
        /// The object.
        key: String,
        /// How many it may have.
        limit: u64,
    },
    /// The store does not let us.
    #[error("{address} does not let us {action} {key}")]
    Denied {
        /// The store.
        address: String,
        /// The object.
        key: String,
        /// What was tried: read, write, list, remove.
        action: &'static str,
        /// The store's words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is nothing to show that we may.
    #[error("no credentials for {address}")]
    NoCredentials {
        /// The store.
        address: String,
        /// Where they were looked for.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The credentials themselves are wrong or over, whatever they would allow.
    #[error("{address} does not accept the credentials")]
    BadCredentials {
        /// The store.
        address: String,
        /// The store's words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such bucket, container or repository at all.
    #[error("there is no {address}")]
    NoBucket {
        /// The store.
        address: String,
        /// The store's words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bucket is in another region than the one that was asked.
    #[error("{address} is in {}", region.as_deref().map_or("another region".to_owned(), |region| format!("region {region}")))]
    WrongRegion {
        /// The store.
        address: String,
        /// The region that it is in, where the store tells.
        region: Option<String>,
        /// The store's words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No connection, or one on which nothing came, however often it was tried.
    #[error("{endpoint} is not reached, where {address} is")]
    Unreachable {
        /// The store.
        address: String,
        /// Scheme, host and port.
        endpoint: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody else holds the lock of a folder, and does not let go.
    #[error("somebody else has held {path:?}, the lock of {address}, for {seconds} s")]
    Locked {
        /// The store.
        address: String,
        /// The lock.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The store cannot do such a thing.
    #[error("{address} cannot {action}")]
    Unsupported {
        /// The store.
        address: String,
        /// What was asked for.
        action: &'static str,
    },
    /// Anything else between us and the store.
    #[error("cannot {action} {key} in {address}")]
    Failed {
        /// The store.
        address: String,
        /// The object.
        key: String,
        /// What was tried: read, write, list, remove.
        action: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
