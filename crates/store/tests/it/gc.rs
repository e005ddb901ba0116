//! Garbage is collected while many publish, and nothing is lost.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use firebrick_store::{CheckOptions, GcOptions, Seal};

use crate::common::{Host, Part, content, image};

const GRACE: Duration = Duration::from_secs(3);
const LASTS: Duration = Duration::from_secs(7);

fn options() -> GcOptions {
    GcOptions {
        dry_run: false,
        grace: GRACE,
        keep: Some(2),
        now: SystemTime::now(),
    }
}

/// Eight hosts publish images that overlap, forget them, and publish some of them again with the same bytes, while a ninth collects.
#[test]
fn uploads_and_a_collection_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let shared = content(0, 150);
    let begun = Instant::now();
    let ended = AtomicBool::new(false);
    let deleted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (at, shared, ended, deleted) = (&at, &shared, &ended, &deleted);
        let uploads: Vec<_> = (0..8)
            .map(|number: u64| {
                scope.spawn(move || {
                    let host = Host::new(&at("store"), &at(&format!("cache{number}")));
                    let name = format!("image{number}");
                    for round in 0.. {
                        // Every third image was there before: its blobs may be condemned, or being removed.
                        let seed = if round % 3 == 0 {
                            1 + number % 4
                        } else {
                            1000 * (number + 1) + round
                        };
                        let path = at(&format!("{name}-{round}"));
                        image(
                            &path,
                            &[Part::Data(shared), Part::Hole(3), Part::Data(&content(seed, 30))],
                        );
                        host.upload(&path, &name).unwrap();
                        if begun.elapsed() > LASTS {
                            return path;
                        }
                        let all = round % 3 == 0;
                        let backend = host.store.backend();
                        backend
                            .remove(&name.parse().unwrap(), &|version| all || !version.current)
                            .unwrap();
                    }
                    unreachable!("the test ends before the numbers do")
                })
            })
            .collect();
        let collector = scope.spawn(move || {
            let host = Host::new(&at("store"), &at("cache"));
            while !ended.load(Ordering::Relaxed) {
                let collected = host.store.collect(&options()).unwrap();
                deleted.fetch_add(collected.deleted.count, Ordering::Relaxed);
            }
        });
        let last: Vec<_> = uploads.into_iter().map(|upload| upload.join().unwrap()).collect();
        ended.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        assert_intact(dir.path(), &last);
    });
    assert!(deleted.load(Ordering::Relaxed) > 20, "{deleted:?}");
}

/// Each image is what was published last, and nothing in the store is damaged.
fn assert_intact(dir: &Path, last: &[PathBuf]) {
    let at = |name: &str| dir.join(name);
    let host = Host::new(&at("store"), &at("cache-last"));
    for (number, path) in last.iter().enumerate() {
        host.download(&format!("image{number}"), &at("back"), &[])
            .unwrap();
        assert_eq!(std::fs::read(at("back")).unwrap(), std::fs::read(path).unwrap());
    }
    let options = CheckOptions {
        repair: false,
        keys: &Seal::PLAIN,
        local: &[],
        threads: 2,
    };
    let checked = host.store.check(&options).unwrap();
    assert!(
        checked.findings.is_empty() && checked.broken.is_empty(),
        "{checked:?}"
    );
    assert!(checked.images >= 8 && checked.leftovers.count == 0, "{checked:?}");
}
