//! Manifests, tags and the catalog of a real registry, read back by `skopeo`.

use firebrick_digest::Digest;
use firebrick_registry::{ManifestName, RegistryError, Tag};
use firebrick_testkit::docker_registry::{DockerRegistry, Setup, have_tools};
use firebrick_testkit::http::{Answer, Server};
use firebrick_testkit::oracle;
use firebrick_testkit::random::noise;

use crate::support::{LIMIT, OCI_MANIFEST, artifact, open, options, put_blobs, repository, says};

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn by_tag(text: &str) -> ManifestName {
    ManifestName::Tag(tag(text))
}

#[test]
fn an_artifact_there_and_back() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    let repository = repository(&registry.host);
    assert_eq!(repository.manifest(&by_tag("v1"), LIMIT).unwrap(), None);
    assert_eq!(repository.tags().unwrap(), []);
    let blob = noise(100_000, 1);
    let bytes = artifact("application/vnd.firebrick.test", &blob, None);
    // What it names is not there yet.
    says(
        repository.put_manifest(&by_tag("v1"), OCI_MANIFEST, &bytes),
        &["answers 40", "BLOB_UNKNOWN"],
    );
    put_blobs(&repository, &blob);
    let digest = Digest::of(&bytes);
    for name in [by_tag("v2"), by_tag("v1"), ManifestName::Digest(digest)] {
        let pushed = repository.put_manifest(&name, OCI_MANIFEST, &bytes).unwrap();
        assert_eq!((pushed.digest, pushed.lists_referrer), (digest, false));
        let found = repository.manifest(&name, LIMIT).unwrap().unwrap();
        assert_eq!(found.digest, digest);
        assert_eq!(found.media_type.as_deref(), Some(OCI_MANIFEST));
        assert!(found.bytes == bytes);
    }
    assert_eq!(repository.tags().unwrap(), [tag("v1"), tag("v2")]);
    says(
        repository.put_manifest(&ManifestName::Digest(Digest::of(b"x")), OCI_MANIFEST, &bytes),
        &["answers 400", "DIGEST_INVALID"],
    );
    let folder = tempfile::tempdir().unwrap();
    let from = format!("docker://{}/test/x:v1", registry.host);
    let to = format!("dir:{}", folder.path().display());
    oracle::run_ok(
        "skopeo",
        [
            "--insecure-policy",
            "copy",
            "-q",
            "--src-tls-verify=false",
            &from,
            &to,
        ],
    )
    .unwrap();
    assert!(std::fs::read(folder.path().join("manifest.json")).unwrap() == bytes);
    assert!(std::fs::read(folder.path().join(Digest::of(&blob).hex())).unwrap() == blob);
}

#[test]
fn what_is_removed_is_gone() {
    if !have_tools() {
        return;
    }
    let setup = Setup {
        deletes: true,
        ..Setup::default()
    };
    let registry = DockerRegistry::start(&setup);
    let repository = repository(&registry.host);
    put_blobs(&repository, b"abc");
    let bytes = artifact("application/x", b"abc", None);
    let digest = repository
        .put_manifest(&by_tag("v1"), OCI_MANIFEST, &bytes)
        .unwrap()
        .digest;
    // This registry removes manifests, but no tags. That there is none is another thing.
    let error = repository.delete_tag(&tag("v1")).unwrap_err();
    assert!(matches!(error, RegistryError::Unsupported { .. }), "{error}");
    assert!(repository.manifest(&by_tag("v1"), LIMIT).unwrap().is_some());
    assert!(repository.delete_manifest(digest).unwrap());
    assert!(!repository.delete_manifest(digest).unwrap());
    for name in [by_tag("v1"), ManifestName::Digest(digest)] {
        assert_eq!(repository.manifest(&name, LIMIT).unwrap(), None);
    }
    assert_eq!(repository.tags().unwrap(), []);
}

