//! Stores of which something went: what is relied on is looked at, and nothing is taken for garbage because a list of names is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use firebrick_store::{Fault, Finding, GcOptions, StoreError};
use serde_json::{Value, json};

use crate::common::{Host, Part, content, image};

struct World {
    dir: tempfile::TempDir,
    host: Host,
}

/// A store with one image, `app`.
fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::new(&dir.path().join("store"), &dir.path().join("cache"));
    image(&dir.path().join("app"), &[Part::Data(&content(1, 600))]);
    host.upload(&dir.path().join("app"), "app").unwrap();
    World { dir, host }
}

impl World {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.at("store/index.json")).unwrap()).unwrap()
    }

    fn blobs(&self) -> Vec<PathBuf> {
        let found = fs::read_dir(self.at("store/blobs/sha256")).unwrap();
        found.map(|one| one.unwrap().path()).collect()
    }

    fn collect(&self) -> Result<u64, StoreError> {
        let options = GcOptions {
            dry_run: false,
            grace: Duration::ZERO,
            keep: None,
            now: SystemTime::now(),
        };
        Ok(self.host.store.collect(&options)?.deleted.count)
    }

    fn is_right(&self) -> bool {
        let checked = self.host.check();
        checked.findings.is_empty() && checked.broken.is_empty()
    }
}

fn cut(path: &Path, len: u64) {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len)
        .unwrap();
}

#[test]
fn blobs_that_are_too_short_are_sent_again() {
    for len in [0, 100] {
        let world = world();
        for blob in world.blobs() {
            // Each in its turn, and the image uploaded again; and another that shares with it, by a host that knows of nothing.
            let name = blob.file_name().unwrap().to_str().unwrap().to_owned();
            let before = fs::metadata(&blob).unwrap().len();
            cut(&blob, len.min(before - 1));
            assert!(!world.is_right(), "{name} at {len}");
            let other = Host::new(&world.at("store"), &world.at(&format!("cache-{name}-{len}")));
            let again = other.upload(&world.at("app"), "app").unwrap();
            assert!(again.sent > 0, "{name} at {len}");
            other.download("app", &world.at("back"), &[]).unwrap();
            assert_eq!(
                fs::read(world.at("back")).unwrap(),
                fs::read(world.at("app")).unwrap()
            );
            let old = world.host.store.backend().versions().unwrap();
            for version in old.into_iter().filter(|version| !version.current) {
                let name = version.tagged.name.clone();
                world
                    .host
                    .store
                    .backend()
                    .remove(&name, &|one| *one == version)
                    .unwrap();
            }
            world.collect().unwrap();
            assert!(world.is_right(), "{name} at {len}");
        }
    }
}

#[test]
fn another_image_does_not_build_on_what_is_too_short() {
    let world = world();
    let largest = world
        .blobs()
        .into_iter()
        .max_by_key(|blob| fs::metadata(blob).unwrap().len());
    cut(&largest.unwrap(), 1000);
    image(
        &world.at("more"),
        &[Part::Data(&content(1, 600)), Part::Data(&content(2, 50))],
    );
    let sent = world.host.upload(&world.at("more"), "more").unwrap();
    assert!(sent.new_chunks > sent.known_chunks, "{sent:?}");
    world.host.download("more", &world.at("back"), &[]).unwrap();
    assert_eq!(
        fs::read(world.at("back")).unwrap(),
        fs::read(world.at("more")).unwrap()
    );
}

#[test]
fn a_store_whose_names_are_gone_is_not_taken_for_an_empty_one() {
    let world = world();
    let before = world.blobs().len();
    let index = fs::read(world.at("store/index.json")).unwrap();
    for damage in [None, Some(&b"{\"schemaVersion\":2}"[..]), Some(b"")] {
        match damage {
            None => fs::remove_file(world.at("store/index.json")).unwrap(),
            Some(bytes) => fs::write(world.at("store/index.json"), bytes).unwrap(),
        }
        let fails = [
            world.host.store.backend().versions().map(drop),
            world.collect().map(drop),
            world.host.upload(&world.at("app"), "other").map(drop),
        ];
        for result in fails {
            let error = result.unwrap_err();
            assert!(
                matches!(&error, StoreError::Corrupt { what, .. } if what == "index.json"),
                "{error}"
            );
        }
    }
    assert_eq!(world.blobs().len(), before);
    fs::write(world.at("store/index.json"), index).unwrap();
    assert_eq!(world.collect().unwrap(), 0);
    assert!(world.is_right());
}

/// What is there after an upload that was ended before it wrote a name.
#[test]
fn a_store_that_never_had_names_is_an_empty_one() {
    let world = world();
    fs::remove_file(world.at("store/index.json")).unwrap();
    fs::remove_file(world.at("store/oci-layout")).unwrap();
    assert_eq!(world.host.store.backend().versions().unwrap(), []);
    let again = world.host.upload(&world.at("app"), "app").unwrap();
    // The bundle and the table are there from before.
    assert_eq!((again.new_chunks, again.sent > 0), (0, true), "{again:?}");
    assert!(world.is_right());
    assert_eq!(
        fs::read(world.at("store/oci-layout")).unwrap(),
        br#"{"imageLayoutVersion":"1.0.0"}"#
    );
}

#[test]
fn a_wrong_length_among_the_names_is_found_and_mended_by_an_upload() {
    let world = world();
    let mut index = world.index();
    let right = index.clone();
    let size = &mut index["manifests"][0]["size"];
    *size = json!(size.as_u64().unwrap() + 7);
    fs::write(world.at("store/index.json"), index.to_string()).unwrap();
    let checked = world.host.check();
    assert!(
        matches!(&checked.findings[..], [Finding { fault: Fault::Length { expected, found }, .. }] if *expected == found + 7),
        "{checked:?}"
    );
    assert_eq!(checked.broken.len(), 1);
    world.host.upload(&world.at("app"), "app").unwrap();
    assert_eq!(
        world.index()["manifests"][0]["size"],
        right["manifests"][0]["size"]
    );
    assert!(world.is_right());
}

#[test]
fn entries_by_another_algorithm_stay_and_are_in_nobodys_way() {
    let world = world();
    let mut index = world.index();
    let foreign = json!({"mediaType": "m", "digest": format!("sha512:{}", "0".repeat(128)), "size": 5});
    index["manifests"].as_array_mut().unwrap().push(foreign.clone());
    fs::write(world.at("store/index.json"), index.to_string()).unwrap();
    world.host.upload(&world.at("app"), "other").unwrap();
    assert_eq!(world.host.store.backend().versions().unwrap().len(), 2);
    world.host.download("app", &world.at("back"), &[]).unwrap();
    assert!(world.is_right());
    let entries = world.index()["manifests"].as_array().unwrap().clone();
    assert!(entries.contains(&foreign), "{entries:?}");
    // What it needs nobody can tell, so nothing is garbage for sure.
    let error = world.collect().unwrap_err().to_string();
    assert!(error.contains("sha512:000"), "{error}");
    // An entry that is only damaged is not foreign.
    for digest in ["sha256:00", "", "00"] {
        index["manifests"][1]["digest"] = json!(digest);
        fs::write(world.at("store/index.json"), index.to_string()).unwrap();
        assert!(world.host.store.backend().versions().is_err(), "{digest}");
    }
}
