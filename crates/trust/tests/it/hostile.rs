//! No bytes make anything here panic, hang or say yes.

use std::path::Path;

use firebrick_digest::Digest;
use firebrick_trust::{
    Claim, Origin, Policy, PrivateKey, PublicKey, SealKey, Signature, Subject, Version, listed_in,
    manifest_of,
};
use proptest::prelude::*;

/// Every reader reads it.
fn read(bytes: &[u8]) {
    let _ = PublicKey::from_pem(bytes);
    let _ = PrivateKey::from_pem(bytes);
    let _ = SealKey::parse(bytes);
    let _ = Claim::decode(bytes);
    let _ = listed_in(bytes);
    let _ = Origin::decode(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let none = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        let _ = Policy::parse(text, &none);
    }
}

/// One of everything that is read.
fn samples() -> Vec<Vec<u8>> {
    let (key, pem) = PrivateKey::generate().unwrap();
    let public = key.public().to_pem();
    let version = Version::new("a", "b", Digest::of(b"1")).unwrap();
    let signature = Signature::make(&key, &version.claim());
    let subject = Subject {
        media_type: "m".to_owned(),
        digest: *version.manifest(),
        size: 1,
    };
    let policy =
        format!("local = \"allow\"\n[[rule]]\nname = \"a*\"\nkeys = [\"\"\"{public}\"\"\"]\nthreshold = 1\n");
    vec![
        pem.into_bytes(),
        public.into_bytes(),
        SealKey::generate().unwrap().to_text().into_bytes(),
        manifest_of(&subject, std::slice::from_ref(&signature)),
        signature.payload,
        policy.into_bytes(),
    ]
}

/// A PEM block whose content is these bytes.
fn pem(label: &str, content: &[u8]) -> String {
    use base64::Engine as _;
    let content = base64::engine::general_purpose::STANDARD.encode(content);
    format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n")
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read(&bytes);
    }

    #[test]
    fn any_key_is_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        read(pem("PUBLIC KEY", &bytes).as_bytes());
        read(pem("PRIVATE KEY", &bytes).as_bytes());
    }

    #[test]
    fn changed_documents_are_read_to_an_end(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for mut sample in samples() {
            for (place, byte) in &changes {
                let place = place.index(sample.len());
                sample[place] = *byte;
            }
            read(&sample);
            read(&sample[..cut.index(sample.len())]);
        }
    }
}

#[test]
fn a_changed_public_key_is_another_key_or_none() {
    let (key, _) = PrivateKey::generate().unwrap();
    let version = Version::new("a", "b", Digest::of(b"1")).unwrap();
    let signature = Signature::make(&key, &version.claim());
    let good = key.public().to_pem();
    let mut others = 0;
    // The last byte ends the last line, as other white space does.
    for place in 0..good.len() - 1 {
        let mut bad = good.clone().into_bytes();
        bad[place] ^= 1;
        if let Ok(read) = PublicKey::from_pem(&bad) {
            others += 1;
            assert!(
                signature.check([&read], &version.claim()).is_err(),
                "byte {place}"
            );
        }
    }
    assert!(others > 20, "{others}");
}

#[test]
fn a_changed_private_key_is_another_key_or_none() {
    let (key, good) = PrivateKey::generate().unwrap();
    // The last byte ends the last line, as other white space does.
    for place in 0..good.len() - 1 {
        let mut bad = good.clone().into_bytes();
        bad[place] ^= 1;
        if let Ok(read) = PrivateKey::from_pem(&bad) {
            assert_ne!(read.public(), key.public(), "byte {place}");
        }
    }
}

#[test]
fn points_off_the_curve_verify_nothing() {
    let head = [
        0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        3, 1, 7, 3, 0x42, 0, 4,
    ];
    for byte in [0, 1, 0xff] {
        let text = pem("PUBLIC KEY", &[&head[..], &[byte; 64]].concat());
        let key = PublicKey::from_pem(text.as_bytes()).unwrap();
        for signature in [
            &[][..],
            &[0; 64],
            &[0x30, 6, 2, 1, 0, 2, 1, 0],
            &[0x30, 6, 2, 1, 1, 2, 1, 1],
        ] {
            assert!(!key.verifies(b"message", signature));
        }
    }
}
