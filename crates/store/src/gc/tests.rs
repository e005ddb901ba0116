//! Collections that end anywhere, and what publishers do meanwhile.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;
use crate::layout::INDEX_KEY;
use crate::ledger::Settled;
use crate::objects::Swap;
use crate::{About, Folder, Layout, Seal, Upload, Uploaded};

type OnSwap = dyn Fn(&Folder, &str, Vec<u8>, Option<&Version>) -> Result<Swap, ObjectError> + Send + Sync;

/// A folder that fails at its n-th call and ever after, as if the process had ended there; and what its swaps do.
struct Failing {
    folder: Folder,
    swaps: bool,
    left: AtomicUsize,
    on_swap: Box<OnSwap>,
}

impl std::fmt::Debug for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.folder.fmt(f)
    }
}

impl Failing {
    fn new(path: &Path) -> Failing {
        Failing {
            folder: Folder::new(path),
            swaps: true,
            left: AtomicUsize::new(usize::MAX),
            on_swap: Box::new(|folder, key, bytes, expected| folder.swap(key, bytes, expected)),
        }
    }

    fn pass(&self) -> Result<&Folder, ObjectError> {
        let count = |left: usize| Some(left.saturating_sub(1));
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) {
            Ok(0) => Err(ObjectError::Unsupported {
                address: "the test".to_owned(),
                action: "go on",
            }),
            _ => Ok(&self.folder),
        }
    }
}

