//! Alpine: a real minirootfs, and a small repository that somebody else has signed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firebrick_bootstrap::{Base, BootstrapError, Cause, Event, PackageSet, prepare};

use firebrick_testkit::fixtures::fixture;
use firebrick_testkit::server::Server;

use crate::{Place, digest, failure, list};

/// A mirror of one release, `v3.20`: minirootfs and packages.
struct Mirror {
    folder: tempfile::TempDir,
    server: Server,
    fixtures: PathBuf,
}

impl Mirror {
    fn new() -> Option<Mirror> {
        let fixtures = fixture("apk")?.parent()?.to_owned();
        let folder = tempfile::tempdir().unwrap();
        let branch = folder.path().join("v3.20");
        let releases = branch.join("releases/x86_64");
        fs::create_dir_all(&releases).unwrap();
        symlink(fixtures.join("apk/repository"), branch.join("main")).unwrap();
        symlink(minirootfs(&fixtures), releases.join("base.tar.gz")).unwrap();
        let server = Server::of(folder.path()).unwrap();
        Some(Mirror {
            folder,
            server,
            fixtures,
        })
    }

    /// The list of releases, with this digest in it.
    fn publish(&self, digest: &str) {
        let list = format!(
            "---\n-\n  branch: v3.20\n  flavor: alpine-uboot\n  file: other.tar.gz\n  sha256: 00\n-\n  title: \"Mini root filesystem\"\n  \
             flavor: alpine-minirootfs\n  file: base.tar.gz\n  sha256: {digest}\n"
        );
        let path = self
            .folder
            .path()
            .join("v3.20/releases/x86_64/latest-releases.yaml");
        fs::write(path, list).unwrap();
    }

    fn set(&self, packages: &[&str]) -> PackageSet {
        PackageSet {
            suite: "v3.20".to_owned(),
            mirrors: vec![self.server.url()],
            components: vec!["main".to_owned()],
            platform: "linux/amd64".parse().unwrap(),
            packages: packages.iter().map(ToString::to_string).collect(),
            keys: Some(self.fixtures.join("apk/repository")),
            minirootfs: Some(minirootfs(&self.fixtures)),
            ..PackageSet::new(Base::Alpine)
        }
    }
}

fn minirootfs(fixtures: &Path) -> PathBuf {
    fixtures.join("alpine/alpine-minirootfs-3.20.3-x86_64.tar.gz")
}

#[test]
fn packages_are_installed_twice_the_same() {
    let Some(mirror) = Mirror::new() else { return };
    let place = Place::new();
    let (tar, said) = place.install_telling(&mirror.set(&["replayout"]));
    let tar = tar.unwrap();
    let stages: Vec<_> = said
        .iter()
        .filter(|event| matches!(event, Event::Stage(_)))
        .collect();
    assert_eq!(
        stages,
        [
            &Event::Stage("installing packages".to_owned()),
            &Event::Stage("creating tarball".to_owned())
        ]
    );
    let names = list(&tar);
    let shadow = names.lines().find(|line| line.ends_with("./etc/shadow")).unwrap();
    assert!(shadow.contains(" 0/42 "), "files keep their owners: {shadow}");
    assert!(
        names.contains("./etc/apk/keys/melange.rsa.pub"),
        "the image trusts the same key"
    );
    assert!(!names.contains("./dev/null"), "borrowed devices stay here");
    assert_eq!(
        digest(&place.install(&mirror.set(&["replayout"])).unwrap()),
        digest(&tar)
    );
}

#[test]
fn what_nobody_has_signed_is_installed_only_when_asked() {
    let Some(mirror) = Mirror::new() else { return };
    let place = Place::new();
    let unsigned = PackageSet {
        keys: None,
        ..mirror.set(&["replayout"])
    };
    let (cause, words) = failure(place.install(&unsigned));
    assert_eq!(cause, Cause::Signature, "{words}");
    assert!(words.contains("UNTRUSTED signature"), "{words}");
    let asked = PackageSet {
        insecure: true,
        ..unsigned
    };
    place.install(&asked).unwrap();
}

#[test]
fn failures_are_told_in_apks_words() {
    let Some(mirror) = Mirror::new() else { return };
    let place = Place::new();
    let (cause, words) = failure(place.install(&mirror.set(&["nonesuch"])));
    assert_eq!(cause, Cause::Package, "{words}");
    assert!(words.contains("nonesuch (no such package)"), "{words}");
    let nowhere = PackageSet {
        mirrors: vec!["http://127.0.0.1:1".to_owned()],
        ..mirror.set(&["replayout"])
    };
    let (cause, words) = failure(place.install(&nowhere));
    assert_eq!(cause, Cause::Mirror, "{words}");
}

