//! Blobs in a real registry, and ranges from servers with ideas of their own.

use std::ops::Range;

use firebrick_digest::Digest;
use firebrick_registry::{RegistryError, Repository};
use firebrick_testkit::docker_registry::{DockerRegistry, Setup, have_tools};
use firebrick_testkit::http::{Answer, Request, Server};
use firebrick_testkit::random::noise;

use crate::support::{LIMIT, chain, repository, says, status};

/// The bounds of `bytes=A-B`.
fn asked(request: &Request) -> Range<usize> {
    let range = request.header("range").unwrap().strip_prefix("bytes=").unwrap();
    let (from, to) = range.split_once('-').unwrap();
    from.parse().unwrap()..to.parse::<usize>().unwrap() + 1
}

/// A well-behaved answer to a request for a range.
fn part(request: &Request, blob: &[u8]) -> Answer {
    let range = asked(request);
    let end = range.end.min(blob.len());
    let text = format!("bytes {}-{}/{}", range.start, end - 1, blob.len());
    Answer::new(206, &blob[range.start..end]).with("Content-Range", text)
}

fn read(repository: &Repository, blob: &[u8], range: Range<u64>) -> Result<(), RegistryError> {
    let found = repository.read_blob(Digest::of(blob), range.clone())?;
    let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
    assert!(found == blob[range.clone()], "{range:?}");
    Ok(())
}

#[test]
fn there_and_back_in_a_real_registry() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    let repository = repository(&registry.host);
    let blob = noise(300_000, 1);
    let digest = Digest::of(&blob);
    assert_eq!(repository.blob_exists(digest).unwrap(), None);
    says(
        repository.read_blob(digest, 0..1),
        &["test/x@sha256:", "does not exist", "BLOB_UNKNOWN"],
    );
    // What is there already is as good as new.
    for _ in 0..2 {
        repository.upload_blob(digest, &blob).unwrap();
    }
    assert_eq!(repository.blob_exists(digest).unwrap(), Some(300_000));
    for range in [0..300_000, 0..1, 299_999..300_000, 1000..200_000, 7..7] {
        read(&repository, &blob, range).unwrap();
    }
    for range in [299_999..300_001, 300_000..300_001, 400_000..500_000] {
        let error = repository.read_blob(digest, range).unwrap_err();
        assert!(matches!(error, RegistryError::Short { .. }), "{error}");
    }
    assert!(repository.unverified_blob(digest, 300_000).unwrap() == blob);
    let error = repository.unverified_blob(digest, 299_999).unwrap_err();
    assert!(
        matches!(error, RegistryError::TooLarge { limit: 299_999, .. }),
        "{error}"
    );
    let empty = Digest::of(b"");
    repository.upload_blob(empty, b"").unwrap();
    assert_eq!(repository.blob_exists(empty).unwrap(), Some(0));
}

#[test]
fn many_threads_share_a_repository() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    let repository = &repository(&registry.host);
    let blobs: Vec<Vec<u8>> = (0..8).map(|seed| noise(50_000, seed)).collect();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            // Two threads put the same blob at the same time.
            let blob = &blobs[thread / 2];
            scope.spawn(move || {
                repository.upload_blob(Digest::of(blob), blob).unwrap();
                read(repository, blob, 10..50_000).unwrap();
            });
        }
    });
    for blob in &blobs {
        assert!(repository.unverified_blob(Digest::of(blob), LIMIT).unwrap() == *blob);
    }
}

