//! Boots an image: kernel, initramfs, read-only root with a writable layer, and an agent that answers.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::client::{CallError, Client};
use crate::initramfs;
use crate::interrupts::Interrupts;
use crate::kernel::{Kernel, KernelError};
use crate::machine::{Drive, Exit, LaunchError, Machine, MachineSpec, Network, Port, Vmm};
use crate::qemu;

/// How long a single attempt to reach the agent may take before the machine is looked at again.
const ATTEMPT: Duration = Duration::from_millis(200);

/// What to boot.
#[derive(Clone, Debug)]
pub struct BootSpec<'a> {
    /// The root filesystem's image. It is never written.
    pub image: PathBuf,
    /// The image's filesystem as the kernel calls it: `ext4`, `squashfs`, `erofs`.
    pub filesystem: String,
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The guest binary's bytes.
    pub guest: &'a [u8],
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The number of virtual CPUs.
    pub vcpus: u32,
    /// The most that the guest may write, in MiB: its writable layer lives in its memory.
    pub overlay_mib: u32,
    /// The guest's host name.
    pub hostname: String,
    /// The network.
    pub network: Network,
    /// More for the kernel command line.
    pub append: String,
    /// How long the agent may take to answer.
    pub answer_limit: Duration,
}

impl<'a> BootSpec<'a> {
    /// Boots `image`, an ext4 filesystem, with usual sizes: 512 MiB of memory, one CPU, half the memory writable.
    pub fn new(image: impl Into<PathBuf>, kernel: &'a Kernel, guest: &'a [u8]) -> BootSpec<'a> {
        BootSpec {
            image: image.into(),
            filesystem: "ext4".to_owned(),
            kernel,
            guest,
            memory_mib: 512,
            vcpus: 1,
            overlay_mib: 256,
            hostname: "firebrick".to_owned(),
            network: Network::None,
            append: String::new(),
            answer_limit: Duration::from_secs(60),
        }
    }

    /// The guest's part of the kernel command line; `docs/boot.md` lists the words.
    fn command_line(&self, epoch_seconds: u64) -> String {
        let mut words = vec![
            "root=/dev/vda".to_owned(),
            format!("rootfstype={}", self.filesystem),
            "ro".to_owned(),
            "overlay_root=ram".to_owned(),
            format!("overlay_size={}M", self.overlay_mib),
            "firebrick.exit=poweroff".to_owned(),
            format!("firebrick.epoch={epoch_seconds}"),
            format!("firebrick.hostname={}", self.hostname),
        ];
        if self.network == Network::User {
            words.push(format!(
                "ip=10.0.2.15::10.0.2.2:255.255.255.0:{}:eth0:off:10.0.2.3",
                self.hostname
            ));
        }
        words.push(self.append.clone());
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }

    /// The kernel modules that this guest needs, without what they depend on.
    fn modules(&self, vsock: bool) -> Vec<&str> {
        let mut modules = vec![
            "virtio_mmio",
            "virtio_blk",
            "virtio_console",
            "virtio_rng",
            "overlay",
        ];
        modules.extend(self.filesystem.split(','));
        modules.extend((self.network == Network::User).then_some("virtio_net"));
        modules.extend(vsock.then_some("vmw_vsock_virtio_transport"));
        modules
    }

    /// What the VMM is told.
    fn machine(&self) -> Result<MachineSpec, BootError> {
        for (what, text) in [
            ("the host name", &self.hostname),
            ("the filesystem", &self.filesystem),
        ] {
            if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
                return Err(BootError::CommandLine {
                    what,
                    text: text.clone(),
                });
            }
        }
        let epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let vsock = self.kernel.has_vsock() && qemu::has_vsock();
        let modules = self.modules(vsock);
        let initramfs = initramfs::assemble_with(self.kernel, self.guest, &modules);
        Ok(MachineSpec {
            kernel: self.kernel.path(),
            initramfs: Some(initramfs.map_err(BootError::Initramfs)?),
            append: self.command_line(epoch),
            drives: vec![Drive {
                path: self.image.clone(),
                read_only: true,
            }],
            memory_mib: self.memory_mib,
            vcpus: self.vcpus,
            network: self.network,
            vsock,
        })
    }
}

/// A machine whose agent has answered.
pub struct Booted {
    machine: Box<dyn Machine>,
    /// The connection on which it answered.
    pub client: Client,
    /// From the start of the VMM to the agent's answer.
    pub took: Duration,
}

impl std::fmt::Debug for Booted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Booted")
            .field("took", &self.took)
            .finish_non_exhaustive()
    }
}

impl Booted {
    /// The machine.
    pub fn machine(&self) -> &dyn Machine {
        &*self.machine
    }

    /// One more connection to the agent.
    ///
    /// # Errors
    /// As [`Machine::dial`].
    pub fn connect(&self, limit: Duration) -> std::io::Result<Client> {
        Client::new(self.machine.dial(Port::AGENT, limit)?)
    }

    /// Gives up the parts.
    pub fn into_parts(self) -> (Box<dyn Machine>, Client) {
        (self.machine, self.client)
    }
}

