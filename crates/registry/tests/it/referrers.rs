//! Referrers: listed by the registry, or under a tag of the subject.

use std::sync::{Arc, Mutex};

use firebrick_digest::Digest;
use firebrick_registry::media_type::OCI_INDEX;
use firebrick_registry::{Descriptor, ManifestName, RegistryError, Repository, Tag};
use firebrick_testkit::docker_registry::{DockerRegistry, Setup, have_tools};
use firebrick_testkit::http::{Answer, Server};
use serde_json::{Value, json};

use crate::support::{LIMIT, OCI_MANIFEST, artifact, put_blobs, repository, says, status};

const SIGNATURE: &str = "application/vnd.firebrick.signature";
const SBOM: &str = "application/spdx+json";

/// A manifest without a subject, there to have referrers.
fn subject(repository: &Repository) -> Descriptor {
    put_blobs(repository, b"image");
    let bytes = artifact("application/x", b"image", None);
    let descriptor = Descriptor::of(OCI_MANIFEST, &bytes);
    repository
        .put_manifest(&descriptor.digest.into(), OCI_MANIFEST, &bytes)
        .unwrap();
    descriptor
}

/// A referrer of it, and its bytes.
fn referrer(of: &Descriptor, artifact_type: &str, blob: &[u8]) -> (Descriptor, Vec<u8>) {
    let bytes = artifact(artifact_type, blob, Some(of.to_json()));
    let mut descriptor = Descriptor::of(OCI_MANIFEST, &bytes);
    descriptor.artifact_type = Some(artifact_type.to_owned());
    descriptor.annotations.insert("who".to_owned(), "joe".to_owned());
    (descriptor, bytes)
}

#[test]
fn a_real_registry_without_referrers_keeps_a_tag() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    let repository = repository(&registry.host);
    let subject = subject(&repository);
    assert_eq!(repository.referrers(subject.digest, None).unwrap(), []);
    let (signature, signature_bytes) = referrer(&subject, SIGNATURE, b"signed");
    let (sbom, sbom_bytes) = referrer(&subject, SBOM, b"list");
    for (descriptor, bytes, blob) in [
        (&signature, &signature_bytes, &b"signed"[..]),
        (&sbom, &sbom_bytes, b"list"),
        // What is there already is not listed twice.
        (&signature, &signature_bytes, b"signed"),
    ] {
        put_blobs(&repository, blob);
        repository
            .add_referrer(subject.digest, descriptor, bytes)
            .unwrap();
    }
    let both = [signature.clone(), sbom.clone()];
    assert_eq!(repository.referrers(subject.digest, None).unwrap(), both);
    let found = repository.referrers(subject.digest, Some(SBOM)).unwrap();
    assert_eq!(found, std::slice::from_ref(&sbom));
    assert_eq!(repository.referrers(subject.digest, Some("text/x")).unwrap(), []);
    let tag = Tag::of_referrers(subject.digest);
    assert_eq!(tag.as_str(), format!("sha256-{}", subject.digest.hex()));
    let index = repository
        .manifest(&ManifestName::Tag(tag), LIMIT)
        .unwrap()
        .unwrap();
    assert_eq!(index.media_type.as_deref(), Some(OCI_INDEX));
    repository
        .remove_referrer(subject.digest, signature.digest)
        .unwrap();
    repository
        .remove_referrer(subject.digest, signature.digest)
        .unwrap();
    assert_eq!(repository.referrers(subject.digest, None).unwrap(), [sbom]);
    let (mut wrong, bytes) = referrer(&subject, SBOM, b"other");
    wrong.size += 1;
    says(
        repository.add_referrer(subject.digest, &wrong, &bytes),
        &["is not what was promised: length is"],
    );
}

#[test]
fn threads_do_not_undo_each_other() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    let repository = &repository(&registry.host);
    let subject = &subject(repository);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                let blob = format!("signed by {thread}");
                put_blobs(repository, blob.as_bytes());
                let (descriptor, bytes) = referrer(subject, SIGNATURE, blob.as_bytes());
                repository
                    .add_referrer(subject.digest, &descriptor, &bytes)
                    .unwrap();
            });
        }
    });
    assert_eq!(repository.referrers(subject.digest, None).unwrap().len(), 8);
}