impl Objects for Failing {
    fn address(&self) -> &str {
        self.folder.address()
    }
    fn size(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        self.pass()?.size(key)
    }
    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, Version)>, ObjectError> {
        self.pass()?.get(key, limit)
    }
    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
        self.pass()?.get_range(key, range)
    }
    fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.pass()?.put(key, bytes)
    }
    fn swap(&self, key: &str, bytes: Vec<u8>, expected: Option<&Version>) -> Result<Swap, ObjectError> {
        (self.on_swap)(self.pass()?, key, bytes, expected)
    }
    fn can_swap(&self) -> Result<bool, ObjectError> {
        Ok(self.pass()?.can_swap()? && self.swaps)
    }
    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.pass()?.delete(key)
    }
    fn list(&self, prefix: &str) -> Result<Vec<Entry>, ObjectError> {
        self.pass()?.list(prefix)
    }

    fn list_top(&self) -> Result<Vec<Entry>, ObjectError> {
        self.pass()?.list_top()
    }
    fn put_file(&self, key: &str, file: &File, moved: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError> {
        self.pass()?.put_file(key, file, moved)
    }
    fn get_file(&self, key: &str, file: &File, moved: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError> {
        self.pass()?.get_file(key, file, moved)
    }
}

fn store(objects: impl Objects + 'static) -> Store {
    let stop = Arc::new(AtomicBool::new(false));
    Store::new(Box::new(Layout::new(objects)), None, Box::new(|_| ()), stop)
}

fn folder(path: &Path) -> Store {
    store(Folder::new(path))
}

/// Blocks that no other seed has.
fn image(path: PathBuf, seeds: Range<u32>) -> PathBuf {
    let block = |seed: u32| Digest::of(&seed.to_le_bytes()).as_bytes().repeat(4096 * 4 / 32);
    fs::write(&path, seeds.flat_map(block).collect::<Vec<u8>>()).unwrap();
    path
}

fn upload(store: &Store, path: &Path, name: &str) -> Result<Uploaded, StoreError> {
    store.upload(&Upload {
        file: &File::open(path).unwrap(),
        path,
        tagged: &name.parse().unwrap(),
        about: About::default(),
        seal: &Seal::PLAIN,
        time: 1,
        threads: 1,
    })
}

fn options(grace: u64, now: u64) -> GcOptions {
    GcOptions {
        dry_run: false,
        grace: Duration::from_secs(grace),
        keep: Some(1),
        now: UNIX_EPOCH + Duration::from_secs(now),
    }
}

fn collect(store: &Store, options: &GcOptions) -> Result<Collected, StoreError> {
    store.collect_within(options, DELETE_WITHIN, Duration::ZERO)
}

/// Every image comes back with the bytes that were published.
fn assert_right(store: &Store, dir: &Path) {
    for version in store.backend().versions().unwrap() {
        let image = store.open(&version).unwrap();
        let source = store.source();
        let root = source.root(&image, &Seal::PLAIN).unwrap();
        let entries = source
            .segments(&image, &root.segments, &Seal::PLAIN, &|_| {})
            .unwrap();
        let fetching = crate::fetch::Fetching {
            backend: store.backend(),
            name: &version.tagged.name,
            seal: &Seal::PLAIN,
            threads: 1,
            stop: &store.stop,
            came: &|_| {},
        };
        let chunks = crate::known::chunks(&entries.concat()).collect();
        fetching.chunks(chunks, &|_, _| Ok(())).unwrap();
    }
    assert!(dir.join("index.json").exists());
}

fn blobs(store: &Store) -> usize {
    store.backend().objects().unwrap().list(BLOBS).unwrap().len()
}

/// A store with two versions of one name, and one image that shares chunks with the older.
fn filled(dir: &Path) -> PathBuf {
    let at = dir.join("store");
    let store = folder(&at);
    upload(&store, &image(dir.join("a"), 0..40), "x").unwrap();
    upload(&store, &image(dir.join("b"), 20..60), "y").unwrap();
    upload(&store, &image(dir.join("c"), 100..140), "x").unwrap();
    at
}

#[test]
fn what_is_unreached_goes_after_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    let at = filled(dir.path());
    let store = folder(&at);
    let before = blobs(&store);
    // One write was ended long ago, one goes on.
    fs::write(at.join(".partial/partial-x"), b"left").unwrap();
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs() + 50;
    let dry = GcOptions {
        dry_run: true,
        ..options(100, now)
    };
    let told = collect(&store, &dry).unwrap();
    assert!(!at.join("gc").exists() && store.backend().versions().unwrap().len() == 3);
    let first = collect(&store, &options(100, now)).unwrap();
    assert_eq!(
        (told.condemned, told.kept, told.dropped.len()),
        (first.condemned, first.kept, 1)
    );
    assert_eq!(
        (first.deleted, first.leftovers),
        (Amount::default(), Amount::default())
    );
    // The older version's documents, and its segments; its bundle of chunks is in use.
    assert_eq!(first.condemned.count, 4, "{first:?}");
    assert_eq!(first.kept.count as usize + 4, before);
    let early = collect(&store, &options(100, now + 99)).unwrap();
    assert_eq!((early.deleted.count, early.condemned), (0, first.condemned));
    assert_eq!(early.leftovers, Amount { count: 1, bytes: 4 });
    let last = collect(&store, &options(100, now + 101)).unwrap();
    assert_eq!(
        (last.deleted, last.condemned.count, last.kept),
        (first.condemned, 0, first.kept)
    );
    assert_eq!(blobs(&store), before - 4);
    assert_right(&store, &at);
    let (ledger, _) = Ledger::read(store.backend().objects().unwrap()).unwrap();
    assert!(ledger.condemned.is_empty() && ledger.doomed.is_empty() && ledger.generation == 2);
}

#[test]
fn an_ended_collection_leaves_a_right_store_and_the_next_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut steps = 0;
    for calls in 0.. {
        let sub = dir.path().join(calls.to_string());
        fs::create_dir(&sub).unwrap();
        let at = filled(&sub);
        // What is due was condemned before.
        collect(
            &folder(&at),
            &GcOptions {
                keep: None,
                ..options(0, 1)
            },
        )
        .unwrap();
        let failing = store(Failing {
            left: AtomicUsize::new(calls + 1),
            ..Failing::new(&at)
        });
        let result = collect(&failing, &options(0, 10));
        assert_right(&folder(&at), &at);
        let again = collect(&folder(&at), &options(0, 20)).unwrap();
        assert_right(&folder(&at), &at);
        assert_eq!(
            (again.condemned.count, again.kept.count as usize),
            (0, blobs(&folder(&at)))
        );
        // And what was removed can come again, also while the list says what it said.
        upload(&folder(&at), &sub.join("a"), "z").unwrap();
        assert_right(&folder(&at), &at);
        if result.is_ok() {
            break;
        }
        steps += 1;
    }
    assert!(steps > 15, "{steps}");
}

