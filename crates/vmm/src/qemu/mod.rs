//! QEMU's `microvm` machine (`virt` for ARM), with KVM where that really runs a stock kernel, and software emulation (TCG) elsewhere.
//!
//! - A *program* ([`Program`]) is one QEMU found on the host.
//! - The *facts* of a host ([`probe`]) are found out once and kept: whether KVM works, and the rate of the clock.
//! - [`Qemu`] is the two together and launches machines.

mod command;
mod console;
pub mod probe;
mod process;
#[cfg(target_arch = "x86_64")]
mod tsc;
mod vsock;
mod vsock_device;
mod wire;

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::arch::Arch;
use crate::machine::{Exit, LaunchError, Machine, MachineSpec, Port, Vmm, Vsock};
use command::Channels;
use console::Tail;
use process::Process;
use vsock_device::VsockDevice;
use wire::Wire;

/// The program for guests of a processor, and how Debian installs it.
fn program_for(arch: Arch) -> (&'static str, &'static str) {
    match arch {
        Arch::X86_64 => ("qemu-system-x86_64", "sudo apt-get install qemu-system-x86"),
        Arch::Aarch64 => ("qemu-system-aarch64", "sudo apt-get install qemu-system-arm"),
    }
}

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
        let folders = search_path
            .as_bytes()
            .split(|&byte| byte == b':')
            .filter(|folder| !folder.is_empty());
        let candidates = folders.map(|folder| Path::new(OsStr::from_bytes(folder)).join(program));
        let executable =
            |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
        match candidates.into_iter().find(executable) {
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
        for path in spec.drives.iter().map(|drive| &drive.path).chain([&spec.kernel]) {
            std::fs::File::open(path).map_err(|source| LaunchError::Open {
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
        let (process, stderr) = Process::start(command, kept).map_err(|source| LaunchError::Start {
            program: self.program.path.clone(),
            source,
        })?;
        let typed = console.try_clone().map_err(host("copy a descriptor"))?;
        Ok(QemuMachine {
            process,
            console: Tail::of(console, "console").map_err(host("start a thread"))?,
            typed,
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
}

/// Why a machine cannot be dialled: it is gone.
fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the machine has ended")
}

/// Why a machine cannot be dialled: its time is up.
fn not_listening(port: Port) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("nothing in the guest listens on port {port}"),
    )
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
    console: Tail,
    typed: OwnedFd,
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

impl QemuMachine {
    /// The processor time that the process has used; `None` once it is gone.
    fn cpu_time(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).ok()?;
        // The command's name, in parentheses, may hold anything. `utime` and `stime` are fields 14 and 15, of `proc(5)`.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks = fields
            .next()?
            .parse::<u64>()
            .ok()?
            .checked_add(fields.next()?.parse().ok()?)?;
        Some(Duration::from_millis(
            ticks.checked_mul(1000)? / rustix::param::clock_ticks_per_second(),
        ))
    }
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

    fn kill(&self) {
        self.process.kill();
    }

    fn console(&self) -> Vec<u8> {
        self.console.bytes()
    }

    fn complaints(&self) -> String {
        String::from_utf8_lossy(&self.complaints.bytes()).into_owned()
    }

    fn process_id(&self) -> u32 {
        self.process.id()
    }

    fn attach_console(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let mut typed = std::fs::File::from(self.typed.try_clone()?);
        let mut from_user = ours.try_clone()?;
        self.console.copy_to(ours)?;
        // `copy_to` makes the stream non-blocking, on all its descriptors.
        std::thread::Builder::new().name("typing".into()).spawn(move || {
            let mut buffer = [0; 256];
            while let Some(count) = read_when_ready(&mut from_user, &mut buffer) {
                if io::Write::write_all(&mut typed, &buffer[..count]).is_err() {
                    break;
                }
            }
        })?;
        Ok(theirs.into())
    }
}

/// Waits for bytes; `None` at the end.
fn read_when_ready(stream: &mut std::os::unix::net::UnixStream, buffer: &mut [u8]) -> Option<usize> {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        match io::Read::read(stream, buffer) {
            Ok(0) => return None,
            Ok(count) => return Some(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(stream, PollFlags::IN)], None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}
