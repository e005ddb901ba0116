//! What a store says of its images: names, documents, tables, lists, archives. Digests are made right, so that damage is read.

mod memory;
mod sample;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use firebrick_digest::Digest;
use firebrick_store::{
    CheckOptions, Checked, Export, GcOptions, Import, Layout, LazyOptions, Name, Published, Seal, Store,
    StoreError,
};
use firebrick_trust::{Signature, Subject, manifest_of};

use memory::Memory;
use sample::{Held, Sample, current, entry, hold, index, put};

/// The list of what is to be collected.
const LEDGER: &str = "gc/condemned.json";
/// How many parts of an image are read, and how much of each.
const EXTENTS_MAX: usize = 64;
const READ_MAX: u64 = 64 << 10;
/// What nothing needs.
const GARBAGE: &[u8] = b"garbage";
/// What is signed, in the manifests of signatures.
const PAYLOAD: &[u8] = br#"{"critical":{}}"#;

fn store(objects: Held, stopped: bool) -> Store {
    let stop = Arc::new(AtomicBool::new(stopped));
    let backend = Box::new(Layout::new(Memory::new(objects)));
    Store::new(backend, None, Box::new(|_| ()), stop)
}

fn check(store: &Store) -> Checked {
    let checked = store.check(&CheckOptions {
        repair: false,
        keys: &Seal::PLAIN,
        local: &[],
        threads: 1,
    });
    checked.expect("a check tells what is wrong, and goes on")
}

/// Whether nothing is wrong with an image, by everything that reads one: they must agree.
fn is_sound(objects: Held) -> bool {
    let store = Arc::new(store(objects, false));
    let Ok(versions) = store.backend().versions() else {
        return false;
    };
    let checked = check(&store);
    let sound = checked.findings.is_empty() && checked.broken.is_empty() && checked.foreign == 0;
    let sound = sound && checked.sealed.is_empty() && !versions.is_empty();
    let stats = store
        .stats(&versions, &Seal::PLAIN)
        .expect("nobody asked for an end");
    assert!(stats.unread.is_empty() || !sound, "{:?}", stats.unread);
    for version in &versions {
        let read = read(&store, version);
        assert!(read.is_ok() || !sound, "{read:?}");
    }
    sound
}

/// Reads a part of an image lazily.
fn read(store: &Arc<Store>, version: &Published) -> Result<(), Arc<StoreError>> {
    let options = LazyOptions {
        readahead_bytes: 0,
        ..LazyOptions::default()
    };
    let image = store.lazy(version, &Seal::PLAIN, options)?;
    let mut at = 0;
    for _ in 0..EXTENTS_MAX {
        if at == image.size() {
            break;
        }
        let extent = image.extent(at..image.size())?;
        assert!(
            at < extent.end && extent.end <= image.size(),
            "{extent:?} at {at}"
        );
        let len = (extent.end - at).min(READ_MAX);
        let mut buffer = vec![1; len as usize];
        let count = image.read_at(at, &mut buffer)?;
        assert_eq!(count as u64, len, "only the image's end is short");
        assert!(
            !extent.is_hole || buffer.iter().all(|byte| *byte == 0),
            "a hole is zeros"
        );
        at = extent.end;
    }
    Ok(())
}

/// Reads `bytes` behind the first nine as the root of a table, or as a segment of one, which covers as many bytes as the eight before
/// say. Whether the image is sound.
///
/// # Panics
/// If the readers of tables do not agree, or a bound does not hold.
pub fn store_tables(bytes: &[u8]) -> bool {
    let Some(([choice, len @ ..], table)) = bytes.split_first_chunk::<9>() else {
        return false;
    };
    let (sample, len) = (Sample::new(), u64::from_le_bytes(*len));
    let sample = match choice % 2 {
        0 => sample.with_segment(table, len),
        _ => sample.with_root(table, len),
    };
    is_sound(sample.objects(None, None))
}

/// Reads `bytes` behind the first, which chooses, as names, a manifest, a config, the list of what is to be collected, or a manifest of
/// signatures. Whether they are one.
///
/// # Panics
/// If a name, or anything that one needs, gets lost.
pub fn store_documents(bytes: &[u8]) -> bool {
    let Some((&first, bytes)) = bytes.split_first() else {
        return false;
    };
    let sample = Sample::new();
    match first % 5 {
        0 => names(sample.objects(None, None), bytes),
        1 => is_sound(sample.objects(None, Some(bytes))),
        2 => is_sound(sample.objects(Some(bytes), None)),
        3 => ledger(&sample.objects(None, None), bytes),
        _ => signatures(sample.objects(None, None), bytes),
    }
}

