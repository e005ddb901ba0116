//! The guest binaries that firebrick carries.

use firebrick_vmm::Arch;

/// A static program for this machine's architecture.
pub(crate) const BYTES: &[u8] = include_bytes!(env!("FIREBRICK_GUEST"));

/// The same for the other one; empty where the Rust that built firebrick could not build it.
const OTHER: &[u8] = include_bytes!(env!("FIREBRICK_OTHER_GUEST"));

/// The one for machines of this processor.
pub(crate) fn for_arch(arch: Arch) -> Option<&'static [u8]> {
    match arch {
        Arch::HOST => Some(BYTES),
        _ => Some(OTHER).filter(|bytes| !bytes.is_empty()),
    }
}
