//! What boots on this host: the kernel that was set up, and a VMM: Firecracker, or QEMU with the best accelerator.

use std::ffi::OsString;
use std::path::Path;

use firebrick_vmm::firecracker::{self, Firecracker, Jail};
use firebrick_vmm::kernel::{Kernel, Origin};
use firebrick_vmm::qemu::probe::{self, Choice, Kvm};
use firebrick_vmm::qemu::{Accelerator, Program};
use firebrick_vmm::{Arch, Vmm, release};

use crate::error::CliError;
use crate::home::Home;
use crate::talk::Talk;
use crate::trust::Admitted;
use crate::{fit, guest};

/// Which VMM runs the VM, and how.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct VmmArgs {
    /// What runs the VM; auto is Firecracker where it is installed and KVM works, otherwise QEMU
    #[arg(long, value_name = "VMM", value_enum, default_value_t)]
    pub(crate) vmm: VmmName,

    /// Lock Firecracker up with its jailer, as this user (needs root)
    #[arg(long, value_name = "UID[:GID]", value_parser = parse_user)]
    pub(crate) jailer: Option<(u32, u32)>,
}

impl VmmName {
    /// The word for a VMM that is asked for by name.
    pub(crate) fn word(self) -> Option<&'static str> {
        match self {
            VmmName::Auto => None,
            VmmName::Firecracker => Some("firecracker"),
            VmmName::Qemu => Some("qemu"),
        }
    }

    /// The word for the VMM that a host was found to have.
    pub(crate) fn word_of(name: &str) -> &'static str {
        match name.starts_with("QEMU") {
            true => "qemu",
            false => "firecracker",
        }
    }
}

/// A name for `--vmm`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum VmmName {
    /// The best that there is here
    #[default]
    Auto,
    /// Firecracker
    Firecracker,
    /// QEMU
    Qemu,
}

fn parse_user(text: &str) -> Result<(u32, u32), String> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    Ok((number(uid)?, number(gid)?))
}

/// Everything that a boot needs from this host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) parts: Parts,
    pub(crate) vmm: Box<dyn Vmm>,
    /// The VMM in words: `QEMU with KVM`.
    pub(crate) name: String,
}

/// What is put into a VM besides its image.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) kernel: Kernel,
    /// The guest for that kernel's processor.
    pub(crate) guest: &'static [u8],
}

impl Parts {
    /// Looks for the kernel, and refuses an image that cannot run in a machine of this processor with this kernel.
    pub(crate) fn ready(
        home: &Home,
        image: &Admitted,
        init: Option<&str>,
        arch: Arch,
    ) -> anyhow::Result<Parts> {
        fit::processor(image, init, arch)?;
        let kernel = Kernel::default_for(home.data(), arch)?;
        fit::kernel(image, &kernel)?;
        let guest = guest::for_arch(arch).ok_or(CliError::NoGuestFor { arch })?;
        Ok(Parts { kernel, guest })
    }
}

/// What VM is wanted, as far as it decides on the VMM.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) arch: Arch,
    pub(crate) vmm: &'a VmmArgs,
    /// Not every VMM has one.
    pub(crate) network: bool,
    /// Whether a jail may link the image, which changes its ctime.
    pub(crate) links: bool,
}

impl Host {
    /// As [`Parts::ready`], and looks for the VMM; asks once whether KVM is any good.
    pub(crate) fn ready(
        home: &Home,
        talk: &Talk,
        image: &Admitted,
        init: Option<&str>,
        wanted: &Wanted<'_>,
    ) -> anyhow::Result<Host> {
        let parts = Parts::ready(home, image, init, wanted.arch)?;
        let (vmm, name) = choose(home, talk, &parts.kernel, wanted)?;
        talk.detail(&format!("kernel {}, {name}", name_of(&parts.kernel)));
        Ok(Host { parts, vmm, name })
    }
}

/// A VMM, and what it is called.
type Named = (Box<dyn Vmm>, String);

fn choose(home: &Home, talk: &Talk, kernel: &Kernel, wanted: &Wanted<'_>) -> anyhow::Result<Named> {
    let args = wanted.vmm;
    let only_qemu = wanted.network || wanted.arch != Arch::HOST;
    match (args.vmm, args.jailer) {
        (VmmName::Qemu, Some(_)) => Err(CliError::JailedQemu.into()),
        (VmmName::Qemu, None) => qemu(home, kernel, wanted.arch),
        (VmmName::Firecracker, _) | (VmmName::Auto, Some(_)) if wanted.arch != Arch::HOST => {
            Err(CliError::FirecrackerArch { arch: wanted.arch }.into())
        }
        (VmmName::Firecracker, _) | (VmmName::Auto, Some(_)) => Ok(named(firecracker(home, talk, wanted)?)),
        (VmmName::Auto, None) if only_qemu => qemu(home, kernel, wanted.arch),
        (VmmName::Auto, None) => best(home, talk, kernel, wanted),
    }
}