/// The first upload of an image whose blobs are there, but condemned a grace ago or doomed.
fn come_again(doom: bool) {
    let dir = tempfile::tempdir().unwrap();
    let at = filled(dir.path());
    let gone = GcOptions {
        keep: None,
        ..options(100, 10)
    };
    folder(&at)
        .backend()
        .remove(&"y".parse().unwrap(), &|_| true)
        .unwrap();
    let first = collect(&folder(&at), &gone).unwrap();
    assert!(first.condemned.count > 2);
    let objects = Folder::new(&at);
    let collector = doom.then(|| {
        let (mut ledger, version) = Ledger::read(&objects).unwrap();
        ledger.doomed = std::mem::take(&mut ledger.condemned);
        assert_eq!(
            ledger.write(&objects, version.as_ref(), true).unwrap(),
            Swap::Done
        );
        // Its collector goes on, removes one and ends.
        let at = at.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(600));
            let objects = Folder::new(&at);
            let (mut ledger, version) = Ledger::read(&objects).unwrap();
            for digest in std::mem::take(&mut ledger.doomed).keys() {
                objects.delete(&blob_key(digest)).unwrap();
            }
            ledger.generation += 1;
            assert_eq!(
                ledger.write(&objects, version.as_ref(), true).unwrap(),
                Swap::Done
            );
        })
    });
    upload(&folder(&at), &dir.path().join("b"), "y").unwrap();
    collector
        .into_iter()
        .for_each(|collector| collector.join().unwrap());
    let (ledger, _) = Ledger::read(&Folder::new(&at)).unwrap();
    assert!(
        ledger.condemned.is_empty() && ledger.doomed.is_empty(),
        "{ledger:?}"
    );
    assert_right(&folder(&at), &at);
    let second = collect(
        &folder(&at),
        &GcOptions {
            keep: None,
            ..options(100, 200)
        },
    )
    .unwrap();
    assert_eq!(second.condemned.count, 0, "{second:?}");
    assert_right(&folder(&at), &at);
}

#[test]
fn an_upload_takes_its_blobs_off_the_list() {
    come_again(false);
}

#[test]
fn an_upload_waits_for_what_is_being_removed() {
    come_again(true);
}

#[test]
fn a_claim_ends_a_collection_that_has_looked_already() {
    let dir = tempfile::tempdir().unwrap();
    let at = filled(dir.path());
    let store = folder(&at);
    let all = options(100, 10);
    collect(&store, &all).unwrap();
    let objects = store.backend().objects().unwrap();
    let (ledger, version) = Ledger::read(objects).unwrap();
    let later = options(100, 200);
    let gc = Gc {
        store: &store,
        objects,
        options: &later,
        swaps: true,
        within: DELETE_WITHIN,
        patience: Duration::ZERO,
        started: Instant::now(),
    };
    let verdict = gc.look(&ledger, &[]).unwrap();
    assert!(verdict.due.len() > 2);
    let claimed: Vec<Digest> = verdict.due.iter().map(|(digest, _)| *digest).take(1).collect();
    let claim = store.claim().unwrap();
    let named = claim
        .name(&"x".parse().unwrap(), &claimed, |_| Ok(Some(())))
        .unwrap();
    assert_eq!(named, Settled::Named(()));
    let mut deleted = Amount::default();
    let round = gc
        .round(&ledger, version.as_ref(), verdict, &mut deleted)
        .unwrap();
    assert!(matches!(round, Round::Changed) && deleted.count == 0);
    let rest = collect(&store, &later).unwrap();
    assert_eq!((rest.condemned.count, rest.deleted.count), (1, 3));
}