/// The index under the tag, changed by others between our look and our change.
#[test]
fn what_others_listed_stays_as_it_was() {
    let of = Digest::of(b"image");
    let path = format!("/v2/test/x/manifests/{}", Tag::of_referrers(of));
    let other = json!({"mediaType": "x", "digest": Digest::of(b"other").to_string(), "size": 5, "platform": {"os": "linux"}});
    let foreign = json!({"mediaType": "x", "digest": "sha512:00", "size": 5, "data": "aGVsbG8="});
    let list = |manifests: &[&Value]| {
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string()
    };
    let first = list(&[&other]);
    let second = list(&[&other, &foreign]);
    let kept = Arc::new(Mutex::new((first, 0)));
    let copy = Arc::clone(&kept);
    let server = Server::start(move |request| {
        let mut kept = copy.lock().unwrap();
        match request.method.as_str() {
            "PUT" if request.target == path => {
                kept.1 += 1;
                // Somebody else is faster once, and does not know of ours.
                kept.0 = match kept.1 {
                    1 => second.clone(),
                    _ => String::from_utf8(request.body.clone()).unwrap(),
                };
                status(201)
            }
            "PUT" => status(201),
            "GET" if request.target == path => {
                Answer::new(200, kept.0.clone()).with("Content-Type", OCI_INDEX)
            }
            _ => status(404),
        }
    });
    let repository = repository(server.address);
    let (ours, bytes) = referrer(&Descriptor::of(OCI_MANIFEST, b"image"), SIGNATURE, b"signed");
    repository.add_referrer(of, &ours, &bytes).unwrap();
    let (index, puts) = kept.lock().unwrap().clone();
    let index: Value = serde_json::from_str(&index).unwrap();
    assert_eq!(index["manifests"], json!([other, foreign, ours.to_json()]));
    assert_eq!(puts, 2);
    // One by another algorithm is not for us to read.
    let listed = repository.referrers(of, None).unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[1], ours);
}

#[test]
fn a_registry_that_lists_referrers_is_asked_for_them() {
    let of = Digest::of(b"image");
    let (ours, bytes) = referrer(&Descriptor::of(OCI_MANIFEST, b"image"), SIGNATURE, b"signed");
    let (other, _) = referrer(&Descriptor::of(OCI_MANIFEST, b"image"), SBOM, b"list");
    let entries = [ours.to_json(), other.to_json()];
    let start = format!("/v2/test/x/referrers/{of}");
    let server = Server::start(move |request| {
        let page = |entry: &Value| {
            let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]});
            Answer::new(200, index.to_string()).with("Content-Type", OCI_INDEX)
        };
        match request.target.strip_prefix(&start) {
            None if request.method == "PUT" => status(201).with("OCI-Subject", of.to_string()),
            None => status(404),
            Some("?page=2") => page(&entries[1]),
            // It does not filter.
            Some(_) => page(&entries[0]).with("Link", r#"<?page=2>; rel="next""#),
        }
    });
    let repository = repository(server.address);
    repository.add_referrer(of, &ours, &bytes).unwrap();
    repository.remove_referrer(of, ours.digest).unwrap();
    assert_eq!(
        repository.referrers(of, None).unwrap(),
        [ours.clone(), other.clone()]
    );
    assert_eq!(repository.referrers(of, Some(SBOM)).unwrap(), [other]);
    let asked = server.requests();
    assert!(asked.iter().any(|request| {
        request
            .target
            .ends_with("?artifactType=application%2Fspdx%2Bjson")
    }));
    // Nobody has touched the tag.
    let tag = Tag::of_referrers(of).to_string();
    assert!(
        asked.iter().all(|request| !request.target.contains(&tag)),
        "{asked:?}"
    );
}

#[test]
fn odd_lists_of_referrers() {
    let of = Digest::of(b"image");
    // A page for people is no list.
    let server = Server::start(|request| match request.target.contains("/referrers/") {
        true => Answer::new(200, "<html>").with("Content-Type", "text/html"),
        false => status(404),
    });
    assert_eq!(repository(server.address).referrers(of, None).unwrap(), []);
    for (body, why) in [
        ("{", "is not valid"),
        ("[]", "no image index"),
        (r#"{"manifests":7}"#, "no image index"),
    ] {
        for by_tag in [false, true] {
            let server = Server::start(move |request| match request.target.contains("/referrers/") {
                true if by_tag => status(404),
                _ => Answer::new(200, body).with("Content-Type", OCI_INDEX),
            });
            says(repository(server.address).referrers(of, None), &[why]);
        }
    }
    // Under the tag lies something else, which is not to be written over.
    let manifest = artifact("application/x", b"abc", None);
    let server = Server::start(move |request| match request.method.as_str() {
        "PUT" => status(201),
        _ if request.target.contains("/referrers/") => status(404),
        _ => Answer::new(200, manifest.clone()).with("Content-Type", OCI_MANIFEST),
    });
    let (ours, bytes) = referrer(&Descriptor::of(OCI_MANIFEST, b"image"), SIGNATURE, b"signed");
    let error = repository(server.address)
        .add_referrer(of, &ours, &bytes)
        .unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
    assert_eq!(
        server
            .requests()
            .iter()
            .filter(|request| request.method == "PUT")
            .count(),
        1
    );
}
