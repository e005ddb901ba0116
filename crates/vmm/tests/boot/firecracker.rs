//! A real guest, set up by Firecracker's driver: the fake Firecracker hands the very same kernel, initramfs, command line, drives
//! and vsock to QEMU.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use firebrick_protocol::agent::{Shutdown, ShutdownMode};
use firebrick_vmm::firecracker::{Firecracker, Program};
use firebrick_vmm::qemu::probe::{self, Kvm};
use firebrick_vmm::{RunOutcome, boot, firecracker};
use serde_json::json;

use crate::host::{ANSWER_LIMIT, host, output};
use crate::{common, images};

/// A Firecracker in this folder.
fn fake(folder: &Path) -> Firecracker {
    let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/firecracker/fake-firecracker");
    let script = format!(
        "#!/bin/sh\nexport FAKE_GUEST=qemu\nexec '{}' \"$@\"\n",
        fake.display()
    );
    let program = folder.join("firecracker");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    Firecracker::new(Program::at(program), folder.join("run"))
}

#[test]
fn an_image_boots_answers_and_ends_by_a_restart() {
    let (Some(image), Some(host)) = (images::any(json!({})), host()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let vmm = fake(folder.path());
    let spec = host.spec(&image.path);
    let mut booted = boot(&vmm, &spec, None).unwrap_or_else(|error| panic!("{}", common::chain(&error)));
    let client = &mut booted.client;
    assert_eq!(output(client, "cat /proc/sys/kernel/hostname"), "firebrick\n");
    let words = output(client, "cat /proc/cmdline");
    assert!(
        words.contains(" reboot=k panic=1 ") && words.contains(" firebrick.exit=reboot "),
        "{words}"
    );
    assert_eq!(output(client, "touch /a && rm /a && ls /rom | head -1"), "bin\n");
    let end = Shutdown {
        mode: Some(ShutdownMode::Reboot),
        grace_ms: Some(200),
    };
    client.shutdown(end, ANSWER_LIMIT).unwrap();
    let exit = booted
        .machine()
        .wait(ANSWER_LIMIT)
        .unwrap()
        .expect("it has ended");
    assert_eq!(exit.code, Some(0));
    let console = String::from_utf8_lossy(&booted.machine().console()).into_owned();
    assert!(console.contains("reboot: Restarting system"), "{console}");
    drop(booted);
    assert_eq!(common::listing(&folder.path().join("run")).len(), 0);
}

#[test]
fn a_job_runs_and_its_code_comes_back() {
    let (Some(image), Some(host)) = (images::any(json!({})), host()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let host = crate::host::Host {
        vmm: Box::new(fake(folder.path())),
        ..host
    };
    let job = crate::host::shell("cat; echo $((6 * 7)); echo oops >&2; exit 3");
    let ran = host.run(&image.path, job, Duration::from_secs(30));
    assert_eq!(ran.outcome, RunOutcome::Exited { code: 3 });
    assert_eq!(
        (ran.stdout.as_slice(), ran.stderr.as_slice()),
        (&b"42\n"[..], &b"oops\n"[..])
    );
    assert!(firecracker::facts().needs_vsock);
}

/// Where there is no QEMU to compare with, KVM is tried with Firecracker: without a disk, a vsock or an initramfs.
#[test]
fn the_probe_starts_the_kernel_alone() {
    let Some(kernel) = common::kernel() else { return };
    let folder = tempfile::tempdir().unwrap();
    let vmm = fake(folder.path());
    let device = folder.path().join("kvm");
    let refused = probe::firecracker(&vmm, &kernel, &device).unwrap();
    assert!(matches!(refused, Kvm::No(reason) if reason.contains("No such file")));
    std::fs::write(&device, "").unwrap();
    // Here it is emulation that the fake starts: whether that is quick enough is the host's affair.
    match probe::firecracker(&vmm, &kernel, &device).unwrap() {
        Kvm::Works => {}
        Kvm::No(reason) => assert!(reason.contains("it had not after"), "{reason}"),
    }
    assert_eq!(common::listing(&folder.path().join("run")).len(), 0);
}

/// The real key, on the way that it takes: keyboard controller, the kernel's driver, PID 1.
#[test]
fn ctrl_alt_del_ends_a_guest_in_order() {
    let (Some(image), Some(host)) = (images::any(json!({})), host()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let vmm = fake(folder.path());
    let disk = folder.path().join("disk");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let mut spec = host.spec(&image.path);
    spec.drives.push(firebrick_vmm::Drive {
        path: disk.clone(),
        read_only: false,
    });
    let mut booted = boot(&vmm, &spec, None).unwrap_or_else(|error| panic!("{}", common::chain(&error)));
    let driver = "cat /sys/bus/serio/drivers/atkbd/serio0/description";
    assert_eq!(output(&mut booted.client, driver), "i8042 KBD port\n");
    // What is written and not yet on the disk is there after an end in order.
    output(&mut booted.client, "printf precious > /dev/vdb");
    let machine = booted.machine();
    machine.press_ctrl_alt_del().unwrap();
    let exit = machine.wait(ANSWER_LIMIT).unwrap().expect("it has ended");
    assert_eq!(exit.code, Some(0));
    let console = String::from_utf8_lossy(&machine.console()).into_owned();
    assert!(console.contains("reboot: Restarting system"), "{console}");
    assert!(!console.contains("Kernel panic"), "{console}");
    assert!(std::fs::read(&disk).unwrap().starts_with(b"precious"));
}
