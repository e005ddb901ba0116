//! Firecracker's driver against a server of the same API, which validates each request, and refuses what Firecracker refuses.
//!
//! `fake-firecracker` and `fake-jailer` beside this file are those; a real Firecracker needs a KVM that runs guests. What a real
//! guest makes of it is in `tests/boot/firecracker.rs`, where the fake one boots QEMU.

mod api;
#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "another test program uses the rest")]
mod common;
mod fake;
mod faults;
mod jail;
mod machines;
mod owner;
mod pools;
mod snapshots;
mod waiting;
