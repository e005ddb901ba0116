//! What goes into a store in a folder comes out of it, and only what is new goes in.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firebrick_digest::Digest;
use firebrick_store::{Folder, Layout, Objects as _, Progress, Seal, Store, StoreError};

use crate::common::{Host, Part, content, image};

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

#[test]
fn an_image_comes_back_and_stays_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (one, two) = (content(1, 3000), content(2, 500));
    image(
        &at("a"),
        &[
            Part::Hole(300),
            Part::Data(&one),
            Part::Hole(5000),
            Part::Data(&two),
            Part::Data(b"tail"),
            Part::Hole(2),
        ],
    );
    let host = Host::new(&at("store"), &at("cache"));
    let sent = host.upload(&at("a"), "python").unwrap();
    assert!(sent.new_chunks > 50 && sent.known_chunks == 0, "{sent:?}");
    assert!(sent.sent < sent.data_len / 2);
    // Another host, which has nothing.
    let other = Host::new(&at("store"), &at("cache2"));
    let came = other.download("python", &at("b"), &[]).unwrap();
    assert!(same(&at("a"), &at("b")));
    assert_eq!(came.known_chunks, 0);
    assert!(fs::metadata(at("b")).unwrap().blocks() <= fs::metadata(at("a")).unwrap().blocks() + 64);
    // Nothing else lies there.
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|one| one.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn the_same_image_again_sends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(&at("a"), &[Part::Data(&content(1, 1000))]);
    let host = Host::new(&at("store"), &at("cache"));
    let first = host.upload(&at("a"), "python").unwrap();
    let other = Host::new(&at("store"), &at("cache2"));
    let again = other.upload(&at("a"), "python").unwrap();
    assert_eq!((again.sent, again.new_chunks, again.replaced), (0, 0, None));
    assert_eq!(again.published.digest, first.published.digest);
    // Under another name only its documents are new.
    let named = other.upload(&at("a"), "python:v1").unwrap();
    assert!(named.sent < 4096, "{}", named.sent);
    assert_eq!(named.replaced.unwrap().previous, None);
}

#[test]
fn what_two_images_share_is_sent_once_and_fetched_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (base, app) = (content(1, 4000), content(2, 300));
    // The application moves by a block, the base stays.
    let new = content(3, 20);
    let edited = [&app[..4096 * 100], &new[..], &app[4096 * 100..]].concat();
    image(&at("a"), &[Part::Data(&base), Part::Hole(10), Part::Data(&app)]);
    image(
        &at("b"),
        &[Part::Data(&base), Part::Hole(11), Part::Data(&edited)],
    );
    let host = Host::new(&at("store"), &at("cache"));
    let first = host.upload(&at("a"), "app").unwrap();
    let second = host.upload(&at("b"), "app").unwrap();
    assert!(second.sent * 20 < first.sent, "{} of {}", second.sent, first.sent);
    assert_eq!(second.replaced.unwrap().previous, Some(first.published.digest));

    let other = Host::new(&at("store"), &at("cache2"));
    let old = format!("app@{}", first.published.digest);
    other.download(&old, &at("a2"), &[]).unwrap();
    assert!(same(&at("a"), &at("a2")));
    let came = other.download("app", &at("b2"), &[at("a2")]).unwrap();
    assert!(same(&at("b"), &at("b2")));
    assert!(
        came.came * 20 < first.sent && came.known_chunks > 20 * came.new_chunks,
        "{came:?}"
    );
    // Also from an image that nobody has looked into yet.
    let third = Host::new(&at("store"), &at("cache3"));
    let came = third.download("app", &at("b3"), &[at("gone"), at("a2")]).unwrap();
    assert!(
        same(&at("b"), &at("b3")) && came.known_chunks > 20 * came.new_chunks,
        "{came:?}"
    );
}

#[test]
fn a_download_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(
        &at("a"),
        &[
            Part::Data(&content(1, 2000)),
            Part::Hole(100),
            Part::Data(&content(2, 100)),
        ],
    );
    let host = Host::new(&at("store"), &at("cache"));
    let sent = host.upload(&at("a"), "x").unwrap();
    // Half of it, and a part that is not right.
    let partial = at(&format!(".b.download-{}", sent.published.digest.short()));
    let mut bytes = fs::read(at("a")).unwrap();
    bytes.truncate(4096 * 1000);
    bytes[4096 * 10] ^= 1;
    fs::write(&partial, &bytes).unwrap();
    fs::write(at(".b.download-000000000000"), b"of another version").unwrap();
    let came = host.download("x", &at("b"), &[]).unwrap();
    assert!(same(&at("a"), &at("b")));
    assert!(came.known_chunks > 10 && came.new_chunks > 10, "{came:?}");
    assert!(!partial.exists() && !at(".b.download-000000000000").exists());
}

