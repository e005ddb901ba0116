//! Starts microVMs and dials their guests.
//!
//! - A [`kernel`] is set up once for a host; an [`initramfs`] is made from it and the guest binary at each boot.
//! - A [`Vmm`] launches a [`Machine`] from a [`MachineSpec`]; [`firecracker`] and [`qemu`] are two.
//! - A machine is *dialled* at a guest [`Port`], which gives a byte stream whatever carries it: vsock, or the mux over
//!   a virtio-serial port. What is above a stream cannot tell.
//! - A [`client`] speaks the agent's JSON-RPC over such a stream. Its answer, and nothing else, says that a guest is up.
//! - A [`pool`] keeps machines that have booted already, for who is in a hurry.
//! - A [`BootSpec`] is the machine for an image; [`boot()`] puts these together; [`run()`] boots an image, runs one job and forgets the machine.
//!
//! Nothing here needs root. A machine never changes the image it boots: the drive is attached read-only. A machine leaves
//! nothing behind, however its owner ends: QEMU's channels are socket pairs and its initramfs is a file without a name, so
//! there is nothing to remove; what Firecracker needs files for lies in a folder that the next machine removes if its owner
//! could not. The kernel ends the VMM with the process that started it.
//!
//! `docs/boot.md` tells how a boot goes and why each option is there.

mod arch;
mod boot;
pub mod client;
mod console;
mod deadline;
pub mod firecracker;
mod folder;
pub mod initramfs;
pub mod interrupts;
pub mod kernel;
mod last_words;
mod machine;
pub mod pool;
mod process;
mod program;
pub mod qemu;
pub mod release;
mod run;
mod spec;
mod timeline;
mod uds;

pub use arch::Arch;
pub use boot::{BootError, Booted, boot};
pub use last_words::bad_end;
pub use machine::{
    ControlError, Drive, Exit, LaunchError, Machine, MachineSpec, Network, Port, Snapshot, Vmm, VmmFacts,
    Vsock, open_disk,
};
pub use run::{Job, JobSpec, RunError, RunOutcome, RunSpec, Streams, Up, run, run_in, run_timed};
pub use spec::BootSpec;
pub use timeline::Timeline;
