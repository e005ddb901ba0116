//! Starts microVMs and dials their guests.
//!
//! - A [`kernel`] is set up once for a host; an [`initramfs`] is made from it and the guest binary at each boot.
//! - A [`Vmm`] launches a [`Machine`] from a [`MachineSpec`]; [`qemu`] is the one there is.
//! - A machine is *dialled* at a guest [`Port`], which gives a byte stream whatever carries it: vsock, or the mux over
//!   a virtio-serial port. What is above a stream cannot tell.
//! - A [`client`] speaks the agent's JSON-RPC over such a stream. Its answer, and nothing else, says that a guest is up.
//! - A [`BootSpec`] is the machine for an image; [`boot()`] puts these together; [`run()`] boots an image, runs one job and forgets the machine.
//!
//! Nothing here needs root. A machine never changes the image it boots: the drive is attached read-only. A machine leaves
//! nothing behind, however its owner ends: its channels are socket pairs and its initramfs is a file without a name, so
//! there is nothing to remove, and the kernel ends QEMU with the process that started it.
//!
//! `docs/boot.md` tells how a boot goes and why each option is there.

mod arch;
mod boot;
pub mod client;
pub mod initramfs;
pub mod interrupts;
pub mod kernel;
mod last_words;
mod machine;
pub mod qemu;
mod run;
mod spec;

pub use arch::Arch;
pub use boot::{BootError, Booted, boot};
pub use last_words::bad_end;
pub use machine::{Drive, Exit, LaunchError, Machine, MachineSpec, Network, Port, Vmm};
pub use run::{Job, RunError, RunOutcome, RunSpec, Streams, run};
pub use spec::BootSpec;
