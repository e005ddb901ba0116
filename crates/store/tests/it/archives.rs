//! Images as single files: out of one store, into another, and whatever hostile archives hold.

use std::fs;
use std::path::Path;

use firebrick_digest::Digest;
use firebrick_store::{Descriptor, Export, Exported, Import, Imported, Seal, Settled, StoreError};

use crate::common::{Host, Part, content, image};

pub(crate) fn export(host: &Host, name: &str, scratch: &Path) -> (Vec<u8>, Exported) {
    let version = host.store.find(&name.parse().unwrap()).unwrap();
    let mut bytes = Vec::new();
    let export = Export {
        version: &version,
        keys: &host.seal,
        scratch,
    };
    let exported = host.store.export(&export, &mut bytes).unwrap();
    assert_eq!(exported.bytes, bytes.len() as u64);
    (bytes, exported)
}

pub(crate) fn import(
    host: &Host,
    bytes: &[u8],
    name: Option<&str>,
    scratch: &Path,
) -> Result<Imported, StoreError> {
    let tagged = name.map(|name| name.parse().unwrap());
    let import = Import {
        tagged: tagged.as_ref(),
        scratch,
        time: 7,
    };
    host.store.import(&import, &mut &bytes[..])
}

type Files = Vec<(String, Vec<u8>)>;

/// What another reader of archives finds.
fn files(bytes: &[u8]) -> Files {
    let mut archive = tar::Archive::new(bytes);
    let file = |entry: Result<tar::Entry<'_, _>, _>| {
        let mut entry: tar::Entry<'_, &[u8]> = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::copy(&mut entry, &mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), bytes)
    };
    archive.entries().unwrap().map(file).collect()
}

/// What another writer of archives makes.
fn packed(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        // Names that lead elsewhere are refused by `append_data`, and so written by hand.
        let place = &mut header.as_old_mut().name;
        place[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn same(a: &Path, b: &Path) -> bool {
    fs::read(a).unwrap() == fs::read(b).unwrap()
}

#[test]
fn an_archive_brings_an_image_to_another_store() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    image(
        &at("a"),
        &[Part::Data(&content(1, 2000)), Part::Hole(99), Part::Data(b"tail")],
    );
    let host = Host::new(&at("store"), &at("cache"));
    let sent = host.upload(&at("a"), "python:v1").unwrap();
    let (bytes, exported) = export(&host, "python:v1", dir.path());
    assert_eq!((exported.digest, exported.left_out), (sent.published.digest, 0));
    assert!(bytes == export(&Host::new(&at("store"), &at("c2")), "python:v1", dir.path()).0);
    let names: Vec<String> = files(&bytes).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..2], ["oci-layout", "index.json"]);
    assert_eq!(
        names.len(),
        2 + fs::read_dir(at("store/blobs/sha256")).unwrap().count()
    );

    let other = Host::new(&at("store2"), &at("cache2"));
    let taken = import(&other, &bytes, None, dir.path()).unwrap();
    assert_eq!(taken.published.tagged.to_string(), "python:v1");
    assert_eq!(
        (taken.published.digest, taken.published.image_size),
        (sent.published.digest, sent.image_len)
    );
    other.download("python:v1", &at("b"), &[]).unwrap();
    assert!(same(&at("a"), &at("b")));
    // Once more nothing is sent but the manifest, and under another name neither.
    let again = import(&other, &bytes, None, dir.path()).unwrap();
    assert!(again.replaced.is_none() && again.sent < 4096, "{again:?}");
    let named = import(&other, &bytes, Some("snake"), dir.path()).unwrap();
    assert!(named.sent < 4096 && named.published.tagged.to_string() == "snake:latest");
    // In whatever order, with whatever else between.
    let mut turned = files(&bytes);
    turned.push(("blobs/sha256/readme".to_owned(), b"?".to_vec()));
    turned.push((
        format!("blobs/sha256/{}", Digest::of(b"more").hex()),
        b"more".to_vec(),
    ));
    turned.push(("../../../tmp/x".to_owned(), b"?".to_vec()));
    turned.reverse();
    let turned = packed(
        &turned
            .into_iter()
            .map(|(name, bytes)| (format!("./{name}"), bytes))
            .collect::<Vec<_>>(),
    );
    let third = Host::new(&at("store3"), &at("cache3"));
    import(&third, &turned, None, dir.path()).unwrap();
    third.download("python:v1", &at("c"), &[]).unwrap();
    assert!(same(&at("a"), &at("c")));
    let count = |store: &str| fs::read_dir(at(store).join("blobs/sha256")).unwrap().count();
    assert_eq!(count("store3"), count("store"));
}

