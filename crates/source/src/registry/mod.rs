//! Registries, by the OCI distribution protocol over HTTP.
//!
//! Blocking, one thread per transfer. Protocol: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>,
//! tokens: <https://distribution.github.io/distribution/spec/auth/token/>.

mod auth;
mod challenge;
mod credentials;
pub(crate) mod http;

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use firebrick_digest::Digest;
use ureq::Body;
use ureq::http::{HeaderMap, Response, header};

use crate::cache::{Cache, Lookup};
use crate::download::{Job, Sink, Transfer};
use crate::error::{Part, SourceError};
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, OCI_INDEX, OCI_MANIFEST, parse_document};
use crate::options::{Event, Options};
use crate::reference::RegistryReference;
use crate::resolve::{self, Blobs, Resolved};

use auth::Authorizer;
use http::{Cause, Failure, Http, message, shown};

/// A transfer that brought this much has moved on; its earlier failures are forgiven.
pub(crate) const PROGRESS: u64 = 64 << 10;
pub(crate) const CHUNK: usize = 128 << 10;

/// One repository of one registry.
pub(crate) struct Registry {
    reference: RegistryReference,
    http: Http,
    authorizer: Authorizer,
    origin: OnceLock<String>,
    cache: Option<Cache>,
    events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Registry {
    pub(crate) fn new(reference: &RegistryReference, options: &Options) -> Result<Registry, SourceError> {
        Ok(Registry {
            reference: reference.clone(),
            http: Http::new(&options.registry, Arc::clone(&options.events))?,
            authorizer: Authorizer::new(reference, &options.registry),
            origin: OnceLock::new(),
            cache: options.cache.clone(),
            events: Arc::clone(&options.events),
        })
    }

    /// Finds the image that the reference names.
    pub(crate) fn open(&self, options: &Options) -> Result<Resolved, SourceError> {
        let limits = &options.limits;
        if let Some(digest) = self.reference.digest
            && let Some(bytes) = self.cached(digest, None, limits.manifest_bytes)?
        {
            let document = parse_document(&bytes, None, &digest.to_string(), limits)?;
            return resolve::resolve_document(self, document, digest, options);
        }
        let url = self.url("manifests", &self.reference.manifest_name());
        let (headers, bytes) = self.get_small(&url, Part::Manifest, limits.manifest_bytes)?;
        let digest = Digest::of(&bytes);
        match self.reference.digest {
            Some(promised) => resolve::verify(Part::Manifest, promised, None, &bytes)?,
            None => self.check_header(&headers, digest)?,
        }
        let media_type = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .map(str::trim);
        let document = parse_document(&bytes, media_type, &self.reference.to_string(), limits)?;
        self.keep(digest, &bytes)?;
        resolve::resolve_document(self, document, digest, options)
    }

    fn check_header(&self, headers: &HeaderMap, actual: Digest) -> Result<(), SourceError> {
        let header = headers
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok());
        match header.and_then(|text| text.parse::<Digest>().ok()) {
            Some(header) if header != actual => Err(SourceError::DigestHeader {
                reference: Box::new(self.reference.clone()),
                header,
                actual,
            }),
            _ => Ok(()),
        }
    }

    fn url(&self, kind: &str, name: &str) -> String {
        let origin = self
            .origin
            .get_or_init(|| self.http.origin(&self.reference.registry));
        format!("{origin}/v2/{}/{kind}/{name}", self.reference.repository)
    }

    fn cached(&self, digest: Digest, size: Option<u64>, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(cache) = &self.cache else {
            return Ok(None);
        };
        match cache.lookup(digest, size)? {
            Lookup::Absent => Ok(None),
            Lookup::Dropped => {
                (self.events)(Event::CorruptCacheEntry { digest });
                Ok(None)
            }
            Lookup::Found(file) => {
                let mut bytes = Vec::new();
                let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
                // What cannot be read, or is no document, is asked of the registry.
                Ok((read.is_ok() && bytes.len() as u64 <= limit).then_some(bytes))
            }
        }
    }

    fn keep(&self, digest: Digest, bytes: &[u8]) -> Result<(), SourceError> {
        match &self.cache {
            Some(cache) => cache.insert(digest, bytes),
            None => Ok(()),
        }
    }

    /// One exchange, with whatever credentials the registry asks for.
    fn exchange(&self, url: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, Failure> {
        let mut authorization = self.authorizer.current();
        for last in [false, false, true] {
            let mut answer = self.http.get(url, headers, authorization.as_deref())?;
            let status = answer.status().as_u16();
            if status == 401 && !last {
                let next = self
                    .authorizer
                    .answer(&self.http, &answer, authorization.as_deref())?;
                if next.is_some() && next != authorization {
                    authorization = next;
                    continue;
                }
            }
            return match status {
                200 | 206 => Ok(answer),
                // An answer only to those who asked for a range.
                416 if headers.iter().any(|(name, _)| *name == "range") => Ok(answer),
                401 | 403 => Err(Failure::Final(self.authorizer.refused(message(&mut answer)))),
                404 => Err(Failure::Final(SourceError::NotFound {
                    reference: Box::new(self.reference.clone()),
                    message: message(&mut answer),
                })),
                status => Err(Failure::Final(SourceError::Status {
                    url: shown(url),
                    status,
                    message: message(&mut answer),
                })),
            };
        }
        Err(Failure::Final(self.authorizer.refused(String::new())))
    }

    /// Reads a whole document of at most `limit` bytes.
    fn get_small(&self, url: &str, part: Part, limit: u64) -> Result<(HeaderMap, Vec<u8>), SourceError> {
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST, "*/*"].join(", ");
        let mut attempts = self.http.attempts(url);
        loop {
            let read = self.exchange(url, &[("accept", &accept)]).and_then(|answer| {
                let (parts, body) = answer.into_parts();
                let mut bytes = Vec::new();
                body.into_reader()
                    .take(limit.saturating_add(1))
                    .read_to_end(&mut bytes)
                    .map(|_| (parts.headers, bytes))
                    .map_err(transport)
            });
            match read {
                Ok((_, bytes)) if bytes.len() as u64 > limit => {
                    return Err(SourceError::Limit {
                        part,
                        place: shown(url),
                        what: "its size in bytes (at least)",
                        found: bytes.len() as u64,
                        limit,
                    });
                }
                Ok(found) => return Ok(found),
                Err(failure) => attempts.failed(failure)?,
            }
        }
    }

