//! What openssl makes we understand, and what we make openssl does: keys and signatures, both ways.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use firebrick_digest::Digest;
use firebrick_testkit::oracle;
use firebrick_trust::{
    Algorithm, Claim, Discounted, PrivateKey, PublicKey, SIMPLE_SIGNING, SealKey, Signature, TrustError,
    Version, listed_in,
};

/// A folder in which openssl works.
struct Openssl(tempfile::TempDir);

impl Openssl {
    /// `None` where the user wants to go without it.
    fn new() -> Option<Openssl> {
        let there = oracle::have("openssl").expect("what the tests need");
        there.then(|| Openssl(tempfile::tempdir().unwrap()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs it; a word that begins with `@` is a file of the folder.
    fn run(&self, line: &str) -> String {
        let words = line.split_whitespace().map(|word| match word.strip_prefix('@') {
            Some(name) => self.path(name).into_os_string(),
            None => OsString::from(word),
        });
        oracle::run_ok("openssl", words).unwrap()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// A key pair in files: `NAME` and `NAME.pub`.
    fn pair(&self, name: &str, kind: &str) -> PublicKey {
        self.run(&format!("genpkey -quiet -algorithm {kind} -out @{name}"));
        self.run(&format!("pkey -in @{name} -pubout -out @{name}.pub"));
        PublicKey::from_pem(&self.read(&format!("{name}.pub"))).unwrap()
    }

    /// A signature by a key in a file, of a payload in a file.
    fn sign(&self, key: &str, algorithm: Algorithm, payload: &[u8]) -> Signature {
        self.write("payload", payload);
        match algorithm {
            Algorithm::Ed25519 => self.run(&format!(
                "pkeyutl -sign -rawin -inkey @{key} -in @payload -out @signature"
            )),
            Algorithm::EcdsaP256 => self.run(&format!("dgst -sha256 -sign @{key} -out @signature @payload")),
        };
        Signature {
            payload: payload.to_vec(),
            signature: self.read("signature"),
        }
    }
}

const P256: &str = "EC -pkeyopt ec_paramgen_curve:P-256";

fn version() -> Version {
    Version::new("python", "latest", Digest::of(b"manifest")).unwrap()
}

#[test]
fn keys_of_openssl_are_read_and_written_alike() {
    let Some(openssl) = Openssl::new() else { return };
    let public = openssl.pair("ed", "ed25519");
    let private = PrivateKey::from_pem(&openssl.read("ed")).unwrap();
    assert_eq!(private.public(), public);
    assert_eq!(public.algorithm(), Algorithm::Ed25519);
    assert_eq!(public.to_pem().into_bytes(), openssl.read("ed.pub"));
    openssl.run("pkey -pubin -in @ed.pub -outform DER -out @ed.der");
    assert_eq!(public.id(), Digest::of(&openssl.read("ed.der")));
    let elliptic = openssl.pair("ec", P256);
    assert_eq!(elliptic.algorithm(), Algorithm::EcdsaP256);
    assert_eq!(elliptic.to_pem().into_bytes(), openssl.read("ec.pub"));
}

#[test]
fn keys_and_signatures_of_ours_are_good_for_openssl() {
    let Some(openssl) = Openssl::new() else { return };
    let (key, pem) = PrivateKey::generate().unwrap();
    openssl.write("key", pem.as_bytes());
    let public = openssl.run("pkey -in @key -pubout");
    assert_eq!(public, key.public().to_pem());
    assert_eq!(openssl.run("pkey -in @key"), pem);
    let signature = Signature::make(&key, &version().claim());
    openssl.write("key.pub", public.as_bytes());
    openssl.write("payload", &signature.payload);
    openssl.write("signature", &signature.signature);
    let verify = "pkeyutl -verify -rawin -pubin -inkey @key.pub -in @payload -sigfile @signature";
    assert!(openssl.run(verify).contains("Successfully"));
    // ed25519 has no choice: openssl signs the same with the same key.
    let same = openssl.sign("key", Algorithm::Ed25519, &signature.payload);
    assert_eq!(same, signature);
}

#[test]
fn every_flipped_bit_of_what_openssl_signed_is_refused() {
    let Some(openssl) = Openssl::new() else { return };
    let claim = version().claim();
    for kind in ["ed25519", P256] {
        let key = openssl.pair("key", kind);
        let other = openssl.pair("other", kind);
        let good = openssl.sign("key", key.algorithm(), &claim.encode());
        assert_eq!(good.check([&other, &key], &claim).unwrap(), 1);
        assert!(matches!(good.check([&other], &claim), Err(Discounted::Key)));
        for place in 0..good.payload.len() * 8 {
            let mut bad = good.clone();
            bad.payload[place / 8] ^= 1 << (place % 8);
            assert!(bad.check([&key], &claim).is_err(), "{kind}: payload bit {place}");
        }
        for place in 0..good.signature.len() * 8 {
            let mut bad = good.clone();
            bad.signature[place / 8] ^= 1 << (place % 8);
            assert!(
                bad.check([&key], &claim).is_err(),
                "{kind}: signature bit {place}"
            );
        }
        for len in 0..good.signature.len() {
            let mut bad = good.clone();
            bad.signature.truncate(len);
            assert!(bad.check([&key], &claim).is_err());
        }
        let mut long = good.clone();
        long.signature.push(0);
        assert!(long.check([&key], &claim).is_err());
    }
}

#[test]
fn signatures_in_cosigns_own_layout_are_read() {
    let Some(openssl) = Openssl::new() else { return };
    // As cosign stores them below the tag sha256-….sig: an image with layers, no subject, and a repository as the identity.
    let claim = Claim {
        identity: "registry.example/team/python".to_owned(),
        manifest: Digest::of(b"manifest"),
    };
    let payload = String::from_utf8(claim.encode())
        .unwrap()
        .replace("null", r#"{"creator":"somebody","timestamp":1700000000}"#);
    let mut layers = Vec::new();
    let mut keys = Vec::new();
    for (name, kind) in [("one", "ed25519"), ("two", P256)] {
        let key = openssl.pair(name, kind);
        openssl.sign(name, key.algorithm(), payload.as_bytes());
        let text = openssl.run("base64 -A -in @signature");
        layers.push(format!(
            r#"{{"mediaType":"{SIMPLE_SIGNING}","size":{},"digest":"{}","annotations":{{"dev.cosignproject.cosign/signature":"{}"}}}}"#,
            payload.len(),
            Digest::of(payload.as_bytes()),
            text.trim(),
        ));
        keys.push(key);
    }
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":352,"digest":"{}"}},"layers":[{}]}}"#,
        Digest::of(b"config"),
        layers.join(",")
    );
    let listed = listed_in(manifest.as_bytes()).unwrap();
    assert_eq!(listed.len(), 2);
    for (place, listed) in listed.into_iter().enumerate() {
        let listed = listed.unwrap();
        assert_eq!(
            (listed.payload, listed.payload_len),
            (Digest::of(payload.as_bytes()), payload.len() as u64)
        );
        let signature = Signature {
            payload: payload.clone().into_bytes(),
            signature: listed.signature,
        };
        assert_eq!(signature.check(&keys, &claim).unwrap(), place);
    }
}

#[test]
fn keys_of_other_kinds_are_named() {
    let Some(openssl) = Openssl::new() else { return };
    for (kind, told) in [
        ("RSA", "an RSA key"),
        ("RSA-PSS", "an RSA-PSS key"),
        ("ed448", "an ed448 key"),
        ("X25519", "an X25519 key"),
        ("X448", "an X448 key"),
        ("EC -pkeyopt ec_paramgen_curve:P-384", "an ECDSA P-384 key"),
        ("EC -pkeyopt ec_paramgen_curve:P-521", "an ECDSA P-521 key"),
        ("EC -pkeyopt ec_paramgen_curve:secp256k1", "secp256k1"),
        (
            "EC -pkeyopt ec_paramgen_curve:brainpoolP256r1",
            "1.3.36.3.3.2.8.1.1.7",
        ),
        (
            "EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
            "without a named curve",
        ),
    ] {
        openssl.run(&format!("genpkey -quiet -algorithm {kind} -out @key"));
        openssl.run("pkey -in @key -pubout -out @key.pub");
        let private = PrivateKey::from_pem(&openssl.read("key")).unwrap_err();
        let public = PublicKey::from_pem(&openssl.read("key.pub")).unwrap_err();
        for error in [private, public] {
            assert!(matches!(error, TrustError::Kind { .. }), "{kind}: {error}");
            assert!(error.to_string().contains(told), "{kind}: {error}");
        }
    }
    openssl.pair("ec", P256);
    let error = PrivateKey::from_pem(&openssl.read("ec")).unwrap_err();
    assert!(error.to_string().contains("an ECDSA P-256 key"), "{error}");
    openssl.run("ec -in @ec -out @old");
    let error = PrivateKey::from_pem(&openssl.read("old")).unwrap_err();
    assert!(error.to_string().contains("an ECDSA key"), "{error}");
    openssl.run("ecparam -name prime256v1 -genkey -out @old");
    let error = PrivateKey::from_pem(&openssl.read("old")).unwrap_err();
    assert!(error.to_string().contains("an ECDSA key"), "{error}");
    openssl.run("ec -in @ec -pubout -conv_form compressed -out @compressed");
    let error = PublicKey::from_pem(&openssl.read("compressed")).unwrap_err();
    assert!(error.to_string().contains("compressed"), "{error}");
    // What the error says helps.
    openssl.run("pkey -pubin -in @compressed -ec_conv_form uncompressed -out @whole");
    assert_eq!(openssl.read("whole"), openssl.read("ec.pub"));
    openssl.pair("ed", "ed25519");
    openssl.run("req -x509 -new -key @ed -subj /CN=x -out @certificate");
    let error = PublicKey::from_pem(&openssl.read("certificate")).unwrap_err();
    assert!(error.to_string().contains("a certificate"), "{error}");
    openssl.run("pkey -in @ed -outform DER -out @binary");
    let error = PrivateKey::from_pem(&openssl.read("binary")).unwrap_err();
    assert!(error.to_string().contains("PEM"), "{error}");
}

#[test]
fn encrypted_keys_are_told_as_such() {
    let Some(openssl) = Openssl::new() else { return };
    openssl.pair("ed", "ed25519");
    openssl.run("pkey -in @ed -aes256 -passout pass:secret -out @encrypted");
    let error = PrivateKey::from_pem(&openssl.read("encrypted")).unwrap_err();
    assert!(matches!(error, TrustError::Encrypted { .. }), "{error}");
    // And so does what that error says.
    openssl.run("pkey -in @encrypted -passin pass:secret -out @plain");
    assert!(PrivateKey::from_pem(&openssl.read("plain")).is_ok());
    openssl.pair("ec", P256);
    openssl.run("ec -in @ec -aes256 -passout pass:secret -out @old");
    let error = PrivateKey::from_pem(&openssl.read("old")).unwrap_err();
    assert!(matches!(error, TrustError::Encrypted { .. }), "{error}");
    let cosign = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\neyJ9\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n";
    let error = PrivateKey::from_pem(cosign.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("let cosign sign"), "{error}");
}

#[test]
fn random_bytes_of_openssl_are_an_encryption_key() {
    let Some(openssl) = Openssl::new() else { return };
    let line = format!("firebrick-key-1:{}", openssl.run("rand -base64 32"));
    assert_eq!(SealKey::parse(line.as_bytes()).unwrap().to_text(), line);
    let line = format!("firebrick-key-1:{}", openssl.run("rand -hex 32"));
    assert!(SealKey::parse(line.as_bytes()).is_ok());
}
