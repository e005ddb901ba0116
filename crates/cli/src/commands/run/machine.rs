//! The flags that describe a VM.

use crate::text;

/// The VM itself.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineArgs {
    /// Memory, in MiB or with a unit
    #[arg(long, value_name = "SIZE", default_value = "512", value_parser = text::parse_size)]
    mem: u64,

    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) vcpus: u32,

    /// Most that the program can write, in MiB or with a unit [default: half the memory]
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    overlay_size: Option<u64>,

    /// Give the VM a network through this host (user-mode, outgoing only)
    #[arg(long)]
    pub(crate) net: bool,
}

impl MachineArgs {
    pub(crate) fn memory_mib(&self) -> u32 {
        mib(self.mem)
    }

    pub(crate) fn overlay_mib(&self) -> u32 {
        mib(self.overlay_size.unwrap_or(self.mem / 2))
    }
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}