#[test]
fn a_key_hides_and_shares_with_itself() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(&at("a"), &[Part::Data(&content(1, 1000))]);
    let plain = Host::new(&at("store"), &at("cache"));
    plain.upload(&at("a"), "plain").unwrap();
    let blobs = || -> Vec<_> {
        fs::read_dir(at("store/blobs/sha256"))
            .unwrap()
            .map(|one| one.unwrap().path())
            .collect()
    };
    let open = blobs();
    let tells = |path: &Path| {
        fs::read(path)
            .unwrap()
            .windows(7)
            .any(|found| found == b"of file")
    };
    assert!(open.iter().any(|path| tells(path)));
    let keyed = |cache: &str, key: u8| Host {
        seal: Seal::keyed(&[key; 32]),
        ..Host::new(&at("store"), &at(cache))
    };
    let first = keyed("cache1", 1).upload(&at("a"), "secret").unwrap();
    assert!(
        first.known_chunks == 0 && first.new_chunks > 0,
        "a key shares nothing with others"
    );
    let second = keyed("cache2", 1).upload(&at("a"), "secret2").unwrap();
    assert!(second.new_chunks == 0, "it does with itself");
    let found = keyed("cache3", 1).download("secret", &at("b"), &[]);
    assert!(found.is_ok() && same(&at("a"), &at("b")));
    for host in [plain, keyed("cache4", 2)] {
        let error = host.download("secret", &at("c"), &[]).unwrap_err();
        assert!(matches!(error, StoreError::Key { .. }), "{error}");
    }
    keyed("cache5", 2).download("plain", &at("d"), &[]).unwrap();
    // No line of the text is anywhere in what the key closed.
    assert!(
        blobs()
            .iter()
            .filter(|path| !open.contains(path))
            .all(|path| !tells(path))
    );
}

#[test]
fn damage_is_found_before_anybody_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(&at("a"), &[Part::Data(&content(1, 1000))]);
    let host = Host::new(&at("store"), &at("cache"));
    host.upload(&at("a"), "x").unwrap();
    let blobs = fs::read_dir(at("store/blobs/sha256")).unwrap();
    let largest = blobs
        .map(|one| one.unwrap().path())
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&largest, &bytes).unwrap();
    let error = host.download("x", &at("b"), &[]).unwrap_err();
    assert!(matches!(error, StoreError::Chunk { .. }), "{error}");
    assert!(!at("b").exists());
    // The image that is there already can give what the store no longer has.
    host.download("x", &at("b"), &[at("a")]).unwrap();
    assert!(same(&at("a"), &at("b")));
}

#[test]
fn names_are_found_or_others_offered() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(&at("a"), &[Part::Data(&content(1, 10))]);
    let host = Host::new(&at("store"), &at("cache"));
    host.upload(&at("a"), "python:v1").unwrap();
    match host.download("python", &at("b"), &[]).unwrap_err() {
        StoreError::NoImage { known, .. } => assert_eq!(known, ["python:v1"]),
        other => panic!("{other}"),
    }
    let version = host.store.find(&"python:v1".parse().unwrap()).unwrap();
    host.store.tag(&version, &"python".parse().unwrap(), 5).unwrap();
    host.store.tag(&version, &"snake:x".parse().unwrap(), 5).unwrap();
    host.download("python", &at("b"), &[]).unwrap();
    host.download("snake:x", &at("c"), &[]).unwrap();
    assert!(same(&at("a"), &at("b")) && same(&at("a"), &at("c")));
}

#[test]
fn many_writers_of_one_name_lose_no_version() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let at = &at;
            scope.spawn(move || {
                let path = at(&format!("image{number}"));
                image(
                    &path,
                    &[Part::Data(&content(0, 200)), Part::Data(&content(number + 1, 20))],
                );
                let host = Host::new(&at("store"), &at(&format!("cache{number}")));
                host.upload(&path, "x").unwrap();
            });
        }
    });
    let host = Host::new(&at("store"), &at("cache"));
    let versions = host.store.backend().history(&"x".parse().unwrap()).unwrap();
    assert_eq!(
        (
            versions.len(),
            versions.iter().filter(|version| version.current).count()
        ),
        (16, 1)
    );
    for version in versions {
        host.download(&format!("x@{}", version.digest), &at("b"), &[])
            .unwrap();
    }
}

#[test]
fn images_of_other_programs_lie_beside_ours_in_peace() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(&at("a"), &[Part::Data(&content(1, 100))]);
    let folder = Folder::new(&at("store"));
    let config = br#"{"architecture":"amd64","os":"linux"}"#;
    let digest = Digest::of(config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{}}},"layers":[]}}"#,
        config.len()
    );
    let theirs = Digest::of(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{theirs}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"alpine:3.20"}}}}]}}"#,
        manifest.len()
    );
    folder
        .put(&format!("blobs/sha256/{}", digest.hex()), config.to_vec())
        .unwrap();
    folder
        .put(&format!("blobs/sha256/{}", theirs.hex()), manifest.into_bytes())
        .unwrap();
    folder.put("index.json", index.into_bytes()).unwrap();

    let told = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&told);
    let listen = move |progress: Progress<'_>| {
        count.fetch_add(
            u64::from(matches!(progress, Progress::Ignored(..))),
            Ordering::Relaxed,
        );
    };
    let store = Store::new(
        Box::new(Layout::new(folder)),
        None,
        Box::new(listen),
        Arc::default(),
    );
    let host = Host {
        store,
        seal: Seal::PLAIN,
    };
    host.upload(&at("a"), "ours").unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 0);
    host.download("ours", &at("b"), &[]).unwrap();
    let names: Vec<String> = host
        .store
        .backend()
        .versions()
        .unwrap()
        .iter()
        .map(|one| one.tagged.to_string())
        .collect();
    assert_eq!(names, ["alpine:3.20", "ours:latest"]);
    let error = host.download("alpine:3.20", &at("c"), &[]).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
}
