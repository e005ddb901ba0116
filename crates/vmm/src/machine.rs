//! What every VMM offers, and what a machine is made of.
//!
//! There are no default method bodies: what a VMM cannot do is an error at launch, never a silent no-op.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firebrick_protocol::agent::ShutdownMode;

use crate::firecracker::ApiError;

/// A port that something in the guest listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u32);

impl Port {
    /// The agent's JSON-RPC lines.
    pub const AGENT: Port = Port(firebrick_protocol::AGENT_PORT);
    /// The agent's framed jobs.
    pub const JOBS: Port = Port(firebrick_protocol::JOB_PORT);
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A disk image that a machine sees as `/dev/vda`, `/dev/vdb` and so on, in the order of [`MachineSpec::drives`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// The image file; or a unix socket where somebody serves it over NBD, which QEMU reads from.
    pub path: PathBuf,
    /// Several machines may share a drive that none of them writes.
    pub read_only: bool,
}

impl Drive {
    /// Whether its path is a socket, where somebody serves it over NBD.
    pub fn is_served(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| found.file_type().is_socket())
    }
}

/// Opens what can be a disk: a file, or a device of blocks. Anything else is an error at once; a pipe would be waited for.
///
/// # Errors
/// What the host said, or what it is instead.
pub fn open_disk(path: &Path, writes: bool) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(writes)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    match kind.is_file() || kind.is_block_device() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is neither a file nor a disk",
        )),
    }
}

/// What network a machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// None.
    #[default]
    None,
    /// The VMM's own user-mode network: the guest is 10.0.2.15, reaches what the host reaches, and is not reached.
    User,
}

/// How the guest's vsock reaches the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Vsock {
    /// Not at all: the guest's kernel may not speak it.
    #[default]
    None,
    /// Through what the VMM has of its own: Firecracker's device; with QEMU `/dev/vhost-vsock`, where this host has it and we
    /// may use it, otherwise nothing.
    Host,
    /// Through a Unix socket of this name that speaks Firecracker's protocol: `CONNECT <port>\n` is answered with
    /// `OK <number>\n`, or with the connection's end.
    Socket(PathBuf),
}

/// What to launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineSpec {
    /// The kernel file.
    pub kernel: PathBuf,
    /// The initramfs, if any.
    pub initramfs: Option<Vec<u8>>,
    /// What is appended to the kernel command line after the VMM's own part.
    pub append: String,
    /// The disks.
    pub drives: Vec<Drive>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The number of virtual CPUs.
    pub vcpus: u32,
    /// The network.
    pub network: Network,
    /// The vsock.
    pub vsock: Vsock,
}

/// How a VMM's process ended. It says nothing about whether the guest did well: only the guest's word does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// What differs between VMMs for the guest, so that its initramfs and command line can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmFacts {
    /// How a guest ends its machine.
    pub exit: ShutdownMode,
    /// The kernel modules for the devices that each of its machines has, without those of disks.
    pub modules: &'static [&'static str],
    /// The vsock that its machines have unless they are given a socket of another name.
    pub vsock: Vsock,
    /// Whether the agent is reached by vsock alone.
    pub needs_vsock: bool,
    /// Whether its machines can be snapshotted and restored.
    pub snapshots: bool,
}

/// The state of a paused machine on disk, from which others are restored.
///
/// A restored machine has the drives of the first one under their old paths. Its guest has the clock and the random numbers of
/// the moment when it was paused until somebody sets them right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The state of the devices.
    pub state: PathBuf,
    /// The guest's memory. Restored machines map it, so it must stay as long as one of them runs.
    pub memory: PathBuf,
    /// The drives.
    pub drives: Vec<Drive>,
}

/// Launches machines.
pub trait Vmm: Send + Sync + fmt::Debug {
    /// Starts a machine. It runs when this returns, but its guest may need a while to listen.
    ///
    /// # Errors
    /// [`LaunchError`] if it cannot be started as specified.
    fn launch(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, LaunchError>;

    /// Starts a machine that goes on where the snapshot was made.
    ///
    /// # Errors
    /// [`LaunchError::Unsupported`] unless [`VmmFacts::snapshots`]; otherwise as [`Vmm::launch`].
    fn restore(&self, snapshot: &Snapshot) -> Result<Box<dyn Machine>, LaunchError>;

    /// What a guest must be made for.
    fn facts(&self) -> VmmFacts;
}

/// A running microVM. Dropping it ends the process and waits until it is gone.
pub trait Machine: Send + Sync + fmt::Debug {
    /// Connects to `port` in the guest, waiting up to `limit` until it listens there.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] if it does not; [`io::ErrorKind::ConnectionAborted`] if the machine has ended.
    fn dial(&self, port: Port, limit: Duration) -> io::Result<OwnedFd>;

