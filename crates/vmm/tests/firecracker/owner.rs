//! A machine whose owner is killed: it ends too, and the next machine removes its folder.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebrick_vmm::Vmm as _;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::common;
use crate::fake::{LIMIT, fake};

const FOLDER: &str = "FIREBRICK_TEST_OWNER_FOLDER";

/// Not a test of its own: the process that is killed.
#[test]
#[expect(clippy::print_stdout, reason = "the test that starts this reads it")]
fn child() {
    use firebrick_vmm::firecracker::{Firecracker, Jail, Program};
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = PathBuf::from(folder);
    let mut vmm = Firecracker::new(Program::at(folder.join("firecracker")), folder.join("run"));
    if folder.join("jail").is_dir() {
        vmm = vmm.with_jail(Jail {
            jailer: crate::fake::here().join("fake-jailer"),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            base: folder.join("jail"),
            copies: false,
        });
    }
    let spec = firebrick_vmm::MachineSpec {
        kernel: folder.join("vmlinux"),
        memory_mib: 128,
        vsock: firebrick_vmm::Vsock::Host,
        ..firebrick_vmm::MachineSpec::default()
    };
    let machine = vmm.launch(&spec).expect("it starts");
    println!("\nmachine {}", machine.process_id());
    std::thread::sleep(LIMIT);
}

/// Starts a process that has a machine; gives it and the VMM's number.
fn start(folder: &Path) -> (std::process::Child, Pid) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner::child", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let number = lines.find_map(|line| line.unwrap().strip_prefix("machine ").map(str::to_owned));
    let vmm = number.expect("it starts a machine").parse().unwrap();
    (child, Pid::from_raw(vmm).unwrap())
}

#[test]
fn a_killed_owner_leaves_no_vmm_and_the_next_machine_removes_its_folder() {
    for jailed in [false, true] {
        let Some(fake) = fake("") else { return };
        if jailed {
            std::fs::create_dir(fake.at("jail")).unwrap();
        }
        let (mut owner, vmm) = start(fake.dir.path());
        kill_process(Pid::from_child(&owner), Signal::KILL).unwrap();
        owner.wait().unwrap();
        let deadline = Instant::now() + LIMIT;
        while test_kill_process(vmm).is_ok() {
            assert!(
                Instant::now() < deadline,
                "Firecracker is still there (jailed: {jailed})"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = if jailed { "jail" } else { "run" };
        assert!(
            !common::listing(&fake.at(left)).is_empty(),
            "who is killed cannot clean up"
        );
        let launcher = if jailed { fake.jailed() } else { fake.vmm() };
        drop(launcher.launch(&fake.spec()).unwrap());
        fake.is_clean();
    }
}
