//! What images have in common.

use firebrick_store::Seal;

use crate::common::{Host, Part, content, image};

#[test]
fn sharing_is_counted_from_tables() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (base, a, b) = (content(1, 1000), content(2, 200), content(3, 100));
    image(&at("a"), &[Part::Data(&base), Part::Hole(50), Part::Data(&a)]);
    image(&at("b"), &[Part::Data(&base), Part::Hole(50), Part::Data(&b)]);
    image(&at("c"), &[Part::Data(&content(4, 10))]);
    let host = Host::new(&at("store"), &at("cache"));
    for name in ["a", "b", "c"] {
        host.upload(&at(name), name).unwrap();
    }
    host.upload(&at("a"), "a:copy").unwrap();
    let mut versions = host.store.backend().versions().unwrap();
    let mut gone = versions[0].clone();
    gone.digest = firebrick_digest::Digest::of(b"nothing");
    versions.push(gone);
    let stats = host.store.stats(&versions, &Seal::PLAIN).unwrap();
    let names: Vec<usize> = stats.images.iter().map(|image| image.names.len()).collect();
    // A copy under another tag is the same version only if its manifest is.
    assert!(names == [2, 1, 1] || names == [1, 1, 1, 1], "{names:?}");
    assert_eq!(stats.unread.len(), 1);
    let find = |name: &str| {
        let name = name.parse().unwrap();
        stats
            .images
            .iter()
            .position(|image| image.names.contains(&name))
            .unwrap()
    };
    let (one, two, three) = (find("a"), find("b"), find("c"));
    let between = |a: usize, b: usize| {
        let pair = stats
            .sharing
            .iter()
            .find(|pair| (pair.a, pair.b) == (a.min(b), a.max(b)));
        pair.map_or(0, |pair| pair.bytes)
    };
    let common = between(one, two);
    let len = |bytes: &[u8]| bytes.len() as u64;
    assert!(
        common <= len(&base) && common > len(&base) - (200 << 10),
        "{common}"
    );
    assert_eq!((between(one, three), between(two, three)), (0, 0));
    let image = &stats.images[two];
    assert_eq!(
        (image.data, image.logical),
        (len(&base) + len(&b), len(&base) + len(&b) + 50 * 4096)
    );
    assert_eq!(image.own + image.shared, image.unique);
    assert_eq!(image.shared, common);
    assert!(image.own_compressed < image.compressed && image.compressed < image.unique);
    assert_eq!(stats.images[three].shared, 0);
    assert_eq!(stats.unique, len(&base) + len(&a) + len(&b) + 10 * 4096);
    assert!(stats.compressed < stats.unique && stats.data > stats.unique);
}
