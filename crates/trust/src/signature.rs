//! A payload and what its signer made of it.

use crate::error::TrustError;
use crate::payload::Claim;
use crate::private::PrivateKey;
use crate::public::PublicKey;

/// A payload with a signature, neither of which needs to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The bytes that are signed.
    pub payload: Vec<u8>,
    /// What the signer made of them: 64 bytes of ed25519, or DER of ECDSA.
    pub signature: Vec<u8>,
}

/// Why a signature says nothing for a version of an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Discounted {
    /// Another key's, or changed since.
    #[error("it was made with none of the keys that count, or changed since")]
    Key,
    /// One of the keys signed something, but no claim about an image.
    #[error("what was signed is no claim about an image")]
    Payload(#[source] TrustError),
    /// A right signature, for something else.
    #[error("it is for {:?}, not for {wanted:?}", found.chars().take(200).collect::<String>())]
    Identity {
        /// What it is for.
        found: String,
        /// What it should be for.
        wanted: String,
    },
    /// A right signature of another version.
    #[error("it is for the version {found}, not for {wanted}")]
    Manifest {
        /// Which version it is for.
        found: firebrick_digest::Digest,
        /// Which it should be for.
        wanted: firebrick_digest::Digest,
    },
}

impl Signature {
    /// Signs a claim. Equal claims and keys give equal signatures.
    pub fn make(key: &PrivateKey, claim: &Claim) -> Signature {
        let payload = claim.encode();
        let signature = key.sign(&payload);
        Signature { payload, signature }
    }

    /// Which of `keys` made it, for just the claim `wanted`; as a place in `keys`.
    ///
    /// # Errors
    /// [`Discounted`]. Nothing of the payload is read before the signature is right.
    pub fn check<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k PublicKey>,
        wanted: &Claim,
    ) -> Result<usize, Discounted> {
        let mut keys = keys.into_iter();
        let signer = keys.position(|key| key.verifies(&self.payload, &self.signature));
        let signer = signer.ok_or(Discounted::Key)?;
        let claim = Claim::decode(&self.payload).map_err(Discounted::Payload)?;
        if claim.identity != wanted.identity {
            return Err(Discounted::Identity {
                found: claim.identity,
                wanted: wanted.identity.clone(),
            });
        }
        if claim.manifest != wanted.manifest {
            return Err(Discounted::Manifest {
                found: claim.manifest,
                wanted: wanted.manifest,
            });
        }
        Ok(signer)
    }
}
