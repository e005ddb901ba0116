//! What boots on this host: the kernel that was set up, QEMU, and the best accelerator.

use firebrick_vmm::kernel::Kernel;
use firebrick_vmm::qemu::probe::{self, Choice};
use firebrick_vmm::qemu::{Accelerator, Program, Qemu};

use crate::home::Home;
use crate::talk::Talk;

/// Everything that a boot needs from this host.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) kernel: Kernel,
    pub(crate) qemu: Qemu,
}

impl Host {
    /// Looks for the kernel and QEMU, and asks once whether KVM is any good.
    pub(crate) fn ready(home: &Home, talk: &Talk) -> anyhow::Result<Host> {
        let kernel = Kernel::default_of(home.data())?;
        let program = find_qemu()?;
        let (qemu, choice) = probe::best(&program, &kernel, home.data(), false)?;
        talk.detail(&format!(
            "kernel {}, {}",
            kernel.manifest().release,
            accelerator(&choice)
        ));
        Ok(Host { kernel, qemu })
    }
}

/// QEMU, where PATH leads to it.
pub(crate) fn find_qemu() -> anyhow::Result<Program> {
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    Ok(Program::find(&search_path)?)
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
