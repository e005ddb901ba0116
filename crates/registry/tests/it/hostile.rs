//! Registries that lie: a clear error, in bounded memory.

use std::time::{Duration, Instant};

use firebrick_digest::Digest;
use firebrick_registry::{ManifestName, RegistryError, Repository};
use firebrick_testkit::http::{Answer, Server};
use firebrick_testkit::slow::SlowServer;

use crate::support::{LIMIT, OCI_MANIFEST, open, options, repository, says, status};

#[test]
fn manifests_that_are_others() {
    let server =
        Server::start(|_| Answer::new(200, "{}").with("Docker-Content-Digest", Digest::of(b"x").to_string()));
    let repository = repository(server.address);
    let asked = Digest::of(b"y");
    says(
        repository.manifest(&asked.into(), 10),
        &[
            &format!("manifest {asked} of 127.0.0.1"),
            "test/x is not what was promised: digest is",
        ],
    );
    let tag = ManifestName::Tag("v1".parse().unwrap());
    let error = repository.manifest(&tag, 10).unwrap_err();
    assert!(matches!(error, RegistryError::DigestHeader { .. }), "{error}");
    let error = repository.put_manifest(&tag, OCI_MANIFEST, b"{}");
    says(error, &["answers 200"]);
}

#[test]
fn answers_without_end() {
    let server = Server::start(|_| Answer::new(200, vec![b' '; (8 << 20) + 1]));
    let repository = repository(server.address);
    let tag = ManifestName::Tag("v1".parse().unwrap());
    let error = repository.manifest(&tag, 1000).unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::TooLarge {
                found: 1001,
                limit: 1000,
                ..
            }
        ),
        "{error}"
    );
    for error in [
        repository.tags().unwrap_err(),
        repository.catalog("").unwrap_err(),
        repository.unverified_blob(Digest::of(b""), 1000).unwrap_err(),
    ] {
        assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
    }
    let circle = Server::start(|request| {
        let next = match request.target.ends_with("?b") {
            true => "<?a>; rel=next",
            false => "<?b>; rel=next",
        };
        Answer::new(200, "{}").with("Link", next)
    });
    says(
        crate::support::repository(circle.address).tags(),
        &["leads in a circle"],
    );
    assert!(circle.requests().len() < 6);
    // A thousand tags a page, and always another page.
    let tags: Vec<String> = (0..100_000).map(|n| format!("\"t{n}\"")).collect();
    let body = format!(r#"{{"tags":[{}]}}"#, tags.join(","));
    let endless = Server::start(move |request| {
        let next = format!(
            "<{}x>; rel=next",
            request.target.replace("list", "list?").replace("??", "?")
        );
        Answer::new(200, body.clone()).with("Link", next)
    });
    says(
        crate::support::repository(endless.address).tags(),
        &["the listing has more than 1000000 entries"],
    );
}

/// Few entries, but each as large as a page may be.
#[test]
fn large_pages_without_end() {
    let body = format!(r#"{{"manifests":["{}"]}}"#, "x".repeat(7 << 20));
    let server = Server::start(move |request| {
        let next = format!("<{}x>; rel=next", request.target);
        Answer::new(200, body.clone())
            .with("Content-Type", firebrick_registry::media_type::OCI_INDEX)
            .with("Link", next)
    });
    says(
        repository(server.address).referrers(Digest::of(b""), Some("a/b")),
        &["the listing has more than 67108864 bytes"],
    );
}

#[test]
fn nonsense_in_lists() {
    for (body, why) in [
        ("", "is not valid"),
        ("[]", "is not valid"),
        (r#"{"tags":[7]}"#, "is not valid"),
        (r#"{"tags":["../../etc"]}"#, "a tag in the list is none"),
    ] {
        let server = Server::start(move |_| Answer::new(200, body));
        says(repository(server.address).tags(), &[why]);
    }
}

/// Neither silence nor a byte now and then keeps us for long.
#[test]
fn registries_that_give_next_to_nothing_are_left() {
    let trickling = || SlowServer::trickling(200, "", Duration::from_millis(20)).unwrap();
    for server in [SlowServer::silent().unwrap(), trickling()] {
        let mut quick = options();
        quick.read_timeout = Duration::from_millis(400);
        quick.retry.limit = Duration::from_millis(1000);
        quick.retry.attempts = 6;
        quick.plain_http = vec![server.address.to_string()];
        let asked = open(&format!("{}/test/x", server.address), &quick);
        type Ask = fn(&Repository) -> Result<(), RegistryError>;
        let asks: [Ask; 4] = [
            |asked| asked.tags().map(drop),
            |asked| {
                let tag = ManifestName::Tag("v1".parse().unwrap());
                asked.manifest(&tag, LIMIT).map(drop)
            },
            |asked| asked.unverified_blob(Digest::of(b"x"), 10_000).map(drop),
            |asked| asked.read_blob(Digest::of(b"x"), 0..1000).map(drop),
        ];
        for (number, ask) in asks.into_iter().enumerate() {
            let before = server.requests();
            let began = Instant::now();
            let error = ask(&asked).unwrap_err();
            assert!(
                matches!(error, RegistryError::Transport { .. }),
                "{number}: {error}"
            );
            assert!(began.elapsed() < Duration::from_secs(10), "{number}");
            let tries = server.requests() - before;
            assert!(tries <= 2, "{number}: {tries} tries");
        }
    }
}

/// What a registry says of a failure can neither fill nor steer a terminal.
#[test]
fn words_are_tame() {
    let words = format!(
        r#"{{"errors":[{{"code":"X","message":"\u001b[2J{}"}}]}}"#,
        "y".repeat(10_000)
    );
    let server = Server::start(move |_| Answer::new(418, words.clone()));
    let error = repository(server.address)
        .blob_exists(Digest::of(b""))
        .unwrap_err();
    // Of an answer to HEAD there are no words at all.
    assert!(error.to_string().ends_with("answers 418"), "{error}");
    let error = repository(server.address)
        .upload_blob(Digest::of(b""), b"")
        .unwrap_err()
        .to_string();
    assert!(
        !error.contains('\u{1b}') && error.contains("[2Jyyy") && error.len() < 500,
        "{error}"
    );
    let silent = Server::start(|_| status(0));
    says(
        repository(silent.address).tags(),
        &["cannot read http://", "(4 tries)"],
    );
}
