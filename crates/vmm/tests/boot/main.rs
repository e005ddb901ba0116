//! Real boots under QEMU, with the guest binary of this workspace and images that firebrick built: what the agent answers,
//! what a run leaves behind, and what makes boots fail.
//!
//! Without the shared fixtures Alpine and busybox are left out, and say so; Debian's root comes from the package mirror.

mod aarch64;
mod agent_figures;
mod answers;
#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "another test program uses the rest")]
mod common;
mod conformance;
mod containers;
mod figures;
mod firecracker;
mod host;
mod hygiene;
mod images;
mod inits;
mod load;
mod overlay;
mod pid1;
mod roots;
mod runs;
mod storm;
mod traps;
mod vsock;
