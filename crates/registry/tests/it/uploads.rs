//! Uploads and mounts: where they lead, what is made of refusals.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use firebrick_digest::Digest;
use firebrick_registry::RegistryError;
use firebrick_testkit::docker_registry::{DockerRegistry, Setup, have_tools};
use firebrick_testkit::http::{Answer, Request, Server};
use firebrick_testkit::random::noise;

use crate::support::{as_joe, open, recorded, repository, says, status};

fn is(request: &Request, method: &str, target: &str) -> bool {
    request.method == method && request.target == target
}

#[test]
fn what_is_something_else_is_not_taken() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    let repository = repository(&registry.host);
    let promised = Digest::of(b"abc");
    says(
        repository.upload_blob(promised, b"abd"),
        &["answers 400", "DIGEST_INVALID"],
    );
    assert_eq!(repository.blob_exists(promised).unwrap(), None);
}

#[test]
fn mounts_in_a_real_registry() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    let from = open(&format!("{}/base/images", registry.host), &Default::default());
    let into = repository(&registry.host);
    let blob = noise(100_000, 1);
    let digest = Digest::of(&blob);
    from.upload_blob(digest, &blob).unwrap();
    assert!(into.mount_blob(digest, from.name()).unwrap());
    assert_eq!(into.blob_exists(digest).unwrap(), Some(100_000));
    assert!(!into.mount_blob(Digest::of(b"nowhere"), from.name()).unwrap());
    let elsewhere = "lab:5000/base/images".parse().unwrap();
    assert!(!into.mount_blob(digest, &elsewhere).unwrap());
    // The upload that it opened instead was given up; what this registry forgets of such is an empty folder.
    let uploads = registry
        .folder
        .path()
        .join("data/docker/registry/v2/repositories/test/x/_uploads");
    let opened: Vec<_> = fs::read_dir(uploads).unwrap().map(Result::unwrap).collect();
    assert_eq!(opened.len(), 1);
    assert!(!opened[0].path().join("startedat").exists());
}

#[test]
fn refused_mounts_are_no_failures() {
    let digest = Digest::of(b"abc");
    let from = |server: &Server| format!("{}/base/images", server.address).parse().unwrap();
    for refusal in [400, 401, 403, 404, 405] {
        // To 400 for this, one would speak TLS.
        let server = Server::start(move |request| match request.target.as_str() {
            "/v2/" => status(200),
            _ => status(refusal),
        });
        assert!(
            !repository(server.address)
                .mount_blob(digest, &from(&server))
                .unwrap(),
            "{refusal}"
        );
    }
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => status(202).with("Location", "/v2/test/x/blobs/uploads/77?state=a"),
        _ => status(204),
    });
    assert!(
        !repository(server.address)
            .mount_blob(digest, &from(&server))
            .unwrap()
    );
    let asked = server.blob_requests();
    let expected = format!(
        "/v2/test/x/blobs/uploads/?mount={}&from=base%2Fimages",
        digest.to_string().replace(':', "%3A")
    );
    assert!(is(&asked[0], "POST", &expected), "{:?}", asked[0]);
    assert!(
        is(&asked[1], "DELETE", "/v2/test/x/blobs/uploads/77?state=a"),
        "{:?}",
        asked[1]
    );
    assert_eq!(asked.len(), 2);
    let other = Digest::of(b"abd").to_string();
    let server = Server::start(move |_| status(201).with("Docker-Content-Digest", other.clone()));
    let error = repository(server.address)
        .mount_blob(digest, &from(&server))
        .unwrap_err();
    assert!(matches!(error, RegistryError::Stored { .. }), "{error}");
    let server = Server::start(|_| status(418));
    says(
        repository(server.address).mount_blob(digest, &from(&server)),
        &["answers 418"],
    );
}

