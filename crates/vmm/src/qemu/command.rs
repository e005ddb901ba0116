//! The command line, option by option. `docs/boot.md` has the measurements behind it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use serde_json::json;

use super::{Accelerator, Program};
use crate::arch::Arch;
use crate::machine::{Drive, LaunchError, MachineSpec, Network, check_command_line};

/// Descriptors that QEMU inherits, and the guest's vsock.
pub(super) struct Channels<'a> {
    pub(super) agent: &'a OwnedFd,
    pub(super) console: &'a OwnedFd,
    pub(super) initramfs: Option<&'a OwnedFd>,
    pub(super) vsock: Option<VsockDevice<'a>>,
}

/// What the guest's vsock is made of.
pub(super) enum VsockDevice<'a> {
    /// The host kernel's, with this address.
    Kernel(u32),
    /// Another process, which is told over this connection.
    VhostUser(&'a OwnedFd),
}

/// The part of the kernel's command line that belongs to this VMM.
///
/// `reboot=t` and `-no-reboot` make a guest's reboot the end of QEMU; `panic=-1` does the same for a panic. The kernel's
/// self-tests of its ciphers take a fifth of an emulated boot.
///
/// ARM's `virt` machine has another serial port, and resets through its firmware interface (PSCI), which needs no word.
pub(super) fn kernel_command_line(arch: Arch, accelerator: Accelerator, tsc_khz: Option<u64>) -> String {
    if arch == Arch::Aarch64 {
        return "console=ttyAMA0 quiet panic=-1 cryptomgr.notests".to_owned();
    }
    let mut line = String::from("console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests");
    if let (Accelerator::Tcg, Some(khz)) = (accelerator, tsc_khz) {
        line.push_str(&format!(" tsc_early_khz={khz} tsc=reliable"));
    }
    line
}

pub(super) fn command(
    program: &Program,
    accelerator: Accelerator,
    tsc_khz: Option<u64>,
    spec: &MachineSpec,
    channels: &Channels<'_>,
) -> Result<Command, LaunchError> {
    let mut command = machine(program, accelerator);
    command.args([
        "-smp",
        &spec.vcpus.max(1).to_string(),
        "-m",
        &spec.memory_mib.to_string(),
    ]);
    if let Some(VsockDevice::VhostUser(_)) = channels.vsock {
        // The device reads and writes the guest's memory itself.
        let memory = format!(
            "memory-backend-memfd,id=memory,size={}M,share=on",
            spec.memory_mib
        );
        command.args(["-object", &memory, "-machine", "memory-backend=memory"]);
    }
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-global", "virtio-mmio.force-legacy=false"]);
    command.arg("-kernel").arg(&spec.kernel);
    if let Some(initramfs) = channels.initramfs {
        command.args(["-initrd", &format!("/proc/self/fd/{}", initramfs.as_raw_fd())]);
    }
    let line = [
        &*kernel_command_line(program.arch(), accelerator, tsc_khz),
        &spec.append,
    ]
    .join(" ");
    check_command_line(line.trim(), 0)?;
    command.args(["-append", line.trim()]);
    channel_devices(&mut command, channels);
    command.args([
        "-object",
        "rng-builtin,id=rng",
        "-device",
        "virtio-rng-device,rng=rng",
    ]);
    let mut drives: Vec<_> = spec.drives.iter().enumerate().collect();
    if program.arch() == Arch::Aarch64 {
        // `virt` fills its slots from the top, and the kernel looks from the bottom: the last device here is its first.
        drives.reverse();
    }
    for (index, drive) in drives {
        let node = format!("drive{index}");
        command.args(["-blockdev", &blockdev(&node, drive)?]);
        command.args([
            "-device",
            &format!("virtio-blk-device,drive={node},serial={node}"),
        ]);
    }
    if spec.network == Network::User {
        command.args([
            "-netdev",
            "user,id=net,ipv6=off",
            "-device",
            "virtio-net-device,netdev=net",
        ]);
    }
    Ok(command)
}

/// The machine and its processor.
fn machine(program: &Program, accelerator: Accelerator) -> Command {
    let mut command = Command::new(program.path());
    command.args([
        "-M",
        match program.arch() {
            // With the PIC or the PIT present, a tick can arrive before the kernel expects one, and it panics unseen.
            Arch::X86_64 => "microvm,acpi=on,pic=off,pit=off",
            Arch::Aarch64 => "virt,gic-version=max",
        },
    ]);
    match (accelerator, program.arch()) {
        (Accelerator::Kvm, _) => command.args(["-accel", "kvm", "-cpu", "host"]),
        (Accelerator::Tcg, Arch::X86_64) => command.args(["-accel", "tcg", "-cpu", "max"]),
        // Signed pointers as the processor would make them take half of an emulated boot.
        (Accelerator::Tcg, Arch::Aarch64) => command.args(["-accel", "tcg", "-cpu", "max,pauth-impdef=on"]),
    };
    command
}

