//! QEMU's `microvm` machine (`virt` for ARM), with KVM where that really runs a stock kernel, and software emulation (TCG) elsewhere.
//!
//! - A *program* ([`Program`]) is one QEMU found on the host.
//! - The *facts* of a host ([`probe`]) are found out once and kept: whether KVM works, and the rate of the clock.
//! - [`Qemu`] is the two together and launches machines.

mod command;
pub mod probe;
#[cfg(target_arch = "x86_64")]
mod tsc;
mod vsock;
mod vsock_device;
mod wire;

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use firebrick_protocol::agent::ShutdownMode;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::arch::Arch;
use crate::console::{Console, Tail};
use crate::machine::{
    ControlError, Exit, LaunchError, Machine, MachineSpec, Port, Snapshot, Vmm, VmmFacts, Vsock, open_disk,
};
use crate::process::Process;
use crate::program;
use command::Channels;
use vsock_device::VsockDevice;
use wire::Wire;

/// The program for guests of a processor, and how Debian installs it.
fn program_for(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::X86_64 => ("qemu-system-x86_64", INSTALL),
        Arch::Aarch64 => ("qemu-system-aarch64", "sudo apt-get install qemu-system-arm"),
    }
}

/// The command that installs the one for this host's processor.
pub const INSTALL: &str = "sudo apt-get install qemu-system-x86";

/// Whether this host carries vsock to guests, and we may use it.
pub fn has_vsock() -> bool {
    vsock::available().is_some()
}

/// A QEMU on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    arch: Arch,
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// QEMU's software emulation.
    Tcg,
}

impl Program {
    /// Finds the QEMU for guests of this host's processor in the folders of `search_path`, which is written as `PATH` is.
    ///
    /// # Errors
    /// [`LaunchError::NotInstalled`] names the command that installs it.
    pub fn find(search_path: &OsStr) -> Result<Program, LaunchError> {
        Program::find_for(Arch::HOST, search_path)
    }

