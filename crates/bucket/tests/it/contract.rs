//! What every bucket does, whoever keeps it.

use std::io::{Read as _, Seek as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use firebrick_store::{ObjectError, Objects, Swap, Version};

use crate::support::noise;

/// All of it.
pub(crate) fn check(objects: &dyn Objects) {
    contents(objects);
    ranges(objects);
    absent(objects);
    listing(objects);
    swaps(objects);
    files(objects, 3 << 20);
}

fn contents(objects: &dyn Objects) {
    objects.put("c/one", b"first".to_vec()).unwrap();
    let (bytes, first) = objects.get("c/one", 5).unwrap().unwrap();
    assert_eq!(bytes, b"first");
    assert_eq!(objects.size("c/one").unwrap(), Some(5));
    objects.put("c/one", b"second".to_vec()).unwrap();
    let (bytes, second) = objects.get("c/one", 100).unwrap().unwrap();
    assert_eq!(bytes, b"second");
    assert_ne!(first, second);
    let error = objects.get("c/one", 5).unwrap_err();
    assert!(matches!(error, ObjectError::TooLarge { limit: 5, .. }), "{error}");
    objects.put("c/empty", Vec::new()).unwrap();
    assert_eq!(objects.size("c/empty").unwrap(), Some(0));
    assert_eq!(objects.get("c/empty", 0).unwrap().unwrap().0, b"");
    for key in ["", "/c", "c/", "c//one", "c/../c/one", "./c"] {
        let error = objects.put(key, Vec::new()).unwrap_err();
        assert!(matches!(error, ObjectError::Failed { .. }), "{key:?}: {error}");
    }
}

fn ranges(objects: &dyn Objects) {
    let bytes = noise(100_000);
    objects.put("r", bytes.clone()).unwrap();
    for (start, end) in [
        (0, 1),
        (0, 100_000),
        (99_999, 100_000),
        (12_345, 54_321),
        (5, 5),
        (100_000, 100_000),
    ] {
        let found = objects.get_range("r", start as u64..end as u64).unwrap();
        assert_eq!(found, bytes[start..end], "{start}..{end}");
    }
    for (start, end, there) in [
        (99_990, 100_010, 10),
        (100_000, 100_001, 0),
        (200_000, 200_010, 0),
    ] {
        match objects.get_range("r", start..end).unwrap_err() {
            ObjectError::Short { expected, found, .. } => assert_eq!((expected, found), (end - start, there)),
            error => panic!("{start}..{end}: {error:?}"),
        }
    }
    let error = objects.get_range("r", 100_001..100_001).unwrap_err();
    assert!(matches!(error, ObjectError::Short { .. }), "{error}");
}

fn absent(objects: &dyn Objects) {
    assert_eq!(objects.size("no/such").unwrap(), None);
    assert!(objects.get("no/such", 9).unwrap().is_none());
    for range in [0..1, 0..0] {
        let error = objects.get_range("no/such", range).unwrap_err();
        assert!(
            matches!(&error, ObjectError::Missing { key, .. } if key == "no/such"),
            "{error}"
        );
    }
    let error = objects
        .get_file("no/such", &tempfile::tempfile().unwrap(), &|_| ())
        .unwrap_err();
    assert!(matches!(error, ObjectError::Missing { .. }), "{error}");
    objects.delete("no/such").unwrap();
    objects.put("gone", b"x".to_vec()).unwrap();
    objects.delete("gone").unwrap();
    objects.delete("gone").unwrap();
    assert_eq!(objects.size("gone").unwrap(), None);
}

fn listing(objects: &dyn Objects) {
    for key in ["l/b", "l/a/2", "l/a/1", "l/a.x", "lx"] {
        objects.put(key, key.as_bytes().to_vec()).unwrap();
    }
    let keys = |prefix: &str| -> Vec<String> {
        let entries = objects.list(prefix).unwrap();
        entries.into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(keys("l/"), ["l/a.x", "l/a/1", "l/a/2", "l/b"]);
    assert_eq!(keys("l/a/"), ["l/a/1", "l/a/2"]);
    assert_eq!(keys("l/none/"), [""; 0]);
    assert!(keys("").contains(&"lx".to_owned()));
    let entry = objects.list("l/a/").unwrap().remove(0);
    assert_eq!(entry.len, 5);
    let now = SystemTime::now();
    let apart = now
        .duration_since(entry.modified)
        .unwrap_or_else(|error| error.duration());
    assert!(apart < Duration::from_secs(600), "{entry:?}");
}

fn swaps(objects: &dyn Objects) {
    let write = |text: &str, expected: Option<&Version>| {
        objects.swap("s", text.as_bytes().to_vec(), expected).unwrap()
    };
    let version = || objects.get("s", 100).unwrap().unwrap().1;
    assert_eq!(write("1", None), Swap::Done);
    assert_eq!(write("2", None), Swap::Changed);
    let first = version();
    assert_eq!(write("3", Some(&first)), Swap::Done);
    assert_eq!(write("4", Some(&first)), Swap::Changed);
    assert_eq!(objects.get("s", 100).unwrap().unwrap().0, b"3");
    objects.delete("s").unwrap();
    assert_eq!(write("5", Some(&first)), Swap::Changed);
    assert_eq!(objects.size("s").unwrap(), None);
    assert!(objects.can_swap().unwrap());
    assert_eq!(objects.list("probe/").unwrap(), []);
}

/// A file that goes up and comes down again.
pub(crate) fn files(objects: &dyn Objects, len: usize) {
    let bytes = noise(len);
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    let moved = AtomicU64::new(0);
    let count = |more| {
        moved.fetch_add(more, Ordering::Relaxed);
    };
    objects.put_file("f/file", &file, &count).unwrap();
    assert_eq!(moved.swap(0, Ordering::Relaxed), len as u64);
    assert_eq!(objects.size("f/file").unwrap(), Some(len as u64));

    let mut back = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut back, b"before ").unwrap();
    objects.get_file("f/file", &back, &count).unwrap();
    assert_eq!(moved.into_inner(), len as u64);
    back.rewind().unwrap();
    let mut found = Vec::new();
    back.read_to_end(&mut found).unwrap();
    assert!(
        found == [b"before ", &*bytes].concat(),
        "{} bytes came back",
        found.len()
    );
}

/// Eight threads, each of which adds lines to an object again and again: none is lost, and none is there twice.
pub(crate) fn race(objects: &dyn Objects, each: u64) {
    let read = || {
        let found = objects.get("race", 10_000).unwrap();
        found.map_or((String::new(), None), |(bytes, version)| {
            (String::from_utf8(bytes).unwrap(), Some(version))
        })
    };
    let add = |line: String| loop {
        let (text, version) = read();
        let next = format!("{text}{line}\n").into_bytes();
        match objects.swap("race", next, version.as_ref()).unwrap() {
            Swap::Done => return,
            Swap::Changed => {}
            Swap::Unknown if read().0.lines().any(|there| there == line) => return,
            Swap::Unknown => {}
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || (0..each).for_each(|n| add(format!("{thread}.{n}"))));
        }
    });
    let (text, _) = read();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let mut expected: Vec<String> = (0..8)
        .flat_map(|thread| (0..each).map(move |n| format!("{thread}.{n}")))
        .collect();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}
