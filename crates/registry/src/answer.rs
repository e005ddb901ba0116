//! What a registry's answers hold besides blobs: small documents, digests, its words about a failure.

use std::io::Read;

use firebrick_digest::Digest;
use serde::Deserialize;
use ureq::Body;
use ureq::http::{HeaderMap, Response};

use crate::address::shown;
use crate::attempts::{Failure, transport};
use crate::error::RegistryError;

const MESSAGE_LIMIT: u64 = 64 << 10;

#[derive(Deserialize)]
struct ErrorDocument {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The registry's own words about a failure, made safe to print.
pub(crate) fn message(answer: &mut Response<Body>) -> String {
    let mut bytes = Vec::new();
    let _ = answer
        .body_mut()
        .as_reader()
        .take(MESSAGE_LIMIT)
        .read_to_end(&mut bytes);
    let words = match serde_json::from_slice::<ErrorDocument>(&bytes) {
        Ok(document) => document
            .errors
            .iter()
            .take(3)
            .map(|error| format!("{} ({})", error.message, error.code))
            .collect::<Vec<String>>()
            .join("; "),
        Err(_) => String::new(),
    };
    words.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// The whole of a small answer.
pub(crate) fn small(url: &str, answer: Response<Body>, limit: u64) -> Result<(HeaderMap, Vec<u8>), Failure> {
    let (parts, body) = answer.into_parts();
    let mut bytes = Vec::new();
    body.into_reader()
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(transport)?;
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if found > limit {
        return Err(Failure::Final(RegistryError::TooLarge {
            url: shown(url),
            found,
            limit,
        }));
    }
    Ok((parts.headers, bytes))
}

/// A header's text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What the registry says the digest is of what we sent or were sent. One by another algorithm says nothing to us.
pub(crate) fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    header(headers, "docker-content-digest")?.parse().ok()
}
