//! What boots on this host: the kernel that was set up, QEMU, and the best accelerator.

use firebrick_vmm::Arch;
use firebrick_vmm::kernel::Kernel;
use firebrick_vmm::qemu::probe::{self, Choice};
use firebrick_vmm::qemu::{Accelerator, Program, Qemu};

use crate::error::CliError;
use crate::home::Home;
use crate::image_file::ImageFile;
use crate::talk::Talk;
use crate::{fit, guest};

/// Everything that a boot needs from this host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) kernel: Kernel,
    pub(crate) qemu: Qemu,
    /// The guest for that kernel's processor.
    pub(crate) guest: &'static [u8],
}

impl Host {
    /// Looks for the kernel and QEMU, asks once whether KVM is any good, and refuses an image that cannot run in a machine
    /// of this processor with this kernel.
    pub(crate) fn ready(
        home: &Home,
        talk: &Talk,
        image: &ImageFile,
        init: Option<&str>,
        arch: Arch,
    ) -> anyhow::Result<Host> {
        fit::processor(image, init, arch)?;
        let kernel = Kernel::default_for(home.data(), arch)?;
        fit::kernel(image, &kernel)?;
        let program = find_qemu(arch)?;
        let (qemu, choice) = probe::best(&program, &kernel, home.data(), false)?;
        talk.detail(&format!(
            "kernel {}, {}",
            kernel.manifest().release,
            accelerator(&choice)
        ));
        let guest = guest::for_arch(arch).ok_or(CliError::NoGuestFor { arch })?;
        Ok(Host { kernel, qemu, guest })
    }
}

/// QEMU for guests of this processor, where PATH leads to it.
pub(crate) fn find_qemu(arch: Arch) -> anyhow::Result<Program> {
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    Ok(Program::find_for(arch, &search_path)?)
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

/// The memory of this host; `None` where it does not tell.
pub(crate) fn memory_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
