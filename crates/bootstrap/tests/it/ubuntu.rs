//! Ubuntu: an archive in its shape, made and signed here out of Debian's packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;

use firebrick_bootstrap::{Base, BootstrapError, Cause, Event, PackageSet, prepare};
use firebrick_testkit::oracle::leave_out;
use firebrick_testkit::server::{self, Server};

use crate::{Place, failure};

fn archive() -> PathBuf {
    server::ubuntu_archive(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}

fn serve() -> Server {
    Server::of(&archive().join("archive")).unwrap()
}

fn set(server: &Server, key: &str, packages: &[&str]) -> PackageSet {
    PackageSet {
        mirrors: vec![server.url()],
        keys: Some(archive().join(key)),
        packages: packages.iter().map(ToString::to_string).collect(),
        ..PackageSet::new(Base::Ubuntu)
    }
}

#[test]
fn another_key_is_not_trusted() {
    let (place, server) = (Place::new(), serve());
    let (cause, words) = failure(place.install(&set(&server, "other.gpg", &[])));
    assert_eq!(cause, Cause::Signature, "{words}");
    assert!(words.contains("NO_PUBKEY"), "{words}");
}

#[test]
fn failures_are_told_in_apts_words() {
    let (place, server) = (Place::new(), serve());
    let (cause, words) = failure(place.install(&set(&server, "key.gpg", &["nonesuch"])));
    assert_eq!(cause, Cause::Package, "{words}");
    assert!(words.contains("E: Unable to locate package nonesuch"), "{words}");

    let other = PackageSet {
        suite: "warty".to_owned(),
        ..set(&server, "key.gpg", &[])
    };
    let (cause, words) = failure(place.install(&other));
    assert_eq!(cause, Cause::Mirror, "{words}");
    assert!(words.contains("could not find ubuntu warty"), "{words}");

    let nowhere = PackageSet {
        mirrors: vec!["http://127.0.0.1:1/ubuntu".to_owned()],
        ..set(&server, "key.gpg", &[])
    };
    assert_eq!(failure(place.install(&nowhere)).0, Cause::Mirror);
    assert!(place.is_empty());
}

#[test]
fn a_snapshot_is_a_folder_of_the_mirror_and_its_time() {
    let (place, server) = (Place::new(), serve());
    let then = PackageSet {
        snapshot: Some("20240501".parse().unwrap()),
        ..set(&server, "key.gpg", &[])
    };
    let prepared = prepare(&then, &place.options()).unwrap();
    assert_eq!(prepared.time(), 1_714_521_600);
    drop(prepared);
    let (cause, words) = failure(place.install(&then));
    assert_eq!(cause, Cause::Mirror, "{words}");
    assert!(words.contains("/20240501T000000Z noble"), "{words}");
}

#[test]
fn stopped_in_the_middle_it_leaves_nothing() {
    let (place, server) = (Place::new(), serve());
    let (tell, stages) = channel();
    let options = firebrick_bootstrap::Options {
        events: Arc::new(move |event| _ = tell.send(event)),
        ..place.options()
    };
    let prepared = prepare(&set(&server, "key.gpg", &[]), &options).unwrap();
    let mut layer = prepared.image().layers[0].open().unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || std::io::Read::read_to_end(&mut layer, &mut Vec::new()));
        // From then on files belong to users of the namespace.
        let extracts =
            |event: &Event| matches!(event, Event::Stage(stage) if stage.starts_with("extracting"));
        assert!(stages.iter().any(|event| extracts(&event)));
        prepared.stop();
        assert!(reader.join().unwrap().is_err());
    });
    assert!(matches!(
        prepared.take_failure(),
        Some(BootstrapError::Stopped { .. })
    ));
    assert!(place.is_empty());
}

#[test]
fn a_full_disk_is_named() {
    // Only root can have a small disk of its own, in a namespace of mounts.
    let folder = Place::new();
    if !rustix::process::geteuid().is_root() {
        leave_out("a full disk: only root can mount one");
        return;
    }
    let small = folder.0.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m,mode=1777", "tmpfs"])
        .arg(&small)
        .status();
    if !mount.unwrap().success() {
        leave_out("a full disk: none can be mounted here");
        return;
    }
    let server = serve();
    let options = firebrick_bootstrap::Options {
        temp_dir: small.clone(),
        ..folder.options()
    };
    let result = crate::install(&set(&server, "key.gpg", &[]), &options);
    let left = std::fs::read_dir(&small).unwrap().count();
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    let (cause, words) = failure(result);
    assert_eq!((cause, left), (Cause::DiskFull, 0), "{words}");
}
