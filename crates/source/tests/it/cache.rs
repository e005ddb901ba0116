//! The cache of blobs: what is kept, dropped, resumed and pruned.

use std::fs;

use firebrick_source::{Cache, Event, Prune};
use firebrick_testkit::docker_registry::{Setup, have_tools};
use firebrick_testkit::http::Server;

use crate::support::registry::{layers, registry_with};
use crate::support::{gzip, open, options, read, recorded};

#[test]
fn corrupt_blobs_are_fetched_again_and_partials_go_on() {
    if !have_tools() {
        return;
    }
    let registry = registry_with(&Setup::default(), &layers());
    let front = Server::before(&registry.host, |_, answer| answer);
    let name = format!("{}/test/image:v1", front.address);
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    let run = || {
        let (mut options, events) = recorded(options());
        options.cache = Some(cache.clone());
        let image = open(&name, &options).unwrap();
        for (layer, expected) in image.layers.iter().zip(layers()) {
            assert_eq!(read(layer).unwrap(), gzip(&expected));
        }
        let told = events.lock().unwrap().clone();
        (image, told)
    };
    let (image, _) = run();
    let blobs = cache.list().unwrap();
    assert_eq!(blobs.len(), 4, "manifest, config, two layers: {blobs:?}");
    let fetched = front.blob_requests().len();
    run();
    assert_eq!(
        front.blob_requests().len(),
        fetched,
        "the second run fetches nothing"
    );
    let digest = image.layers[0].digest.unwrap();
    let path = folder.path().join("blobs/sha256").join(digest.hex());
    let whole = fs::read(&path).unwrap();
    let mut wrong = whole.clone();
    wrong[100] ^= 1;
    fs::write(&path, wrong).unwrap();
    let (_, told) = run();
    assert!(told.contains(&Event::CorruptCacheEntry { digest }), "{told:?}");
    assert_eq!(fs::read(&path).unwrap(), whole);
    // A partial download goes on; a damaged one starts again, unseen by readers.
    for damage in [0, 1] {
        fs::remove_file(&path).unwrap();
        let mut part = whole[..1 << 20].to_vec();
        part[7] ^= damage;
        fs::write(
            folder
                .path()
                .join("partial")
                .join(format!("{}.partial", digest.hex())),
            part,
        )
        .unwrap();
        run();
        let last: Vec<Option<String>> = front
            .blob_requests()
            .iter()
            .rev()
            .take(1 + usize::from(damage))
            .map(|request| request.header("range").map(str::to_owned))
            .collect();
        assert!(last.contains(&Some("bytes=1048576-".to_owned())), "{last:?}");
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn pruning() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    assert!(folder.path().join("CACHEDIR.TAG").exists());
    let put = |n: u8, hours: u64| {
        let bytes = vec![n; 100];
        let digest = firebrick_digest::Digest::of(&bytes);
        let path = folder.path().join("blobs/sha256").join(digest.hex());
        fs::write(&path, &bytes).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(hours * 3600);
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
        digest
    };
    let digests = [put(1, 30), put(2, 10), put(3, 20)];
    let listed: Vec<_> = cache.list().unwrap().iter().map(|blob| blob.digest).collect();
    assert_eq!(
        listed,
        [digests[1], digests[2], digests[0]],
        "longest unused first"
    );
    let pruned = cache.prune(Prune::DownTo(250)).unwrap();
    assert_eq!(
        (pruned.removed[0].digest, pruned.freed_bytes, pruned.left_bytes),
        (digests[1], 100, 200)
    );
    let at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(25 * 3600);
    assert_eq!(
        cache.prune(Prune::UnusedSince(at)).unwrap().removed[0].digest,
        digests[2]
    );
    assert_eq!(cache.prune(Prune::All).unwrap().left_bytes, 0);
    assert!(cache.list().unwrap().is_empty());
}
