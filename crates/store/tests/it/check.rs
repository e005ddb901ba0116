//! Every kind of damage is found, and what can be made again is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use firebrick_digest::Digest;
use firebrick_store::{CheckOptions, Checked, Fault, LocalImage, Seal};

use crate::archives::{export, import};
use crate::common::{Host, Part, content, image};

fn check(host: &Host, repair: bool, local: &[LocalImage]) -> Checked {
    let options = CheckOptions {
        repair,
        keys: &host.seal,
        local,
        threads: 2,
    };
    host.store.check(&options).unwrap()
}

fn local(host: &Host, path: &Path) -> LocalImage {
    let stop = AtomicBool::new(false);
    LocalImage::open(path, &host.seal, None, true, 2, &stop)
        .unwrap()
        .unwrap()
}

fn blobs(store: &Path) -> BTreeMap<Digest, PathBuf> {
    let entries = fs::read_dir(store.join("blobs/sha256")).unwrap();
    let digest = |path: &Path| {
        format!("sha256:{}", path.file_name().unwrap().to_str().unwrap())
            .parse()
            .unwrap()
    };
    entries
        .map(|one| one.unwrap().path())
        .map(|path| (digest(&path), path))
        .collect()
}

fn without_cache(dir: &Path, number: u32) -> Host {
    Host::new(&dir.join("store"), &dir.join(format!("empty{number}")))
}

/// A kind of damage, and what does it to a file.
type Kind = (&'static str, fn(&Path));

const KINDS: [Kind; 3] = [
    ("a flipped bit", |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(path, bytes).unwrap();
    }),
    ("a lost end", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 10]).unwrap();
    }),
    ("nothing", |path| fs::remove_file(path).unwrap()),
];

#[test]
fn each_damage_is_found_and_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(
        &at("a"),
        &[
            Part::Data(&content(1, 3000)),
            Part::Hole(10),
            Part::Data(&content(2, 500)),
        ],
    );
    let host = Host::new(&at("store"), &at("cache"));
    let sent = host.upload(&at("a"), "python").unwrap();
    host.download("python", &at("b"), &[]).unwrap();
    let clean = check(&host, true, &[]);
    assert!(
        clean.findings.is_empty() && clean.images == 1 && clean.foreign == 0,
        "{clean:?}"
    );
    assert_eq!(clean.read.count as usize, blobs(&at("store")).len());
    assert!(clean.chunks > sent.new_chunks);
    let mut number = 0;
    for (digest, path) in blobs(&at("store")) {
        let before = fs::read(&path).unwrap();
        for (kind, damage) in &KINDS {
            damage(&path);
            number += 1;
            // A host that has nothing finds it, names the image, and changes nothing.
            let found = check(&without_cache(dir.path(), number), true, &[]);
            assert!(
                found.findings.iter().any(|finding| finding.blob == digest),
                "{kind} of {digest}: {found:?}"
            );
            assert_eq!(found.findings.len(), 1, "{kind} of {digest}: {found:?}");
            let finding = &found.findings[0];
            let fits = match &finding.fault {
                Fault::Missing => *kind == "nothing",
                Fault::Length { .. } => *kind == "a lost end",
                Fault::Damaged { .. } => *kind != "nothing",
                _ => false,
            };
            assert!(fits && !finding.repaired, "{kind}: {finding:?}");
            assert_eq!(
                (found.broken.len(), finding.images.len()),
                (1, 1),
                "{kind}: {finding:?}"
            );
            // With the image's file and what this host remembers, it is made again.
            let mended = check(&host, true, &[local(&host, &at("a"))]);
            assert!(
                mended.findings.len() == 1 && mended.findings[0].repaired,
                "{kind} of {digest}: {mended:?}"
            );
            assert!(mended.broken.is_empty());
            assert!(fs::read(&path).unwrap() == before, "{kind} of {digest}");
        }
    }
    number += 1;
    assert!(
        check(&without_cache(dir.path(), number), false, &[])
            .findings
            .is_empty()
    );
}

