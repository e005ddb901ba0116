//! What is found out about a host once, and kept: whether KVM runs a stock kernel here, and the rate of the clock.
//!
//! That `/dev/kvm` exists, opens and answers proves nothing: there are hosts whose KVM runs stock kernels by emulation,
//! slower than QEMU's, and lets them die after half a minute. So the very kernel that machines will boot is started with KVM,
//! without disk or initramfs, and must come to the point where it misses its root filesystem; then the same without KVM. KVM
//! is worth having if it took less than half the processor time. (Processor time, because a busy host stretches the other.)
//!
//! The answer is kept in `<state>/host.json` for this boot of the host, this kernel and this QEMU.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Accelerator, Program, Qemu};
use crate::arch::Arch;
use crate::firecracker::Firecracker;
use crate::kernel::{Kernel, KernelError};
use crate::machine::{LaunchError, MachineSpec, Vmm};
use crate::process::cpu_time;

/// Where KVM is.
pub const DEVICE: &str = "/dev/kvm";

/// How long a kernel may take to come up, on a busy host.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The processor time that a kernel may take under KVM before the probe gives up: a processor needs a tenth of it.
const CPU_LIMIT: Duration = Duration::from_secs(4);

/// What the kernel prints when it has come up and found no root filesystem.
const CAME_UP: &[u8] = b"Unable to mount root fs";

/// Whether KVM can be used, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kvm", content = "reason")]
pub enum Kvm {
    /// A stock kernel runs on it.
    Works,
    /// It does not, because of this.
    No(String),
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    key: String,
    /// Whether KVM runs a stock kernel. Whether the user may open it is asked each time.
    #[serde(flatten)]
    pub kvm: Kvm,
    tsc_khz: Option<u64>,
}

/// The accelerator that is best here, with the reason when it is not KVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What will be used.
    pub accelerator: Accelerator,
    /// Why KVM is not.
    pub reason: Option<String>,
}

/// A launcher for machines that boot `kernel`, with the best accelerator of this host.
///
/// Looks into `<state>/host.json` first; a probe may take up to twice [`LIMIT`], and usually a few seconds. With `again` it is made anew.
/// Where the folder cannot be written, the answer is not kept, and that is no error.
///
/// # Errors
/// [`LaunchError`] if QEMU cannot be started at all.
pub fn best(
    program: &Program,
    kernel: &Kernel,
    state: &Path,
    again: bool,
) -> Result<(Qemu, Choice), LaunchError> {
    let key = key(program, kernel);
    let path = state.join("host.json");
    let may_use = may_use_kvm(program.arch(), Path::new(DEVICE));
    let kept = read(&path).filter(|facts| facts.key == key && !again);
    let facts = match (kept, &may_use) {
        (Some(facts), _) => facts,
        (None, Ok(())) => {
            let facts = HostFacts {
                kvm: probe(program, kernel)?,
                tsc_khz: clock(program),
                key,
            };
            keep(&path, &facts);
            facts
        }
        // Another user may be allowed what this one is not: nothing is kept.
        (None, Err(reason)) => HostFacts {
            kvm: Kvm::No(reason.clone()),
            tsc_khz: clock(program),
            key,
        },
    };
    let reason = match (&facts.kvm, &may_use) {
        (Kvm::No(reason), _) | (Kvm::Works, Err(reason)) => Some(reason.clone()),
        (Kvm::Works, Ok(())) => None,
    };
    let accelerator = if reason.is_none() {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    };
    Ok((
        Qemu::with_clock(program.clone(), accelerator, facts.tsc_khz),
        Choice { accelerator, reason },
    ))
}

/// Whether Firecracker brings `kernel` up here, for hosts that have no QEMU to compare with. Its device is [`DEVICE`].
///
/// # Errors
/// [`LaunchError`] if it cannot be started at all; a KVM that it may not open is none.
pub fn firecracker(vmm: &Firecracker, kernel: &Kernel, device: &Path) -> Result<Kvm, LaunchError> {
    if let Err(reason) = may_use_kvm(Arch::HOST, device) {
        return Ok(Kvm::No(reason));
    }
    Ok(match comes_up(vmm, kernel)? {
        Ok(_) => Kvm::Works,
        Err(reason) => Kvm::No(format!(
            "a stock kernel does not come up on {}: {reason}",
            device.display()
        )),
    })
}

/// Starts `kernel` with and without KVM and compares.
///
/// # Errors
/// [`LaunchError`] if QEMU cannot be started at all.
pub fn probe(program: &Program, kernel: &Kernel) -> Result<Kvm, LaunchError> {
    let with = |accelerator| Qemu::with_clock(program.clone(), accelerator, clock(program));
    let kvm = match comes_up(&with(Accelerator::Kvm), kernel)? {
        Ok(cpu_time) => cpu_time,
        Err(reason) => {
            return Ok(Kvm::No(format!(
                "a stock kernel does not come up on /dev/kvm: {reason}"
            )));
        }
    };
    // If even emulation does not come up, there is nothing that KVM could be slower than.
    let emulation = comes_up(&with(Accelerator::Tcg), kernel)?.unwrap_or(Duration::MAX);
    Ok(judge(kvm, emulation))
}