fn names(mut objects: Held, index: &[u8]) -> bool {
    put(&mut objects, "index.json", index);
    let store = store(objects, false);
    let backend = store.backend();
    let Ok(before) = backend.versions() else {
        return false;
    };
    check(&store);
    for version in &before {
        let text = version.tagged.to_string();
        assert_eq!(text.parse().as_ref(), Ok(&version.tagged), "{text:?}");
        let history = backend.history(&version.tagged).expect("the names were read");
        assert!(history.contains(version), "{version:?}");
        drop(store.signatures(version));
    }
    let new = Published {
        tagged: "app:latest".parse().expect("a name"),
        digest: Digest::of(b"new"),
        manifest_size: 3,
        image_size: 5,
        time: 7,
        current: true,
    };
    let epoch = backend.epoch().expect("the names were read");
    let published = backend.publish(&new, epoch).expect("nobody else writes");
    assert!(published.is_some(), "nobody collects");
    let after = backend.versions().expect("what was written can be read");
    assert!(after.contains(&new));
    let is_kept = |old: &Published| {
        let same = |one: &Published| (&one.tagged, one.digest) == (&old.tagged, old.digest);
        after.iter().any(same)
    };
    assert!(before.iter().all(is_kept), "{before:?} {after:?}");
    let is_new = |version: &Published| *version == new;
    let removed = backend
        .remove(&new.tagged.name, &is_new)
        .expect("nobody else writes");
    assert_eq!(removed, std::slice::from_ref(&new));
    assert!(!backend.versions().expect("it can be read").contains(&new));
    !before.is_empty()
}

fn ledger(objects: &Held, list: &[u8]) -> bool {
    let mut objects = objects.clone();
    put(&mut objects, LEDGER, list);
    let needed: Vec<String> = objects.iter().map(|(key, _)| key.clone()).collect();
    let blob = Digest::of(GARBAGE);
    hold(&mut objects, GARBAGE);
    // Whoever finds that a collector is at work would wait for it.
    let stopped = store(objects.clone(), true);
    let name: Name = "app".parse().expect("a name");
    let Ok(claim) = stopped.claim() else { return false };
    if claim.name(&name, &[blob], |_| Ok(Some(()))).is_ok() {
        let held = stopped.backend().objects().expect("a layout is of objects");
        let (left, _) = held.get(LEDGER, u64::MAX).expect("memory").expect("it is there");
        let left: serde_json::Value = serde_json::from_slice(&left).expect("what is written is JSON");
        for list in ["condemned", "doomed"] {
            assert!(left[list].get(blob.to_string()).is_none(), "{left}");
        }
    }
    let mut options = GcOptions {
        dry_run: true,
        grace: Duration::from_secs(3600),
        keep: Some(1),
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
    };
    let collecting = store(objects, false);
    collecting.collect(&options).expect("the list was read");
    let listed: serde_json::Value = serde_json::from_slice(list).expect("the list was read");
    if listed["doomed"]
        .as_object()
        .is_some_and(|doomed| doomed.is_empty())
    {
        options.dry_run = false;
        collecting.collect(&options).expect("the list was read");
        let held = collecting.backend().objects().expect("a layout is of objects");
        for key in &needed {
            let size = held.size(key).expect("memory");
            assert!(size.is_some(), "{key} was collected, whatever the list says");
        }
    }
    true
}

fn signatures(mut objects: Held, manifest: &[u8]) -> bool {
    let sample = Sample::new();
    let image = sample.manifest(&sample.config());
    hold(&mut objects, manifest);
    for payload in [PAYLOAD, b"{}"] {
        hold(&mut objects, payload);
    }
    let about = entry(manifest, "dev.firebrick.subject", &Digest::of(&image).to_string());
    put(&mut objects, "index.json", &index(&[current(&image), about]));
    let store = store(objects, false);
    let version = store.find(&"app".parse().expect("a name")).expect("it is there");
    let found = store.signatures(&version).expect("the names were read");
    assert!(found.found.len() <= 64 && found.skipped.len() <= 65, "{found:?}");
    assert!(
        found
            .found
            .iter()
            .all(|one| one.payload == PAYLOAD || one.payload == b"{}")
    );
    !found.found.is_empty()
}