/// Why a guest did not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// A part of the kernel cannot be read.
    #[error("cannot make the initramfs")]
    Initramfs(#[source] KernelError),
    /// The command line would be cut or misread.
    #[error("{what} {text:?} cannot stand on a kernel command line")]
    CommandLine {
        /// Which part.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The VMM does not start.
    #[error("cannot launch the machine")]
    Launch(#[source] LaunchError),
    /// No answer in time.
    #[error("the guest did not answer within {} s; {}", limit.as_secs_f32(), last_lines(console, complaints))]
    NoAnswer {
        /// How long it had.
        limit: Duration,
        /// The newest bytes of its console.
        console: Vec<u8>,
        /// What the VMM complained about.
        complaints: String,
    },
    /// The machine ended before it answered.
    #[error(
        "the machine ended before its agent answered; {}",
        last_lines(console, complaints)
    )]
    Ended {
        /// How the VMM ended.
        exit: Option<Exit>,
        /// The newest bytes of its console.
        console: Vec<u8>,
        /// What the VMM complained about.
        complaints: String,
    },
    /// A signal came before the guest was up.
    #[error("interrupted by signal {signal}")]
    Interrupted {
        /// Its number.
        signal: i32,
    },
    /// What answers is no agent that we know.
    #[error("what answered is not firebrick's agent")]
    Agent(#[source] CallError),
}

/// What a person needs to see: the last lines of both, made safe for a terminal.
fn last_lines(console: &[u8], complaints: &str) -> String {
    let tail = |text: &str, count: usize| {
        let clean: String = text
            .chars()
            .filter(|c| *c == '\n' || *c == '\t' || !c.is_control())
            .collect();
        let lines: Vec<&str> = clean
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        lines[lines.len().saturating_sub(count)..]
            .iter()
            .map(|line| format!("\n  {line}"))
            .collect::<String>()
    };
    let (console, complaints) = (tail(&String::from_utf8_lossy(console), 12), tail(complaints, 4));
    match (console.is_empty(), complaints.is_empty()) {
        (true, true) => "its console is empty".to_owned(),
        (false, true) => format!("last lines of its console:{console}"),
        (true, false) => format!("its console is empty; QEMU says:{complaints}"),
        (false, false) => format!("last lines of its console:{console}\nQEMU says:{complaints}"),
    }
}

/// Boots an image and waits for its agent.
///
/// With `interrupts`, a signal ends the wait and the machine.
///
/// # Errors
/// [`BootError`]; the machine is gone then.
pub fn boot(
    vmm: &dyn Vmm,
    spec: &BootSpec<'_>,
    interrupts: Option<&Interrupts>,
) -> Result<Booted, BootError> {
    let machine_spec = spec.machine()?;
    let started = Instant::now();
    let machine = vmm.launch(&machine_spec).map_err(BootError::Launch)?;
    let deadline = started + spec.answer_limit;
    loop {
        if let Some(signal) = interrupts.and_then(Interrupts::take) {
            return Err(BootError::Interrupted { signal });
        }
        match attempt(&*machine, deadline)? {
            Some(client) => {
                return Ok(Booted {
                    machine,
                    client,
                    took: started.elapsed(),
                });
            }
            None if machine.wait(Duration::ZERO).is_ok_and(|exit| exit.is_some()) => {
                let exit = machine.wait(Duration::ZERO).ok().flatten();
                // The last words are still on their way through the collecting threads.
                std::thread::sleep(Duration::from_millis(50));
                let (console, complaints) = (machine.console(), machine.complaints());
                return Err(BootError::Ended {
                    exit,
                    console,
                    complaints,
                });
            }
            None if Instant::now() >= deadline => {
                let (console, complaints) = (machine.console(), machine.complaints());
                return Err(BootError::NoAnswer {
                    limit: spec.answer_limit,
                    console,
                    complaints,
                });
            }
            None => {}
        }
    }
}

/// Tries to reach the agent for a moment. Only its answer counts: that a stream opens is no sign of readiness.
fn attempt(machine: &dyn Machine, deadline: Instant) -> Result<Option<Client>, BootError> {
    let Ok(stream) = machine.dial(Port::AGENT, ATTEMPT) else {
        // When the machine has ended every dial fails at once, perhaps before its process is reaped.
        let _ = machine.wait(Duration::from_millis(5));
        return Ok(None);
    };
    let Ok(mut client) = Client::new(stream) else {
        return Ok(None);
    };
    let left = deadline
        .saturating_duration_since(Instant::now())
        .min(Duration::from_secs(10));
    match client.ping(left) {
        Ok(()) => Ok(Some(client)),
        Err(CallError::TimedOut { .. } | CallError::Closed | CallError::Channel(_)) => Ok(None),
        Err(error) => Err(BootError::Agent(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_made_safe_to_print() {
        let text = last_lines(b"one\x1b[31m\r\n\ntwo\x07\n", "");
        assert_eq!(text, "last lines of its console:\n  one[31m\n  two");
        assert_eq!(last_lines(b"", ""), "its console is empty");
        assert_eq!(
            last_lines(b"\n", "qemu: no"),
            "its console is empty; QEMU says:\n  qemu: no"
        );
        let many: String = (0..50).map(|n| format!("line {n}\n")).collect();
        let text = last_lines(many.as_bytes(), "");
        assert!(
            text.contains("line 49") && text.contains("line 38") && !text.contains("line 37"),
            "{text}"
        );
    }
}