/// While a name is written that took too long, two collections remove all that it needs.
#[test]
fn what_went_while_a_name_was_written_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = filled(dir.path());
    let (path, deleted) = (at.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&deleted);
    let slow = store(Failing {
        on_swap: Box::new(move |objects, key, bytes, expected| {
            if key == INDEX_KEY && count.load(Ordering::Relaxed) == 0 {
                collect(&folder(&path), &options(100, 10)).unwrap();
                let gone = collect(&folder(&path), &options(100, 200)).unwrap().deleted;
                count.fetch_add(usize::try_from(gone.count).unwrap(), Ordering::Relaxed);
            }
            objects.swap(key, bytes, expected)
        }),
        ..Failing::new(&at)
    });
    let new = image(dir.path().join("new"), 500..520);
    let uploaded = upload(&slow, &new, "new").unwrap();
    // Bundle, two tables, config, manifest.
    assert!(deleted.load(Ordering::Relaxed) >= 5, "{deleted:?}");
    assert_right(&slow, &at);
    let found = slow.find(&"new".parse().unwrap()).unwrap();
    assert_eq!(found.digest, uploaded.published.digest);
}

/// A name that is written after a collection has doomed what it needs, and before the collection begins its epoch.
#[test]
fn what_has_a_name_after_all_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = filled(dir.path());
    let store = Arc::new(folder(&at));
    let new = image(dir.path().join("new"), 500..520);
    let published = upload(&store, &new, "new").unwrap().published;
    let manifest = store.open(&published).unwrap().manifest;
    let mut needed: Vec<Digest> = manifest.blobs().map(|blob| blob.digest).collect();
    needed.push(published.digest);
    let name = &published.tagged.name;
    store.backend().remove(name, &|_| true).unwrap();
    let claim = store.claim().unwrap();
    let mut waiting = Amount::default();
    let settled = claim.name(name, &needed, |epoch| {
        collect(&store, &options(100, 10))?;
        let (other, named) = (Arc::clone(&store), published.clone());
        let is_named = AtomicBool::new(false);
        let collector = self::store(Failing {
            on_swap: Box::new(move |objects, key, bytes, expected| {
                if key == INDEX_KEY && !is_named.swap(true, Ordering::Relaxed) {
                    other.backend().publish(&named, epoch).unwrap().unwrap();
                }
                objects.swap(key, bytes, expected)
            }),
            ..Failing::new(&at)
        });
        waiting = collect(&collector, &options(100, 200))?.condemned;
        Ok(Some(()))
    });
    assert_eq!(settled.unwrap(), Settled::Named(()));
    assert_eq!(waiting.count, 0);
    assert_eq!(
        store.find(&"new".parse().unwrap()).unwrap().digest,
        published.digest
    );
    assert_right(&store, &at);
    let (ledger, _) = Ledger::read(&Folder::new(&at)).unwrap();
    assert!(
        ledger.condemned.is_empty() && ledger.doomed.is_empty(),
        "{ledger:?}"
    );
}

/// Of three swaps one is not done, one is done, and of both nobody hears; the third is as always.
#[test]
fn a_lost_answer_is_made_up_for_by_a_look() {
    let dir = tempfile::tempdir().unwrap();
    let at = filled(dir.path());
    let count = AtomicUsize::new(0);
    let lossy = store(Failing {
        on_swap: Box::new(move |objects, key, bytes, expected| {
            let nth = count.fetch_add(1, Ordering::Relaxed) % 3;
            if nth == 0 {
                return Ok(Swap::Unknown);
            }
            let swapped = objects.swap(key, bytes, expected)?;
            Ok(if nth == 1 { Swap::Unknown } else { swapped })
        }),
        ..Failing::new(&at)
    });
    for number in 0..4 {
        let name = format!("new{number}");
        let new = image(dir.path().join(&name), 500 + number..510 + number);
        let replaced = upload(&lossy, &new, &name).unwrap().replaced.unwrap();
        assert_eq!(replaced.previous, None);
        let name = name.parse().unwrap();
        if number % 2 == 0 {
            assert_eq!(lossy.backend().remove(&name, &|_| true).unwrap().len(), 1);
        }
        collect(&lossy, &options(100, 10 + u64::from(number))).unwrap();
        assert_right(&lossy, &at);
    }
    let last = collect(&lossy, &options(100, 500)).unwrap();
    assert!(last.deleted.count >= 8 && last.condemned.count == 0, "{last:?}");
    let (ledger, _) = Ledger::read(&Folder::new(&at)).unwrap();
    assert!(
        ledger.condemned.is_empty() && ledger.doomed.is_empty(),
        "{ledger:?}"
    );
    assert_right(&lossy, &at);
    let names = lossy.backend().versions().unwrap();
    assert!(
        names
            .iter()
            .filter(|one| one.tagged.to_string().contains("new"))
            .count()
            == 2
    );
}

