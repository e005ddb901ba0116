//! Garbage is collected while many publish, and nothing is lost.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use firebrick_store::{Backend, Folder, GcOptions, Layout};
use firebrick_testkit::stores;

use crate::common::{Host, Part, bucket, content, image};

/// Hosts that publish, and a store that they share.
struct World<'a> {
    dir: &'a Path,
    hosts: u64,
    lasts: Duration,
    grace: Duration,
    open: &'a (dyn Fn() -> Box<dyn Backend> + Sync),
}

/// Tells the collector, also where a publisher fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Eight hosts and a collector share a folder.
#[test]
fn uploads_and_a_collection_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    World {
        dir: dir.path(),
        hosts: 8,
        lasts: Duration::from_secs(7),
        grace: Duration::from_secs(3),
        open: &|| Box::new(Layout::new(Folder::new(&store))),
    }
    .run();
}

/// Sixteen hosts and a collector share a bucket.
#[test]
fn uploads_and_a_collection_at_once_in_a_bucket() {
    let Some(server) = stores::seaweed().unwrap() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    World {
        dir: dir.path(),
        hosts: 16,
        lasts: Duration::from_secs(10),
        grace: Duration::from_secs(4),
        open: &|| bucket(&server, "store"),
    }
    .run();
}

impl World<'_> {
    /// Hosts publish images that overlap, forget them, and publish some of them again with the same bytes, while one more collects.
    fn run(&self) {
        let shared = content(0, 150);
        let begun = Instant::now();
        let ended = AtomicBool::new(false);
        let deleted = AtomicU64::new(0);
        let last = std::thread::scope(|scope| {
            let (shared, ended, deleted) = (&shared, &ended, &deleted);
            let uploads: Vec<_> = (0..self.hosts)
                .map(|number| scope.spawn(move || self.publish(number, shared, begun)))
                .collect();
            scope.spawn(move || {
                let host = self.host("cache");
                while !ended.load(Ordering::Relaxed) {
                    let collected = host.store.collect(&self.options()).unwrap();
                    deleted.fetch_add(collected.deleted.count, Ordering::Relaxed);
                }
            });
            let _ends = Ends(ended);
            let last: Vec<_> = uploads.into_iter().map(|upload| upload.join().unwrap()).collect();
            last
        });
        self.assert_intact(&last);
        assert!(deleted.load(Ordering::Relaxed) > 20, "{deleted:?}");
    }

    fn host(&self, cache: &str) -> Host {
        Host::of((self.open)(), &self.dir.join(cache))
    }

    fn options(&self) -> GcOptions {
        GcOptions {
            dry_run: false,
            grace: self.grace,
            keep: Some(2),
            now: SystemTime::now(),
        }
    }

    /// One host's part; gives the image that it published last.
    fn publish(&self, number: u64, shared: &[u8], begun: Instant) -> PathBuf {
        let host = self.host(&format!("cache{number}"));
        let name = format!("image{number}");
        for round in 0.. {
            // Every third image was there before: its blobs may be condemned, or being removed.
            let seed = if round % 3 == 0 {
                1 + number % 4
            } else {
                1000 * (number + 1) + round
            };
            let path = self.dir.join(format!("{name}-{round}"));
            image(
                &path,
                &[Part::Data(shared), Part::Hole(3), Part::Data(&content(seed, 30))],
            );
            host.upload(&path, &name).unwrap();
            if begun.elapsed() > self.lasts {
                return path;
            }
            let all = round % 3 == 0;
            let backend = host.store.backend();
            backend
                .remove(&name.parse().unwrap(), &|version| all || !version.current)
                .unwrap();
        }
        unreachable!("the test ends before the numbers do")
    }

    /// Each image is what was published last, and nothing in the store is damaged.
    fn assert_intact(&self, last: &[PathBuf]) {
        let host = self.host("cache-last");
        let back = self.dir.join("back");
        for (number, path) in last.iter().enumerate() {
            host.download(&format!("image{number}"), &back, &[]).unwrap();
            assert_eq!(std::fs::read(&back).unwrap(), std::fs::read(path).unwrap());
        }
        let checked = host.check();
        assert!(
            checked.findings.is_empty() && checked.broken.is_empty(),
            "{checked:?}"
        );
        assert!(
            checked.images >= self.hosts && checked.leftovers.count == 0,
            "{checked:?}"
        );
    }
}
