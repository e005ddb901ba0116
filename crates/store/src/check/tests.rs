//! Tables that lie, in stores whose digests are right.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::manifest::{BUNDLE, CONFIG, Config, Descriptor, ROOT};
use crate::seal::Closer;
use crate::table::{Segment, encode_root, encode_segment};
use crate::{About, Folder, Layout, Upload};

fn store(path: &Path) -> Store {
    let backend = Box::new(Layout::new(Folder::new(path)));
    Store::new(backend, None, Box::new(|_| ()), Arc::new(AtomicBool::new(false)))
}

fn check(store: &Store) -> Checked {
    let options = CheckOptions {
        repair: true,
        keys: &Seal::PLAIN,
        local: &[],
        threads: 1,
    };
    store.check(&options).unwrap()
}

/// Publishes an image of one chunk of zeros' neighbours, whose table says `promised` of where the chunk lies.
fn publish(store: &Store, promised: impl Fn(Locator) -> Locator) {
    let backend = store.backend();
    let tagged: crate::Tagged = "liar".parse().unwrap();
    let mut closer = Closer::new(&Seal::PLAIN).unwrap();
    let write = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        backend
            .write_blob(&tagged.name, &descriptor.digest, bytes.to_vec())
            .unwrap();
        descriptor
    };
    let chunk = b"chunk".repeat(1000);
    let stored = closer.close(&Id::of(&chunk), &chunk).unwrap();
    let at = |blob: Digest, stored: &[u8], bytes: &[u8]| Locator {
        blob,
        offset: 0,
        stored: u32::try_from(stored.len()).unwrap(),
        len: u32::try_from(bytes.len()).unwrap(),
        id: Id::of(bytes),
    };
    let bundle = write(BUNDLE, &[&stored[..], &[0; 100]].concat());
    let segment = encode_segment(&[Entry::Chunk(promised(at(bundle.digest, &stored, &chunk)))]);
    let stored = closer.close(&Id::of(&segment), &segment).unwrap();
    let segments = write(BUNDLE, &stored);
    let root = encode_root(&Root {
        image_len: 5000,
        segments: vec![Segment {
            len: 5000,
            at: at(segments.digest, &stored, &segment),
        }],
    });
    let stored = closer.close(&Id::of(&root), &root).unwrap();
    let config = Config {
        about: About::default(),
        size: 5000,
        data: 5000,
        content: Digest::of(b""),
        table_len: root.len() as u64,
        table_id: Id::of(&root),
        key: None,
    };
    let config = write(CONFIG, &serde_json::to_vec(&config).unwrap());
    let manifest = Manifest::of_image(config, vec![write(ROOT, &stored), bundle, segments]).encode();
    let digest = Digest::of(&manifest);
    let published = Published {
        tagged: tagged.clone(),
        digest,
        manifest_size: manifest.len() as u64,
        image_size: 5000,
        time: 1,
        current: true,
    };
    backend.write_manifest(&tagged.name, &digest, manifest).unwrap();
    backend.publish(&published, 0).unwrap().unwrap();
}

#[test]
fn tables_that_lie_are_found() {
    let dir = tempfile::tempdir().unwrap();
    type Promise = fn(Locator) -> Locator;
    let cases: [(&str, Promise); 4] = [
        ("right", |at| at),
        ("chunks", |at| Locator { offset: 7, ..at }),
        ("wrong", |at| Locator { offset: 5000, ..at }),
        ("wrong", |at| Locator {
            blob: Digest::of(b"elsewhere"),
            ..at
        }),
    ];
    for (number, (what, promised)) in cases.into_iter().enumerate() {
        let store = store(&dir.path().join(number.to_string()));
        publish(&store, promised);
        let checked = check(&store);
        let found: Vec<&str> = checked
            .findings
            .iter()
            .map(|finding| match &finding.fault {
                Fault::Chunks if finding.chunks == 1 && finding.lost == 5000 => "chunks",
                Fault::Wrong(_) => "wrong",
                _ => "else",
            })
            .collect();
        let wanted: &[&str] = if what == "right" { &[] } else { &[what] };
        assert_eq!(found, wanted, "{number}: {checked:?}");
        assert_eq!(checked.broken.len(), wanted.len(), "{number}: {checked:?}");
    }
}

#[test]
fn a_table_that_is_another_than_the_config_says_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    publish(&store, |at| at);
    let version = store.find(&"liar".parse().unwrap()).unwrap();
    let image = store.open(&version).unwrap();
    let config = Config {
        table_id: Id::of(b"another"),
        ..image.config.config(&Seal::PLAIN).unwrap()
    };
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = Manifest {
        config: Descriptor::of(CONFIG, &config),
        ..image.manifest.clone()
    };
    let (name, manifest) = (&version.tagged.name, manifest.encode());
    let digest = Digest::of(&manifest);
    let backend = store.backend();
    backend.write_blob(name, &Digest::of(&config), config).unwrap();
    backend.write_manifest(name, &digest, manifest).unwrap();
    let other = Published {
        digest,
        ..version.clone()
    };
    backend.publish(&other, 0).unwrap().unwrap();
    backend.remove(name, &|one| one.digest == version.digest).unwrap();
    let checked = check(&store);
    let [finding] = &checked.findings[..] else {
        panic!("{checked:?}")
    };
    assert_eq!(finding.blob, image.manifest.layers[0].digest);
    assert!(
        matches!(&finding.fault, Fault::Wrong(problem) if problem.contains("not the table")),
        "{finding:?}"
    );
    assert_eq!(checked.broken.len(), 1, "{checked:?}");
}

#[test]
fn a_check_ends_when_somebody_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    fs::write(&path, [7; 9000]).unwrap();
    let store = store(&dir.path().join("store"));
    let upload = Upload {
        file: &File::open(&path).unwrap(),
        path: &path,
        tagged: &"x".parse().unwrap(),
        about: About::default(),
        seal: &Seal::PLAIN,
        time: 1,
        threads: 1,
    };
    store.upload(&upload).unwrap();
    store.stop.store(true, Ordering::Relaxed);
    let options = CheckOptions {
        repair: false,
        keys: &Seal::PLAIN,
        local: &[],
        threads: 1,
    };
    assert!(matches!(store.check(&options), Err(StoreError::Stopped)));
}
