//! Other programs carry an image through other places, and it comes back as it was.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use firebrick_registry::RegistryOptions;
use firebrick_store::Registry;
use firebrick_testkit::docker_registry::{DockerRegistry, Setup};
use firebrick_testkit::oracle;

use crate::archives::{export, import};
use crate::common::{Host, Part, content, image};

fn skopeo(from: &str, to: &str) {
    let args = [
        "--insecure-policy",
        "copy",
        "-q",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        from,
        to,
    ];
    oracle::run_ok("skopeo", args).unwrap();
}

#[test]
fn skopeo_carries_an_image_through_folders_and_registries() {
    for tool in ["skopeo", "docker-registry"] {
        if !oracle::have(tool).unwrap() {
            return;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let shown = |name: &str| at(name).display().to_string();
    let registry = DockerRegistry::start(&Setup::default());
    image(
        &at("a"),
        &[
            Part::Data(&content(1, 1500)),
            Part::Hole(9),
            Part::Data(&content(2, 30)),
        ],
    );
    let host = Host::new(&at("store"), &at("cache"));
    let sent = host.upload(&at("a"), "python:v1").unwrap();
    let (bytes, _) = export(&host, "python:v1", dir.path());
    fs::write(at("one.tar"), &bytes).unwrap();
    let remote = format!("docker://{}/images/python:v1", registry.host);
    skopeo(
        &format!("oci-archive:{}:python:v1", shown("one.tar")),
        &format!("oci:{}:python:v1", shown("folder")),
    );
    skopeo(&format!("oci:{}:python:v1", shown("folder")), &remote);
    skopeo(&remote, &format!("oci-archive:{}:snake:v2", shown("two.tar")));
    // Its last archive, and the store that its folder is.
    let other = Host::new(&at("store2"), &at("cache2"));
    let taken = import(&other, &fs::read(at("two.tar")).unwrap(), None, dir.path()).unwrap();
    assert_eq!(taken.published.tagged.to_string(), "snake:v2");
    assert_eq!(taken.published.digest, sent.published.digest);
    let folder = Host::new(&at("folder"), &at("cache3"));
    for (host, name, path) in [(&other, "snake:v2", "b"), (&folder, "python:v1", "c")] {
        host.download(name, &at(path), &[]).unwrap();
        assert!(fs::read(at("a")).unwrap() == fs::read(at(path)).unwrap());
    }
}

/// As `oras` does: a client that copies whatever a manifest names, and understands none of it.
#[test]
fn a_client_that_knows_nothing_of_images_carries_one_unharmed() {
    for tool in ["python3", "docker-registry"] {
        if !oracle::have(tool).unwrap() {
            return;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let registry = DockerRegistry::start(&Setup::default());
    let host = |base: &str, cache: &str| {
        let base = format!("{}/{base}", registry.host);
        let backend = Registry::new(&base, RegistryOptions::default(), Arc::new(|_| ()));
        Host::of(Box::new(backend), &at(cache))
    };
    image(&at("a"), &[Part::Data(&content(1, 1500)), Part::Hole(9)]);
    let sent = host("from", "cache1").upload(&at("a"), "python:v1").unwrap();
    let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/carry.py"].iter().collect();
    let script = script.display().to_string();
    let args = [&script, &registry.host, "from/python", "to/python", "v1"];
    let said = oracle::run_ok("python3", args).unwrap();
    assert_eq!(said.trim(), sent.published.digest.to_string());
    let other = host("to", "cache2");
    other.download("python:v1", &at("b"), &[]).unwrap();
    assert!(fs::read(at("a")).unwrap() == fs::read(at("b")).unwrap());
}