#[test]
fn the_minirootfs_comes_from_the_mirror_and_is_what_it_promised() {
    let Some(mirror) = Mirror::new() else { return };
    let (place, cache) = (Place::new(), tempfile::tempdir().unwrap());
    let bytes = fs::read(minirootfs(&mirror.fixtures)).unwrap();
    let set = PackageSet {
        minirootfs: None,
        ..mirror.set(&[])
    };
    let options = firebrick_bootstrap::Options {
        cache: cache.path().join("new"),
        ..place.options()
    };
    mirror.publish(firebrick_digest::Digest::of(&bytes).hex().to_string().as_str());
    let fetched = crate::install(&set, &options).unwrap();
    let given = place.install(&mirror.set(&[])).unwrap();
    assert_eq!(digest(&fetched), digest(&given));

    mirror.publish(firebrick_digest::Digest::of(b"other").hex().to_string().as_str());
    let Err(BootstrapError::Fetch { url, .. }) = crate::install(&set, &options) else {
        panic!("it is not what was promised");
    };
    assert!(url.ends_with("/v3.20/releases/x86_64/base.tar.gz"), "{url}");
    // Nobody vouches for what comes over plain HTTP from elsewhere.
    let plain = PackageSet {
        mirrors: vec!["http://mirror.invalid/alpine".to_owned()],
        ..set.clone()
    };
    let Err(BootstrapError::Fetch { source, .. }) = prepare(&plain, &options).map(|_| ()) else {
        panic!("plain HTTP proves nothing");
    };
    assert!(source.to_string().contains("plain HTTP"), "{source}");
    fs::write(
        mirror
            .folder
            .path()
            .join("v3.20/releases/x86_64/latest-releases.yaml"),
        "---\n",
    )
    .unwrap();
    assert!(matches!(
        prepare(&set, &options).map(|_| ()),
        Err(BootstrapError::NoMinirootfs { .. })
    ));
    assert!(place.is_empty());
}

#[test]
fn what_is_no_minirootfs_is_refused() {
    let Some(mirror) = Mirror::new() else { return };
    let place = Place::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), b"#!/bin/sh\n").unwrap();
    let set = |path: &Path| PackageSet {
        minirootfs: Some(path.to_owned()),
        ..mirror.set(&[])
    };
    assert!(matches!(
        place.install(&set(file.path())),
        Err(BootstrapError::MinirootfsTar { .. })
    ));
    let package = mirror
        .fixtures
        .join("apk/repository/x86_64/replayout-1.0.0-r0.apk");
    assert!(matches!(
        place.install(&set(&package)),
        Err(BootstrapError::Minirootfs { .. } | BootstrapError::MinirootfsTar { .. })
    ));
}

#[test]
fn a_reader_that_goes_away_leaves_nothing() {
    let Some(mirror) = Mirror::new() else { return };
    let place = Place::new();
    let prepared = prepare(&mirror.set(&["replayout"]), &place.options()).unwrap();
    let mut layer = prepared.image().layers[0].open().unwrap();
    std::io::Read::read_exact(&mut layer, &mut [0; 512]).unwrap();
    drop(layer);
    assert!(place.is_empty());
    assert!(prepared.take_failure().is_none(), "nobody is left to be told");
}

#[test]
fn stopping_ends_it_from_another_thread() {
    let Some(mirror) = Mirror::new() else { return };
    let place = Place::new();
    let prepared = prepare(&mirror.set(&["replayout"]), &place.options()).unwrap();
    let mut layer = prepared.image().layers[0].open().unwrap();
    let since = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| prepared.stop());
        // The tar fits no pipe, so it cannot have ended before it was stopped.
        std::thread::sleep(Duration::from_millis(300));
        assert!(std::io::Read::read_to_end(&mut layer, &mut Vec::new()).is_err());
    });
    assert!(matches!(
        prepared.take_failure(),
        Some(BootstrapError::Stopped { .. })
    ));
    assert!(place.is_empty() && since.elapsed() < Duration::from_secs(30));
    assert!(
        prepared.image().layers[0].open().is_err(),
        "it is not begun again"
    );
}