#[test]
fn what_cannot_be_removed_in_time_is_left_for_another_round() {
    let dir = tempfile::tempdir().unwrap();
    let at = filled(dir.path());
    let store = folder(&at);
    let objects = store.backend().objects().unwrap();
    let now = options(0, 10);
    let gc = Gc {
        store: &store,
        objects,
        options: &now,
        swaps: true,
        within: Duration::ZERO,
        patience: Duration::ZERO,
        started: Instant::now(),
    };
    gc.drop_versions().unwrap();
    let (ledger, version) = Ledger::read(objects).unwrap();
    let before = blobs(&store);
    let verdict = gc.look(&ledger, &[]).unwrap();
    let mut deleted = Amount::default();
    let round = gc
        .round(&ledger, version.as_ref(), verdict, &mut deleted)
        .unwrap();
    assert!(matches!(round, Round::More) && blobs(&store) == before);
    assert_eq!(collect(&store, &now).unwrap().deleted.count, 4);
}

#[test]
fn nothing_is_removed_while_a_document_is_not_right() {
    let dir = tempfile::tempdir().unwrap();
    let at = filled(dir.path());
    let store = folder(&at);
    let version = store.find(&"y".parse().unwrap()).unwrap();
    let path = at.join(blob_key(&version.digest));
    let bytes = fs::read(&path).unwrap();
    let before = blobs(&store);
    for damage in [Some(&bytes[1..]), Some(&b"{}"[..]), None] {
        match damage {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = collect(&store, &options(0, 10)).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(&version.digest.to_string()), "{error}");
    }
    assert_eq!(blobs(&store), before - 1);
    fs::write(at.join(INDEX_KEY), b"nothing").unwrap();
    assert!(collect(&store, &options(0, 10)).is_err());
    assert_eq!(blobs(&store), before - 1);
}

#[test]
fn generations_begin_anew_behind_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let at = filled(dir.path());
    let store = folder(&at);
    let list = format!(
        r#"{{"version":1,"generation":{},"condemned":{{}},"doomed":{{}}}}"#,
        u64::MAX
    );
    fs::create_dir_all(at.join("gc")).unwrap();
    fs::write(at.join(crate::ledger::LEDGER_KEY), list).unwrap();
    assert_eq!(collect(&store, &options(0, 10)).unwrap().deleted.count, 4);
    let (ledger, _) = Ledger::read(store.backend().objects().unwrap()).unwrap();
    assert_eq!((ledger.generation, ledger.doomed.len()), (1, 0));
    assert_right(&store, &at);
}

#[test]
fn a_store_that_cannot_swap_is_collected_alone_only() {
    let dir = tempfile::tempdir().unwrap();
    let at = filled(dir.path());
    let store = store(Failing {
        swaps: false,
        ..Failing::new(&at)
    });
    let error = collect(&store, &options(100, 10)).unwrap_err();
    assert!(matches!(error, StoreError::Unsupported { .. }), "{error}");
    assert_eq!(store.backend().versions().unwrap().len(), 3);
    assert_eq!(collect(&store, &options(0, 10)).unwrap().deleted.count, 4);
    assert_right(&store, &at);
}