#[test]
fn an_archive_carries_what_the_image_uses() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let base = content(1, 3000);
    for (name, seal) in [("plain", Seal::PLAIN), ("sealed", Seal::keyed(&[3; 32]))] {
        let host = Host {
            seal,
            ..Host::new(&at(&format!("store-{name}")), &at(&format!("cache-{name}")))
        };
        image(&at("a"), &[Part::Data(&base)]);
        image(
            &at("b"),
            &[
                Part::Data(&base[..4096 * 600]),
                Part::Hole(20),
                Part::Data(&content(2, 100)),
            ],
        );
        host.upload(&at("a"), "large").unwrap();
        let sent = host.upload(&at("b"), "small").unwrap();
        let (large, _) = export(&host, "large", dir.path());
        let (small, exported) = export(&host, "small", dir.path());
        assert!(
            small.len() * 3 < large.len() && exported.left_out > 0,
            "{} of {}",
            small.len(),
            large.len()
        );
        assert_ne!(exported.digest, sent.published.digest);
        assert!(small == export(&host, "small", dir.path()).0, "twice the same");
        let other = Host {
            seal: host.seal.clone(),
            ..Host::new(&at(&format!("to-{name}")), &at(&format!("to-cache-{name}")))
        };
        import(&other, &small, None, dir.path()).unwrap();
        other.download("small", &at("b2"), &[]).unwrap();
        assert!(same(&at("b"), &at("b2")));
        // Without the key, and with a signature, it stays as it is.
        if name == "sealed" {
            let blind = Host::new(&at("store-sealed"), &at("cache-blind"));
            let (whole, exported) = export(&blind, "small", dir.path());
            assert!(exported.left_out == 0 && whole.len() > small.len());
            continue;
        }
        sign(&host, &sent.published.digest, b"signed");
        let (whole, exported) = export(&host, "small", dir.path());
        assert_eq!((exported.digest, exported.left_out), (sent.published.digest, 0));
        let taken = import(&other, &whole, Some("signed"), dir.path()).unwrap();
        assert_eq!(taken.said, 1);
        let said = other
            .store
            .backend()
            .referrers(&"signed".parse().unwrap(), &sent.published.digest);
        assert_eq!(said.unwrap().len(), 1);
    }
}

/// Says something about a version, as signatures do.
fn sign(host: &Host, subject: &Digest, what: &[u8]) {
    let backend = host.store.backend();
    let name = "small".parse().unwrap();
    let blob = |bytes: &[u8]| {
        backend
            .write_blob(&name, &Digest::of(bytes), bytes.to_vec())
            .unwrap();
        serde_json::to_value(Descriptor::of("x/y", bytes)).unwrap()
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(b"{}"),
        "layers": [blob(what)],
    });
    let bytes = manifest.to_string().into_bytes();
    let descriptor = Descriptor::of("application/vnd.oci.image.manifest.v1+json", &bytes);
    let claim = host.store.claim().unwrap();
    backend.write_manifest(&name, &descriptor.digest, bytes).unwrap();
    let named = claim.name(&name, &[descriptor.digest], |epoch| {
        backend.refer(&name, subject, &descriptor, epoch).map(Some)
    });
    assert_eq!(named.unwrap(), Settled::Named(true));
}

/// A right archive, and a store that is to refuse what becomes of it.
struct Hostile {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
    good: Files,
    other: Host,
}

impl Hostile {
    fn new() -> Hostile {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        image(&at("a"), &[Part::Data(&content(1, 400))]);
        let host = Host::new(&at("store"), &at("cache"));
        host.upload(&at("a"), "x").unwrap();
        let (bytes, _) = export(&host, "x", dir.path());
        let other = Host::new(&at("store2"), &at("cache2"));
        let good = files(&bytes);
        Hostile {
            dir,
            bytes,
            good,
            other,
        }
    }

    /// Changes the archive, and sees that it is refused for the right reason.
    fn refused(&self, what: &str, change: impl Fn(&mut Files)) {
        let mut files = self.good.clone();
        change(&mut files);
        let error = import(&self.other, &packed(&files), None, self.dir.path()).unwrap_err();
        assert!(error.to_string().contains(what), "{what}: {error}");
        self.assert_untouched();
    }

    fn assert_untouched(&self) {
        assert!(self.other.store.backend().versions().unwrap().is_empty());
    }

