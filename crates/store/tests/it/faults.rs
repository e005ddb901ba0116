//! Whatever request fails: what is there stays right, and the same command goes on.

use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firebrick_store::{
    Folder, Layout, ObjectEntry, ObjectError, Objects, Seal, Store, Swap, TableCache, Version,
};

use crate::common::{Host, Part, content, image};

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// It never arrives.
    Before,
    /// It is done, and nobody hears of it.
    After,
    /// What comes back is other bytes.
    Damage,
}

/// Objects of which one request goes wrong.
#[derive(Debug)]
struct Faulty {
    inner: Folder,
    count: Arc<AtomicU64>,
    at: u64,
    fault: Fault,
}

impl Faulty {
    fn request<T>(
        &self,
        run: impl FnOnce() -> Result<T, ObjectError>,
        damage: impl FnOnce(&mut T),
    ) -> Result<T, ObjectError> {
        let is_bad = self.count.fetch_add(1, Ordering::Relaxed) == self.at;
        let fails = |action| ObjectError::Failed {
            address: "test".to_owned(),
            key: "x".to_owned(),
            action,
            source: "the line is cut".into(),
        };
        if is_bad && self.fault == Fault::Before {
            return Err(fails("reach"));
        }
        let mut result = run()?;
        match self.fault {
            Fault::After if is_bad => return Err(fails("hear of")),
            Fault::Damage if is_bad => damage(&mut result),
            _ => {}
        }
        Ok(result)
    }
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x40;
    }
}

impl Objects for Faulty {
    fn address(&self) -> &str {
        self.inner.address()
    }
    fn size(&self, key: &str) -> Result<Option<u64>, ObjectError> {
        self.request(|| self.inner.size(key), |_| ())
    }
    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, Version)>, ObjectError> {
        self.request(
            || self.inner.get(key, limit),
            |found| {
                if let Some((bytes, _)) = found {
                    flip(bytes);
                }
            },
        )
    }
    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
        self.request(|| self.inner.get_range(key, range), |bytes| flip(bytes))
    }
    fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), ObjectError> {
        self.request(|| self.inner.put(key, bytes), |()| ())
    }
    fn swap(&self, key: &str, bytes: Vec<u8>, expected: Option<&Version>) -> Result<Swap, ObjectError> {
        self.request(|| self.inner.swap(key, bytes, expected), |_| ())
    }
    fn can_swap(&self) -> Result<bool, ObjectError> {
        self.request(|| self.inner.can_swap(), |_| ())
    }
    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.request(|| self.inner.delete(key), |()| ())
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, ObjectError> {
        self.request(|| self.inner.list(prefix), |_| ())
    }
    fn list_top(&self) -> Result<Vec<ObjectEntry>, ObjectError> {
        self.request(|| self.inner.list_top(), |_| ())
    }
    fn put_file(&self, key: &str, file: &File, moved: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError> {
        self.request(|| self.inner.put_file(key, file, moved), |()| ())
    }
    fn get_file(&self, key: &str, file: &File, moved: &(dyn Fn(u64) + Sync)) -> Result<(), ObjectError> {
        self.request(|| self.inner.get_file(key, file, moved), |()| ())
    }
}

/// A host without memory, whose request number `at` goes wrong; and how many requests there were.
fn host(folder: &Path, cache: &Path, at: u64, fault: Fault) -> (Host, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let objects = Faulty {
        inner: Folder::new(folder),
        count: Arc::clone(&count),
        at,
        fault,
    };
    let cache = TableCache::new(cache);
    let store = Store::new(
        Box::new(Layout::new(objects)),
        Some(cache),
        Box::new(|_| ()),
        Arc::default(),
    );
    (
        Host {
            store,
            seal: Seal::PLAIN,
        },
        count,
    )
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn every_request_of_an_upload_may_fail() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let base = content(1, 500);
    image(&at("a"), &[Part::Data(&base)]);
    image(
        &at("b"),
        &[Part::Data(&base[..4096 * 400]), Part::Data(&content(2, 50))],
    );
    Host::new(&at("before"), &at("cache"))
        .upload(&at("a"), "x")
        .unwrap();
    for fault in [Fault::Before, Fault::After, Fault::Damage] {
        let mut failures = 0;
        for number in 0.. {
            let (store, cache) = (
                at(&format!("{fault:?}{number}")),
                at(&format!("cache{fault:?}{number}")),
            );
            copy(&at("before"), &store);
            let (faulty, count) = host(&store, &cache, number, fault);
            let result = faulty.upload(&at("b"), "x");
            failures += u32::from(result.is_err());
            // What the name means is whole, whichever version it is.
            let fresh = Host::new(&store, &at("fresh"));
            fresh.download("x", &at("out"), &[]).unwrap();
            let out = fs::read(at("out")).unwrap();
            let (old, new) = (fs::read(at("a")).unwrap(), fs::read(at("b")).unwrap());
            assert!(
                out == new || (out == old && result.is_err()),
                "{fault:?} {number}"
            );
            // The same command goes on, and the version before is still there.
            fresh.upload(&at("b"), "x").unwrap();
            fresh.download("x", &at("out"), &[]).unwrap();
            assert!(fs::read(at("out")).unwrap() == new, "{fault:?} {number}");
            assert_eq!(
                fresh
                    .store
                    .backend()
                    .history(&"x".parse().unwrap())
                    .unwrap()
                    .len(),
                2,
                "{fault:?} {number}"
            );
            if count.load(Ordering::Relaxed) <= number {
                assert!(number > 10, "{number} requests");
                break;
            }
        }
        match fault {
            // What is damaged is asked for again.
            Fault::Damage => assert_eq!(failures, 0),
            _ => assert!(failures >= 3, "{fault:?}: {failures}"),
        }
    }
}

#[test]
fn every_request_of_a_download_may_fail() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(
        &at("a"),
        &[
            Part::Data(&content(1, 500)),
            Part::Hole(20),
            Part::Data(&content(2, 50)),
        ],
    );
    Host::new(&at("store"), &at("cache"))
        .upload(&at("a"), "x")
        .unwrap();
    let right = fs::read(at("a")).unwrap();
    for fault in [Fault::Before, Fault::Damage] {
        for number in 0.. {
            let (cache, out) = (
                at(&format!("cache{fault:?}{number}")),
                at(&format!("out{fault:?}{number}")),
            );
            let (faulty, count) = host(&at("store"), &cache, number, fault);
            match faulty.download("x", &out, &[]) {
                Ok(_) => assert!(fs::read(&out).unwrap() == right, "{fault:?} {number}"),
                Err(_) => assert!(!out.exists(), "{fault:?} {number}"),
            }
            if count.load(Ordering::Relaxed) <= number {
                assert!(number >= 6, "{number} requests");
                break;
            }
            let after = faulty.download("x", &out, &[]);
            assert!(
                after.is_ok() && fs::read(&out).unwrap() == right,
                "{fault:?} {number}"
            );
        }
    }
}
