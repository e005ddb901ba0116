//! What a host remembers of an image that it fetched: where from, as what, by whose signatures, and which file it became.
//!
//! With it the policy can be asked again, without a network, each time that the image is used. It is one small JSON document beside
//! the image; who can write it can write the image, too, so nothing in it is secret or closed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::TrustError;
use crate::payload::Version;
use crate::policy::{Policy, Refusal, Verdict};
use crate::signature::Signature;

/// An origin has at most so many bytes.
pub const ORIGIN_MAX: usize = 8 << 20;
const SIGNATURES_MAX: usize = 64;
const VERSION: u64 = 1;
const WHAT: &str = "the record of where an image came from";

/// What tells whether a file is still the one that was fetched.
///
/// Who writes to a file or puts another in its place changes at least the ctime, which no program can set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileIdentity {
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of its content, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of anything about it, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Its number in the filesystem.
    pub inode: u64,
    /// The filesystem.
    pub device: u64,
}

impl FileIdentity {
    /// The identity of the file with this metadata.
    pub fn of(metadata: &Metadata) -> FileIdentity {
        // Times after the year 2262 are all one.
        let nanoseconds =
            |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        FileIdentity {
            size: metadata.size(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    /// What differs first.
    fn changed(&self, now: &FileIdentity) -> Option<&'static str> {
        [
            (self.device == now.device, "it lies on another filesystem"),
            (self.inode == now.inode, "another file has taken its place"),
            (self.size == now.size, "it has another length"),
            (self.mtime_ns == now.mtime_ns, "somebody wrote to it"),
            (
                self.ctime_ns == now.ctime_ns,
                "somebody wrote to it, or changed its name, owner or mode",
            ),
        ]
        .into_iter()
        .find_map(|(same, told)| (!same).then_some(told))
    }
}

/// Where an image of this host came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The store's address, without secrets.
    pub store: String,
    /// Under which name it was fetched, and the manifest.
    pub version: Version,
    /// The signatures that there were for it.
    pub signatures: Vec<Signature>,
    /// The file that it became.
    pub file: FileIdentity,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    store: String,
    name: String,
    tag: String,
    manifest: String,
    signatures: Vec<Signed>,
    file: FileIdentity,
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    payload: String,
    signature: String,
}

impl Origin {
    /// The document.
    pub fn encode(&self) -> Vec<u8> {
        let signed = |signature: &Signature| Signed {
            payload: STANDARD.encode(&signature.payload),
            signature: STANDARD.encode(&signature.signature),
        };
        let document = Document {
            version: VERSION,
            store: self.store.clone(),
            name: self.version.name().to_owned(),
            tag: self.version.tag().to_owned(),
            manifest: self.version.manifest().to_string(),
            signatures: self.signatures.iter().take(SIGNATURES_MAX).map(signed).collect(),
            file: self.file,
        };
        let mut text = serde_json::to_vec_pretty(&document).expect("strings and numbers are always JSON");
        text.push(b'\n');
        text
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`TrustError::Corrupt`], or [`TrustError::Version`] if a later firebrick wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Origin, TrustError> {
        let wrong = |problem: String| TrustError::Corrupt { what: WHAT, problem };
        if bytes.len() > ORIGIN_MAX {
            return Err(wrong(format!("it has {} bytes", bytes.len())));
        }
        let read = |error: serde_json::Error| wrong(error.to_string());
        let version = serde_json::from_slice::<Versioned>(bytes).map_err(read)?.version;
        if version != VERSION {
            let found = version.to_string();
            return Err(TrustError::Version { what: WHAT, found });
        }
        let document: Document = serde_json::from_slice(bytes).map_err(read)?;
        if document.signatures.len() > SIGNATURES_MAX {
            return Err(wrong(format!("it has {} signatures", document.signatures.len())));
        }
        let manifest = document.manifest.parse();
        let manifest = manifest.map_err(|error| wrong(format!("its manifest: {error}")))?;
        let bytes_of = |text: &str| STANDARD.decode(text);
        let signature = |signed: &Signed| {
            let (payload, signature) = (bytes_of(&signed.payload), bytes_of(&signed.signature));
            match (payload, signature) {
                (Ok(payload), Ok(signature)) => Ok(Signature { payload, signature }),
                _ => Err(wrong("a signature in it is not base64".to_owned())),
            }
        };
        Ok(Origin {
            store: document.store,
            version: Version::new(&document.name, &document.tag, manifest)?,
            signatures: document
                .signatures
                .iter()
                .map(signature)
                .collect::<Result<_, _>>()?,
            file: document.file,
        })
    }