    /// Changes the manifest, and the index so that its digest is right.
    fn with_manifest(&self, from: &str, to: &str) -> impl Fn(&mut Files) + use<> {
        let manifest = self.good[2].1.clone();
        let text = String::from_utf8(manifest.clone()).unwrap();
        assert!(text.contains(from), "{from}");
        let new = text.replacen(from, to, 1).into_bytes();
        move |files| {
            let (old, digest) = (Digest::of(&manifest).hex(), Digest::of(&new).hex());
            let index = String::from_utf8(files[1].1.clone()).unwrap();
            files[1].1 = index.replace(&old, &digest).into_bytes();
            files[2] = (format!("blobs/sha256/{digest}"), new.clone());
        }
    }
}

#[test]
fn archives_that_are_not_right_are_refused() {
    let hostile = Hostile::new();
    hostile.refused("there are two", |files| files.push(files[1].clone()));
    hostile.refused("index.json in the archive is not right: there is none", |files| {
        drop(files.remove(1));
    });
    hostile.refused("index.json", |files| files[1].1 = b"[]".to_vec());
    hostile.refused("it has 2097152 bytes", |files| files[1].1 = vec![b' '; 2 << 20]);
    hostile.refused("its version is", |files| {
        files[0].1 = br#"{"imageLayoutVersion":"2.0"}"#.to_vec();
    });
    for blob in 2..hostile.good.len() {
        hostile.refused("it is not there", |files| drop(files.remove(blob)));
        hostile.refused("its bytes have the digest", |files| files[blob].1[5] ^= 1);
    }
    // Cut anywhere.
    let bytes = &hostile.bytes;
    for place in (0..bytes.len() - 1024).step_by(bytes.len() / 60) {
        let error = import(&hostile.other, &bytes[..place], None, hostile.dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::BadArchive { .. }), "{place}: {error}");
        hostile.assert_untouched();
    }
    import(&hostile.other, &packed(&hostile.good), None, hostile.dir.path()).unwrap();
    let left = fs::read_dir(hostile.dir.path()).unwrap().count();
    assert_eq!(left, 5, "nothing is left beside");
}

/// All with right digests.
#[test]
fn archives_whose_documents_lie_are_refused() {
    let hostile = Hostile::new();
    let manifest = |what: &str, from: &str, to: &str| hostile.refused(what, hostile.with_manifest(from, to));
    manifest(
        "no image that this firebrick reads",
        "vnd.firebrick.image.v1",
        "vnd.other.image.v1",
    );
    let size = format!("\"size\":{}", hostile.good[3].1.len());
    manifest("the manifest says 9", &size, "\"size\":9");
    manifest("999999999999 bytes", "\"size\":", "\"size\":999999999999,\"x\":");
    manifest("no table", "image.table.v1", "image.bundle.v1");
    // The table is a blob that is there, and no table.
    let digest = |place: usize| format!("sha256:{}", Digest::of(&hostile.good[place].1).hex());
    let (config, root) = (&hostile.good[3].1, &hostile.good[4].1);
    let from = format!("\"digest\":\"{}\",\"size\":{}", digest(4), root.len());
    let to = format!("\"digest\":\"{}\",\"size\":{}", digest(3), config.len());
    manifest("is not right: ", &from, &to);
    // Two images, and none with a name.
    let index = String::from_utf8(hostile.good[1].1.clone()).unwrap();
    let with_index = |what: &str, from: &str, to: &str| {
        assert!(index.contains(from));
        let new = index.replacen(from, to, 1).into_bytes();
        hostile.refused(what, |files| files[1].1.clone_from(&new));
    };
    with_index("no name", "org.opencontainers.image.ref.name", "nothing");
    with_index("no name", "x:latest", "../../x");
    let zeros = "0".repeat(64);
    let another = format!(r#""manifests": [{{"mediaType":"a","digest":"sha256:{zeros}","size":1}},"#);
    with_index("2 images", "\"manifests\": [", &another);
}

/// An archive that claims a file of many terabytes is read no further than it goes, and holds no memory for it.
#[test]
fn lengths_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::new(&dir.path().join("store"), &dir.path().join("cache"));
    for name in [
        "index.json".to_owned(),
        "oci-layout".to_owned(),
        format!("blobs/sha256/{}", "0".repeat(64)),
    ] {
        for len in [8_589_934_591, 60 << 20] {
            let mut header = tar::Header::new_ustar();
            header.set_path(&name).unwrap();
            header.set_size(len);
            header.set_cksum();
            let error = import(
                &host,
                &[header.as_bytes(), &[0; 100][..]].concat(),
                None,
                dir.path(),
            )
            .unwrap_err();
            assert!(matches!(error, StoreError::BadArchive { .. }), "{error}");
        }
    }
}
