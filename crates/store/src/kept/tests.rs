//! What is listed and what goes, with files of others beside.

use super::*;

fn old(path: &Path, hours: u64) {
    let time = SystemTime::now() - Duration::from_secs(hours * 3600);
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// A cache with a thing of each kind, a file on its way, and what is nobody's; the first is the longest unused.
fn cache(root: &Path) -> HostCache {
    let cache = HostCache::new(root);
    let key = Digest::of(b"a");
    cache.tables().put(&key.hex(), &[1; 3000]);
    let (chunks, told) = (cache.folder(KeptKind::Chunks), cache.folder(KeptKind::Told));
    for folder in [&chunks, &told] {
        fs::create_dir_all(folder).unwrap();
    }
    let part = chunks.join(format!("{}.part", key.hex()));
    fs::write(&part, [1; 8192]).unwrap();
    File::options()
        .write(true)
        .open(&part)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    fs::write(told.join(key.hex()), "oci://x").unwrap();
    let table = root.join("tables").join(&key.hex()[..2]).join(key.hex());
    for (path, hours) in [(&table, 1), (&part, 5), (&told.join(key.hex()), 3)] {
        old(path, hours);
    }
    fs::write(chunks.join("notes.part"), "mine").unwrap();
    fs::write(root.join("tables/readme"), "mine").unwrap();
    fs::create_dir(root.join("tables/zz")).unwrap();
    std::os::unix::fs::symlink(root.join("tables/readme"), told.join(Digest::of(b"b").hex())).unwrap();
    for (name, hours) in [(".tmpdead", 30), (".tmpbusy", 1)] {
        fs::write(chunks.join(name), "").unwrap();
        old(&chunks.join(name), hours);
    }
    cache
}

fn kinds(kept: &[Kept]) -> Vec<KeptKind> {
    kept.iter().map(|one| one.kind).collect()
}

#[test]
fn what_is_kept_is_listed_with_what_it_takes() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(HostCache::new(&dir.path().join("none")).list().unwrap(), []);
    let found = cache(dir.path()).list().unwrap();
    assert_eq!(kinds(&found), [KeptKind::Chunks, KeptKind::Told, KeptKind::Table]);
    assert!(found.iter().all(|one| one.key == Digest::of(b"a")));
    assert!((8192..65536).contains(&found[0].size_bytes), "{found:?}");
    assert_eq!((found[1].size_bytes, found[2].size_bytes), (7, 3000));
}

#[test]
fn rules_take_what_they_name_and_nothing_of_others() {
    let prune = |rule| {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let pruned = cache.prune(rule).unwrap();
        let left = cache.list().unwrap();
        assert_eq!(
            pruned.left_bytes,
            left.iter().map(|one| one.size_bytes).sum::<u64>()
        );
        for mine in ["chunks/notes.part", "chunks/.tmpbusy", "tables/readme"] {
            assert!(dir.path().join(mine).exists(), "{mine}");
        }
        assert!(!dir.path().join("chunks/.tmpdead").exists());
        (kinds(&pruned.removed), kinds(&left))
    };
    let all = vec![KeptKind::Chunks, KeptKind::Told, KeptKind::Table];
    assert_eq!(prune(PruneKept::All), (all.clone(), vec![]));
    let since = |hours: u64| PruneKept::UnusedSince(SystemTime::now() - Duration::from_secs(hours * 3600));
    assert_eq!(prune(since(10)), (vec![], all.clone()));
    assert_eq!(prune(since(2)), (all[..2].to_vec(), all[2..].to_vec()));
    assert_eq!(
        prune(PruneKept::DownTo(3100)),
        (all[..1].to_vec(), all[1..].to_vec())
    );
    assert_eq!(prune(PruneKept::DownTo(1 << 30)), (vec![], all));
}

#[test]
fn a_table_that_is_used_is_used_now() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path());
    let table = |cache: &HostCache| {
        cache
            .list()
            .unwrap()
            .into_iter()
            .find(|one| one.kind == KeptKind::Table)
    };
    let before = table(&cache).unwrap();
    assert_eq!(cache.tables().get(&before.key.hex(), 3000), Some(vec![1; 3000]));
    assert_eq!(cache.tables().get(&before.key.hex(), 2999), None);
    assert!(table(&cache).unwrap().last_used > before.last_used + Duration::from_secs(1800));
}
