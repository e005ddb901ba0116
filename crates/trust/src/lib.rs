//! Trust in images: who signed one, for which name, and whether that is enough.
//!
//! A *key* is an ed25519 key pair of whoever makes images; cosign's ECDSA P-256 public keys are understood too. A *signature*
//! closes a *payload* (cosign's "simple signing" JSON), which makes a *claim*: under this *identity* (`NAME:TAG`) belongs the
//! image with this manifest. A *policy* names the keys that an image of a name needs. An *origin* is what a host remembers of a
//! fetched image, so that the policy can be asked again without a network.
//!
//! Nothing here prints, reads the environment or a clock, or talks to a store. docs/trust.md tells what all this protects, and what not.
#![forbid(unsafe_code)]
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

mod der;
mod error;
mod manifest;
mod origin;
mod payload;
mod pem;
mod policy;
mod private;
mod public;
mod seal_key;
mod signature;

pub use error::TrustError;
pub use manifest::{
    ARTIFACT, EMPTY, EMPTY_CONFIG, LAYERS_MAX, Listed, MANIFEST_MAX, SIMPLE_SIGNING, Subject, listed_in,
    manifest_of,
};
pub use origin::{FileIdentity, ORIGIN_MAX, Origin};
pub use payload::{Claim, PAYLOAD_MAX, Version};
pub use policy::{Policy, Refusal, Stance, TrustedKey, Verdict};
pub use private::PrivateKey;
pub use public::{Algorithm, PublicKey};
pub use seal_key::SealKey;
pub use signature::{Discounted, Signature};
