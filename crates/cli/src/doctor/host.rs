//! Findings about this host: what runs VMs, how fast, and what images are made with.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_vmm::Arch;
use firebrick_vmm::firecracker::{self, Firecracker};
use firebrick_vmm::kernel::Kernel;
use firebrick_vmm::qemu::{Accelerator, Program, probe};
use firebrick_vmm::release::{self, Release, ReleaseError};

use super::{Finding, Severity};
use crate::text;

/// What a small image and its layers take.
const DISK_LOW: u64 = 2 << 30;
/// Not even a kernel can be set up.
const DISK_NONE: u64 = 128 << 20;
/// What follows where KVM is of no use.
const SLOW: &str = "so VMs run in software, which is slow";
/// What a VM has without `--mem`, and QEMU's own part.
const MEMORY_LOW: u64 = 640 << 20;

/// A host as `doctor` sees it; tests make their own.
pub(crate) struct HostView {
    pub(crate) kvm: PathBuf,
    pub(crate) vsock: PathBuf,
    pub(crate) subuid: PathBuf,
    pub(crate) subgid: PathBuf,
    pub(crate) meminfo: PathBuf,
    /// As `PATH` is written.
    pub(crate) search_path: OsString,
    /// Images and kernels.
    pub(crate) state: PathBuf,
    /// The user's name, and whether that is root.
    pub(crate) user: String,
    pub(crate) is_root: bool,
    /// The processor of the machines.
    pub(crate) arch: Arch,
}

impl HostView {
    /// This host.
    pub(crate) fn real(state: &Path, arch: Arch) -> HostView {
        HostView {
            kvm: "/dev/kvm".into(),
            vsock: "/dev/vhost-vsock".into(),
            subuid: "/etc/subuid".into(),
            subgid: "/etc/subgid".into(),
            meminfo: "/proc/meminfo".into(),
            search_path: std::env::var_os("PATH").unwrap_or_default(),
            state: state.to_owned(),
            user: user_name(),
            is_root: rustix::process::geteuid().is_root(),
            arch,
        }
    }

    /// Every finding, in the order in which a boot would come across them.
    pub(crate) fn findings(&self, kernel: Option<&Kernel>) -> Vec<Finding> {
        let qemu = Program::find_for(self.arch, &self.search_path).ok();
        let firecracker = self.find_firecracker();
        let damage = Release::installed(&self.state).err();
        // All that there is to run VMs: for its own processor, and on KVM only.
        let only = firecracker
            .as_deref()
            .filter(|_| qemu.is_none() && self.arch == Arch::HOST && damage.is_none());
        vec![
            self.qemu(qemu.as_ref(), only),
            match &damage {
                Some(damage) => self.damaged_firecracker(damage),
                None => self.firecracker(firecracker.as_deref()),
            },
            match only {
                Some(path) => self.kvm_of_firecracker(path, kernel),
                None => self.kvm(qemu.as_ref(), kernel),
            },
            self.vsock(),
            self.memory(),
            self.disk(),
            self.subids(),
            self.uidmap(),
        ]
    }

    fn qemu(&self, program: Option<&Program>, instead: Option<&Path>) -> Finding {
        const ID: &str = "host.qemu";
        let package = match self.arch {
            Arch::X86_64 => "qemu-system-x86",
            Arch::Aarch64 => "qemu-system-arm",
        };
        let install = format!("sudo apt-get install {package}");
        match program.map(|program| (program, program.version())) {
            Some((program, Ok(version))) => {
                Finding::ok(ID, format!("QEMU {version} is {}", program.path().display()))
            }
            Some((program, Err(error))) => {
                let found = format!("{} does not start: {error}", program.path().display());
                Finding::problem(ID, found, format!("sudo apt-get install --reinstall {package}"))
            }
            None => {
                let found = format!("there is no qemu-system-{} in PATH", self.arch);
                match instead {
                    Some(_) => Finding::warning(
                        ID,
                        format!("{found}: Firecracker runs VMs, but none with --net, and none without KVM"),
                        install,
                    ),
                    None => Finding::problem(ID, format!("{found}, which runs VMs"), install),
                }
            }
        }
    }

    /// The one that was set up, or else that of `PATH`.
    fn find_firecracker(&self) -> Option<PathBuf> {
        let own = release::folder(&self.state).join("firecracker");
        match own.is_file() {
            true => Some(own),
            false => find(&self.search_path, "firecracker"),
        }
    }

