//! What to boot, and the machine that follows from it: kernel, initramfs, read-only root with a writable layer.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use firebrick_protocol::agent::ShutdownMode;

use crate::boot::BootError;
use crate::initramfs;
use crate::kernel::Kernel;
use crate::machine::{Drive, MachineSpec, Network, VmmFacts, Vsock};

/// What to boot.
#[derive(Clone, Debug)]
pub struct BootSpec<'a> {
    /// The root filesystem's image. It is never written.
    pub image: PathBuf,
    /// More disks, from `/dev/vdb` on.
    pub drives: Vec<Drive>,
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
    /// Where the guest's vsock is to be reached as Firecracker's would be; needs `vhost-device-vsock`.
    pub vsock_socket: Option<PathBuf>,
    /// The program in the image that becomes PID 1, instead of the guest.
    pub init: Option<String>,
    /// Whether the guest gets every kernel module that was set up, and not only those for the devices that it has.
    pub all_modules: bool,
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
            drives: Vec::new(),
            filesystem: "ext4".to_owned(),
            kernel,
            guest,
            memory_mib: 512,
            vcpus: 1,
            overlay_mib: 256,
            hostname: "firebrick".to_owned(),
            network: Network::None,
            vsock_socket: None,
            init: None,
            all_modules: false,
            append: String::new(),
            answer_limit: Duration::from_secs(60),
        }
    }

    /// The guest's part of the kernel command line; `docs/boot.md` lists the words.
    fn command_line(&self, epoch_seconds: Option<u64>, exit: ShutdownMode) -> String {
        let exit = match exit {
            ShutdownMode::Poweroff => "poweroff",
            ShutdownMode::Reboot => "reboot",
        };
        let mut words = vec![
            "root=/dev/vda".to_owned(),
            format!("rootfstype={}", self.filesystem),
            "ro".to_owned(),
            "overlay_root=ram".to_owned(),
            format!("overlay_size={}M", self.overlay_mib),
            format!("firebrick.exit={exit}"),
        ];
        words.extend(epoch_seconds.map(|seconds| format!("firebrick.epoch={seconds}")));
        words.push(format!("firebrick.hostname={}", self.hostname));
        if self.network == Network::User {
            words.push(format!(
                "ip=10.0.2.15::10.0.2.2:255.255.255.0:{}:eth0:off:10.0.2.3",
                self.hostname
            ));
        }
        words.extend(self.init.iter().map(|path| format!("init={path}")));
        words.push(self.append.clone());
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }

    /// The kernel modules that this guest needs, without what they depend on.
    fn modules(&self, vsock: bool, facts: &VmmFacts) -> Vec<&str> {
        let mut modules = facts.modules.to_vec();
        modules.extend(["virtio_blk", "overlay"]);
        modules.extend(self.filesystem.split(','));
        modules.extend((self.network == Network::User).then_some("virtio_net"));
        modules.extend(vsock.then_some("vmw_vsock_virtio_transport"));
        modules
    }

    /// What a VMM of these `facts` is told: the whole machine, its kernel command line with the time of now.
    ///
    /// # Errors
    /// [`BootError::CommandLine`] if a text cannot stand there, [`BootError::Initramfs`] if a module cannot be read.
    pub fn machine(&self, facts: &VmmFacts) -> Result<MachineSpec, BootError> {
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.machine_at(facts, Some(since_1970.as_secs()))
    }

    /// The same for a machine that starts at another time, with the clock that its host gives it.
    ///
    /// # Errors
    /// As [`BootSpec::machine`].
    pub fn machine_for_later(&self, facts: &VmmFacts) -> Result<MachineSpec, BootError> {
        self.machine_at(facts, None)
    }

    fn machine_at(&self, facts: &VmmFacts, epoch: Option<u64>) -> Result<MachineSpec, BootError> {
        let words = [
            ("the host name", Some(&self.hostname)),
            ("the filesystem", Some(&self.filesystem)),
            ("the path of init", self.init.as_ref()),
        ];
        for (what, text) in words.into_iter().filter_map(|(what, text)| Some((what, text?))) {
            if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
                return Err(BootError::CommandLine {
                    what,
                    text: text.clone(),
                });
            }
        }
        if self.append.contains(char::is_control) {
            return Err(BootError::CommandLine {
                what: "what is appended,",
                text: self.append.clone(),
            });
        }
        let vsock = match &self.vsock_socket {
            Some(socket) => Vsock::Socket(socket.clone()),
            None if facts.needs_vsock || self.kernel.has_vsock() => facts.vsock.clone(),
            None => Vsock::None,
        };
        // A kernel without modules may have it built in, or lack it; it does not tell.
        let vsock_module = vsock != Vsock::None && self.kernel.has_vsock();
        let initramfs = match self.all_modules {
            true => initramfs::assemble(self.kernel, self.guest),
            false => initramfs::assemble_with(self.kernel, self.guest, &self.modules(vsock_module, facts)),
        };
        let image = Drive {
            path: self.image.clone(),
            read_only: true,
        };
        Ok(MachineSpec {
            kernel: self.kernel.path(),
            initramfs: Some(initramfs.map_err(BootError::Initramfs)?),
            append: self.command_line(epoch, facts.exit),
            drives: [image].into_iter().chain(self.drives.iter().cloned()).collect(),
            memory_mib: self.memory_mib,
            vcpus: self.vcpus,
            network: self.network,
            vsock,
        })
    }
}