    /// Waits up to `limit` for the machine to end by itself; `None` if it still runs.
    ///
    /// # Errors
    /// What the host said.
    fn wait(&self, limit: Duration) -> io::Result<Option<Exit>>;

    /// A listener that the guest reaches by dialling `port` of the host (CID 2). It is gone with the machine.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where no Unix socket carries the vsock.
    fn listen(&self, port: Port) -> io::Result<UnixListener>;

    /// Presses Ctrl-Alt-Del, which a guest takes as the wish that it end, if its kernel has a driver for the keyboard.
    ///
    /// # Errors
    /// [`ControlError`].
    fn press_ctrl_alt_del(&self) -> Result<(), ControlError>;

    /// Stops the guest's processors.
    ///
    /// # Errors
    /// [`ControlError`].
    fn pause(&self) -> Result<(), ControlError>;

    /// Lets them go on.
    ///
    /// # Errors
    /// [`ControlError`].
    fn resume(&self) -> Result<(), ControlError>;

    /// Writes the state of a paused machine into `folder`, in files named `state` and `memory`. The machine stays paused.
    ///
    /// # Errors
    /// [`ControlError`].
    fn snapshot(&self, folder: &Path) -> Result<Snapshot, ControlError>;

    /// Ends the machine at once, as pulling the plug would, and waits until its process is gone.
    fn kill(&self);

    /// The newest bytes that the guest's serial console has printed, at most some 64 KiB of them.
    fn console(&self) -> Vec<u8>;

    /// What the VMM itself has complained about.
    fn complaints(&self) -> String;

    /// The process id of the VMM.
    fn process_id(&self) -> u32;

    /// A socket that is the guest's serial console: what is read is what the guest prints from now on, what is written is
    /// typed. A second call takes the output away from the first.
    ///
    /// # Errors
    /// What the host said.
    fn attach_console(&self) -> io::Result<OwnedFd>;
}

/// Why a machine cannot be launched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// There is no such VMM, or no vsock device.
    #[error("{program} is not installed")]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// The command that installs it.
        install: &'static str,
    },
    /// The VMM cannot be started, or cannot tell its version.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is asked for cannot be had here.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The kernel or an image cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Whether another machine uses an image cannot be told.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The VMM ended before it had started the guest.
    #[error("{} ended before the guest started{}{said}", program.display(), if said.is_empty() { "" } else { ": " })]
    Ended {
        /// The program.
        program: PathBuf,
        /// How.
        exit: Exit,
        /// What it said last.
        said: String,
    },
    /// Firecracker does not do as it is told.
    #[error("cannot set the machine up")]
    Api(#[source] ApiError),
    /// The host lacks something else.
    #[error("cannot {action}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// Why a running machine does not do what is asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// This VMM cannot do it.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// Firecracker does not do as it is told.
    #[error("the machine does not obey")]
    Api(#[source] ApiError),
    /// The host does not let us.
    #[error("cannot {action}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl ControlError {
    /// What QEMU's machines answer to what they cannot do.
    pub(crate) fn of_qemu(what: &'static str) -> ControlError {
        ControlError::Unsupported {
            what,
            reason: "QEMU is not driven that far".to_owned(),
        }
    }
}

/// The longest command line of which a kernel forgets nothing, in bytes: `COMMAND_LINE_SIZE` of x86 and of 64-bit ARM, but for the
/// NUL at its end.
const COMMAND_LINE_LEN: usize = 2047;

/// Refuses a kernel command line that would be cut where the VMM adds so many bytes of its own.
pub(crate) fn check_command_line(line: &str, added: usize) -> Result<(), LaunchError> {
    let len = line.len().saturating_add(added);
    if len <= COMMAND_LINE_LEN {
        return Ok(());
    }
    Err(LaunchError::Unsupported {
        what: "so long a kernel command line",
        reason: format!("it would have {len} bytes, and a kernel reads {COMMAND_LINE_LEN}"),
    })
}

/// Why a machine cannot be dialled: it is gone.
pub(crate) fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the machine has ended")
}

/// Why a machine cannot be dialled: its time is up.
pub(crate) fn not_listening(port: Port) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("nothing in the guest listens on port {port}"),
    )
}
