//! What every VMM offers, and what a machine is made of.
//!
//! There are no default method bodies: what a VMM cannot do is an error at launch, never a silent no-op.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// A port that something in the guest listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u32);

impl Port {
    /// The agent's JSON-RPC lines.
    pub const AGENT: Port = Port(firebrick_protocol::AGENT_PORT);
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A disk image that a machine sees as `/dev/vda`, `/dev/vdb` and so on, in the order of [`MachineSpec::drives`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// The image file.
    pub path: PathBuf,
    /// Several machines may share a drive that none of them writes.
    pub read_only: bool,
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
    /// Through `/dev/vhost-vsock`, where this host has it and we may use it; otherwise not at all.
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

/// Launches machines.
pub trait Vmm {
    /// Starts a machine. It runs when this returns, but its guest may need a while to listen.
    ///
    /// # Errors
    /// [`LaunchError`] if it cannot be started as specified.
    fn launch(&self, spec: &MachineSpec) -> Result<Box<dyn Machine>, LaunchError>;
}

/// A running microVM. Dropping it ends the process and waits until it is gone.
pub trait Machine: Send + Sync {
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

    /// Ends the machine at once, as pulling the plug would, and waits until its process is gone.
    fn kill(&self);

    /// The newest bytes that the guest's serial console has printed, at most some 64 KiB of them.
    fn console(&self) -> Vec<u8>;

    /// What the VMM itself has complained about.
    fn complaints(&self) -> String;

    /// The process id of the VMM.
    fn process_id(&self) -> u32;

    /// A stream that is the guest's serial console: what is read is what the guest prints from now on, what is written is
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
    /// There is no QEMU, or no vsock device.
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
    /// The host lacks something else.
    #[error("cannot {action}")]
    Host {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}
