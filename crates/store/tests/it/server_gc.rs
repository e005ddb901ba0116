//! Many publish to a bucket at once while garbage is collected in it.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use firebrick_store::{CheckOptions, GcOptions, Seal};

use crate::common::{Part, content, image};
use crate::servers::Server;

/// Hosts that publish.
const HOSTS: u64 = 16;
/// Versions that each publishes.
const VERSIONS: u64 = 2;

fn options(grace: Duration) -> GcOptions {
    GcOptions {
        dry_run: false,
        grace,
        keep: Some(1),
        now: SystemTime::now(),
    }
}

/// Sixteen hosts publish versions of images that overlap, while another forgets the older ones and removes what only they had.
#[test]
fn sixteen_uploads_and_a_collection_in_a_bucket() {
    let Some(server) = Server::seaweed() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let shared = content(0, 150);
    let (ended, deleted) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (server, at, shared) = (&server, &at, &shared);
        let (ended, deleted) = (&ended, &deleted);
        let uploads: Vec<_> = (0..HOSTS)
            .map(|number| {
                scope.spawn(move || {
                    let host = server.client("all", &at(&format!("cache{number}")));
                    for version in 0..VERSIONS {
                        let own = content(100 * (number / 2) + version, 40);
                        let path = at(&format!("image{number}"));
                        image(&path, &[Part::Data(shared), Part::Hole(number), Part::Data(&own)]);
                        host.upload(&path, &format!("image{number}")).unwrap();
                    }
                })
            })
            .collect();
        let collector = scope.spawn(move || {
            let host = server.client("all", &at("cache"));
            while !ended.load(Ordering::Relaxed) {
                let collected = host.store.collect(&options(Duration::from_secs(4))).unwrap();
                deleted.fetch_add(collected.deleted.count, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        for upload in uploads {
            upload.join().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        collector.join().unwrap();
    });
    let host = server.client("all", &at("cache-last"));
    let last = host.store.collect(&options(Duration::ZERO)).unwrap();
    assert!(
        last.deleted.count + deleted.load(Ordering::Relaxed) > HOSTS,
        "{last:?}"
    );
    let check = CheckOptions {
        repair: false,
        keys: &Seal::PLAIN,
        local: &[],
        threads: 2,
    };
    let checked = host.store.check(&check).unwrap();
    assert!(
        checked.findings.is_empty() && checked.broken.is_empty(),
        "{checked:?}"
    );
    assert_eq!(checked.images, HOSTS, "{checked:?}");
    for number in 0..HOSTS {
        host.download(&format!("image{number}"), &at("back"), &[])
            .unwrap();
        assert!(fs::read(at("back")).unwrap() == fs::read(at(&format!("image{number}"))).unwrap());
    }
}