#[test]
fn a_registry_that_removes_nothing_says_so() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    let repository = repository(&registry.host);
    put_blobs(&repository, b"abc");
    let bytes = artifact("application/x", b"abc", None);
    let digest = repository
        .put_manifest(&by_tag("v1"), OCI_MANIFEST, &bytes)
        .unwrap()
        .digest;
    says(
        repository.delete_manifest(digest),
        &[
            &registry.host,
            "does not support to remove manifests",
            "UNSUPPORTED",
        ],
    );
    let error = repository.delete_tag(&tag("v1")).unwrap_err();
    assert!(matches!(error, RegistryError::Unsupported { .. }), "{error}");
    assert!(repository.manifest(&digest.into(), LIMIT).unwrap().is_some());
}

#[test]
fn tags_are_removed_where_that_can_be() {
    let server = Server::start(
        |request| match (request.method.as_str(), request.target.as_str()) {
            ("DELETE", "/v2/test/x/manifests/v1") => Answer::new(202, ""),
            ("DELETE", "/v2/test/x/manifests/v3") => Answer::new(500, ""),
            _ => Answer::new(404, ""),
        },
    );
    let repository = repository(server.address);
    assert!(repository.delete_tag(&tag("v1")).unwrap());
    assert!(!repository.delete_tag(&tag("v2")).unwrap());
    says(repository.delete_tag(&tag("v3")), &["answers 500"]);
}

#[test]
fn the_catalog_of_a_real_registry() {
    if !have_tools() {
        return;
    }
    let registry = DockerRegistry::start(&Setup::default());
    for name in ["images/b", "images/a", "other", "imagesque"] {
        let repository = open(&format!("{}/{name}", registry.host), &options());
        put_blobs(&repository, b"abc");
        let bytes = artifact("application/x", b"abc", None);
        repository
            .put_manifest(&by_tag("v1"), OCI_MANIFEST, &bytes)
            .unwrap();
    }
    let names = |prefix| -> Vec<String> {
        let found = repository(&registry.host).catalog(prefix).unwrap();
        found.into_iter().map(|name| name.repository).collect()
    };
    assert_eq!(names("images/"), ["images/a", "images/b"]);
    assert_eq!(names(""), ["images/a", "images/b", "imagesque", "other"]);
    assert_eq!(names("nothing"), [""; 0]);
}

#[test]
fn lists_come_in_pages() {
    let elsewhere = Server::start(|_| Answer::new(200, r#"{"tags":["e","a"]}"#));
    let other = elsewhere.address;
    let server = Server::start(move |request| match request.target.as_str() {
        "/v2/test/x/tags/list" => Answer::new(200, r#"{"name":"test/x","tags":["b","a"]}"#)
            .with("Link", r#"</v2/test/x/tags/list?n=2&last=b>; rel="next""#),
        "/v2/test/x/tags/list?n=2&last=b" => {
            Answer::new(200, r#"{"tags":["d"]}"#).with("Link", format!("<http://{other}/more>; rel=next"))
        }
        "/v2/_catalog" => Answer::new(200, r#"{"repositories":["x/a","y"]}"#)
            .with("Link", r#"<_catalog?last=y>; rel="next""#),
        "/v2/_catalog?last=y" => {
            Answer::new(200, r#"{"repositories":null}"#).with("Link", r#"</v2/_catalog?last=z>; rel="next""#)
        }
        "/v2/_catalog?last=z" => Answer::new(200, r#"{"repositories":["x/b","x/UPPER"]}"#),
        _ => Answer::new(404, ""),
    });
    let repository = repository(server.address);
    let tags: Vec<String> = repository.tags().unwrap().iter().map(Tag::to_string).collect();
    assert_eq!(tags, ["a", "b", "d", "e"]);
    let names: Vec<String> = repository
        .catalog("x/")
        .unwrap()
        .into_iter()
        .map(|name| name.repository)
        .collect();
    assert_eq!(names, ["x/a", "x/b"]);
}

#[test]
fn registries_without_a_catalog() {
    for refusal in [401, 403, 404, 405, 501] {
        let server = Server::start(move |_| Answer::new(refusal, ""));
        let error = repository(server.address).catalog("").unwrap_err();
        assert!(
            matches!(error, RegistryError::Unsupported { .. }),
            "{refusal}: {error}"
        );
    }
    let server = Server::start(|_| Answer::new(500, ""));
    says(repository(server.address).catalog(""), &["answers 500"]);
}
