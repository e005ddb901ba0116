//! The flags that describe a VM.

use std::path::PathBuf;
use std::time::Duration;

use firebrick_vmm::kernel::Kernel;
use firebrick_vmm::pool::{ImageId, Terms, Wish};
use firebrick_vmm::{Arch, BootSpec, Network};

use crate::error::CliError;
use crate::home::Home;
use crate::host::{self, Host, Parts, VmmArgs, VmmName, Wanted};
use crate::talk::Talk;
use crate::text;
use crate::trust::Admitted;

/// The VM itself.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineArgs {
    /// Memory, in MiB or with a unit [default: 512]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    mem: Option<u64>,

    /// Virtual processors [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    vcpus: Option<u32>,

    /// Most that can be written into the image's folders, in MiB or with a unit [default: half the memory]
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
    #[arg(long, value_name = "SVG", hide_short_help = true)]
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
        image: &Admitted,
        init: Option<&str>,
    ) -> anyhow::Result<Host> {
        let wanted = Wanted {
            arch: self.arch(),
            vmm: &self.vmm,
            network: self.net,
            links: !image.is_noted(),
        };
        Host::ready(home, talk, image, init, &wanted)
    }

    /// What is put into the VM; without a VMM.
    pub(crate) fn parts(&self, home: &Home, image: &Admitted, init: Option<&str>) -> anyhow::Result<Parts> {
        Parts::ready(home, image, init, self.arch())
    }

    /// What a pool of such machines promises.
    pub(crate) fn terms(&self, spec: &BootSpec<'_>, host: &Host) -> std::io::Result<Terms> {
        Ok(Terms {
            image: ImageId::of(&spec.image)?,
            memory_mib: spec.memory_mib,
            vcpus: spec.vcpus,
            overlay_mib: spec.overlay_mib,
            network: self.net,
            others: self.others(
                VmmName::word_of(&host.name),
                &host.parts.kernel.manifest().release,
            ),
        })
    }

    /// What is asked of a pool: only what was said counts, for memory, processors and VMM; but each wants this firebrick's guest,
    /// and the kernel that it would be booted with.
    pub(crate) fn wish(&self, home: &Home, image: &Admitted, wait: Duration) -> std::io::Result<Wish> {
        let kernel = Kernel::default_for(home.data(), self.arch());
        let release = kernel.map_or(String::new(), |kernel| kernel.manifest().release.clone());
        let mut others = self.others(self.vmm.vmm.word().unwrap_or_default(), &release);
        others.retain(|(_, value)| !value.is_empty());
        Ok(Wish {
            image: ImageId::of(&image.path)?,
            memory_mib: self.mem.map(mib),
            vcpus: self.vcpus,
            overlay_mib: self.overlay_size.map(mib),
            network: self.net,
            others,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn others(&self, vmm: &str, kernel: &str) -> Vec<(String, String)> {
        let jail = self
            .vmm
            .jailer
            .map_or("no".to_owned(), |(uid, gid)| format!("{uid}:{gid}"));
        let others = [
            ("vmm", vmm),
            ("processor", self.arch().name()),
            ("firebrick", env!("CARGO_PKG_VERSION")),
            ("jailer", &jail),
            ("kernel", kernel),
        ];
        others
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    fn arch(&self) -> Arch {
        self.platform.unwrap_or(Arch::HOST)
    }

    /// The machine for an image on this host, whatever runs in it.
    ///
    /// # Errors
    /// [`CliError`] where this host, or the machine, has not the memory.
    pub(crate) fn spec<'a>(&self, image: PathBuf, parts: &'a Parts) -> Result<BootSpec<'a>, CliError> {
        let asked = self.mem.unwrap_or(MEMORY_DEFAULT);
        if let Some(has) = host::memory_bytes()
            && asked > has
        {
            return Err(CliError::MemoryOfHost { asked, has });
        }
        let overlay = self.overlay_size.unwrap_or(asked / 2);
        if overlay > asked {
            return Err(CliError::Overlay {
                asked: overlay,
                memory: asked,
            });
        }
        Ok(BootSpec {
            memory_mib: mib(asked),
            vcpus: self.vcpus.unwrap_or(1),
            overlay_mib: mib(overlay),
            network: if self.net { Network::User } else { Network::None },
            ..BootSpec::new(image, &parts.kernel, parts.guest)
        })
    }
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

/// Memory where nobody says.
const MEMORY_DEFAULT: u64 = 512 << 20;

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
