//! Blobs, read whole, in part, or as they come.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::io::{self, Read as _};
use std::ops::Range;

use firebrick_digest::Digest;
use ureq::Body;
use ureq::http::{Method, Response, header};

use crate::access::Access;
use crate::address::shown;
use crate::answer::{header as text_of, small};
use crate::attempts::{Failure, transport};
use crate::client::Request;
use crate::error::RegistryError;
use crate::repository::Repository;
use crate::transfer::{self, Opened, PROGRESS, Piece};

/// The most bytes that are read in vain before a range, from a registry that always gives all.
const SKIP_MAX: u64 = 64 << 20;

impl Repository {
    /// The size of a blob in bytes, or nothing where none is.
    ///
    /// # Errors
    /// [`RegistryError`] if the registry cannot say.
    pub fn blob_exists(&self, digest: Digest) -> Result<Option<u64>, RegistryError> {
        let url = self.blob_url(digest);
        self.attempt("read", &url, || {
            let request = Request {
                method: Method::HEAD,
                url: &url,
                headers: &[("accept", "*/*")],
                body: None,
            };
            let answer = self.exchange(Access::Pull, &request)?;
            match answer.status().as_u16() {
                200 => {
                    let len = text_of(answer.headers(), header::CONTENT_LENGTH.as_str());
                    let size = len.and_then(|text| text.trim().parse().ok());
                    let no_length = || RegistryError::Protocol {
                        url: shown(&url),
                        problem: "the answer does not say how long the blob is",
                    };
                    size.map(Some).ok_or_else(|| Failure::Final(no_length()))
                }
                404 => Ok(None),
                _ => Err(self.failure(&format!("@{digest}"), &url, answer)),
            }
        })
    }

    /// Exactly the bytes of `range` of a blob, as the registry gives them: only the whole could be verified.
    ///
    /// # Errors
    /// [`RegistryError::Short`] if the blob ends before, [`RegistryError::NotFound`] if there is none,
    /// [`RegistryError::Unsupported`] if the registry gives only whole blobs, and the range begins too far behind.
    pub fn read_blob(&self, digest: Digest, range: Range<u64>) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        if range.is_empty() {
            return Ok(bytes);
        }
        let url = self.blob_url(digest);
        let mut attempts = self.client.attempts("read", &url);
        loop {
            let before = bytes.len();
            let failure = match self.read_more(&url, digest, &range, &mut bytes) {
                Ok(()) => return Ok(bytes),
                Err(failure) => failure,
            };
            if count(bytes.len().saturating_sub(before)) >= PROGRESS {
                attempts.progressed();
            }
            attempts.failed(failure)?;
        }
    }

    /// Appends what `bytes` lacks of the range, as far as one answer brings it.
    fn read_more(
        &self,
        url: &str,
        digest: Digest,
        range: &Range<u64>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let short = |found| {
            Failure::Final(RegistryError::Short {
                repository: self.name().to_string(),
                digest,
                expected: range.end,
                found,
            })
        };
        let start = range.start.saturating_add(count(bytes.len()));
        let text = format!("bytes={start}-{}", range.end.saturating_sub(1));
        let answer = self.ask_for_blob(url, digest, &[("accept", "*/*"), ("range", &text)])?;
        let (answer, skip) = match transfer::opened(url, start, answer)? {
            Opened::End => return Err(short(start)),
            Opened::Body {
                total: Some(total), ..
            } if total < range.end => return Err(short(total)),
            Opened::Body { answer, skip, .. } => (answer, skip),
        };
        if skip > SKIP_MAX {
            return Err(Failure::Final(RegistryError::Unsupported {
                registry: self.name().registry.clone(),
                action: "read a part of a blob",
                message: String::new(),
            }));
        }
        let mut body = answer.into_body().into_reader();
        let skipped = io::copy(&mut (&mut body).take(skip), &mut io::sink()).map_err(transport)?;
        let wanted = range.end.saturating_sub(start);
        // One more than wanted: who reads to the end of an answer may use its connection again.
        let read = body.take(wanted.saturating_add(1)).read_to_end(bytes);
        let len = range.end.saturating_sub(range.start);
        if skipped == skip && count(bytes.len()) >= len {
            bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            return Ok(());
        }
        read.map_err(transport)?;
        Err(transport(io::ErrorKind::UnexpectedEof.into()))
    }

    /// A whole blob of at most `limit` bytes, for whoever verifies by itself.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] with the registry's words where there is none, [`RegistryError::TooLarge`] beyond the limit.
    pub fn unverified_blob(&self, digest: Digest, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let url = self.blob_url(digest);
        self.attempt("read", &url, || {
            let answer = self.ask_for_blob(&url, digest, &[("accept", "*/*")])?;
            small(&url, answer, limit).map(|(_, bytes)| bytes)
        })
    }

    /// Gives all bytes of a blob from `start` on to `sink`, in order, across broken connections. They are not verified, and there
    /// may be more or fewer than `size` of them.
    ///
    /// # Errors
    /// [`RegistryError`], and whatever `sink` fails with.
    pub fn stream_blob<E: From<RegistryError>>(
        &self,
        digest: Digest,
        size: u64,
        start: u64,
        sink: &mut dyn FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let url = self.blob_url(digest);
        let open = |start| {
            let range = format!("bytes={start}-");
            let headers: &[(&str, &str)] = match start {
                0 => &[("accept", "*/*")],
                _ => &[("accept", "*/*"), ("range", &range)],
            };
            let answer = self.ask_for_blob(&url, digest, headers)?;
            transfer::opened(&url, start, answer)
        };
        transfer::transfer(self.client.attempts("read", &url), start, Some(size), &open, sink)
    }

    fn blob_url(&self, digest: Digest) -> String {
        self.url(&format!("blobs/{digest}"))
    }

    fn ask_for_blob(
        &self,
        url: &str,
        digest: Digest,
        headers: &[(&str, &str)],
    ) -> Result<Response<Body>, Failure> {
        let answer = self.exchange(Access::Pull, &Request::get(url, headers))?;
        match answer.status().as_u16() {
            200 | 206 => Ok(answer),
            // An answer only to those who asked for a range.
            416 if headers.iter().any(|(name, _)| *name == "range") => Ok(answer),
            _ => Err(self.failure(&format!("@{digest}"), url, answer)),
        }
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
