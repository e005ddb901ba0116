//! What names are, and what is said of those that are none.

use super::*;

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn check(text: &str, expected: &str) {
    let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(reference.to_string(), expected, "{text:?}");
    assert_eq!(
        expected.parse::<Reference>().unwrap(),
        reference,
        "{expected:?} again"
    );
}

#[test]
fn registry_names_as_docker_writes_them() {
    check("python", "docker.io/library/python:latest");
    check("python:3.12-alpine", "docker.io/library/python:3.12-alpine");
    check("docker://python:3.12", "docker.io/library/python:3.12");
    check("bitnami/redis", "docker.io/bitnami/redis:latest");
    check("index.docker.io/bitnami/redis", "docker.io/bitnami/redis:latest");
    check("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1");
    check("localhost/x", "localhost/x:latest");
    check("localhost:5000/x", "localhost:5000/x:latest");
    check("127.0.0.1:5000/x/y:T_1", "127.0.0.1:5000/x/y:T_1");
    check("[::1]:5000/x", "[::1]:5000/x:latest");
    check("docker://tar:1.0", "docker.io/library/tar:1.0");
    check("docker://sif:1.0", "docker.io/library/sif:1.0");
    check("docker://a.tar", "docker.io/library/a.tar:latest");
    check("a.b:x.tar", "docker.io/library/a.b:x.tar");
    check("docker:dind", "docker.io/library/docker:dind");
    check(
        &format!("alpine@{DIGEST}"),
        &format!("docker.io/library/alpine@{DIGEST}"),
    );
    check(
        &format!("alpine:3.20@{DIGEST}"),
        &format!("docker.io/library/alpine:3.20@{DIGEST}"),
    );
    check("a__b-c---e/f_g.h", "docker.io/a__b-c---e/f_g.h:latest");
}

#[test]
fn files_and_folders() {
    check("oci:dir", "oci:dir");
    check("oci:/srv/dir:tag", "oci:/srv/dir:tag");
    check("oci:dir:busybox:1.38.0-musl", "oci:dir:busybox:1.38.0-musl");
    check("oci-archive:a.tar:v1", "oci-archive:a.tar:v1");
    check("docker-archive:a.tar", "docker-archive:a.tar");
    check("docker-archive:a.tar:@1", "docker-archive:a.tar:@1");
    check("docker-archive:a.tar:x/y:1", "docker-archive:a.tar:x/y:1");
    check("tar:a:b.tar", "tar:a:b.tar");
    check("dir:.", "dir:.");
    check("docker-daemon:x:1", "docker-daemon:x:1");
    check(&format!("oci:dir:@{DIGEST}"), &format!("oci:dir:@{DIGEST}"));
}

#[test]
fn what_lies_here_is_not_asked_of_a_registry() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for name in ["root", "layout"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    std::fs::write(at("layout/index.json"), "{}").unwrap();
    let tar = |inner: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, inner, &b""[..]).unwrap();
        builder.into_inner().unwrap()
    };
    for (name, inner) in [("d", "manifest.json"), ("o", "./index.json"), ("t.tar", "etc/x")] {
        std::fs::write(at(name), tar(inner)).unwrap();
    }
    std::fs::write(at("z.tar.gz"), b"\x1f\x8b").unwrap();
    for (name, why) in [
        ("root", format!("it is a path: write dir:{}", at("root"))),
        ("layout", format!("write oci:{}", at("layout"))),
        ("layout:v1", format!("write oci:{}", at("layout:v1"))),
        ("d", format!("write docker-archive:{}", at("d"))),
        ("o", format!("write oci-archive:{}", at("o"))),
        ("t.tar", format!("write tar:{}", at("t.tar"))),
        ("z.tar.gz", format!("write tar:{} for a root", at("z.tar.gz"))),
        (
            "missing.tar",
            format!("write tar:{} for a root", at("missing.tar")),
        ),
    ] {
        let error = Reference::from_argument(&at(name)).unwrap_err().to_string();
        assert!(error.contains(&why), "{name}: {error}");
    }
    // Bare names are relative to the working folder, which is this crate's.
    let error = Reference::from_argument("Cargo.toml").unwrap_err().to_string();
    assert!(
        error.contains("there is a file of that name here: write tar:Cargo.toml")
            && error.ends_with(", or docker://Cargo.toml for a registry's"),
        "{error}"
    );
    for text in ["docker://src", "src", "dir:src", "alpine", "src:3", "oci:src"] {
        assert_eq!(Reference::from_argument(text), text.parse());
    }
}

#[test]
fn what_is_refused_and_why() {
    let long = format!("docker.io/{}", "a".repeat(256));
    for (text, why) in [
        ("", "empty"),
        ("oci:", "path"),
        ("dir:", "path"),
        ("https://ghcr.io/a", "web address"),
        ("Python", "repository names"),
        ("a//b", "repository names"),
        ("a..b", "repository names"),
        ("a___b", "repository names"),
        ("-a", "repository names"),
        (
            "../etc/passwd",
            "it is a path: write oci:../etc/passwd for an image layout, dir:../etc/passwd",
        ),
        ("/srv/x", "dir:/srv/x"),
        ("x/", "dir:x/"),
        (".", "dir:."),
        (
            "a.tar.gz",
            "tar:a.tar.gz for a root filesystem, docker-archive:a.tar.gz for",
        ),
        ("t/A.TAR", "oci-archive:t/A.TAR"),
        ("./a\u{1b}[2J", "dir:./a\\u{1b}[2J"),
        (
            "containers-storage:x",
            "the transports here are docker://, oci:, oci-archive:",
        ),
        (
            "containers-storage:x",
            "skopeo copy containers-storage:x oci:DIR:TAG",
        ),
        ("sif:x.sif", "skopeo copy sif:x.sif"),
        ("ostree:a/b", "skopeo copy ostree:a/b oci:DIR:TAG"),
        ("s3://a/b", "the transports here are docker://"),
        ("a/../b", "repository names"),
        (long.as_str(), "repository names"),
        ("python:", "tag"),
        ("python:-x", "tag"),
        ("python:a/b", "host and port"),
        ("host.x:99999/a", "host and port"),
        ("host.x:/a", "host and port"),
        ("[::zz]:1/a", "host and port"),
        ("user@host.x/a", "'@'"),
        ("python@sha256:00", "'@'"),
        ("oci:dir:@1", "'@'"),
        ("docker-archive:f:@99999999999999999999999", "'@'"),
    ] {
        let error = text.parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains(why), "{text:?}: {error}");
    }
}
