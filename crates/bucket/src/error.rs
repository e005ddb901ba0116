//! Why a bucket cannot be opened, and what becomes of the library's errors.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use firebrick_store::ObjectError;

use crate::trouble::{Refusal, Trouble};

/// Why a bucket cannot be opened. Nobody has been asked by then: whether it is there shows with the first request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    /// This is no address of a bucket.
    #[error("{address:?} is not the address of a bucket: {what}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A variable or an option has a value that cannot be used.
    #[error("{option} cannot be used: {what}")]
    Option {
        /// Its name.
        option: String,
        /// What is wrong with it. No secrets.
        what: String,
    },
    /// The account of an Azure container is not known.
    #[error("{address} names no account, and neither does AZURE_STORAGE_ACCOUNT_NAME")]
    NoAccount {
        /// The container.
        address: String,
    },
    /// A profile of the AWS tools asks for what only they can do.
    #[error("profile {profile:?} of the AWS tools gets its credentials by {by}, which is not supported")]
    Profile {
        /// Its name.
        profile: String,
        /// The setting: `sso_session`, `credential_process`, `source_profile`.
        by: &'static str,
    },
    /// A profile was asked for by name, and is not there.
    #[error("no file of the AWS tools has a profile {profile:?}")]
    NoProfile {
        /// Its name.
        profile: String,
    },
    /// An endpoint without TLS that is not this machine.
    #[error("{endpoint} has no TLS, so anyone on the way could read and change what is sent")]
    PlainHttp {
        /// The endpoint.
        endpoint: String,
    },
    /// A file that says how to reach the bucket cannot be read.
    #[error("cannot read {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The library refuses what the variables say.
    #[error("{address} cannot be opened with what the variables say")]
    Refused {
        /// The bucket.
        address: String,
        /// The library's words.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The host gives no threads or no TLS.
    #[error("cannot make a client for {address}")]
    Client {
        /// The bucket.
        address: String,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Words without a chain behind them: the library repeats its causes in its own text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Words(pub(crate) String);

/// What of ours is behind an error of the library.
pub(crate) fn trouble<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Trouble> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(trouble) = error.downcast_ref::<Trouble>() {
            return Some(trouble);
        }
        next = error.source();
    }
    None
}

/// What was tried with which object of which store; makes errors of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) address: &'a str,
    pub(crate) key: &'a str,
    /// Read, write, list, remove.
    pub(crate) action: &'static str,
}

impl Attempt<'_> {
    pub(crate) fn missing(self) -> ObjectError {
        ObjectError::Missing {
            address: self.address.to_owned(),
            key: self.key.to_owned(),
        }
    }

    pub(crate) fn short(self, expected: u64, found: u64) -> ObjectError {
        ObjectError::Short {
            address: self.address.to_owned(),
            key: self.key.to_owned(),
            expected,
            found,
        }
    }

    pub(crate) fn too_large(self, limit: u64) -> ObjectError {
        ObjectError::TooLarge {
            address: self.address.to_owned(),
            key: self.key.to_owned(),
            limit,
        }
    }

    pub(crate) fn failed(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> ObjectError {
        ObjectError::Failed {
            address: self.address.to_owned(),
            key: self.key.to_owned(),
            action: self.action,
            source: source.into(),
        }
    }

    /// The store's own error for one of the library.
    pub(crate) fn error(self, error: &object_store::Error) -> ObjectError {
        match trouble(error) {
            Some(Trouble::Refused(refusal)) => self.refused(refusal),
            Some(trouble @ Trouble::NoCredentials { .. }) => ObjectError::NoCredentials {
                address: self.address.to_owned(),
                source: Box::new(Words(trouble.words())),
            },
            Some(trouble @ (Trouble::Unreachable { .. } | Trouble::Silent { .. } | Trouble::Slow { .. })) => {
                ObjectError::Unreachable {
                    address: self.address.to_owned(),
                    endpoint: trouble.endpoint().to_owned(),
                    source: Box::new(Words(trouble.words())),
                }
            }
            Some(trouble) => self.failed(Words(trouble.words())),
            None if matches!(error, object_store::Error::NotFound { .. }) => self.missing(),
            None => self.failed(Words(error.to_string())),
        }
    }

    fn refused(self, refusal: &Refusal) -> ObjectError {
        let address = self.address.to_owned();
        let source = Box::new(Words(refusal.to_string()));
        if refusal.no_bucket() {
            return ObjectError::NoBucket { address, source };
        }
        if refusal.wrong_region() {
            let region = refusal.region.clone();
            return ObjectError::WrongRegion {
                address,
                region,
                source,
            };
        }
        if refusal.bad_credentials() {
            return ObjectError::BadCredentials { address, source };
        }
        match refusal.status {
            401 | 403 => ObjectError::Denied {
                address,
                key: self.key.to_owned(),
                action: self.action,
                source,
            },
            _ => self.failed(source),
        }
    }
}
