//! The flags that describe a VM.

use std::path::PathBuf;

use firebrick_vmm::{Arch, BootSpec, Network};

use crate::error::CliError;
use crate::home::Home;
use crate::host::{self, Host, VmmArgs, Wanted};
use crate::image_file::ImageFile;
use crate::talk::Talk;
use crate::text;

/// The VM itself.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineArgs {
    /// Memory, in MiB or with a unit
    #[arg(long, value_name = "SIZE", default_value = "512", value_parser = parse_memory)]
    mem: u64,

    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    vcpus: u32,

    /// Most that the program can write, in MiB or with a unit [default: half the memory]
    #[arg(long, value_name = "SIZE", value_parser = parse_overlay)]
    overlay_size: Option<u64>,

    /// Give the VM a network through this host (user-mode, outgoing only)
    ///
    /// The guest also reaches this host's own services, those on loopback too, at 10.0.2.2.
    #[arg(long)]
    net: bool,

    /// A machine with another processor, in software: linux/arm64
    ///
    /// Its kernel comes from firebrick setup --platform linux/arm64.
    #[arg(long, value_name = "OS/ARCH", value_parser = host::parse_arch)]
    platform: Option<Arch>,

    /// Draw how the boot went into this file, as SVG
    #[arg(long, value_name = "SVG")]
    pub(crate) timeline: Option<PathBuf>,

    #[command(flatten)]
    vmm: VmmArgs,
}

impl MachineArgs {
    /// What boots the image on this host, with this program as PID 1 if it is not the guest.
    pub(crate) fn host(
        &self,
        home: &Home,
        talk: &Talk,
        image: &ImageFile,
        init: Option<&str>,
    ) -> anyhow::Result<Host> {
        let wanted = Wanted {
            arch: self.platform.unwrap_or(Arch::HOST),
            vmm: &self.vmm,
            network: self.net,
        };
        Host::ready(home, talk, image, init, &wanted)
    }

    /// The machine for an image on this host, whatever runs in it.
    ///
    /// # Errors
    /// [`CliError`] where this host, or the machine, has not the memory.
    pub(crate) fn spec<'a>(&self, image: PathBuf, host: &'a Host) -> Result<BootSpec<'a>, CliError> {
        if let Some(has) = host::memory_bytes()
            && self.mem > has
        {
            return Err(CliError::MemoryOfHost { asked: self.mem, has });
        }
        let overlay = self.overlay_size.unwrap_or(self.mem / 2);
        if overlay > self.mem {
            return Err(CliError::Overlay {
                asked: overlay,
                memory: self.mem,
            });
        }
        Ok(BootSpec {
            memory_mib: mib(self.mem),
            vcpus: self.vcpus,
            overlay_mib: mib(overlay),
            network: if self.net { Network::User } else { Network::None },
            ..BootSpec::new(image, &host.kernel, host.guest)
        })
    }
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

/// Memory that a kernel can start in at all.
const MEMORY_MIN: u64 = 96 << 20;

fn parse_memory(text: &str) -> Result<u64, String> {
    match text::parse_size(text)? {
        MEMORY_MIN.. => text::parse_size(text),
        _ => Err(format!("a VM needs at least {}", text::bytes(MEMORY_MIN))),
    }
}

/// The writable layer is counted in MiB, and without any nothing starts.
fn parse_overlay(text: &str) -> Result<u64, String> {
    match text::parse_size(text)? {
        bytes if bytes >> 20 > 0 => Ok(bytes),
        _ => Err("at least 1 MiB must be writable".to_owned()),
    }
}
