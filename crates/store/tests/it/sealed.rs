//! A store that keeps a sealed image cannot tell which one it is; who has the key has all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use firebrick_digest::Digest;
use firebrick_store::{About, CheckOptions, LazyOptions, Seal, StoreError, Upload};
use serde_json::Value;

use crate::archives::{export, import};
use crate::common::{Host, Part, content, image};

const SECRETS: [&str; 5] = [
    "label of ours",
    "uuid:4f5c",
    "1.2.3-agent",
    "CONFIG_SQUASHFS_ZSTD",
    "sha256:source",
];

fn about() -> About {
    let [label, build_key, guest_version, kernel_need, source] = SECRETS.map(str::to_owned);
    About {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        format: "ext4".to_owned(),
        label: Some(label),
        build_key: Some(build_key),
        guest_version: Some(guest_version),
        kernel_needs: vec![kernel_need],
        annotations: [("dev.firebrick.source".to_owned(), source)].into(),
    }
}

fn host(folder: &Path, key: u8) -> Host {
    Host {
        seal: Seal::keyed(&[key; 32]),
        ..Host::new(&folder.join("store"), &folder.join("cache"))
    }
}

/// Uploads a file, and gives the image's manifest, config and entry of the index.
fn upload(host: &Host, folder: &Path, file: &Path) -> [Value; 3] {
    host.store
        .upload(&Upload {
            file: &File::open(file).unwrap(),
            path: file,
            tagged: &"secret".parse().unwrap(),
            about: about(),
            seal: &host.seal,
            time: 1_700_000_000,
            threads: 2,
        })
        .unwrap();
    let read = |path: &str| -> Value {
        let bytes = fs::read(folder.join("store").join(path)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let blob = |descriptor: &Value| {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        read(&format!("blobs/sha256/{}", digest.hex()))
    };
    let index = read("index.json");
    let manifest = blob(&index["manifests"][0]);
    let config = blob(&manifest["config"]);
    [manifest, config, index["manifests"][0].clone()]
}

/// Every value, with the way to it; places in lists are no part of it.
fn leaves(value: &Value, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(all) => all
            .iter()
            .for_each(|(key, value)| leaves(value, &format!("{path}/{key}"), found)),
        Value::Array(all) => all.iter().for_each(|value| leaves(value, path, found)),
        one => drop(found.entry(path.to_owned()).or_default().insert(one.to_string())),
    }
}

fn all(documents: &[Value; 3]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for (document, name) in documents.iter().zip(["manifest", "config", "index"]) {
        leaves(document, name, &mut found);
    }
    found
}

/// What may be the same: what every image of that name, platform and about that size has, and lengths of blobs.
const COMMON: [&str; 16] = [
    "manifest/schemaVersion",
    "manifest/mediaType",
    "manifest/artifactType",
    "manifest/config/mediaType",
    "manifest/config/size",
    "manifest/layers/mediaType",
    "manifest/layers/size",
    "config/architecture",
    "config/os",
    "config/format",
    "config/size",
    "index/mediaType",
    "index/artifactType",
    "index/size",
    "index/annotations/org.opencontainers.image.ref.name",
    "index/annotations/dev.firebrick.published",
];
const IMAGE_SIZE: &str = "index/annotations/dev.firebrick.image-size";

#[test]
fn one_image_of_two_keys_has_nothing_in_common() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(&at("a"), &[Part::Data(&content(1, 1000)), Part::Hole(77)]);
    // Another image, which is a little longer.
    image(&at("b"), &[Part::Data(&content(2, 950)), Part::Hole(140)]);
    let [one, two, other] = [("one", 1, "a"), ("two", 2, "a"), ("three", 3, "b")]
        .map(|(folder, key, file)| upload(&host(&at(folder), key), &at(folder), &at(file)));
    let (first, second) = (all(&one), all(&two));
    for (path, values) in &first {
        let same: Vec<_> = values.intersection(&second[path]).collect();
        let may = COMMON.contains(&path.as_str()) || path == IMAGE_SIZE;
        assert!(same.is_empty() || may, "{path}: {same:?}");
    }
    // Lengths of images are rounded, so that others have them, too; so are those of configs.
    let third = all(&other);
    for path in ["config/size", "manifest/config/size", IMAGE_SIZE] {
        assert_eq!(first[path], third[path], "{path}");
    }
    let text = format!("{one:?}");
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret}");
    }
    // The test sees what is told of an image that is open.
    let plain = Host::new(&at("four/store"), &at("four/cache"));
    let open = format!("{:?}", upload(&plain, &at("four"), &at("a")));
    assert!(SECRETS.iter().all(|secret| open.contains(secret)), "{open}");
}

#[test]
fn with_the_key_everything_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(&at("a"), &[Part::Data(&content(1, 1000)), Part::Hole(77)]);
    let len = fs::metadata(at("a")).unwrap().len();
    let owner = host(dir.path(), 1);
    upload(&owner, dir.path(), &at("a"));
    // The same again is known to be the same.
    let again = owner.store.upload(&Upload {
        file: &File::open(at("a")).unwrap(),
        path: &at("a"),
        tagged: &"secret".parse().unwrap(),
        about: about(),
        seal: &owner.seal,
        time: 1_700_000_001,
        threads: 2,
    });
    assert_eq!(again.unwrap().replaced, None);
    let reader = host(dir.path(), 1);
    let downloaded = reader.download("secret", &at("b"), &[]).unwrap();
    assert_eq!(downloaded.image_len, len);
    assert!(fs::read(at("a")).unwrap() == fs::read(at("b")).unwrap());
    let checked = reader.store.check(&CheckOptions {
        repair: false,
        keys: &reader.seal,
        local: &[],
        threads: 2,
    });
    let checked = checked.unwrap();
    assert!(checked.findings.is_empty() && checked.chunks > 20, "{checked:?}");
    let version = reader.store.find(&"secret".parse().unwrap()).unwrap();
    let stats = reader
        .store
        .stats(std::slice::from_ref(&version), &reader.seal)
        .unwrap();
    assert_eq!(stats.images[0].logical, len);
    assert!(version.image_size >= len && version.image_size <= len + len / 8);
    let store = Arc::new(host(dir.path(), 1).store);
    let lazy = store
        .lazy(&version, &reader.seal, LazyOptions::default())
        .unwrap();
    assert_eq!((lazy.size(), &lazy.config().about), (len, &about()));
    // An archive carries it, and opens with the key only.
    let (archive, _) = export(&reader, "secret", dir.path());
    let carried = host(&at("carried"), 1);
    import(&carried, &archive, None, dir.path()).unwrap();
    carried.download("secret", &at("c"), &[]).unwrap();
    assert!(fs::read(at("a")).unwrap() == fs::read(at("c")).unwrap());
    let error = host(&at("carried"), 2).download("secret", &at("d"), &[]);
    assert!(matches!(error, Err(StoreError::Key { .. })), "{error:?}");
}
