//! Images that are read without being fetched first.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use firebrick_digest::Digest;
use firebrick_store::{Id, Lazy, LazyOptions, Progress, Seal, Store, StoreError, TableCache};

use crate::common::{Host, Part, content, image};
use crate::watched::{Watch, Watched, no_answer};

const BLOCK: u64 = 4096;

/// A published image, and hosts that read it.
struct World {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
    watch: Arc<Watch>,
    uncached: Arc<AtomicUsize>,
}

impl World {
    fn new(parts: &[Part<'_>]) -> World {
        World::sealed(parts, Seal::PLAIN)
    }

    fn sealed(parts: &[Part<'_>], seal: Seal) -> World {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        image(&path, parts);
        let host = Host::new(&dir.path().join("store"), &dir.path().join("publisher"));
        Host { seal, ..host }.upload(&path, "python").unwrap();
        World {
            bytes: fs::read(path).unwrap(),
            dir,
            watch: Arc::default(),
            uncached: Arc::default(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Options of a host that keeps what it fetches, and fetches nothing ahead.
    fn options(&self, host: &str) -> LazyOptions {
        LazyOptions {
            cache_folder: Some(self.at(host).join("lazy")),
            readahead_bytes: 0,
            ..LazyOptions::default()
        }
    }

    fn open(&self, host: &str, keys: &Seal, options: LazyOptions) -> Result<Lazy, StoreError> {
        let backend = Box::new(Watched::new(&self.at("store"), &self.watch));
        let uncached = Arc::clone(&self.uncached);
        let listener = move |progress: Progress<'_>| {
            let is_that = matches!(progress, Progress::Uncached(..));
            uncached.fetch_add(usize::from(is_that), Ordering::Relaxed);
        };
        let cache = TableCache::new(&self.at(host).join("tables"));
        let stop = Arc::new(AtomicBool::new(false));
        let store = Arc::new(Store::new(backend, Some(cache), Box::new(listener), stop));
        let version = store.find(&"python".parse().unwrap()).unwrap();
        let lazy = store.lazy(&version, keys, options);
        self.watch.take();
        lazy
    }

    fn lazy(&self, host: &str) -> Lazy {
        self.open(host, &Seal::PLAIN, self.options(host)).unwrap()
    }

    /// Reads, and compares with the file.
    fn check(&self, lazy: &Lazy, offset: u64, len: u64) {
        let mut bytes = vec![0xaa; usize::try_from(len).unwrap()];
        let read = lazy.read_at(offset, &mut bytes).unwrap();
        let from = usize::try_from(offset).unwrap().min(self.bytes.len());
        let wanted = &self.bytes[from..self.bytes.len().min(from + bytes.len())];
        assert!(bytes[..read] == *wanted, "{len} bytes at {offset}");
    }

    fn check_all(&self, lazy: &Lazy) {
        self.check(lazy, 0, self.bytes.len() as u64);
    }
}

/// Numbers that look random and are the same each time.
fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    (0_u64..).map(move |index| {
        let digest = Digest::of(format!("{seed} {index}").as_bytes());
        u64::from_le_bytes(*digest.as_bytes().first_chunk().unwrap())
    })
}

/// Waits for what other threads do.
fn until(condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn largest_blob(world: &World) -> PathBuf {
    let blobs = fs::read_dir(world.at("store/blobs/sha256")).unwrap();
    let blobs = blobs.map(|one| one.unwrap().path());
    blobs
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap()
}

fn cache_file(world: &World, host: &str) -> PathBuf {
    let files = fs::read_dir(world.at(host).join("lazy")).unwrap();
    let [file] = &files.map(|one| one.unwrap().path()).collect::<Vec<_>>()[..] else {
        panic!("there should be one file")
    };
    file.clone()
}

#[test]
fn random_reads_and_extents_are_those_of_the_file() {
    let (one, two) = (content(1, 900), content(2, 300));
    // Its length is no multiple of any block's.
    let world = World::new(&[
        Part::Hole(77),
        Part::Data(&one),
        Part::Hole(3000),
        Part::Data(&two),
        Part::Data(b"tail"),
    ]);
    let len = world.bytes.len() as u64;
    for readahead_bytes in [0, 1 << 20] {
        let host = format!("host{readahead_bytes}");
        let options = LazyOptions {
            readahead_bytes,
            ..world.options(&host)
        };
        let lazy = world.open(&host, &Seal::PLAIN, options).unwrap();
        assert_eq!(lazy.size(), len);
        let mut numbers = numbers(readahead_bytes);
        for _ in 0..300 {
            let (offset, size) = (numbers.next().unwrap() % len, numbers.next().unwrap());
            let longest = if size.is_multiple_of(16) { 3 << 20 } else { 40_000 };
            world.check(&lazy, offset, size % longest);
        }
        world.check(&lazy, len - 1, 10);
        world.check(&lazy, len + 5, 10);
        world.check_all(&lazy);
        let (mut at, mut data) = (0, 0);
        while at < len {
            let extent = lazy.extent(at..len).unwrap();
            assert!(extent.end > at && extent.end <= len);
            let range = usize::try_from(at).unwrap()..usize::try_from(extent.end).unwrap();
            if extent.is_hole {
                assert!(world.bytes[range].iter().all(|byte| *byte == 0));
            } else {
                data += extent.end - at;
            }
            at = extent.end;
        }
        assert_eq!(data, 1200 * BLOCK + 4);
        assert!(lazy.extent(len..len + 10).unwrap().is_hole);
        let counts = lazy.counts();
        assert_eq!(counts.fetched_data_bytes, data);
        assert!((counts.fetched_share() - 1.0).abs() < f64::EPSILON, "{counts:?}");
        assert_eq!(counts.cache_chunks + counts.donor_chunks, 0);
    }
}

#[test]
fn readers_at_the_same_time_get_what_is_theirs_and_nothing_twice() {
    let world = World::new(&[Part::Data(&content(1, 2000)), Part::Hole(50)]);
    let options = LazyOptions {
        readahead_bytes: 1 << 20,
        ..world.options("host")
    };
    let lazy = world.open("host", &Seal::PLAIN, options).unwrap();
    let len = world.bytes.len() as u64;
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let (world, lazy) = (&world, &lazy);
            scope.spawn(move || {
                let mut numbers = numbers(reader);
                for _ in 0..60 {
                    let (offset, size) = (numbers.next().unwrap() % len, numbers.next().unwrap());
                    world.check(lazy, offset, size % 100_000);
                }
                world.check_all(lazy);
            });
        }
    });
    let counts = lazy.counts();
    assert_eq!(counts.store_chunks, lazy.trace().len() as u64, "{counts:?}");
    assert_eq!(counts.fetched_data_bytes, 2000 * BLOCK);
}

#[test]
fn opening_reads_no_content_and_holes_are_never_fetched() {
    let world = World::new(&[Part::Hole(5000), Part::Data(&content(1, 100)), Part::Hole(70_000)]);
    let backend_before = world.watch.take().len();
    let lazy = world.lazy("host");
    assert_eq!((backend_before, lazy.counts().requests), (0, 0));
    world.check(&lazy, 0, 5000 * BLOCK);
    world.check(&lazy, 5100 * BLOCK, 70_000 * BLOCK);
    lazy.prefetch(0..5000 * BLOCK);
    // The one segment of the table, and nothing else.
    assert_eq!((world.watch.take().len(), lazy.counts().store_chunks), (1, 0));
    world.check(&lazy, 5000 * BLOCK, 1);
    assert_eq!((world.watch.take().len(), lazy.counts().store_chunks), (1, 1));
    assert_eq!(lazy.trace().len(), 1);
}

#[test]
fn what_was_fetched_is_still_there_after_a_restart() {
    let world = World::new(&[
        Part::Data(&content(1, 1500)),
        Part::Hole(9),
        Part::Data(&content(2, 9)),
    ]);
    let first = world.lazy("host");
    world.check(&first, 0, 1000 * BLOCK);
    let fetched = first.counts().store_chunks;
    drop(first);
    let second = world.lazy("host");
    world.check(&second, 0, 1000 * BLOCK);
    assert_eq!(world.watch.take(), []);
    assert_eq!(
        (second.counts().cache_chunks, second.counts().requests),
        (fetched, 0)
    );
    // Another process, as it were, sees what this one brings.
    let third = world.lazy("host");
    world.check_all(&second);
    assert!(!world.watch.take().is_empty());
    world.check_all(&third);
    assert_eq!(world.watch.take(), []);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(cache_file(&world, "host")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_in_an_image_twice_is_fetched_once_and_kept_in_both_places() {
    let twice = content(1, 500);
    let world = World::new(&[
        Part::Data(&twice),
        Part::Data(&content(2, 100)),
        Part::Data(&twice),
    ]);
    let options = LazyOptions {
        readahead_bytes: 1 << 20,
        ..world.options("host")
    };
    let lazy = world.open("host", &Seal::PLAIN, options).unwrap();
    world.check(&lazy, 0, 500 * BLOCK);
    world.check_all(&lazy);
    let counts = lazy.counts();
    assert!(counts.fetched_data_bytes < 700 * BLOCK, "{counts:?}");
    drop(lazy);
    world.watch.take();
    let lazy = world.lazy("host");
    for block in (0..1100).rev() {
        world.check(&lazy, block * BLOCK, BLOCK);
    }
    assert_eq!(world.watch.take(), []);
}

#[test]
fn a_damaged_cache_file_costs_requests_and_nothing_else() {
    let world = World::new(&[Part::Data(&content(1, 1500))]);
    world.check_all(&world.lazy("host"));
    let path = cache_file(&world, "host");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"oops", 700 * BLOCK + 5).unwrap();
    let lazy = world.lazy("host");
    world.check_all(&lazy);
    assert_eq!((world.watch.take().len(), lazy.counts().store_chunks), (1, 1));
    drop(lazy);
    // It was made whole again. Cut off, also while somebody reads:
    let lazy = world.lazy("host");
    world.check_all(&lazy);
    assert_eq!(world.watch.take(), []);
    file.set_len(600 * BLOCK).unwrap();
    let other = world.lazy("host");
    world.check_all(&lazy);
    assert!(!world.watch.take().is_empty());
    world.check_all(&other);
    drop(other);
    drop(lazy);
    fs::write(&path, vec![7; world.bytes.len() + 100]).unwrap();
    let lazy = world.lazy("host");
    world.check_all(&lazy);
    assert_eq!(lazy.counts().fetched_data_bytes, world.bytes.len() as u64);
}

#[test]
fn a_cache_that_cannot_be_written_is_told_once_and_done_without() {
    let world = World::new(&[Part::Data(&content(1, 1500))]);
    fs::write(world.at("file"), b"").unwrap();
    for folder in [Some(world.at("file").join("lazy")), None] {
        let options = LazyOptions {
            cache_folder: folder.clone(),
            memory_bytes: 1 << 20,
            ..LazyOptions::default()
        };
        let lazy = world.open("host", &Seal::PLAIN, options).unwrap();
        world.check_all(&lazy);
        for block in 0..1500 {
            world.check(&lazy, block * BLOCK, BLOCK);
        }
        assert_eq!(
            world.uncached.swap(0, Ordering::Relaxed),
            usize::from(folder.is_some())
        );
        // What does not fit into memory is fetched again, and reads beside each other are not.
        let counts = lazy.counts();
        assert!(counts.store_chunks < 3 * lazy.trace().len() as u64, "{counts:?}");
    }
}

#[test]
fn damage_in_the_store_is_an_error_of_its_own_range() {
    let world = World::new(&[Part::Data(&content(1, 1000))]);
    let blob = largest_blob(&world);
    let whole = fs::read(&blob).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 0x10;
    fs::write(&blob, &bytes).unwrap();
    let options = LazyOptions {
        readahead_bytes: 4 << 20,
        ..world.options("host")
    };
    let lazy = world.open("host", &Seal::PLAIN, options).unwrap();
    let mut buffer = vec![0; 4096];
    let mut read = |block: u64| lazy.read_at(block * BLOCK, &mut buffer);
    let bad: Vec<u64> = (0..1000).filter(|block| read(*block).is_err()).collect();
    let (first, last) = (*bad.first().unwrap(), *bad.last().unwrap());
    assert!(bad.len() <= 32 && last - first + 1 == bad.len() as u64, "{bad:?}");
    let error = read(first).unwrap_err();
    assert!(matches!(*error, StoreError::Chunk { .. }), "{error}");
    // All that can be had of a longer read does not make it whole.
    let mut longer = vec![0; 1000 * 4096];
    assert!(lazy.read_at(0, &mut longer).is_err());
    fs::write(&blob, &whole).unwrap();
    world.check_all(&lazy);
}

#[test]
fn a_store_that_fails_is_asked_again_by_the_next_read() {
    let world = World::new(&[Part::Data(&content(1, 1000))]);
    let lazy = world.lazy("host");
    let failures = Arc::new(AtomicUsize::new(4));
    let left = Arc::clone(&failures);
    world.watch.set(move |_| {
        let failed = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        failed.map_or(Ok(()), |_| Err(no_answer()))
    });
    let mut buffer = vec![0; 4096];
    // Two fail for the table, then two for the chunk.
    for _ in 0..2 {
        let error = lazy.read_at(0, &mut buffer).unwrap_err();
        assert!(matches!(*error, StoreError::Unsupported { .. }), "{error}");
    }
    while failures.load(Ordering::Relaxed) > 0 {
        assert!(lazy.read_at(0, &mut buffer).is_err());
    }
    world.check_all(&lazy);
}

#[test]
fn sixteen_readers_of_one_chunk_make_one_request() {
    let world = World::new(&[Part::Data(&content(1, 1000))]);
    let lazy = world.lazy("host");
    world.check(&lazy, 0, 1);
    world.watch.take();
    world.watch.set(|_| {
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    });
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| world.check(&lazy, 500 * BLOCK, BLOCK));
        }
    });
    assert_eq!(world.watch.take().len(), 1);
    // All hear of one failure, too, and only as long as it lasts.
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&begun);
    world.watch.set(move |_| {
        until(|| counted.load(Ordering::Relaxed) == 16);
        std::thread::sleep(Duration::from_millis(100));
        Err(no_answer())
    });
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                begun.fetch_add(1, Ordering::Relaxed);
                lazy.read_at(800 * BLOCK, &mut [0; 10]).unwrap_err()
            });
        }
    });
    assert!(world.watch.take().len() < 8);
    world.watch.set(|_| Ok(()));
    world.check(&lazy, 800 * BLOCK, BLOCK);
}