#[test]
fn a_bundle_is_made_of_copies_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let base = content(1, 1200);
    image(&at("a"), &[Part::Data(&base)]);
    image(
        &at("b"),
        &[
            Part::Data(&content(7, 100)),
            Part::Hole(9),
            Part::Data(&base),
            Part::Hole(9),
            Part::Data(&content(8, 100)),
        ],
    );
    let other = Host::new(&at("other"), &at("cache1"));
    other.upload(&at("a"), "a").unwrap();
    let host = Host::new(&at("store"), &at("cache2"));
    host.upload(&at("b"), "b").unwrap();
    let before = blobs(&at("store"));
    // The same chunks come once more, in a bundle of another store.
    let (bytes, _) = export(&other, "a", dir.path());
    import(&host, &bytes, None, dir.path()).unwrap();
    let (digest, path) = blobs(&at("store"))
        .into_iter()
        .filter(|(digest, _)| !before.contains_key(digest))
        .max_by_key(|(_, path)| fs::metadata(path).unwrap().len())
        .unwrap();
    let right = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let found = check(&host, false, &[]);
    assert!(
        found.findings[0].chunks > 10 && found.findings[0].lost >= 1_000_000,
        "{found:?}"
    );
    assert_eq!(found.broken[0].tagged.to_string(), "a:latest");
    let mended = check(&without_cache(dir.path(), 1), true, &[]);
    assert!(
        mended.findings.len() == 1 && mended.findings[0].repaired,
        "{mended:?}"
    );
    assert_eq!(mended.findings[0].blob, digest);
    assert!(fs::read(&path).unwrap() == right);
    // Both at once are too much, unless a file has them; everything is told.
    let largest = before
        .values()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    for path in [&path, largest] {
        let mut bytes = fs::read(path).unwrap();
        let len = bytes.len();
        bytes[len / 3..len / 2].fill(0);
        fs::write(path, bytes).unwrap();
    }
    let lost = check(&without_cache(dir.path(), 2), true, &[]);
    assert!(lost.findings.len() == 2 && lost.broken.len() == 2, "{lost:?}");
    let mended = check(&without_cache(dir.path(), 3), true, &[local(&host, &at("b"))]);
    assert!(
        mended.findings.iter().all(|finding| finding.repaired) && mended.broken.is_empty(),
        "{mended:?}"
    );
}

#[test]
fn sealed_images_are_opened_with_their_key_only() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(&at("a"), &[Part::Data(&content(1, 500))]);
    let host = Host {
        seal: Seal::keyed(&[7; 32]),
        ..Host::new(&at("store"), &at("cache"))
    };
    host.upload(&at("a"), "secret").unwrap();
    assert!(check(&host, false, &[]).chunks > 10);
    let other = without_cache(dir.path(), 1);
    let checked = check(&other, true, &[]);
    assert_eq!(
        (checked.chunks, checked.sealed.len(), checked.findings.len()),
        (0, 1, 0)
    );
    let largest = blobs(&at("store"))
        .into_values()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    fs::write(&largest, b"gone").unwrap();
    let found = check(&other, true, &[]);
    assert!(found.findings.len() == 1 && found.broken.len() == 1, "{found:?}");
    let mended = check(&host, true, &[local(&host, &at("a"))]);
    assert!(
        mended.findings[0].repaired && check(&other, false, &[]).findings.is_empty(),
        "{mended:?}"
    );
}

#[test]
fn garbage_and_strangers_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(&at("a"), &[Part::Data(&content(1, 100))]);
    let host = Host::new(&at("store"), &at("cache"));
    host.upload(&at("a"), "x").unwrap();
    let garbage = at("store/blobs/sha256").join(Digest::of(b"garbage").hex());
    fs::write(&garbage, b"garbage").unwrap();
    fs::write(at("store/.partial/partial-1"), b"left").unwrap();
    // An image of somebody else, whose layer is damaged.
    let layer = Digest::of(b"layer");
    fs::write(at("store/blobs/sha256").join(layer.hex()), b"lazer").unwrap();
    let config = Digest::of(b"{}");
    fs::write(at("store/blobs/sha256").join(config.hex()), b"{}").unwrap();
    let blob = |digest: Digest, len| format!(r#"{{"mediaType":"x","digest":"{digest}","size":{len}}}"#);
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        blob(config, 2),
        blob(layer, 5)
    );
    let digest = Digest::of(manifest.as_bytes());
    fs::write(at("store/blobs/sha256").join(digest.hex()), &manifest).unwrap();
    let index = fs::read_to_string(at("store/index.json")).unwrap();
    let entry = format!(
        r#""manifests": [{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{}}},"#,
        manifest.len()
    );
    fs::write(
        at("store/index.json"),
        index.replacen("\"manifests\": [", &entry, 1),
    )
    .unwrap();
    // And something of an unknown type that is longer than any document.
    let large = vec![b'x'; 5 << 20];
    fs::write(at("store/blobs/sha256").join(Digest::of(&large).hex()), &large).unwrap();
    let index = fs::read_to_string(at("store/index.json")).unwrap();
    let entry = format!("\"manifests\": [{},", blob(Digest::of(&large), large.len()));
    fs::write(
        at("store/index.json"),
        index.replacen("\"manifests\": [", &entry, 1),
    )
    .unwrap();
    let found = check(&host, true, &[]);
    assert_eq!((found.unreached.count, found.unreached.bytes), (1, 7));
    assert_eq!((found.leftovers.count, found.leftovers.bytes), (1, 4));
    assert_eq!(found.findings.len(), 1, "{found:?}");
    assert!(
        found.findings[0].blob == layer && found.findings[0].images.is_empty() && found.broken.is_empty()
    );
    assert!(garbage.exists(), "a check removes nothing");
}