    /// As [`Program::find`], for guests of processor `arch`.
    ///
    /// # Errors
    /// As [`Program::find`].
    pub fn find_for(arch: Arch, search_path: &OsStr) -> Result<Program, LaunchError> {
        let (program, install) = program_for(arch);
        match program::find(search_path, program) {
            Some(path) => Ok(Program { path, arch }),
            None => Err(LaunchError::NotInstalled { program, install }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The processor of its guests.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Its version, as it says it itself: `7.2.22`.
    ///
    /// # Errors
    /// [`LaunchError::Start`] if it does not start or says none.
    pub fn version(&self) -> Result<String, LaunchError> {
        let start = |source| LaunchError::Start {
            program: self.path.clone(),
            source,
        };
        let output = Command::new(&self.path)
            .arg("--version")
            .output()
            .map_err(start)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut words = text
            .split_whitespace()
            .skip_while(|&word| word != "version")
            .skip(1);
        let none = || start(io::Error::other("it does not tell its version"));
        words.next().map(str::to_owned).ok_or_else(none)
    }
}

/// Launches machines with one program and one accelerator.
#[derive(Clone, Debug)]
pub struct Qemu {
    program: Program,
    accelerator: Accelerator,
    tsc_khz: Option<u64>,
}

impl Qemu {
    /// A launcher that uses `program` with `accelerator`; measures the host's clock where that is needed.
    pub fn new(program: Program, accelerator: Accelerator) -> Qemu {
        Qemu::with_clock(program, accelerator, None)
    }

    fn with_clock(program: Program, accelerator: Accelerator, known_khz: Option<u64>) -> Qemu {
        let tsc_khz = match program.arch {
            #[cfg(target_arch = "x86_64")]
            Arch::X86_64 => Some(known_khz.unwrap_or_else(tsc::measure_khz)),
            _ => known_khz,
        };
        Qemu {
            program,
            accelerator,
            tsc_khz,
        }
    }

    /// What runs the guest's instructions.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    fn start(&self, spec: &MachineSpec) -> Result<QemuMachine, LaunchError> {
        if cfg!(not(target_arch = "x86_64")) {
            let reason = "only x86_64 hosts are known to boot".to_owned();
            return Err(LaunchError::Unsupported {
                what: "this host's architecture",
                reason,
            });
        }
        let host = |action| move |source: io::Error| LaunchError::Host { action, source };
        // QEMU opens these by name later, and its complaint would arrive as an ended machine.
        let files = spec.drives.iter().filter(|drive| !drive.is_served());
        for path in files.map(|drive| &drive.path).chain([&spec.kernel]) {
            open_disk(path, false).map_err(|source| LaunchError::Open {
                path: path.clone(),
                source,
            })?;
        }
        let (agent, agent_theirs) = pair().map_err(host("make a socket pair"))?;
        let (console, console_theirs) = pair().map_err(host("make a socket pair"))?;
        let initramfs = spec
            .initramfs
            .as_deref()
            .map(unnamed_file)
            .transpose()
            .map_err(host("keep the initramfs in memory"))?;
        let (carrier, device_control) = match &spec.vsock {
            Vsock::None => (Carrier::Wire, None),
            Vsock::Host => (vsock::available().map_or(Carrier::Wire, Carrier::Vsock), None),
            Vsock::Socket(path) => {
                let (device, control) = VsockDevice::start(path)?;
                (Carrier::Device(device), Some(control))
            }
        };
        let channels = Channels {
            agent: &agent_theirs,
            console: &console_theirs,
            initramfs: initramfs.as_ref(),
            vsock: match (&carrier, &device_control) {
                (Carrier::Vsock(cid), _) => Some(command::VsockDevice::Kernel(*cid)),
                (_, Some(control)) => Some(command::VsockDevice::VhostUser(control)),
                _ => None,
            },
        };
        let command = command::command(&self.program, self.accelerator, self.tsc_khz, spec, &channels)?;
        let kept = [agent_theirs, console_theirs]
            .into_iter()
            .chain(initramfs)
            .chain(device_control)
            .collect();
        let (process, stderr) = Process::start(command, kept, None).map_err(|source| LaunchError::Start {
            program: self.program.path.clone(),
            source,
        })?;
        let typed = console.try_clone().map_err(host("copy a descriptor"))?;
        Ok(QemuMachine {
            process,
            console: Console::of(console, typed).map_err(host("start a thread"))?,
            complaints: Tail::of(stderr, "complaints").map_err(host("start a thread"))?,
            wire: Wire::start(agent).map_err(host("start a thread"))?,
            carrier,
        })
    }
}

impl Vmm for Qemu {
    fn launch(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, LaunchError> {
        Ok(Box::new(self.start(spec)?))
    }

    fn restore(&self, _snapshot: &Snapshot) -> Result<Box<dyn Machine>, LaunchError> {
        Err(LaunchError::Unsupported {
            what: "a snapshot",
            reason: "QEMU is not driven that far".to_owned(),
        })
    }

    fn facts(&self) -> VmmFacts {
        facts()
    }
}

/// What QEMU's guests are made for on this host.
pub fn facts() -> VmmFacts {
    VmmFacts {
        exit: ShutdownMode::Poweroff,
        modules: &["virtio_mmio", "virtio_console", "virtio_rng"],
        vsock: if has_vsock() { Vsock::Host } else { Vsock::None },
        needs_vsock: false,
        snapshots: false,
    }
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A file in memory: QEMU reads it through its descriptor, and it is gone when the last one is closed.
fn unnamed_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::Write as _;
    let fd = rustix::fs::memfd_create("firebrick-initramfs", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// A machine that QEMU runs. Its fields are dropped in this order: first the process ends.
#[derive(Debug)]
struct QemuMachine {
    process: Process,
    console: Console,
    complaints: Tail,
    wire: Wire,
    carrier: Carrier,
}

/// What carries the streams that are dialled.
#[derive(Debug)]
enum Carrier {
    /// The mux on the virtio-serial port.
    Wire,
    /// The host's vsock; the guest has this address.
    Vsock(u32),
    /// A vsock device in a process of its own, behind a Unix socket.
    Device(VsockDevice),
}

impl Machine for QemuMachine {
    fn dial(&self, port: Port, limit: Duration) -> io::Result<OwnedFd> {
        let has_ended = || self.process.exit().is_some();
        match &self.carrier {
            Carrier::Wire => self.wire.dial(port, limit),
            Carrier::Vsock(cid) => vsock::dial(*cid, port, limit, &has_ended),
            Carrier::Device(device) => {
                // A device that is dialled before its guest listens can hang for good (`docs/boot.md`), so the guest's word
                // that it is up comes first.
                let started = std::time::Instant::now();
                self.wire.wait_for_guest(limit)?;
                device.dial(port, limit.saturating_sub(started.elapsed()), &has_ended)
            }
        }
    }

    fn wait(&self, limit: Duration) -> io::Result<Option<Exit>> {
        Ok(self.process.wait(limit))
    }

    fn listen(&self, port: Port) -> io::Result<UnixListener> {
        match &self.carrier {
            Carrier::Device(device) => device.listen(port),
            Carrier::Wire | Carrier::Vsock(_) => {
                let text = "without a vsock socket the guest cannot dial the host";
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
        }
    }

    fn press_ctrl_alt_del(&self) -> Result<(), ControlError> {
        Err(ControlError::of_qemu("a keyboard"))
    }

    fn pause(&self) -> Result<(), ControlError> {
        Err(ControlError::of_qemu("a pause"))
    }

    fn resume(&self) -> Result<(), ControlError> {
        Err(ControlError::of_qemu("a pause"))
    }

    fn snapshot(&self, _folder: &Path) -> Result<Snapshot, ControlError> {
        Err(ControlError::of_qemu("a snapshot"))
    }

    fn kill(&self) {
        self.process.kill();
    }

    fn console(&self) -> Vec<u8> {
        self.console.printed().bytes()
    }

    fn complaints(&self) -> String {
        String::from_utf8_lossy(&self.complaints.bytes()).into_owned()
    }

    fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn attach_console(&self) -> io::Result<OwnedFd> {
        self.console.attach()
    }
}
