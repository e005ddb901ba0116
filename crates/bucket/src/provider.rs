//! The library's client for each provider, set up from variables and files.

mod azure;
mod google;
mod s3;

use std::sync::Arc;

use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use crate::address::{Address, Provider};
use crate::error::{BucketError, Words};
use crate::options::Options;
use crate::wire::{Wire, is_loopback};

/// A bucket as the library knows it.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Tries again by itself.
    pub(crate) patient: Arc<dyn ObjectStore>,
    /// Tries once: for writes that must not be repeated without looking.
    pub(crate) once: Arc<dyn ObjectStore>,
    /// Whether contents are told apart by a generation rather than by an ETag.
    pub(crate) by_generation: bool,
}

/// What every provider's part needs.
pub(crate) struct Setup<'a> {
    /// As the user wrote it.
    pub(crate) text: &'a str,
    pub(crate) address: &'a Address,
    pub(crate) options: &'a Options,
    pub(crate) wire: &'a Wire,
}

impl Setup<'_> {
    pub(crate) fn open(&self) -> Result<Opened, BucketError> {
        let opened = |patient, once| Opened {
            patient,
            once,
            by_generation: self.address.provider == Provider::Google,
        };
        let [patient, once] = [self.retry(), never()];
        match &self.address.provider {
            Provider::S3 => {
                let builder = s3::builder(self)?;
                let build = |retry| {
                    builder
                        .clone()
                        .with_retry(retry)
                        .build()
                        .map_err(|error| self.refused(&error))
                };
                Ok(opened(Arc::new(build(patient)?), Arc::new(build(once)?)))
            }
            Provider::Google => {
                let builder = google::builder(self)?;
                let build = |retry| {
                    builder
                        .clone()
                        .with_retry(retry)
                        .build()
                        .map_err(|error| self.refused(&error))
                };
                Ok(opened(Arc::new(build(patient)?), Arc::new(build(once)?)))
            }
            Provider::Azure { account } => {
                let builder = azure::builder(self, account.as_deref())?;
                let build = |retry| {
                    builder
                        .clone()
                        .with_retry(retry)
                        .build()
                        .map_err(|error| self.refused(&error))
                };
                Ok(opened(Arc::new(build(patient)?), Arc::new(build(once)?)))
            }
        }
    }

    fn retry(&self) -> RetryConfig {
        let retry = &self.options.retry;
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: retry.first_wait,
                max_backoff: retry.longest_wait,
                base: 2.0,
            },
            max_retries: retry.retries,
            retry_timeout: retry.library_limit(self.options.silence),
        }
    }

    fn refused(&self, error: &object_store::Error) -> BucketError {
        BucketError::Refused {
            address: self.text.to_owned(),
            source: Box::new(Words(error.to_string())),
        }
    }

    /// An endpoint that may be spoken to, without a slash at its end, and whether it has TLS.
    fn endpoint(&self, name: &str, endpoint: &str) -> Result<(String, bool), BucketError> {
        let wrong = |what: &str| BucketError::Option {
            option: name.to_owned(),
            what: what.to_owned(),
        };
        let uri: http::Uri = endpoint.parse().map_err(|_| wrong("it is no address"))?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(wrong("it is written https://HOST"));
        };
        match scheme {
            "https" => {}
            "http" if self.wire.plain_http || is_loopback(host) => {}
            "http" => {
                let endpoint = crate::wire::endpoint(&uri);
                return Err(BucketError::PlainHttp { endpoint });
            }
            _ => return Err(wrong("it is written https://HOST")),
        }
        Ok((endpoint.trim_end_matches('/').to_owned(), scheme == "https"))
    }
}

fn never() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}
