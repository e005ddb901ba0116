//! Signatures of images: put beside them as what refers to their manifests, found again, and asked whose they are.
//!
//! What is signed, and by which keys it counts, is `firebrick-trust`'s; here it is only kept. Nobody vouches for what a store gives as
//! referrers: there may be anything, any number of it, and what should be there may be missing.

use firebrick_digest::Digest;
use firebrick_trust::{
    ARTIFACT, EMPTY_CONFIG, Listed, MANIFEST_MAX, PrivateKey, PublicKey, Signature, Subject, Version,
    listed_in, manifest_of,
};

use crate::error::StoreError;
use crate::index::Published;
use crate::ledger::{ANEW, Settled};
use crate::manifest::{Descriptor, MANIFEST};
use crate::name::Name;
use crate::store::Store;

/// Referrers of a manifest that are looked into.
const REFERRERS_MAX: usize = 64;
/// Signatures of a manifest that are read.
const SIGNATURES_MAX: usize = 64;

/// What a store has as signatures of a version.
#[derive(Debug, Default)]
pub struct Signatures {
    /// The signatures, none of which was verified.
    pub found: Vec<Signature>,
    /// What could not be read as one.
    pub skipped: Vec<Skipped>,
}

/// A referrer that is no signature, or a broken one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Why it was skipped.
    pub problem: String,
}

/// Whose signatures a version has.
#[derive(Debug, Default)]
pub struct Verified<'k> {
    /// The keys, of those that were given, that signed this version under this name. Each once, in their order.
    pub by: Vec<&'k PublicKey>,
    /// For each signature that says nothing for it: why.
    pub discounted: Vec<String>,
    /// What could not be read as a signature.
    pub skipped: Vec<Skipped>,
}

impl Published {
    /// The version as a policy is asked about it.
    pub fn version(&self) -> Version {
        let (name, tag) = (self.tagged.name.as_str(), self.tagged.tag.as_str());
        let version = Version::new(name, tag, self.digest);
        version.expect("names of a store have no other characters than those of trust")
    }
}

impl Store {
    /// Signs a version of an image under its name, and says which manifest holds the signature. Signed again it is the same one.
    ///
    /// Who uploads should sign the version that the upload told of: one that is looked up by its name is what the store says it is.
    ///
    /// # Errors
    /// [`StoreError`]; also if the version is no image that can be opened.
    pub fn sign(&self, version: &Published, key: &PrivateKey) -> Result<Digest, StoreError> {
        let name = &version.tagged.name;
        self.open(version)?;
        let image = self.source().manifest(name, &version.digest)?;
        let subject = Subject {
            media_type: MANIFEST.to_owned(),
            digest: version.digest,
            size: image.len() as u64,
        };
        let signature = Signature::make(key, &version.version().claim());
        let manifest = manifest_of(&subject, std::slice::from_ref(&signature));
        let mut referrer = Descriptor::of(MANIFEST, &manifest);
        referrer.artifact_type = Some(ARTIFACT.to_owned());
        let backend = self.backend();
        let needed = [
            Digest::of(EMPTY_CONFIG),
            Digest::of(&signature.payload),
            referrer.digest,
        ];
        for _ in 0..ANEW {
            let claim = self.claim()?;
            for blob in [EMPTY_CONFIG, &signature.payload] {
                let digest = Digest::of(blob);
                if backend.blob_size(name, &digest)? != Some(blob.len() as u64) {
                    backend.write_blob(name, &digest, blob.to_vec())?;
                }
            }
            backend.write_manifest(name, &referrer.digest, manifest.clone())?;
            let refer = |epoch| {
                let done = backend.refer(name, &version.digest, &referrer, epoch)?;
                Ok(done.then_some(()))
            };
            if claim.name(name, &needed, refer)? == Settled::Named(()) {
                return Ok(referrer.digest);
            }
        }
        Err(StoreError::Contended {
            address: backend.address().to_owned(),
            name: version.tagged.to_string(),
            attempts: ANEW,
        })
    }

    /// The signatures that the store has for a version, as far as they can be read. Who made them, and for what, was not looked at.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot say what refers to the version; what it gives can fail no more.
    pub fn signatures(&self, version: &Published) -> Result<Signatures, StoreError> {
        let name = &version.tagged.name;
        let referrers = self.backend().referrers(name, &version.digest)?;
        let mut signatures = Signatures::default();
        for (place, referrer) in referrers.iter().enumerate() {
            let full = signatures.found.len() >= SIGNATURES_MAX;
            if place >= REFERRERS_MAX || full {
                let rest = referrers.len() - place;
                signatures.skip(referrer, format!("it and {} more were not looked into", rest - 1));
                break;
            }
            match self.listed(name, referrer) {
                Err(problem) => signatures.skip(referrer, problem),
                Ok(listed) => {
                    for one in listed {
                        if signatures.found.len() >= SIGNATURES_MAX {
                            signatures.skip(referrer, "it holds more signatures than are read".to_owned());
                            break;
                        }
                        match one.and_then(|listed| self.signature(name, listed)) {
                            Ok(signature) => signatures.found.push(signature),
                            Err(problem) => signatures.skip(referrer, problem),
                        }
                    }
                }
            }
        }
        Ok(signatures)
    }

    /// Which of these keys signed a version under its name.
    ///
    /// # Errors
    /// As [`Store::signatures`].
    pub fn verify<'k>(&self, version: &Published, keys: &'k [PublicKey]) -> Result<Verified<'k>, StoreError> {
        let signatures = self.signatures(version)?;
        let wanted = version.version().claim();
        let mut verified = Verified {
            skipped: signatures.skipped,
            ..Verified::default()
        };
        let mut signed = vec![false; keys.len()];
        for signature in &signatures.found {
            match signature.check(keys, &wanted) {
                Ok(signer) => signed[signer] = true,
                Err(reason) => verified.discounted.push(reason.to_string()),
            }
        }
        let signers = keys.iter().zip(signed).filter(|(_, signed)| *signed);
        verified.by = signers.map(|(key, _)| key).collect();
        Ok(verified)
    }

    /// What a referrer lists as signatures.
    fn listed(&self, name: &Name, referrer: &Descriptor) -> Result<Vec<Result<Listed, String>>, String> {
        if let Some(other) = referrer.artifact_type.as_deref().filter(|kind| *kind != ARTIFACT) {
            let shown: String = other.chars().take(100).collect();
            return Err(format!("it is {shown:?}"));
        }
        let found = self.backend().read_manifest(name, &referrer.digest, MANIFEST_MAX);
        let bytes = found.map_err(told)?.ok_or("it is not there")?;
        same(&bytes, &referrer.digest)?;
        listed_in(&bytes).map_err(told)
    }

    /// A signature with its payload.
    fn signature(&self, name: &Name, listed: Listed) -> Result<Signature, String> {
        let range = 0..listed.payload_len;
        let payload = self.backend().read_blob(name, &listed.payload, range);
        let payload = payload.map_err(told)?;
        same(&payload, &listed.payload)?;
        Ok(Signature {
            payload,
            signature: listed.signature,
        })
    }
}

impl Signatures {
    fn skip(&mut self, referrer: &Descriptor, problem: String) {
        self.skipped.push(Skipped {
            manifest: referrer.digest,
            problem,
        });
    }
}

fn same(bytes: &[u8], digest: &Digest) -> Result<(), String> {
    match Digest::of(bytes) {
        found if found == *digest => Ok(()),
        found => Err(format!("the bytes of {digest} have the digest {found}")),
    }
}

fn told(error: impl std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
