//! The guest binary that firebrick carries.

/// A static program for this machine's architecture.
pub(crate) const BYTES: &[u8] = include_bytes!(env!("FIREBRICK_GUEST"));