/// Imports `bytes` as an archive into an empty store. Whether it is one.
///
/// # Panics
/// If what is imported is not what its digests say, or what is refused has a name.
pub fn store_archives(bytes: &[u8]) -> bool {
    let store = store(Held::new(), false);
    let scratch = std::env::temp_dir();
    let import = Import {
        tagged: None,
        scratch: &scratch,
        time: 5,
    };
    let imported = store.import(&import, &mut &*bytes);
    let versions = store.backend().versions().expect("names that we wrote");
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => {
            assert!(
                versions.is_empty() && !error.to_string().is_empty(),
                "{versions:?}"
            );
            return false;
        }
    };
    assert_eq!(versions, std::slice::from_ref(&imported.published));
    let held = store.backend().objects().expect("a layout is of objects");
    for blob in held.list("blobs/").expect("memory") {
        let (bytes, _) = held
            .get(&blob.key, u64::MAX)
            .expect("memory")
            .expect("it is listed");
        assert!(blob.key.ends_with(&Digest::of(&bytes).hex()), "{}", blob.key);
    }
    true
}

/// Inputs of the targets here, each with its name.
///
/// # Panics
/// If the store does not take what is sound.
pub fn store_seeds() -> [(&'static str, Vec<Vec<u8>>); 3] {
    let sample = Sample::new();
    let table = |choice: u8, len: u64, bytes: &[u8]| [&[choice][..], &len.to_le_bytes(), bytes].concat();
    // No blob, and one hole as long as can be said.
    let hole = [&[0; 4][..], &1_u32.to_le_bytes(), &[0], &u64::MAX.to_le_bytes()].concat();
    let tables = vec![
        table(0, u64::MAX, &hole),
        table(0, Sample::FIRST_LEN, &sample.first),
        table(1, sample.image_len, &sample.root),
    ];
    let config = sample.config();
    let manifest = sample.manifest(&config);
    let about = |key: &str, value: &str| entry(b"other", key, value);
    let names = index(&[
        current(&manifest),
        about("dev.firebrick.was", "app:latest"),
        about("org.opencontainers.image.ref.name", "tool:v1"),
        about("dev.firebrick.subject", &Digest::of(&manifest).to_string()),
    ]);
    let list = |condemned: &str, doomed: &str| {
        format!(r#"{{"version":1,"generation":7,"condemned":{condemned},"doomed":{doomed}}}"#).into_bytes()
    };
    let garbage = format!(r#"{{"{}":5}}"#, Digest::of(GARBAGE));
    let reached = format!(r#"{{"{}":5,"{}":9}}"#, Digest::of(&config), Digest::of(&manifest));
    let documents = [
        (0, names),
        (1, manifest),
        (2, config),
        (3, list(&garbage, "{}")),
        (3, list(&reached, &garbage)),
        (4, signed(&sample)),
    ];
    let documents = documents.map(|(choice, bytes)| [&[choice][..], &bytes].concat());
    [
        ("store_tables", tables),
        ("store_documents", documents.to_vec()),
        ("store_archives", vec![exported(&sample)]),
    ]
}

/// A manifest of a signature of [`PAYLOAD`].
fn signed(sample: &Sample) -> Vec<u8> {
    let image = sample.manifest(&sample.config());
    let subject = Subject {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        digest: Digest::of(&image),
        size: image.len() as u64,
    };
    let signature = Signature {
        payload: PAYLOAD.to_vec(),
        signature: vec![7; 64],
    };
    manifest_of(&subject, &[signature.clone(), signature])
}

/// The sample as an archive.
fn exported(sample: &Sample) -> Vec<u8> {
    let store = store(sample.objects(None, None), false);
    let version = store.find(&"app".parse().expect("a name")).expect("it is there");
    let mut archive = Vec::new();
    let export = Export {
        version: &version,
        keys: &Seal::PLAIN,
        scratch: &std::env::temp_dir(),
    };
    store.export(&export, &mut archive).expect("a sound image");
    archive
}