#[test]
fn a_request_that_hangs_keeps_nobody_else_waiting() {
    let world = World::new(&[Part::Data(&content(1, 1000))]);
    let lazy = world.lazy("host");
    world.check(&lazy, 0, 1);
    let (go, wait) = channel::<()>();
    let (hung_to, hung) = channel();
    let first = Mutex::new(Some((wait, hung_to)));
    world.watch.set(move |_| {
        let taken = first.lock().unwrap().take();
        if let Some((wait, hung_to)) = taken {
            hung_to.send(()).unwrap();
            let _ = wait.recv_timeout(Duration::from_secs(20));
        }
        Ok(())
    });
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| world.check(&lazy, 500 * BLOCK, BLOCK));
        hung.recv_timeout(Duration::from_secs(20)).unwrap();
        for block in (0..1000).filter(|block| !(460..540).contains(block)) {
            world.check(&lazy, block * BLOCK, BLOCK);
        }
        assert!(!slow.is_finished());
        go.send(()).unwrap();
    });
}

#[test]
fn reading_on_is_fetched_ahead_in_few_requests() {
    let world = World::new(&[Part::Data(&content(1, 3000))]);
    let requests = |readahead_bytes, host| {
        let options = LazyOptions {
            readahead_bytes,
            ..world.options(host)
        };
        let lazy = world.open(host, &Seal::PLAIN, options).unwrap();
        world.watch.set(|_| {
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        });
        for block in 0..3000 {
            world.check(&lazy, block * BLOCK, BLOCK);
        }
        let counts = lazy.counts();
        assert_eq!(
            counts.store_chunks,
            lazy.trace().len() as u64,
            "nothing comes twice"
        );
        world.watch.take().len() as u64
    };
    let (with, without) = (requests(4 << 20, "a"), requests(0, "b"));
    assert!(with * 5 < without, "{with} and {without}");
}

