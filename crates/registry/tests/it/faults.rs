//! Every request of a whole push and pull fails once, in every way, after the registry has done what it was asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use firebrick_digest::Digest;
use firebrick_registry::{Descriptor, ManifestName, RegistryError, Repository};
use firebrick_testkit::docker_registry::{DockerRegistry, Setup, have_tools};
use firebrick_testkit::http::{Answer, Server};
use firebrick_testkit::random::noise;

use crate::support::{LIMIT, OCI_MANIFEST, artifact, chain, open, options, status};

/// What becomes of one answer.
type Fault = fn(Answer) -> Answer;

const FAULTS: [(&str, Fault); 4] = [
    ("lost", |_| status(0)),
    ("500", |_| status(500)),
    ("busy", |_| status(503).with("Retry-After", "0")),
    ("cut", |mut answer| {
        answer.cut = Some(answer.body.len() / 2);
        // Nothing can be missing of nothing.
        if answer.body.is_empty() { status(0) } else { answer }
    }),
];

/// Pushes an image and a referrer of it, and reads both.
fn push_and_pull(repository: &Repository) -> Result<(), RegistryError> {
    let blob = noise(200_000, 1);
    for bytes in [&b"{}"[..], &blob] {
        if repository.blob_exists(Digest::of(bytes))?.is_none() {
            repository.upload_blob(Digest::of(bytes), bytes)?;
        }
    }
    let bytes = artifact("application/x", &blob, None);
    let subject = Descriptor::of(OCI_MANIFEST, &bytes);
    let tag = ManifestName::Tag("v1".parse().unwrap());
    repository.put_manifest(&tag, OCI_MANIFEST, &bytes)?;
    let about = artifact("application/y", &blob, Some(subject.to_json()));
    let referrer = Descriptor::of(OCI_MANIFEST, &about);
    repository.add_referrer(subject.digest, &referrer, &about)?;
    let found = repository.manifest(&tag, LIMIT)?.unwrap();
    assert!(found.bytes == bytes);
    assert_eq!(repository.tags()?.len(), 2);
    let part = repository.read_blob(Digest::of(&blob), 50_000..150_000)?;
    assert!(part == blob[50_000..150_000]);
    assert_eq!(repository.referrers(subject.digest, None)?, [referrer]);
    Ok(())
}

/// Between two requests that fail lie some that do not: a try that fails again would say nothing new.
const STRIDE: usize = 5;

#[test]
fn each_request_fails_once() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    for (name, fault) in FAULTS {
        for first in 0..STRIDE {
            let (count, hits) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
            let copy = Arc::clone(&hits);
            let front = Server::before(&registry.host, move |request, answer| {
                // How it is spoken to is found out with one request.
                let is_due =
                    request.target != "/v2/" && count.fetch_add(1, Ordering::SeqCst) % STRIDE == first;
                match is_due {
                    true => {
                        copy.fetch_add(1, Ordering::SeqCst);
                        fault(answer)
                    }
                    false => answer,
                }
            });
            // Each in a repository of its own, where nothing is yet.
            let repository = open(&format!("{}/test/{name}{first}", front.address), &options());
            if let Err(error) = push_and_pull(&repository) {
                panic!("{name} from {first} on: {}", chain(&error));
            }
            assert!(hits.load(Ordering::SeqCst) >= 3, "{name} from {first} on");
        }
    }
}