#[test]
fn an_upload_goes_on_where_the_registry_says() {
    let blob = noise(100_000, 1);
    let digest = Digest::of(&blob);
    let end = format!("digest={}", digest.to_string().replace(':', "%3A"));
    for (location, expected) in [
        ("/up/1", "/up/1?"),
        ("/up/1?state=a%2Fb", "/up/1?state=a%2Fb&"),
        ("77", "/v2/test/x/blobs/uploads/77?"),
        ("//HOST/up/2", "/up/2?"),
        ("http://HOST/up/3?x", "/up/3?x&"),
    ] {
        let server = Server::start(move |request| match request.method.as_str() {
            "POST" => {
                let location = location.replace("HOST", request.header("host").unwrap());
                status(202).with("Location", location)
            }
            _ => status(201),
        });
        repository(server.address).upload_blob(digest, &blob).unwrap();
        let asked = server.requests();
        let (post, put) = (&asked[asked.len() - 2], &asked[asked.len() - 1]);
        assert_eq!(post.header("content-length"), Some("0"));
        assert!(is(put, "PUT", &format!("{expected}{end}")), "{location}: {put:?}");
        assert_eq!(put.header("content-type"), Some("application/octet-stream"));
        assert!(put.body == blob);
    }
    for location in ["ftp://a/b", "http://registry.example/up", "#", ""] {
        let server = Server::start(move |_| status(202).with("Location", location));
        let error = repository(server.address).upload_blob(digest, &blob).unwrap_err();
        assert!(
            matches!(error, RegistryError::Protocol { .. }),
            "{location}: {error}"
        );
    }
}

/// The store behind the registry gets the bytes, but not who we are; that it does not want them is an end.
#[test]
fn other_hosts_do_not_hear_who_we_are() {
    for refuses in [false, true] {
        let store = Server::start(move |_| match refuses {
            true => status(401).with("WWW-Authenticate", "Basic realm=x"),
            false => status(201),
        });
        let place = store.address;
        let server = Server::start(move |request| match request.header("authorization") {
            None => status(401).with("WWW-Authenticate", "Basic realm=x"),
            Some(_) => status(202).with("Location", format!("http://{place}/up")),
        });
        let host = server.address.to_string();
        let repository = open(&format!("{host}/test/x"), &as_joe(&host));
        let done = repository.upload_blob(Digest::of(b"abc"), b"abc");
        match refuses {
            true => says(done, &["does not let us write test/x"]),
            false => done.unwrap(),
        }
        let asked = store.requests();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].body, b"abc");
        assert_eq!(asked[0].header("authorization"), None);
    }
}

#[test]
fn an_upload_that_fails_begins_anew() {
    // An odd answer to the first closing, then what must come of it.
    let odd: [fn() -> Answer; 5] = [
        || status(0),
        || status(500),
        || status(503).with("Retry-After", "1"),
        || status(429),
        || {
            Answer::new(
                404,
                r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"what?"}]}"#,
            )
        },
    ];
    for odd in odd {
        let count = Arc::new(AtomicUsize::new(0));
        let server = Server::start(move |request| match request.method.as_str() {
            "POST" => status(202).with("Location", format!("/up/{}", count.load(Ordering::SeqCst))),
            "PUT" if count.fetch_add(1, Ordering::SeqCst) == 0 => odd(),
            _ => status(201),
        });
        let (repository, tries) = recorded(server.address);
        repository.upload_blob(Digest::of(b"abc"), b"abc").unwrap();
        let targets: Vec<String> = server
            .requests()
            .iter()
            .filter(|request| request.method == "PUT")
            .map(|request| request.target.chars().take(5).collect())
            .collect();
        assert_eq!(targets, ["/up/0", "/up/1"]);
        let tries = tries.lock().unwrap();
        assert_eq!(tries.len(), 1);
        let wanted = match odd().headers.is_empty() {
            true => Duration::from_millis(10),
            false => Duration::from_secs(1),
        };
        assert_eq!(tries[0].delay, wanted, "{tries:?}");
    }
    let patient = Server::start(|_| status(503).with("Retry-After", "3600"));
    says(
        repository(patient.address).upload_blob(Digest::of(b"abc"), b"abc"),
        &["answers 503 and asks to wait 3600 s"],
    );
    let broken = Server::start(|_| status(0));
    says(
        repository(broken.address).upload_blob(Digest::of(b"abc"), b"abc"),
        &["cannot write http://", "(4 tries)"],
    );
}

#[test]
fn a_registry_that_keeps_something_else_is_told() {
    let other = Digest::of(b"abd").to_string();
    let server = Server::start(move |request| match request.method.as_str() {
        "POST" => status(202).with("Location", "/up"),
        _ => status(201).with("Docker-Content-Digest", other.clone()),
    });
    says(
        repository(server.address).upload_blob(Digest::of(b"abc"), b"abc"),
        &["the registry took sha256:ba7816bf", "for sha256:"],
    );
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => status(202),
        _ => status(201),
    });
    says(
        repository(server.address).upload_blob(Digest::of(b"abc"), b"abc"),
        &["does not say where the upload goes on"],
    );
}