#[test]
fn a_registry_that_ignores_ranges_is_read_as_far_as_is_sensible() {
    let blob = noise(200_000, 1);
    let copy = blob.clone();
    let server = Server::start(move |_| Answer::new(200, copy.clone()));
    let reader = repository(server.address);
    for range in [0..10, 100_000..100_001, 5..200_000] {
        read(&reader, &blob, range).unwrap();
    }
    let error = reader.read_blob(Digest::of(&blob), 5..200_001).unwrap_err();
    assert!(
        matches!(error, RegistryError::Short { found: 200_000, .. }),
        "{error}"
    );
    let server = Server::start(|_| Answer::new(200, vec![0; (64 << 20) + 10]));
    let reader = repository(server.address);
    assert_eq!(
        reader
            .read_blob(Digest::of(b""), 64 << 20..(64 << 20) + 1)
            .unwrap(),
        [0]
    );
    says(
        reader.read_blob(Digest::of(b""), (64 << 20) + 1..(64 << 20) + 2),
        &["does not support to read a part of a blob"],
    );
}

#[test]
fn answers_of_other_ranges_are_put_right_or_refused() {
    let blob = noise(200_000, 1);
    // Early is fine: what comes before is skipped.
    let copy = blob.clone();
    let early = Server::start(move |request| match request.target.as_str() {
        "/v2/" => status(200),
        _ => {
            let range = asked(request);
            let text = format!("bytes {}-{}/*", range.start / 2, range.end - 1);
            Answer::new(206, &copy[range.start / 2..range.end]).with("Content-Range", text)
        }
    });
    read(&repository(early.address), &blob, 50_000..150_000).unwrap();
    // A part of it is fine too: the rest is asked for.
    let copy = blob.clone();
    let little = Server::start(move |request| match request.target.as_str() {
        "/v2/" => status(200),
        _ => {
            let range = asked(request);
            let end = range.end.min(range.start + 70_000);
            let text = format!("bytes {}-{}/{}", range.start, end - 1, copy.len());
            Answer::new(206, &copy[range.start..end]).with("Content-Range", text)
        }
    });
    read(&repository(little.address), &blob, 1000..200_000).unwrap();
    assert_eq!(little.blob_requests().len(), 3);
    for text in ["bytes 6-9/200000", "bytes */200000", "5-9/10", "bytes x-9/10", ""] {
        let odd = Server::start(move |_| Answer::new(206, "01234").with("Content-Range", text));
        let error = repository(odd.address)
            .read_blob(Digest::of(&blob), 5..10)
            .unwrap_err();
        assert!(matches!(error, RegistryError::Protocol { .. }), "{text}: {error}");
    }
    // It has the size of another blob.
    let odd = Server::start(|_| Answer::new(206, "01234").with("Content-Range", "bytes 5-9/9"));
    let error = repository(odd.address)
        .read_blob(Digest::of(&blob), 5..10)
        .unwrap_err();
    assert!(matches!(error, RegistryError::Short { found: 9, .. }), "{error}");
}

#[test]
fn a_cut_body_goes_on_where_it_broke() {
    let blob = noise(300_000, 1);
    let copy = blob.clone();
    let server = Server::start(move |request| match request.target.as_str() {
        "/v2/" => status(200),
        _ => Answer {
            cut: Some(90_000),
            ..part(request, &copy)
        },
    });
    read(&repository(server.address), &blob, 10_000..290_000).unwrap();
    let starts: Vec<usize> = server
        .blob_requests()
        .iter()
        .map(|request| asked(request).start)
        .collect();
    assert_eq!(starts, [10_000, 100_000, 190_000, 280_000]);
    // One that brings nothing is given up.
    let server = Server::start(move |request| match request.target.as_str() {
        "/v2/" => status(200),
        _ => Answer {
            cut: Some(0),
            ..part(request, &[0; 100])
        },
    });
    says(
        repository(server.address).read_blob(Digest::of(b""), 0..100),
        &["cannot read http://", "(4 tries)"],
    );
    assert_eq!(server.blob_requests().len(), 4);
}

#[test]
fn sizes_that_nobody_tells() {
    let server = Server::start(|request| match request.method.as_str() {
        // A status that has no length.
        "HEAD" => status(204),
        _ => status(200),
    });
    let error = repository(server.address)
        .blob_exists(Digest::of(b""))
        .unwrap_err();
    assert!(chain(&error).contains("answers 204"), "{error}");
}
