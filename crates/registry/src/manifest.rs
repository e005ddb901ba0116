//! Manifests and indexes: pulled, pushed, removed.

use firebrick_digest::{Digest, Mismatch};
use ureq::Body;
use ureq::http::{Method, Response, header};

use crate::access::Access;
use crate::answer::{digest_header, header as text_of, message, small};
use crate::attempts::{Cause, Failure};
use crate::client::Request;
use crate::error::RegistryError;
use crate::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::name::{ManifestName, Tag};
use crate::repository::Repository;

/// How often a manifest that is not what it should be is asked for again: more goes wrong on the way than in registries.
const AGAIN: usize = 2;

/// A manifest or index as the registry gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What the registry calls it, without parameters.
    pub media_type: Option<String>,
    /// The digest of the bytes.
    pub digest: Digest,
}

/// A manifest that the registry took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Its digest.
    pub digest: Digest,
    /// The registry knows what a `subject` is, and lists this one among that one's referrers.
    pub lists_referrer: bool,
}

impl Repository {
    /// A manifest or index of at most `limit` bytes, or nothing where none is. What is asked for by digest is what it
    /// should be.
    ///
    /// # Errors
    /// [`RegistryError::Mismatch`] or [`RegistryError::DigestHeader`] if the registry gives something else,
    /// [`RegistryError::TooLarge`] beyond the limit.
    pub fn manifest(&self, name: &ManifestName, limit: u64) -> Result<Option<Manifest>, RegistryError> {
        let mut tries = 0;
        loop {
            match self.verified_manifest(name, limit) {
                Ok(manifest) => return Ok(Some(manifest)),
                Err(RegistryError::NotFound { .. }) => return Ok(None),
                Err(RegistryError::Mismatch { .. } | RegistryError::DigestHeader { .. }) if tries < AGAIN => {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn verified_manifest(&self, name: &ManifestName, limit: u64) -> Result<Manifest, RegistryError> {
        let manifest = self.unverified_manifest(name, limit)?;
        match name {
            ManifestName::Digest(expected) if *expected != manifest.digest => Err(RegistryError::Mismatch {
                what: format!("manifest {expected} of {}", self.name()),
                mismatch: Mismatch::Digest {
                    expected: *expected,
                    actual: manifest.digest,
                },
            }),
            _ => Ok(manifest),
        }
    }

    /// As [`Repository::manifest`], for whoever verifies by itself.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] with the registry's words where there is none.
    pub fn unverified_manifest(&self, name: &ManifestName, limit: u64) -> Result<Manifest, RegistryError> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST, "*/*"].join(", ");
        let url = self.url(&format!("manifests/{name}"));
        let what = match name {
            ManifestName::Tag(tag) => format!(":{tag}"),
            ManifestName::Digest(digest) => format!("@{digest}"),
        };
        let accepted = [("accept", accept.as_str())];
        let request = Request::get(&url, &accepted);
        let (headers, bytes) = self.attempt("read", &url, || {
            let answer = self.exchange(Access::Pull, &request)?;
            match answer.status().as_u16() {
                200 => small(&url, answer, limit),
                _ => Err(self.failure(&what, &url, answer)),
            }
        })?;
        let digest = Digest::of(&bytes);
        // Of what was asked for by its digest, the digest has been said already.
        if let (ManifestName::Tag(_), Some(header)) = (name, digest_header(&headers))
            && header != digest
        {
            return Err(RegistryError::DigestHeader {
                name: format!("{}{what}", self.name()),
                header,
                actual: digest,
            });
        }
        let media_type = text_of(&headers, header::CONTENT_TYPE.as_str())
            .and_then(|value| value.split(';').next())
            .map(|value| value.trim().to_owned());
        Ok(Manifest {
            bytes,
            media_type,
            digest,
        })
    }

    /// Puts a manifest or index under a tag, over what was there, or under its own digest.
    ///
    /// What it names must be there already.
    ///
    /// # Errors
    /// [`RegistryError::Stored`] if the registry took it for something else.
    pub fn put_manifest(
        &self,
        name: &ManifestName,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Pushed, RegistryError> {
        let url = self.url(&format!("manifests/{name}"));
        let digest = Digest::of(bytes);
        self.attempt("write", &url, || {
            let request = Request {
                method: Method::PUT,
                url: &url,
                headers: &[("content-type", media_type)],
                body: Some(bytes),
            };
            let answer = self.exchange(Access::Push, &request)?;
            // Quay once said 202.
            if !matches!(answer.status().as_u16(), 201 | 202) {
                return Err(self.unwritten(&url, answer));
            }
            self.check_digest(&url, digest, &answer)?;
            Ok(Pushed {
                digest,
                lists_referrer: answer.headers().contains_key("oci-subject"),
            })
        })
    }

    /// Why a manifest was not taken.
    fn unwritten(&self, url: &str, answer: Response<Body>) -> Failure {
        let status = answer.status().as_u16();
        match self.failure("", url, answer) {
            // Blobs that it was just given a registry may not see for a moment: the CNCF's writes the link to one in place, so that
            // who reads while another writes the same link again finds it empty.
            Failure::Final(
                RegistryError::Status { message, .. } | RegistryError::NotFound { message, .. },
            ) if message.contains("MANIFEST_BLOB_UNKNOWN") => Failure::Passing {
                cause: Cause::Status { status, message },
                retry_after: None,
            },
            failure => failure,
        }
    }

    /// Removes a manifest and every tag that names it; says whether it was there, as far as the last try could see.
    ///
    /// # Errors
    /// [`RegistryError::Unsupported`] if the registry removes nothing.
    pub fn delete_manifest(&self, digest: Digest) -> Result<bool, RegistryError> {
        self.delete(&ManifestName::Digest(digest), "remove manifests")
    }

    /// Removes a tag and not what it names; says whether it was there.
    ///
    /// # Errors
    /// [`RegistryError::Unsupported`] if the registry removes no tags.
    pub fn delete_tag(&self, tag: &Tag) -> Result<bool, RegistryError> {
        self.delete(&ManifestName::Tag(tag.clone()), "remove tags")
    }

    fn delete(&self, name: &ManifestName, action: &'static str) -> Result<bool, RegistryError> {
        let url = self.url(&format!("manifests/{name}"));
        self.attempt("remove", &url, || {
            let request = Request {
                method: Method::DELETE,
                url: &url,
                headers: &[],
                body: None,
            };
            let mut answer = self.exchange(Access::Delete, &request)?;
            match answer.status().as_u16() {
                200 | 202 | 204 => Ok(true),
                404 => Ok(false),
                400 | 405 | 501 => Err(Failure::Final(RegistryError::Unsupported {
                    registry: self.name().registry.clone(),
                    action,
                    message: message(&mut answer),
                })),
                _ => Err(self.failure("", &url, answer)),
            }
        })
    }
}