/// Firecracker where KVM works, otherwise QEMU.
fn best(home: &Home, talk: &Talk, kernel: &Kernel, wanted: &Wanted<'_>) -> anyhow::Result<Named> {
    let Ok(firecracker) = firecracker(home, talk, wanted) else {
        return qemu(home, kernel, Arch::HOST);
    };
    let kvm = match find_qemu(Arch::HOST) {
        Ok(program) => {
            let (qemu, choice) = probe::best(&program, kernel, home.data(), false)?;
            if choice.accelerator != Accelerator::Kvm {
                return Ok((Box::new(qemu), qemu_with(&choice)));
            }
            Kvm::Works
        }
        Err(_) => probe::firecracker(&firecracker, kernel, Path::new(probe::DEVICE))?,
    };
    match kvm {
        Kvm::Works => Ok(named(firecracker)),
        Kvm::No(reason) => Err(CliError::NoVmm { reason }.into()),
    }
}

fn qemu(home: &Home, kernel: &Kernel, arch: Arch) -> anyhow::Result<Named> {
    let (qemu, choice) = probe::best(&find_qemu(arch)?, kernel, home.data(), false)?;
    Ok((Box::new(qemu), qemu_with(&choice)))
}

fn named(firecracker: Firecracker) -> Named {
    (Box::new(firecracker), "Firecracker".to_owned())
}

fn qemu_with(choice: &Choice) -> String {
    format!("QEMU with {}", accelerator(choice))
}

/// Firecracker, the one that was set up or else where PATH leads to it.
fn firecracker(home: &Home, talk: &Talk, wanted: &Wanted<'_>) -> anyhow::Result<Firecracker> {
    let search_path = with_own_programs(home);
    let program = firecracker::Program::find(&search_path)?;
    let talk = *talk;
    let vmm = Firecracker::new(program, home.run()).with_warnings(move |line| talk.warn(line));
    let Some((uid, gid)) = wanted.vmm.jailer else {
        return Ok(vmm);
    };
    let base = home.data().join("jail");
    Ok(vmm.with_jail(Jail {
        copies: !wanted.links,
        ..Jail::find(&search_path, uid, gid, base)?
    }))
}

/// The Firecracker that runs VMs here, with its version; `None` if there is none that tells it.
pub(crate) fn find_firecracker(home: &Home) -> Option<(firecracker::Program, String)> {
    let program = firecracker::Program::find(&with_own_programs(home)).ok()?;
    let version = program.version().ok()?;
    Some((program, version))
}

/// The folders of PATH, and before them the one for programs that were set up.
pub(crate) fn with_own_programs(home: &Home) -> OsString {
    let mut path = release::folder(home.data()).into_os_string();
    path.push(":");
    path.push(search_path());
    path
}

fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// QEMU for guests of this processor, where PATH leads to it.
pub(crate) fn find_qemu(arch: Arch) -> anyhow::Result<Program> {
    Ok(Program::find_for(arch, &search_path())?)
}

/// A platform whose machines can be had: `linux/arm64`.
pub(crate) fn parse_arch(text: &str) -> Result<Arch, String> {
    let arch = match text.split_once('/') {
        Some(("linux", rest)) => Arch::parse(rest.split('/').next().unwrap_or(rest)),
        _ => None,
    };
    arch.ok_or_else(|| {
        let known = Arch::ALL.map(|arch| format!("linux/{}", arch.debian_name()));
        format!("there are machines for {} only", known.join(" and "))
    })
}

/// The accelerator in words, with the reason where it is the slow one.
pub(crate) fn accelerator(choice: &Choice) -> String {
    match (choice.accelerator, &choice.reason) {
        (Accelerator::Kvm, _) => "KVM".to_owned(),
        (Accelerator::Tcg, None) => "software emulation".to_owned(),
        (Accelerator::Tcg, Some(reason)) => format!("software emulation ({reason})"),
    }
}

/// What a person calls a kernel: its release, or the file that it came from, if it does not tell its release.
pub(crate) fn name_of(kernel: &Kernel) -> String {
    let release = kernel.release();
    match &kernel.manifest().origin {
        Origin::File { path, .. } if kernel.version().is_none() => format!("from {}", path.display()),
        _ => release,
    }
}

/// The memory of this host; `None` where it does not tell.
pub(crate) fn memory_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