    /// Whether the image may be used: it must be the file that was fetched, and its signatures must still be enough.
    pub fn judge(&self, policy: &Policy, file: &FileIdentity) -> Verdict {
        match self.file.changed(file) {
            Some(what) => Verdict::Refused(Refusal::Changed { what }),
            None => policy.judge(&self.version, &self.signatures),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private::PrivateKey;
    use firebrick_digest::Digest;

    fn sample(key: &PrivateKey) -> Origin {
        let version = Version::new("python", "latest", Digest::of(b"1")).unwrap();
        Origin {
            store: "s3://bucket/prefix".to_owned(),
            signatures: vec![Signature::make(key, &version.claim())],
            version,
            file: FileIdentity {
                size: 4096,
                mtime_ns: 1_700_000_000_123_456_789,
                ctime_ns: -5,
                inode: u64::MAX,
                device: 7,
            },
        }
    }

    fn policy(key: &PrivateKey) -> Policy {
        let pem = key.public().to_pem();
        Policy::parse("[[rule]]\nname = \"*\"\nkeys = [\"k\"]", &|_| {
            Ok(pem.clone().into_bytes())
        })
        .unwrap()
    }

    #[test]
    fn origins_come_back_and_are_judged_again() {
        let key = PrivateKey::generate().unwrap().0;
        let origin = sample(&key);
        let again = Origin::decode(&origin.encode()).unwrap();
        assert_eq!(again, origin);
        assert!(again.judge(&policy(&key), &origin.file).is_allowed());
        let other = PrivateKey::generate().unwrap().0;
        assert!(!again.judge(&policy(&other), &origin.file).is_allowed());
    }

    #[test]
    fn another_file_is_refused_whatever_is_allowed() {
        let key = PrivateKey::generate().unwrap().0;
        let origin = sample(&key);
        let open = Policy::parse("unsigned = \"allow\"", &|_| unreachable!()).unwrap();
        assert!(origin.judge(&open, &origin.file).is_allowed());
        let changes: [fn(&mut FileIdentity); 5] = [
            |file| file.size += 1,
            |file| file.mtime_ns += 1,
            |file| file.ctime_ns += 1,
            |file| file.inode -= 1,
            |file| file.device += 1,
        ];
        for change in changes {
            let mut file = origin.file;
            change(&mut file);
            let verdict = origin.judge(&open, &file);
            assert!(matches!(verdict, Verdict::Refused(Refusal::Changed { .. })));
        }
    }

    #[test]
    fn files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let identity = || FileIdentity::of(&std::fs::metadata(&path).unwrap());
        std::fs::write(&path, b"one").unwrap();
        let first = identity();
        assert_eq!(first, identity());
        assert_eq!((first.size, first.changed(&first)), (3, None));
        assert!(first.mtime_ns > 1_600_000_000_000_000_000);
        let other = dir.path().join("b");
        std::fs::write(&other, b"one").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(first.changed(&identity()).is_some());
    }

    #[test]
    fn every_damage_is_refused_or_told() {
        let key = PrivateKey::generate().unwrap().0;
        let origin = sample(&key);
        let policy = policy(&key);
        let good = origin.encode();
        for place in 0..good.len() {
            for bit in [0x01, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[place] ^= bit;
                // Only the store's address decides nothing.
                if let Ok(mut read) = Origin::decode(&bad) {
                    let allowed = read.judge(&policy, &origin.file).is_allowed();
                    read.store.clone_from(&origin.store);
                    assert!(!allowed || read == origin, "byte {place} ^ {bit}");
                }
            }
        }
        for len in 0..good.len() - 1 {
            assert!(Origin::decode(&good[..len]).is_err());
        }
    }

    #[test]
    fn hostile_origins_are_told() {
        let text = String::from_utf8(sample(&PrivateKey::generate().unwrap().0).encode()).unwrap();
        for (from, to, told) in [
            ("\"version\": 1", "\"version\": 2", "version 2"),
            ("\"version\": 1", "\"version\": 1, \"x\": 0", "unknown field"),
            ("\"latest\"", "\"a:b\"", "is not made of"),
            ("\"size\": 4096", "\"size\": -1", "invalid value"),
            ("\"size\": 4096", "\"size\": 1e99", "invalid type"),
            ("sha256:", "sha1:", "not a digest"),
            ("\"payload\": \"", "\"payload\": \"*", "not base64"),
        ] {
            let error = Origin::decode(text.replacen(from, to, 1).as_bytes())
                .unwrap_err()
                .to_string();
            assert!(error.contains(told), "{error:?} does not tell {told:?}");
        }
        let signed = r#"{"payload":"","signature":""},"#.repeat(65);
        let many = text.replacen("\"signatures\": [", &format!("\"signatures\": [{signed}"), 1);
        assert!(
            Origin::decode(many.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("66")
        );
        assert!(Origin::decode(&[b' '; ORIGIN_MAX + 1]).is_err());
    }
}