#[test]
fn what_lies_between_comes_for_nothing() {
    let world = World::new(&[Part::Data(&content(1, 1000))]);
    let first = world.lazy("first");
    world.check(&first, 0, 1);
    world.check(&first, 40 * BLOCK, 1);
    let trace = first.trace();
    assert_eq!((trace.len(), first.counts().store_chunks), (2, 2));
    let options = LazyOptions {
        trace,
        ..world.options("second")
    };
    let second = world.open("second", &Seal::PLAIN, options).unwrap();
    // Both are asked for together.
    until(|| second.counts().store_chunks > 2 && second.counts().requests == 2);
    until(|| second.counts().fetched_data_bytes >= 40 * BLOCK);
    world.watch.take();
    world.check(&second, 0, 40 * BLOCK);
    assert_eq!(world.watch.take(), []);
}

#[test]
fn an_announced_range_is_fetched_in_the_background() {
    let world = World::new(&[Part::Data(&content(1, 1000))]);
    let lazy = world.lazy("host");
    lazy.prefetch(0..u64::MAX);
    until(|| lazy.counts().fetched_data_bytes == world.bytes.len() as u64);
    world.watch.take();
    world.check_all(&lazy);
    assert_eq!(world.watch.take(), []);
    // It ends even if there is much to do.
    let options = LazyOptions {
        requests: 1,
        ..world.options("other")
    };
    let other = world.open("other", &Seal::PLAIN, options).unwrap();
    let (begun_to, begun) = channel();
    world.watch.set(move |_| {
        let _ = begun_to.send(());
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    });
    other.prefetch(0..u64::MAX);
    begun.recv().unwrap();
    drop(other);
    assert!(
        world.watch.take().len() <= 2,
        "it ends with the request that it is in"
    );
}