/// The console, the agent's virtio-serial port, and vsock where there is one.
fn channel_devices(command: &mut Command, channels: &Channels<'_>) {
    let chardev = |name: &str, fd: &OwnedFd| format!("socket,id={name},fd={}", fd.as_raw_fd());
    command.args([
        "-chardev",
        &chardev("console", channels.console),
        "-serial",
        "chardev:console",
    ]);
    command.args([
        "-device",
        "virtio-serial-device",
        "-chardev",
        &chardev("agent", channels.agent),
    ]);
    let port = format!(
        "virtserialport,chardev=agent,name={}",
        firebrick_protocol::SERIAL_PORT_NAME
    );
    command.args(["-device", &port]);
    match &channels.vsock {
        None => {}
        Some(VsockDevice::Kernel(cid)) => {
            command.args(["-device", &format!("vhost-vsock-device,guest-cid={cid}")]);
        }
        Some(VsockDevice::VhostUser(fd)) => {
            command.args(["-chardev", &chardev("vsock", fd)]);
            command.args(["-device", "vhost-user-vsock-device,chardev=vsock"]);
        }
    }
}

/// A drive in JSON, where a path is a path whatever characters it has.
fn blockdev(node: &str, drive: &Drive) -> Result<String, LaunchError> {
    let absolute = std::path::absolute(&drive.path).map_err(|source| LaunchError::Open {
        path: drive.path.clone(),
        source,
    })?;
    let Some(path) = absolute.to_str() else {
        let reason = format!(
            "{} is not UTF-8, and QEMU takes no other names",
            drive.path.display()
        );
        return Err(LaunchError::Unsupported {
            what: "the path of a drive",
            reason,
        });
    };
    let read_only = drive.read_only;
    let file = match drive.is_served() {
        true => {
            json!({ "driver": "nbd", "server": { "type": "unix", "path": path }, "read-only": read_only })
        }
        // `locking=on`: a machine that may write holds the image alone, those that only read share it.
        false => json!({ "driver": "file", "filename": path, "read-only": read_only, "locking": "on" }),
    };
    let node = json!({
        "driver": "raw", "node-name": node, "read-only": read_only, "auto-read-only": false, "file": file,
    });
    Ok(node.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(accelerator: Accelerator, spec: &MachineSpec, guest_cid: Option<u32>) -> Vec<String> {
        line_for(Arch::X86_64, accelerator, spec, guest_cid)
    }

    fn line_for(
        arch: Arch,
        accelerator: Accelerator,
        spec: &MachineSpec,
        guest_cid: Option<u32>,
    ) -> Vec<String> {
        let (a, b) = super::super::pair().unwrap();
        let channels = Channels {
            agent: &a,
            console: &b,
            initramfs: None,
            vsock: guest_cid.map(VsockDevice::Kernel),
        };
        let program = Program {
            path: "qemu".into(),
            arch,
        };
        let command = command(&program, accelerator, Some(2_400_000), spec, &channels).unwrap();
        command
            .get_args()
            .map(|arg| arg.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn emulation_is_told_the_clock_and_kvm_is_not() {
        let spec = MachineSpec::default();
        assert!(
            line(Accelerator::Tcg, &spec, None)
                .join(" ")
                .contains("tsc_early_khz=2400000 tsc=reliable")
        );
        assert!(!line(Accelerator::Kvm, &spec, None).join(" ").contains("tsc"));
    }

    #[test]
    fn arm_has_its_own_machine_and_console() {
        let line = line_for(Arch::Aarch64, Accelerator::Tcg, &MachineSpec::default(), None).join(" ");
        for part in ["-M virt", "console=ttyAMA0", "virtio-serial-device"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(
            !line.contains("microvm") && !line.contains("tsc") && !line.contains("reboot=t"),
            "{line}"
        );
    }

    #[test]
    fn a_command_line_that_would_be_cut_is_refused() {
        let (a, b) = super::super::pair().unwrap();
        let command = |append: usize| {
            let channels = Channels {
                agent: &a,
                console: &b,
                initramfs: None,
                vsock: None,
            };
            let program = Program {
                path: "qemu".into(),
                arch: Arch::X86_64,
            };
            let spec = MachineSpec {
                append: "a".repeat(append),
                ..MachineSpec::default()
            };
            command(&program, Accelerator::Kvm, None, &spec, &channels)
        };
        let own = kernel_command_line(Arch::X86_64, Accelerator::Kvm, None).len() + 1;
        assert!(command(2047 - own).is_ok());
        let error = command(2048 - own).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("it would have 2048 bytes, and a kernel reads 2047"),
            "{error}"
        );
    }

    #[test]
    fn odd_paths_stay_one_path() {
        let drive = Drive {
            path: "/a b/x,\"y\",file=z:raw".into(),
            read_only: true,
        };
        let spec = MachineSpec {
            drives: vec![drive],
            ..MachineSpec::default()
        };
        let args = line(Accelerator::Tcg, &spec, None);
        let at = args.iter().position(|arg| arg == "-blockdev").unwrap();
        let json: serde_json::Value = serde_json::from_str(&args[at + 1]).unwrap();
        assert_eq!(json["file"]["filename"], "/a b/x,\"y\",file=z:raw");
        assert_eq!(json["read-only"], true);
        assert_eq!(json["file"]["read-only"], true);
    }

    #[test]
    fn network_and_vsock_are_there_only_when_asked_for() {
        let plain = line(Accelerator::Tcg, &MachineSpec::default(), None).join(" ");
        assert!(!plain.contains("netdev") && !plain.contains("vsock"), "{plain}");
        let spec = MachineSpec {
            network: Network::User,
            ..MachineSpec::default()
        };
        let with = line(Accelerator::Tcg, &spec, Some(77)).join(" ");
        assert!(
            with.contains("virtio-net-device") && with.contains("vhost-vsock-device,guest-cid=77"),
            "{with}"
        );
    }
}
