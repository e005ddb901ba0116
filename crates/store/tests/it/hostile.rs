//! Stores that lie: a download is right, or fails and leaves nothing.

use std::fs;
use std::path::Path;

use firebrick_digest::Digest;
use firebrick_store::StoreError;
use serde_json::{Value, json};

use crate::common::{Host, Part, content, image};

/// A store with a small image `x`, and the image.
fn store(dir: &Path) -> Vec<u8> {
    image(
        &dir.join("a"),
        &[
            Part::Data(&content(1, 40)),
            Part::Hole(30),
            Part::Data(&content(2, 3)),
        ],
    );
    Host::new(&dir.join("store"), &dir.join("cache"))
        .upload(&dir.join("a"), "x")
        .unwrap();
    fs::read(dir.join("a")).unwrap()
}

/// What a host that remembers nothing gets; whatever it is, there is no file under the name but the right one.
fn fetch(dir: &Path, right: &[u8]) -> Result<(), StoreError> {
    let (cache, out) = (
        tempfile::tempdir_in(dir).unwrap(),
        tempfile::tempdir_in(dir).unwrap(),
    );
    let path = out.path().join("image");
    let result = Host::new(&dir.join("store"), cache.path()).download("x", &path, &[]);
    match &result {
        Ok(_) => assert!(fs::read(&path).unwrap() == right),
        Err(_) => assert!(!path.exists()),
    }
    result.map(|_| ())
}

fn blob(dir: &Path, digest: &Digest) -> std::path::PathBuf {
    dir.join("store/blobs/sha256").join(digest.hex())
}

/// Puts bytes into the store under their digest.
fn put(dir: &Path, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    fs::write(blob(dir, &digest), bytes).unwrap();
    json!({ "digest": digest.to_string(), "size": bytes.len() })
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn of(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}

/// Changes manifest and config of the image, with digests that fit, and tells what comes of it.
fn with(change: impl Fn(&Path, &mut Value, &mut Value)) -> StoreError {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let right = store(dir);
    let mut index = read(&dir.join("store/index.json"));
    let mut manifest = read(&blob(dir, &of(&index["manifests"][0])));
    let mut config = read(&blob(dir, &of(&manifest["config"])));
    change(dir, &mut manifest, &mut config);
    let described = put(dir, &serde_json::to_vec(&config).unwrap());
    manifest["config"]["digest"] = described["digest"].clone();
    manifest["config"]["size"] = described["size"].clone();
    let described = put(dir, &serde_json::to_vec(&manifest).unwrap());
    index["manifests"][0]["digest"] = described["digest"].clone();
    index["manifests"][0]["size"] = described["size"].clone();
    fs::write(dir.join("store/index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    fetch(dir, &right).expect_err("nobody falls for it")
}

#[test]
fn no_byte_of_a_store_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let right = store(dir);
    fetch(dir, &right).unwrap();
    let blobs = fs::read_dir(dir.join("store/blobs/sha256"))
        .unwrap()
        .map(|one| one.unwrap().path());
    for path in blobs.chain([dir.join("store/index.json")]) {
        let bytes = fs::read(&path).unwrap();
        let step = (bytes.len() / 150).max(1);
        for at in (0..bytes.len()).step_by(step) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, &damaged).unwrap();
            let _ = fetch(dir, &right);
        }
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(fetch(dir, &right).is_err(), "{path:?} cut at {cut}");
        }
        fs::write(&path, &bytes).unwrap();
    }
    fetch(dir, &right).unwrap();
}

#[test]
fn documents_have_bounds() {
    let large = with(|_, manifest, _| manifest["annotations"] = json!({ "x": "y".repeat(5 << 20) }));
    assert!(matches!(large, StoreError::Object(_)), "{large}");
    let config = with(|_, _, config| config["annotations"] = json!({ "x": "y".repeat(2 << 20) }));
    assert!(config.to_string().contains("its config has"), "{config}");
    let bundle = with(|_, manifest, _| manifest["layers"][1]["size"] = json!(1_u64 << 40));
    assert!(bundle.to_string().contains("has 1099511627776 bytes"), "{bundle}");
    let table = with(|_, _, config| config["tableLen"] = json!(1_u64 << 40));
    assert!(
        table.to_string().contains("it has 1099511627776 bytes"),
        "{table}"
    );
}

#[test]
fn tables_are_of_their_image() {
    let longer = with(|_, _, config| config["size"] = json!(1_u64 << 50));
    assert!(
        longer.to_string().contains("the image of 1125899906842624"),
        "{longer}"
    );
    let unlisted = with(|_, manifest, _| {
        manifest["layers"].as_array_mut().unwrap().truncate(1);
    });
    assert!(
        unlisted.to_string().contains("does not list its blob"),
        "{unlisted}"
    );
    let shorter = with(|_, manifest, _| {
        for layer in manifest["layers"].as_array_mut().unwrap().iter_mut().skip(1) {
            layer["size"] = json!(10);
        }
    });
    assert!(
        shorter.to_string().contains("outside its blob of 10 bytes"),
        "{shorter}"
    );
}

#[test]
fn what_unpacks_to_more_than_it_says_is_not_unpacked() {
    // A root of a hundred MiB in a few KiB, told as one of its right length.
    let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 3).unwrap();
    let error = with(|dir, manifest, _| {
        let described = put(dir, &bomb);
        manifest["layers"][0]["digest"] = described["digest"].clone();
        manifest["layers"][0]["size"] = described["size"].clone();
    });
    let is_refused = matches!(error, StoreError::Chunk { .. } | StoreError::Corrupt { .. });
    assert!(is_refused, "{error}");
}

#[test]
fn names_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    let path = dir.join("store/index.json");
    let mut index = read(&path);
    let entry = index["manifests"][0].clone();
    for name in ["../x", "/etc/x", "a/../b", "x:..", "", "x\u{0}y"] {
        let mut odd = entry.clone();
        odd["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
        index["manifests"].as_array_mut().unwrap().push(odd);
    }
    fs::write(&path, serde_json::to_vec(&index).unwrap()).unwrap();
    let host = Host::new(&dir.join("store"), &dir.join("cache2"));
    let names: Vec<String> = host
        .store
        .backend()
        .versions()
        .unwrap()
        .iter()
        .map(|one| one.tagged.to_string())
        .collect();
    assert_eq!(names, ["x:latest"]);
}

#[test]
fn lengths_of_other_programs_images_add_up_to_no_more_than_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    let layer = |content: &[u8]| json!({ "mediaType": "x", "digest": Digest::of(content).to_string(), "size": u64::MAX });
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": layer(b"a"), "layers": [layer(b"b"), layer(b"c")] });
    let mut described = put(dir, &serde_json::to_vec(&manifest).unwrap());
    described["mediaType"] = json!(media_type);
    let path = dir.join("store/index.json");
    let mut index = read(&path);
    index["manifests"].as_array_mut().unwrap().push(described);
    fs::write(&path, serde_json::to_vec(&index).unwrap()).unwrap();
    let host = Host::new(&dir.join("store"), &dir.join("cache2"));
    let checked = host.store.check(&firebrick_store::CheckOptions {
        repair: false,
        keys: &host.seal,
        local: &[],
        threads: 2,
    });
    let checked = checked.unwrap();
    assert_eq!(
        (checked.findings.len(), checked.broken.len()),
        (3, 0),
        "{checked:?}"
    );
}
