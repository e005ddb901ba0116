//! Whole files are verified, resumed and sparse like images in chunks.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use firebrick_digest::Digest;
use firebrick_store::{CheckOptions, Checked, Seal, StoreError};

use crate::common::{Host, Part, content, image};

const KEY: &str = "rootfs-a.ext4";

/// A store with an image of 12 MiB of bytes, and 36 MiB of zeros before, among and behind them.
fn stored(dir: &Path) -> (Host, PathBuf, Digest) {
    let path = dir.join("a");
    let (one, two) = (content(1, 1500), content(2, 1500));
    image(
        &path,
        &[
            Part::Hole(3000),
            Part::Data(&one),
            Part::Hole(3000),
            Part::Data(&two),
            Part::Hole(3000),
        ],
    );
    let host = Host::new(&dir.join("store"), &dir.join("cache"));
    let digest = host
        .store
        .put_plain(KEY, &File::open(&path).unwrap(), &path)
        .unwrap();
    (host, path, digest)
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

#[test]
fn zeros_come_as_holes() {
    let dir = tempfile::tempdir().unwrap();
    let (host, path, digest) = stored(dir.path());
    let holes = |target: &Path| {
        assert!(same(&path, target));
        let blocks = fs::metadata(target).unwrap().blocks();
        assert!(blocks <= fs::metadata(&path).unwrap().blocks() + 512, "{blocks}");
    };
    let target = dir.path().join("verified");
    let fetched = host.store.get_plain(KEY, &target).unwrap();
    let len = fs::metadata(&path).unwrap().len();
    assert_eq!(
        (fetched.digest, fetched.came, fetched.len),
        (Some(digest), len, len)
    );
    holes(&target);
    fs::remove_file(dir.path().join(format!("store/{KEY}.sha256"))).unwrap();
    let target = dir.path().join("unverified");
    assert_eq!(host.store.get_plain(KEY, &target).unwrap().digest, None);
    holes(&target);
}

#[test]
fn what_came_before_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (host, path, digest) = stored(dir.path());
    let bytes = fs::read(&path).unwrap();
    let len = bytes.len() as u64;
    let target = dir.path().join("b");
    let partial = dir.path().join(format!(".b.download-{}", digest.short()));
    let half = bytes.len() / 2;
    fs::write(&partial, &bytes[..half]).unwrap();
    let fetched = host.store.get_plain(KEY, &target).unwrap();
    assert_eq!(fetched.came, len - half as u64);
    assert!(same(&path, &target) && !partial.exists());
    // What is not right there is found at the end, and all of it is fetched once more.
    let mut spoiled = bytes[..half].to_vec();
    spoiled[half - 9] ^= 1;
    fs::write(&partial, &spoiled).unwrap();
    let fetched = host.store.get_plain(KEY, &target).unwrap();
    assert_eq!(fetched.came, len - half as u64 + len);
    assert!(same(&path, &target) && !partial.exists());
    // Longer than it can be.
    fs::write(&partial, [&bytes[..], b"more"].concat()).unwrap();
    assert_eq!(host.store.get_plain(KEY, &target).unwrap().came, len);
    // An object that is not what it should be leaves nothing, and the target as it was.
    let object = dir.path().join("store").join(KEY);
    fs::write(&object, [b"x", &bytes[1..]].concat()).unwrap();
    let error = host.store.get_plain(KEY, &target).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(same(&path, &target) && !partial.exists());
}

#[test]
fn a_check_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let (host, path, _) = stored(dir.path());
    let kernel = dir.path().join("kernel");
    fs::write(&kernel, b"a kernel").unwrap();
    host.store
        .put_plain("vmlinux", &File::open(&kernel).unwrap(), &kernel)
        .unwrap();
    let check = || -> Checked {
        let options = CheckOptions {
            repair: false,
            keys: &Seal::PLAIN,
            local: &[],
            threads: 2,
        };
        host.store.check(&options).unwrap()
    };
    let checked = check();
    let len = fs::metadata(&path).unwrap().len();
    assert_eq!((checked.whole.count, checked.whole.bytes), (2, len + 8));
    assert!(
        checked.spoiled.is_empty() && checked.unverified.is_empty(),
        "{checked:?}"
    );
    fs::write(dir.path().join("store/vmlinux"), b"b kernel").unwrap();
    fs::remove_file(dir.path().join(format!("store/{KEY}.sha256"))).unwrap();
    let checked = check();
    assert_eq!(checked.unverified, [KEY]);
    let [(key, problem)] = &checked.spoiled[..] else {
        panic!("{checked:?}")
    };
    assert!(
        key == "vmlinux" && problem.contains("has the digest sha256:"),
        "{problem}"
    );
    fs::write(dir.path().join("store/vmlinux.sha256"), b"no digest").unwrap();
    assert!(
        check().spoiled[0].1.contains("no SHA-256"),
        "{:?}",
        check().spoiled
    );
}