#[test]
fn what_goes_wrong_ahead_is_no_readers_error() {
    let world = World::new(&[Part::Data(&content(1, 1000))]);
    let lazy = world.lazy("host");
    world.check(&lazy, 0, 1);
    let (begun_to, begun) = channel();
    let first = Mutex::new(Some(begun_to));
    world.watch.set(move |_| match first.lock().unwrap().take() {
        None => Ok(()),
        Some(begun_to) => {
            begun_to.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(200));
            Err(no_answer())
        }
    });
    lazy.prefetch(500 * BLOCK..501 * BLOCK);
    begun.recv().unwrap();
    world.check(&lazy, 500 * BLOCK, BLOCK);
}

#[test]
fn a_trace_brings_what_the_next_boot_wants() {
    let world = World::new(&[
        Part::Data(&content(1, 1000)),
        Part::Hole(9),
        Part::Data(&content(2, 1000)),
    ]);
    let boot = |lazy: &Lazy| {
        for block in [1500, 3, 700, 3, 1990, 702, 250] {
            world.check(lazy, block * BLOCK, 2 * BLOCK);
        }
    };
    let first = world.lazy("first");
    boot(&first);
    let trace = first.trace();
    assert!((5..=12).contains(&trace.len()), "{}", trace.len());
    // Some that are not in the image, as of an earlier version.
    let mut hint = vec![Id::of(b"gone")];
    hint.extend(&trace);
    let options = LazyOptions {
        trace: hint,
        ..world.options("second")
    };
    let second = world.open("second", &Seal::PLAIN, options).unwrap();
    until(|| second.counts().store_chunks >= trace.len() as u64);
    assert_eq!(second.trace(), []);
    boot(&second);
    assert_eq!(second.trace(), trace);
    // A request for all of its table, and no more for chunks than the first boot made.
    assert!(world.watch.take().len() <= 1 + trace.len());
    let counts = second.counts();
    assert!(counts.fetched_share() < 0.3, "{counts:?}");
}