    /// What is not as it was set up is not even asked for its version.
    fn damaged_firecracker(&self, damage: &ReleaseError) -> Finding {
        Finding::problem(
            "host.firecracker",
            format!("Firecracker is not whole: {damage}"),
            "firebrick setup --firecracker-version 1.15.1",
        )
    }

    fn firecracker(&self, found: Option<&Path>) -> Finding {
        const ID: &str = "host.firecracker";
        let fix = "firebrick setup --firecracker-version 1.15.1";
        let Some(path) = found else {
            return Finding::warning(ID, "Firecracker is not installed; QEMU runs VMs without it", fix);
        };
        let output = Command::new(path).arg("--version").output();
        let output = output.ok().filter(|output| output.status.success());
        let version = output.and_then(|output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().next().map(str::to_owned)
        });
        match version {
            Some(version) if is_too_old(&version) => Finding::warning(
                ID,
                format!(
                    "{version} is {}: before 1.8 it does not tell Debian's kernel of its devices",
                    path.display()
                ),
                fix,
            ),
            Some(version) => Finding::ok(ID, format!("{version} is {}", path.display())),
            None => Finding::warning(
                ID,
                format!("{} does not tell its version", path.display()),
                format!("{fix} --force"),
            ),
        }
    }

    /// That the device opens proves nothing, so where it can be the very kernel is started on it, once a boot of the host.
    fn kvm(&self, qemu: Option<&Program>, kernel: Option<&Kernel>) -> Finding {
        const ID: &str = "host.kvm";
        let device = self.kvm.display();
        let slow = SLOW;
        if self.arch != Arch::HOST {
            let found = format!("a machine for {} runs in software here", self.arch);
            return Finding::ok(ID, found);
        }
        if !self.kvm.exists() {
            let fix = "sudo modprobe kvm_intel || sudo modprobe kvm_amd; in a VM, switch nested virtualisation on in the one above";
            return Finding::warning(ID, format!("there is no {device}, {slow}"), fix);
        }
        if let Err(error) = fs::File::options().read(true).write(true).open(&self.kvm) {
            let fix = format!("sudo usermod -aG kvm {}, then log in again", self.user);
            return Finding::warning(ID, format!("{device} cannot be opened ({error}), {slow}"), fix);
        }
        let (Some(qemu), Some(kernel)) = (qemu, kernel) else {
            let found = format!(
                "{device} can be opened; whether it runs a kernel shows once there are QEMU and a kernel"
            );
            return Finding::warning(ID, found, "firebrick setup");
        };
        match probe::best(qemu, kernel, &self.state, false) {
            Ok((_, choice)) if choice.accelerator == Accelerator::Kvm => {
                Finding::ok(ID, format!("{device} runs a stock kernel"))
            }
            Ok((_, choice)) => {
                let reason = choice.reason.unwrap_or_default();
                let fix =
                    "use a host whose /dev/kvm is the processor's own; to try again: firebrick setup --force";
                Finding::warning(ID, format!("{reason}, {slow}"), fix)
            }
            Err(error) => Finding::problem(ID, format!("QEMU cannot be started: {error}"), "firebrick setup"),
        }
    }

    /// Where it alone runs VMs, nothing runs without KVM.
    fn kvm_of_firecracker(&self, path: &Path, kernel: Option<&Kernel>) -> Finding {
        const ID: &str = "host.kvm";
        let needs = "and Firecracker, which alone is here to run VMs, needs it";
        let finding = self.kvm(None, kernel);
        if !self.kvm.exists()
            || fs::File::options()
                .read(true)
                .write(true)
                .open(&self.kvm)
                .is_err()
        {
            let found = finding.found.replace(SLOW, needs);
            return Finding {
                severity: Severity::Problem,
                found,
                ..finding
            };
        }
        let Some(kernel) = kernel else { return finding };
        let vmm = Firecracker::new(firecracker::Program::at(path), self.state.join("run"));
        let fix =
            "use a host whose /dev/kvm is the processor's own, or QEMU: sudo apt-get install qemu-system";
        match probe::firecracker(&vmm, kernel, &self.kvm) {
            Ok(probe::Kvm::Works) => Finding::ok(ID, format!("{} runs a stock kernel", self.kvm.display())),
            Ok(probe::Kvm::No(reason)) => Finding::problem(ID, format!("{reason}, {needs}"), fix),
            Err(error) => Finding::problem(
                ID,
                format!("Firecracker cannot be started: {:#}", anyhow::Error::from(error)),
                "firebrick setup --firecracker-version 1.15.1 --force",
            ),
        }
    }

    fn vsock(&self) -> Finding {
        const ID: &str = "host.vsock";
        let device = self.vsock.display();
        let instead = "the agent is reached over a virtio-serial port instead";
        if !self.vsock.exists() {
            return Finding::warning(
                ID,
                format!("there is no {device}: {instead}"),
                "sudo modprobe vhost_vsock",
            );
        }
        match fs::File::options().read(true).write(true).open(&self.vsock) {
            Ok(_) => Finding::ok(ID, format!("{device} can be opened")),
            Err(error) => Finding::warning(
                ID,
                format!("{device} cannot be opened ({error}): {instead}"),
                format!("sudo setfacl -m u:{}:rw {device}", self.user),
            ),
        }
    }

    fn memory(&self) -> Finding {
        const ID: &str = "host.memory";
        let info = fs::read_to_string(&self.meminfo).unwrap_or_default();
        let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        let kib: Option<u64> = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
        match kib.map(|kib| kib.saturating_mul(1024)) {
            Some(free) if free < MEMORY_LOW => Finding::warning(
                ID,
                format!(
                    "only {} of memory are free, and a VM has 512 MiB",
                    text::bytes(free)
                ),
                "firebrick run --mem 256 …",
            ),
            Some(free) => Finding::ok(ID, format!("{} of memory are free", text::bytes(free))),
            None => Finding::ok(ID, "the host does not tell its free memory"),
        }
    }

    fn disk(&self) -> Finding {
        // The folder may not be there yet: then it is its parent's disk.
        let there = self.state.ancestors().find(|folder| folder.is_dir());
        let free = there.and_then(|folder| rustix::fs::statvfs(folder).ok());
        let free = free.map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        self.disk_of(free)
    }

    fn disk_of(&self, free: u64) -> Finding {
        const ID: &str = "host.disk";
        let folder = self.state.display();
        let found = format!("{} are free for {folder}", text::bytes(free));
        let fix = format!("firebrick cache prune; df -h {folder}; or another disk: export FIREBRICK_HOME=…");
        match free {
            0..DISK_NONE => Finding::problem(ID, found, fix),
            DISK_NONE..DISK_LOW => Finding::warning(ID, found, fix),
            _ => Finding::ok(ID, found),
        }
    }

    /// Ranges of user and group ids, for what is run without root while an image is made.
    fn subids(&self) -> Finding {
        const ID: &str = "host.subids";
        if self.is_root {
            return Finding::ok(ID, "root needs no ranges of user ids");
        }
        let has = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().any(|line| {
                let mut fields = line.split(':');
                let of_user = fields.next() == Some(&self.user);
                let count = fields.nth(1).and_then(|count| count.trim().parse::<u64>().ok());
                of_user && count.is_some_and(|count| count >= 65_536)
            })
        };
        let missing: Vec<String> = [&self.subuid, &self.subgid]
            .into_iter()
            .filter(|path| !has(path))
            .map(|path| path.display().to_string())
            .collect();
        if missing.is_empty() {
            return Finding::ok(ID, format!("{} has ranges of user and group ids", self.user));
        }
        Finding::warning(
            ID,
            format!(
                "{} has no 65536 ids in {}: images cannot be made from packages or with scripts",
                self.user,
                missing.join(" and ")
            ),
            format!(
                "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
                self.user
            ),
        )
    }

    fn uidmap(&self) -> Finding {
        const ID: &str = "host.uidmap";
        match find(&self.search_path, "newuidmap") {
            Some(path) => Finding::ok(ID, format!("newuidmap is {}", path.display())),
            None if self.is_root => Finding::ok(ID, "root needs no newuidmap"),
            None => Finding::warning(
                ID,
                "newuidmap is not installed: ranges of user ids cannot be used",
                "sudo apt-get install uidmap",
            ),
        }
    }
}

/// Whether `Firecracker v1.7.0` is too old; what has no number is not.
fn is_too_old(version: &str) -> bool {
    let numbers = version.trim_start_matches("Firecracker v").split(['.', '-']);
    let mut numbers = numbers.map_while(|number| number.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) < (1, 8))
}

/// An executable file in the folders of a `PATH`.
fn find(search_path: &OsStr, name: &str) -> Option<PathBuf> {
    let mut candidates = std::env::split_paths(search_path).map(|folder| folder.join(name));
    candidates.find(|path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Of the password file; the number where it is not there.
fn user_name() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(&uid)).then(|| name.to_owned())
    };
    passwd.lines().find_map(of_line).unwrap_or(uid)
}

#[cfg(test)]
mod tests;
