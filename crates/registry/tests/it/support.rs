//! Repositories for tests, and what all tests say alike.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use firebrick_digest::Digest;
use firebrick_registry::{Credentials, RegistryError, RegistryOptions, Repository, Retrying};
use firebrick_testkit::docker_registry::{PASSWORD, USER};
use firebrick_testkit::http::Answer;
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = firebrick_registry::media_type::OCI_MANIFEST;
pub(crate) const OCTETS: &str = "application/octet-stream";
/// As large as no manifest here is.
pub(crate) const LIMIT: u64 = 1 << 20;

/// Options with short pauses.
pub(crate) fn options() -> RegistryOptions {
    let mut options = RegistryOptions::default();
    options.retry.first_delay = Duration::from_millis(10);
    options.retry.attempts = 4;
    options.read_timeout = Duration::from_secs(20);
    options
}

/// Options of somebody whom the registry at `host` knows.
pub(crate) fn as_joe(host: &str) -> RegistryOptions {
    let mut options = options();
    let joe = Credentials::Basic {
        username: USER.to_owned(),
        password: PASSWORD.to_owned(),
    };
    options.credentials.insert(host.to_owned(), joe);
    options
}

pub(crate) fn open(name: &str, options: &RegistryOptions) -> Repository {
    Repository::new(&name.parse().unwrap(), options, Arc::new(|_| ())).unwrap()
}

/// A repository `test/x` at `host`.
pub(crate) fn repository(host: impl std::fmt::Display) -> Repository {
    open(&format!("{host}/test/x"), &options())
}

/// The same, and what it tells of its tries.
pub(crate) fn recorded(host: impl std::fmt::Display) -> (Repository, Arc<Mutex<Vec<Retrying>>>) {
    let tries = Arc::new(Mutex::new(Vec::new()));
    let copy = Arc::clone(&tries);
    let name = format!("{host}/test/x").parse().unwrap();
    let on_retry = Arc::new(move |retrying| copy.lock().unwrap().push(retrying));
    (Repository::new(&name, &options(), on_retry).unwrap(), tries)
}

/// The whole error as a person sees it: text, causes, hint.
pub(crate) fn chain(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        text.push_str(&format!(" (hint: {hint})"));
    }
    text
}

/// Asserts that it failed, and that the whole error says each of these words.
pub(crate) fn says<T: std::fmt::Debug>(result: Result<T, RegistryError>, words: &[&str]) {
    let text = chain(&result.unwrap_err());
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    assert!(text.len() < 1000, "{} bytes: {text}", text.len());
}

/// An artifact's manifest over blobs that are there, maybe about another.
pub(crate) fn artifact(artifact_type: &str, blob: &[u8], subject: Option<Value>) -> Vec<u8> {
    let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor(OCTETS, blob)],
    });
    if let Some(subject) = subject {
        manifest["subject"] = subject;
    }
    manifest.to_string().into_bytes()
}

/// Puts what [`artifact`] names.
pub(crate) fn put_blobs(repository: &Repository, blob: &[u8]) {
    for bytes in [b"{}", blob] {
        repository.upload_blob(Digest::of(bytes), bytes).unwrap();
    }
}

/// What a registry without words says.
pub(crate) fn status(status: u16) -> Answer {
    Answer::new(status, "")
}
