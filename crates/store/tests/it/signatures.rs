//! Signatures in a store whose operator is no friend.

use std::fs;
use std::path::{Path, PathBuf};

use firebrick_digest::Digest;
use firebrick_store::{Descriptor, Published};
use firebrick_trust::{ARTIFACT, Policy, PrivateKey, PublicKey, SIMPLE_SIGNING};

use crate::common::{Host, Part, content, image};

/// A store with one image, `python:latest`, and a key.
struct Scene {
    dir: tempfile::TempDir,
    host: Host,
    key: PrivateKey,
    python: Published,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(&dir.path().join("store"), &dir.path().join("cache"));
        image(&dir.path().join("a"), &[Part::Data(&content(1, 20))]);
        let python = host.upload(&dir.path().join("a"), "python").unwrap().published;
        let key = PrivateKey::generate().unwrap().0;
        Scene {
            dir,
            host,
            key,
            python,
        }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.path().join("store/blobs/sha256").join(digest.hex())
    }

    fn sign(&self) -> Digest {
        self.host.store.sign(&self.python, &self.key).unwrap()
    }

    /// How many of the key's signatures count for a version, and what is said of others.
    fn verify(&self, version: &Published) -> (usize, Vec<String>) {
        let keys = [self.key.public()];
        let verified = self.host.store.verify(version, &keys).unwrap();
        let skipped = verified.skipped.into_iter().map(|skipped| skipped.problem);
        let said = verified.discounted.into_iter().chain(skipped).collect();
        (verified.by.len(), said)
    }

    /// Lets something refer to the image.
    fn refer(&self, referrer: &Descriptor) {
        let name = &self.python.tagged.name;
        self.host
            .store
            .backend()
            .refer(name, &self.python.digest, referrer, 0)
            .unwrap();
    }

    /// Lets a manifest with these bytes refer to the image.
    fn plant(&self, bytes: &[u8]) {
        fs::write(self.blob(&Digest::of(bytes)), bytes).unwrap();
        let mut referrer = Descriptor::of("application/vnd.oci.image.manifest.v1+json", bytes);
        referrer.artifact_type = Some(ARTIFACT.to_owned());
        self.refer(&referrer);
    }
}

#[test]
fn a_signed_image_is_trusted_by_its_key() {
    let scene = Scene::new();
    assert_eq!(scene.verify(&scene.python), (0, vec![]));
    let first = scene.sign();
    assert_eq!(scene.sign(), first, "signed again it is the same signature");
    let other = PrivateKey::generate().unwrap().0;
    let second = scene.host.store.sign(&scene.python, &other).unwrap();
    assert_ne!(first, second);
    let keys: Vec<PublicKey> = vec![
        PrivateKey::generate().unwrap().0.public(),
        other.public(),
        scene.key.public(),
    ];
    let verified = scene.host.store.verify(&scene.python, &keys).unwrap();
    assert_eq!(verified.by, [&keys[1], &keys[2]]);
    assert!(verified.discounted.is_empty() && verified.skipped.is_empty());
    let (count, said) = scene.verify(&scene.python);
    assert!(count == 1 && said.len() == 1, "{said:?}");
    // As a policy is asked.
    let pem = scene.key.public().to_pem();
    let policy = Policy::parse("[[rule]]\nname = \"py*\"\nkeys = [\"k\"]", &|_| {
        Ok(pem.clone().into_bytes())
    });
    let found = scene.host.store.signatures(&scene.python).unwrap().found;
    let policy = policy.unwrap();
    assert!(policy.judge(&scene.python.version(), &found).is_allowed());
    assert!(!policy.judge(&scene.python.version(), &[]).is_allowed());
    // It is no version of an image, and the image can still be had.
    let host = &scene.host;
    assert_eq!(host.store.backend().versions().unwrap().len(), 1);
    host.download("python", &scene.dir.path().join("b"), &[]).unwrap();
}

#[test]
fn a_replaced_image_is_not_trusted() {
    let scene = Scene::new();
    scene.sign();
    let other = scene.dir.path().join("b");
    image(&other, &[Part::Data(&content(2, 20))]);
    let now = scene.host.upload(&other, "python").unwrap().published;
    assert_eq!(scene.verify(&now), (0, vec![]));
    // The operator lets the signature refer to it.
    let store = scene.host.store.backend();
    let name = &now.tagged.name;
    let referrers = store.referrers(name, &scene.python.digest).unwrap();
    assert!(store.refer(name, &now.digest, &referrers[0], 0).unwrap());
    let (count, said) = scene.verify(&now);
    assert!(count == 0 && said[0].contains("for the version"), "{said:?}");
}