fn judge(kvm: Duration, emulation: Duration) -> Kvm {
    if kvm < emulation / 2 {
        return Kvm::Works;
    }
    let (kvm, emulation) = (kvm.as_secs_f32(), emulation.as_secs_f32());
    Kvm::No(format!(
        "a stock kernel needs {kvm:.1} s on /dev/kvm, and {emulation:.1} s in software"
    ))
}

/// Starts `kernel` alone; the processor time it took to come up, or why it did not.
fn comes_up(vmm: &dyn Vmm, kernel: &Kernel) -> Result<Result<Duration, String>, LaunchError> {
    let spec = MachineSpec {
        kernel: kernel.path(),
        append: "root=/dev/none".to_owned(),
        memory_mib: 256,
        vcpus: 1,
        ..MachineSpec::default()
    };
    let machine = vmm.launch(&spec)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let ended = machine
            .wait(Duration::from_millis(10))
            .is_ok_and(|exit| exit.is_some());
        let cpu_time = cpu_time(machine.process_id());
        let console = machine.console();
        if console.windows(CAME_UP.len()).any(|window| window == CAME_UP) {
            // Where the process is gone already, so is its account: then it was quick.
            return Ok(Ok(cpu_time.unwrap_or(Duration::ZERO)));
        }
        if ended {
            let said = machine.complaints();
            let said = said.lines().next().unwrap_or("no reason given").trim();
            return Ok(Err(format!("the VMM ended: {said}")));
        }
        if cpu_time.is_some_and(|time| time > CPU_LIMIT) || Instant::now() >= deadline {
            let used = cpu_time.unwrap_or_default().as_secs_f32();
            return Ok(Err(format!("it had not after {used:.1} s of processor time")));
        }
    }
}

/// Whether this user may open the device for reading and writing, and guests of this processor can run on it.
fn may_use_kvm(arch: Arch, device: &Path) -> Result<(), String> {
    if arch != Arch::HOST {
        return Err(format!(
            "the guest's processor is {arch}, this host's {}",
            Arch::HOST
        ));
    }
    match std::fs::File::options().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{}: {error}", device.display())),
    }
}

/// The rate of this host's counter, for guests that have the same.
fn clock(program: &Program) -> Option<u64> {
    match program.arch() {
        #[cfg(target_arch = "x86_64")]
        Arch::X86_64 => Some(super::tsc::measure_khz()),
        _ => None,
    }
}

/// What the answer depends on.
fn key(program: &Program, kernel: &Kernel) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // A program that was updated has another time; asking it for its version would cost each boot 20 ms.
    let meta = std::fs::metadata(program.path());
    let file = meta
        .map(|meta| format!("{}.{} {}", meta.mtime(), meta.mtime_nsec(), meta.len()))
        .unwrap_or_default();
    format!(
        "{} {} {file} {}",
        boot_id.trim(),
        program.path().display(),
        kernel.manifest().digest
    )
}

fn read(path: &Path) -> Option<HostFacts> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn keep(path: &Path, facts: &HostFacts) {
    let Some(dir) = path.parent() else { return };
    let write = || -> Result<(), KernelError> {
        std::fs::create_dir_all(dir).map_err(KernelError::host("create", dir))?;
        let bytes = serde_json::to_vec(facts).expect("facts have string keys only");
        crate::kernel::replace_file(dir, "host.json", &bytes)
    };
    // Only a convenience: the next boot finds out again.
    let _ = write();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_must_beat_emulation_by_far() {
        let ms = Duration::from_millis;
        assert_eq!(judge(ms(400), ms(1900)), Kvm::Works);
        assert!(
            matches!(judge(ms(1000), ms(1900)), Kvm::No(reason) if reason.contains("1.0 s") && reason.contains("1.9 s"))
        );
        assert_eq!(judge(ms(3000), Duration::MAX), Kvm::Works);
    }

    #[test]
    fn facts_are_read_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        for kvm in [Kvm::Works, Kvm::No("of this".to_owned())] {
            let facts = HostFacts {
                key: "k".to_owned(),
                kvm,
                tsc_khz: Some(5),
            };
            keep(&dir.path().join("host.json"), &facts);
            assert_eq!(read(&dir.path().join("host.json")), Some(facts));
        }
        std::fs::write(dir.path().join("host.json"), b"{}").unwrap();
        assert_eq!(read(&dir.path().join("host.json")), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