#[test]
fn other_images_of_the_host_are_asked_first() {
    let base = content(1, 1000);
    let world = World::new(&[Part::Data(&base), Part::Hole(9), Part::Data(&content(2, 100))]);
    // An image with the same base lies here, and this host knows what is in it.
    let donor = world.at("donor");
    image(&donor, &[Part::Data(&content(3, 10)), Part::Data(&base)]);
    let host = Host::new(&world.at("store"), &world.at("host/tables"));
    host.upload(&donor, "other").unwrap();
    host.download("other", &donor, &[]).unwrap();
    let open = |name: &str| {
        let donors = vec![world.at("gone"), donor.clone(), Path::new("/dev/null").to_owned()];
        let options = LazyOptions {
            donors,
            cache_folder: Some(world.at(name)),
            ..world.options("host")
        };
        world.open("host", &Seal::PLAIN, options).unwrap()
    };
    let lazy = open("lazy1");
    world.check_all(&lazy);
    let counts = lazy.counts();
    assert!(counts.donor_chunks > 5 * counts.store_chunks, "{counts:?}");
    drop(lazy);
    // Whatever becomes of it, nothing wrong is read.
    let lazy = open("lazy2");
    let len = fs::metadata(&donor).unwrap().len();
    fs::write(&donor, vec![1; usize::try_from(len).unwrap()]).unwrap();
    world.check_all(&lazy);
    assert_eq!(lazy.counts().donor_chunks, 0);
}

#[test]
fn an_encrypted_image_is_read_with_its_key_only() {
    let seal = Seal::keyed(&[5; 32]);
    let world = World::sealed(&[Part::Data(&content(1, 1000)), Part::Hole(100)], seal.clone());
    for keys in [Seal::PLAIN, Seal::keyed(&[6; 32])] {
        let error = world.open("host", &keys, world.options("host")).unwrap_err();
        assert!(matches!(error, StoreError::Key { .. }), "{error}");
    }
    for _ in 0..2 {
        let lazy = world.open("host", &seal, world.options("host")).unwrap();
        world.check_all(&lazy);
    }
    assert_eq!(world.watch.take(), []);
}
