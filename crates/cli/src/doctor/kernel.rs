//! Findings about the kernel that boots would use: that it is whole, and what of the image's wishes it lacks.

use std::path::Path;

use firebrick_vmm::Arch;
use firebrick_vmm::kernel::{Kernel, KernelError, Lack, Loss};

use super::Finding;

/// What the image asks of the kernel.
pub(crate) struct Wishes<'a> {
    /// The image's filesystem, as the kernel calls it.
    pub(crate) filesystem: &'a str,
    /// How a squashfs is compressed.
    pub(crate) compression: Option<&'static str>,
    /// Whether its init is systemd.
    pub(crate) systemd: bool,
}

/// The kernel for machines of `arch`, if it can be used, and the findings about it.
pub(crate) fn findings(state: &Path, arch: Arch, wishes: &Wishes<'_>) -> (Option<Kernel>, Vec<Finding>) {
    let setup = match arch {
        Arch::HOST => "firebrick setup".to_owned(),
        other => format!("firebrick setup --platform linux/{}", other.debian_name()),
    };
    let kernel = Kernel::default_for(state, arch).and_then(|kernel| kernel.verify().map(|()| kernel));
    let kernel = match kernel {
        Ok(kernel) => kernel,
        Err(error @ KernelError::NotSetUp { .. }) => {
            return (
                None,
                vec![Finding::problem("kernel.set-up", error.to_string(), setup)],
            );
        }
        Err(error) => {
            let fix = format!("{setup} --force");
            return (
                None,
                vec![Finding::problem("kernel.set-up", error.to_string(), fix)],
            );
        }
    };
    let name = format!("the kernel {}", crate::host::name_of(&kernel));
    let mut findings = vec![Finding::ok(
        "kernel.set-up",
        format!("{name} is set up, and every file is as its digest says"),
    )];
    match kernel.lacks(wishes.filesystem, wishes.compression, wishes.systemd) {
        None => findings.push(Finding::warning(
            "kernel.config",
            format!(
                "{name} does not tell its configuration (CONFIG_IKCONFIG), so what it lacks cannot be told"
            ),
            format!("take one that does, such as Debian's: {setup}"),
        )),
        Some(lacks) => {
            if lacks.is_empty() {
                findings.push(Finding::ok(
                    "kernel.config",
                    format!("{name} has all that is needed"),
                ));
            }
            findings.extend(lacks.iter().map(|lack| of_lack(lack, &name, &setup)));
        }
    }
    (Some(kernel), findings)
}

fn of_lack(lack: &Lack, name: &str, setup: &str) -> Finding {
    let Lack {
        id,
        option,
        consequence,
        ..
    } = lack;
    let (how, fix) = match lack.left_out {
        true => (
            format!("has {option} as a module, which the initramfs does not bring"),
            format!("build it in ({option}=y), or take Debian's kernel: {setup}"),
        ),
        false => (
            format!("has no {option}"),
            format!("set {option}=y, or take Debian's kernel: {setup}"),
        ),
    };
    let found = format!("{name} {how}: {consequence}");
    match lack.loss {
        Loss::Boot => Finding::problem(id, found, fix),
        Loss::Feature => Finding::warning(id, found, fix),
    }
}
