//! Blobs on their way into a repository.
//!
//! An *upload* is opened by `POST`, which says where it goes on, and closed by a `PUT` with all the bytes. What fails in between is
//! done again from the start: a blob is known by its digest, so it does not matter whether it was there already.

use firebrick_digest::Digest;
use ureq::http::{Method, Response, header};
use ureq::{Body, ResponseExt as _};

use crate::access::Access;
use crate::address::{join, percent_encoded, shown};
use crate::answer::{digest_header, header as text_of, message};
use crate::attempts::{Cause, Failure};
use crate::client::Request;
use crate::error::RegistryError;
use crate::name::RepositoryName;
use crate::repository::Repository;

impl Repository {
    /// Puts a blob into the repository, in one piece.
    ///
    /// # Errors
    /// [`RegistryError::Status`] where the registry finds that the bytes have another digest, [`RegistryError::Stored`] where it
    /// says so too late.
    pub fn upload_blob(&self, digest: Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        let url = self.url("blobs/uploads/");
        self.attempt("write", &url, || {
            let opened = self.open_upload(Access::Push, &url)?;
            match opened.status().as_u16() {
                202 => self.close_upload(&self.upload_place(&url, &opened)?, digest, bytes),
                _ => Err(self.failure("", &url, opened)),
            }
        })
    }

    /// Takes a blob over from another repository of the same registry, without sending it; says whether that worked.
    ///
    /// It does not where the blob is not there, where we may not read it, and where the registry has no such thing.
    ///
    /// # Errors
    /// [`RegistryError`] if the registry cannot be asked.
    pub fn mount_blob(&self, digest: Digest, from: &RepositoryName) -> Result<bool, RegistryError> {
        if from.registry != self.name().registry {
            return Ok(false);
        }
        let url = self.url(&format!(
            "blobs/uploads/?mount={}&from={}",
            percent_encoded(&digest.to_string()),
            percent_encoded(&from.repository)
        ));
        self.attempt("write", &url, || {
            let opened = match self.open_upload(Access::Mount(&from.repository), &url) {
                Err(Failure::Final(RegistryError::Unauthorized { .. })) => return Ok(false),
                opened => opened?,
            };
            match opened.status().as_u16() {
                201 => self.check_digest(&url, digest, &opened).map(|()| true),
                202 => {
                    // An upload was opened instead, which nobody needs; registries without this forget it after some days.
                    if let Ok(place) = self.upload_place(&url, &opened) {
                        let _ = self.exchange(Access::Push, &empty(Method::DELETE, &place));
                    }
                    Ok(false)
                }
                400 | 404 | 405 => Ok(false),
                _ => Err(self.failure("", &url, opened)),
            }
        })
    }

    fn open_upload(&self, access: Access<'_>, url: &str) -> Result<Response<Body>, Failure> {
        let request = Request {
            body: Some(b""),
            ..empty(Method::POST, url)
        };
        self.exchange(access, &request)
    }

    fn close_upload(&self, place: &str, digest: Digest, bytes: &[u8]) -> Result<(), Failure> {
        let joint = if place.contains('?') { '&' } else { '?' };
        let url = format!("{place}{joint}digest={}", percent_encoded(&digest.to_string()));
        let request = Request {
            method: Method::PUT,
            url: &url,
            headers: &[("content-type", "application/octet-stream")],
            body: Some(bytes),
        };
        let mut answer = self.exchange(Access::Push, &request)?;
        match answer.status().as_u16() {
            201 => self.check_digest(&url, digest, &answer),
            // It has forgotten the upload: with several servers behind one name that passes.
            status @ 404 => Err(Failure::Passing {
                cause: Cause::Status {
                    status,
                    message: message(&mut answer),
                },
                retry_after: None,
            }),
            _ => Err(self.failure("", &url, answer)),
        }
    }

    /// Where an upload goes on: an address with secrets in it, maybe at another host.
    fn upload_place(&self, url: &str, opened: &Response<Body>) -> Result<String, Failure> {
        text_of(opened.headers(), header::LOCATION.as_str())
            .and_then(|location| join(opened.get_uri(), location))
            .ok_or_else(|| {
                Failure::Final(RegistryError::Protocol {
                    url: shown(url),
                    problem: "the answer does not say where the upload goes on",
                })
            })
    }

    /// Whether the registry took what we sent for what we say it is.
    pub(crate) fn check_digest(
        &self,
        url: &str,
        expected: Digest,
        answer: &Response<Body>,
    ) -> Result<(), Failure> {
        match digest_header(answer.headers()).filter(|found| *found != expected) {
            None => Ok(()),
            Some(found) => Err(Failure::Final(RegistryError::Stored {
                url: shown(url),
                expected,
                found,
            })),
        }
    }
}

fn empty(method: Method, url: &str) -> Request<'_> {
    Request {
        method,
        url,
        headers: &[],
        body: None,
    }
}
