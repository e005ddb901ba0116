//! What decides whom one trusts: manifests of signatures, payloads, origins, policies, keys.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firebrick_digest::Digest;
use firebrick_trust::{
    Claim, LAYERS_MAX, Origin, PAYLOAD_MAX, Policy, PrivateKey, PublicKey, SealKey, Signature, Subject,
    Version, listed_in, manifest_of,
};

/// Two public keys that somebody made, of the two kinds that there are.
const PUBLIC: [&str; 2] = [
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAt1A6qv+sw04mH7fYHOcLOFbGIrTH/S9iNoN4fc8cvTk=\n-----END PUBLIC KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4w24d8d5jbJ/jVgivsKrIhsFbGIx\n/9F1c0UMTeStF3F5rciOLECrSDMsxHRiOjij/tuxH3rbj99mVwc4bHDv1w==\n-----END PUBLIC KEY-----\n",
];

/// The private key of 32 equal bytes, as openssl writes it.
fn private() -> String {
    let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let der = STANDARD.encode([&head[..], &[7; 32]].concat());
    format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n")
}

fn version() -> Version {
    Version::new("python", "v1", Digest::of(b"image")).expect("a name")
}

/// Reads `bytes` behind the first, which chooses: as a manifest of signatures, a payload, an origin, a policy, a key of one of three
/// kinds, or a signature. Whether they are one.
///
/// # Panics
/// If what is read is not what was written, or somebody is trusted who did not sign.
pub fn trust(bytes: &[u8]) -> bool {
    let Some((&first, bytes)) = bytes.split_first() else {
        return false;
    };
    match first % 8 {
        0 => listed_in(bytes).is_ok_and(|listed| {
            assert!(!listed.is_empty() && listed.len() <= LAYERS_MAX + 1);
            for one in listed.iter().flatten() {
                assert!(usize::try_from(one.payload_len).is_ok_and(|len| len <= PAYLOAD_MAX));
            }
            listed.iter().any(Result::is_ok)
        }),
        1 => Claim::decode(bytes).is_ok_and(|claim| {
            assert_eq!(Claim::decode(&claim.encode()).ok(), Some(claim));
            true
        }),
        2 => Origin::decode(bytes).is_ok_and(|origin| {
            assert_eq!(Origin::decode(&origin.encode()).ok(), Some(origin));
            true
        }),
        3 => policy(bytes),
        4 => PublicKey::from_pem(bytes).is_ok_and(|key| {
            let again = PublicKey::from_pem(key.to_pem().as_bytes()).ok();
            assert_eq!(again.map(|again| again.id()), Some(key.id()));
            assert!(!key.verifies(b"message", &[0; 64]));
            true
        }),
        5 => PrivateKey::from_pem(bytes).is_ok_and(|key| {
            let (public, claim) = (key.public(), version().claim());
            let signature = Signature::make(&key, &claim);
            assert_eq!(signature.check([&public], &claim).ok(), Some(0));
            true
        }),
        6 => SealKey::parse(bytes).is_ok_and(|key| {
            let again = SealKey::parse(key.to_text().as_bytes()).ok();
            assert_eq!(again.map(|again| *again.bytes()), Some(*key.bytes()));
            true
        }),
        _ => signature(bytes),
    }
}

fn policy(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let read = |path: &Path| Ok(PUBLIC[path.as_os_str().len() % 2].as_bytes().to_vec());
    let policy = match Policy::parse(text, &read) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let version = version();
    let needs_keys = !policy.keys_for(version.name()).is_empty();
    let strange = PrivateKey::from_pem(private().as_bytes()).expect("a key");
    let signatures = [Signature::make(&strange, &version.claim())];
    for signatures in [&[][..], &signatures] {
        let verdict = policy.judge(&version, signatures);
        assert!(
            !(needs_keys && verdict.is_allowed()),
            "nobody of the policy signed"
        );
    }
    true
}

/// The first 64 bytes as a signature of the others.
fn signature(bytes: &[u8]) -> bool {
    let Some((signature, payload)) = bytes.split_first_chunk::<64>() else {
        return false;
    };
    let own = PrivateKey::from_pem(private().as_bytes())
        .expect("a key")
        .public();
    let keys = PUBLIC.map(|text| PublicKey::from_pem(text.as_bytes()).expect("a key"));
    let claim = version().claim();
    let made = Signature {
        payload: payload.to_vec(),
        signature: signature.to_vec(),
    };
    assert!(made.check(&keys, &claim).is_err(), "their owners signed nothing");
    made.check([&own], &claim).is_ok_and(|_| {
        assert_eq!(payload, claim.encode(), "it signed one thing");
        true
    })
}

/// Inputs of [`trust`] that are right, one of each kind.
///
/// # Panics
/// If one is not.
pub fn trust_seeds() -> Vec<Vec<u8>> {
    let key = PrivateKey::from_pem(private().as_bytes()).expect("a key");
    let (version, claim) = (version(), version().claim());
    let signature = Signature::make(&key, &claim);
    let subject = Subject {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        digest: *version.manifest(),
        size: 5,
    };
    let origin = Origin {
        store: "s3://bucket/prefix".to_owned(),
        version,
        signatures: vec![signature.clone()],
        file: firebrick_trust::FileIdentity {
            size: 4096,
            mtime_ns: 1_700_000_000_123_456_789,
            ctime_ns: -5,
            inode: u64::MAX,
            device: 7,
        },
    };
    let policy = format!(
        "unsigned = \"refuse\"\nlocal = \"allow\"\n\n[[rule]]\nname = \"python\"\nkeys = [\"a.pub\", \"ab.pub\"]\nthreshold = 2\n\n\
         [[rule]]\nname = \"try-*\"\nunsigned = \"allow\"\n\n[[rule]]\nname = \"*\"\nkeys = [\"\"\"\n{}\"\"\"]\nidentity = \"{{name}}:{{tag}}\"\n",
        PUBLIC[0]
    );
    let seal = format!("firebrick-key-1:{}\n", STANDARD.encode([9; 32]));
    let inputs = [
        (0, manifest_of(&subject, std::slice::from_ref(&signature))),
        (1, claim.encode()),
        (2, origin.encode()),
        (3, policy.into_bytes()),
        (4, PUBLIC[0].into()),
        (4, PUBLIC[1].into()),
        (5, private().into_bytes()),
        (6, seal.into_bytes()),
        (7, [signature.signature, signature.payload].concat()),
    ];
    inputs
        .map(|(choice, bytes)| [&[choice][..], &bytes].concat())
        .to_vec()
}