    /// Opens a blob at `start`.
    fn open_blob(&self, url: &str, start: u64) -> Result<Opened, Failure> {
        let range = format!("bytes={start}-");
        let headers: &[(&str, &str)] = match start {
            0 => &[("accept", "*/*")],
            _ => &[("accept", "*/*"), ("range", &range)],
        };
        let answer = self.exchange(url, headers)?;
        opened(url, start, answer)
    }
}

/// What the answer to a request from `start` on holds.
pub(crate) fn opened(url: &str, start: u64, answer: Response<Body>) -> Result<Opened, Failure> {
    let text = |name| {
        let value = answer.headers().get(name)?;
        value.to_str().ok()
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let wrong_range = || {
        Failure::Final(SourceError::Protocol {
            url: shown(url),
            problem: "the answer is of another range than we asked for",
        })
    };
    let (skip, total) = match answer.status().as_u16() {
        // Nothing is there from `start` on.
        416 => return Ok(Opened::End),
        206 => {
            let range = text(header::CONTENT_RANGE).and_then(|range| range.trim().strip_prefix("bytes "));
            let (range, total) = range
                .and_then(|range| range.split_once('/'))
                .ok_or_else(wrong_range)?;
            let from = range.split_once('-').and_then(|(from, _)| number(from));
            let skip = from.and_then(|from| start.checked_sub(from));
            (skip.ok_or_else(wrong_range)?, number(total))
        }
        _ => (start, text(header::CONTENT_LENGTH).and_then(number)),
    };
    Ok(Opened::Body { answer, skip, total })
}

impl Blobs for Registry {
    fn document(&self, part: Part, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, SourceError> {
        resolve::check_size(&part, descriptor, limit)?;
        let digest = descriptor.digest(part.clone())?;
        if let Some(bytes) = self.cached(digest, Some(descriptor.size), limit)? {
            return Ok(bytes);
        }
        let kind = if part == Part::Config {
            "blobs"
        } else {
            "manifests"
        };
        let url = self.url(kind, &digest.to_string());
        let (_, bytes) = self.get_small(&url, part.clone(), limit)?;
        resolve::verify(part, digest, Some(descriptor.size), &bytes)?;
        self.keep(digest, &bytes)?;
        Ok(bytes)
    }
}

impl Transfer for Registry {
    fn transfer(&self, job: &Job, start: u64, sink: &mut Sink<'_>) -> Result<(), SourceError> {
        let url = self.url("blobs", &job.digest.to_string());
        let mut attempts = self.http.attempts(&url);
        let mut position = start;
        let mut buffer = vec![0; CHUNK];
        loop {
            let before = position;
            let failure = match self.open_blob(&url, position) {
                Ok(Opened::End) => return Ok(()),
                Ok(Opened::Body { answer, skip, total }) => {
                    let mut body = answer.into_body().into_reader();
                    match copy(&mut body, skip, job.size, &mut position, &mut buffer, sink) {
                        // That it is shorter than promised is for others to say.
                        Ok(()) if position >= total.unwrap_or(job.size).min(job.size) => return Ok(()),
                        Ok(()) => transport(io::ErrorKind::UnexpectedEof.into()),
                        Err(CopyError::Read(error)) => transport(error),
                        Err(CopyError::Sink(error)) => return Err(error),
                    }
                }
                Err(failure) => failure,
            };
            if position - before >= PROGRESS {
                attempts.progressed();
            }
            attempts.failed(failure)?;
        }
    }
}

/// A blob or file from somewhere on.
pub(crate) enum Opened {
    Body {
        answer: Response<Body>,
        /// How many bytes of the answer come before what was asked for.
        skip: u64,
        /// How long the registry says that the whole blob is.
        total: Option<u64>,
    },
    /// The blob ends before.
    End,
}

pub(crate) enum CopyError {
    Read(io::Error),
    Sink(SourceError),
}

/// Copies to the body's end, or until there is more than `size`, which the sink then refuses.
pub(crate) fn copy(
    body: &mut impl Read,
    mut skip: u64,
    size: u64,
    position: &mut u64,
    buffer: &mut [u8],
    sink: &mut Sink<'_>,
) -> Result<(), CopyError> {
    loop {
        let len = match body.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // All is here; how the connection ends is of no interest.
            Err(_) if *position == size => return Ok(()),
            Err(error) => return Err(CopyError::Read(error)),
        };
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(len);
        skip -= skipped as u64;
        let fresh = &buffer[skipped..len];
        if !fresh.is_empty() {
            *position += fresh.len() as u64;
            sink(fresh).map_err(CopyError::Sink)?;
        }
    }
}

pub(crate) fn transport(error: io::Error) -> Failure {
    Failure::Passing {
        cause: Cause::Transport(Box::new(error)),
        retry_after: None,
    }
}