#[test]
fn a_signature_for_another_name_says_nothing() {
    let scene = Scene::new();
    scene.sign();
    let store = &scene.host.store;
    for name in ["snake", "python:v1"] {
        store.tag(&scene.python, &name.parse().unwrap(), 5).unwrap();
        let named = store.find(&name.parse().unwrap()).unwrap();
        assert_eq!(named.digest, scene.python.digest);
        let (count, said) = scene.verify(&named);
        assert!(
            count == 0 && said[0].contains("for \"python:latest\""),
            "{said:?}"
        );
        // Who signs the new name makes it trusted, and no other.
        store.sign(&named, &scene.key).unwrap();
        assert_eq!(scene.verify(&named).0, 1);
        assert_eq!(scene.verify(&scene.python).0, 1);
    }
}

#[test]
fn a_removed_signature_is_missed() {
    let scene = Scene::new();
    let signature = scene.sign();
    fs::remove_file(scene.blob(&signature)).unwrap();
    let (count, said) = scene.verify(&scene.python);
    assert!(count == 0 && said[0].contains("not there"), "{said:?}");
    let index = scene.dir.path().join("store/index.json");
    let text = fs::read_to_string(&index).unwrap();
    let hidden = text.replace("dev.firebrick.subject", "dev.firebrick.nothing");
    assert_ne!(hidden, text);
    fs::write(&index, hidden).unwrap();
    assert_eq!(scene.verify(&scene.python), (0, vec![]));
}

#[test]
fn no_byte_of_a_signature_can_change() {
    let scene = Scene::new();
    let signature = scene.sign();
    let payload = scene.host.store.signatures(&scene.python).unwrap().found[0]
        .payload
        .clone();
    for digest in [signature, Digest::of(&payload)] {
        let path = scene.blob(&digest);
        let good = fs::read(&path).unwrap();
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            fs::write(&path, &bad).unwrap();
            let (count, said) = scene.verify(&scene.python);
            assert!(count == 0 && said.len() == 1, "byte {place}: {said:?}");
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(scene.verify(&scene.python), (1, vec![]));
    }
}

/// A manifest of one signature whose payload is said to be these bytes.
fn manifest(payload: &Digest, size: u64) -> String {
    format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"x","size":2}},"layers":[{{"mediaType":"{SIMPLE_SIGNING}","digest":"{payload}","size":{size},"annotations":{{"dev.cosignproject.cosign/signature":"AAAA"}}}}]}}"#
    )
}

fn hostile(scene: &Scene) -> Vec<&'static str> {
    let large = vec![b' '; 2 << 20];
    let mut foreign = Descriptor::of("m", b"an SBOM");
    foreign.artifact_type = Some("text/spdx+json".to_owned());
    scene.refer(&foreign);
    scene.refer(&Descriptor::of("m", b"nowhere"));
    scene.plant(b"no JSON");
    scene.plant(&large);
    scene.plant(manifest(&Digest::of(b"gone"), 4).as_bytes());
    scene.plant(manifest(&Digest::of(b"far"), 1 << 40).as_bytes());
    fs::write(scene.blob(&Digest::of(b"large")), &large).unwrap();
    scene.plant(manifest(&Digest::of(b"large"), 9000).as_bytes());
    vec![
        "text/spdx+json",
        "not there",
        "a manifest of signatures is not right",
        "more than 1048576 bytes",
        "has no blobs/",
        "1099511627776 bytes",
        "have the digest",
    ]
}

#[test]
fn what_is_broken_or_foreign_hides_no_signature() {
    let scene = Scene::new();
    let told = hostile(&scene);
    scene.sign();
    let (count, said) = scene.verify(&scene.python);
    assert_eq!(count, 1, "{said:?}");
    assert_eq!(said.len(), told.len(), "{said:?}");
    for (said, told) in said.iter().zip(told) {
        assert!(said.contains(told), "{said:?} does not tell {told:?}");
    }
}

#[test]
fn any_number_of_referrers_is_cut() {
    let scene = Scene::new();
    scene.sign();
    let index = scene.dir.path().join("store/index.json");
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let entries = text["manifests"].as_array_mut().unwrap();
    for number in 0..1000 {
        let mut junk = entries[1].clone();
        junk["digest"] = Digest::of(format!("{number}").as_bytes()).to_string().into();
        entries.push(junk);
    }
    fs::write(&index, text.to_string()).unwrap();
    let (count, said) = scene.verify(&scene.python);
    assert_eq!((count, said.len()), (1, 64), "{said:?}");
    assert!(said[63].contains("936 more"), "{}", said[63]);
}

#[test]
fn what_is_no_image_is_not_signed() {
    let scene = Scene::new();
    let path: &Path = &scene.blob(&scene.python.digest);
    fs::write(path, b"{}").unwrap();
    let fresh = Host::new(&scene.dir.path().join("store"), &scene.dir.path().join("cache2"));
    assert!(fresh.store.sign(&scene.python, &scene.key).is_err());
}
