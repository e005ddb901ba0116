//! The whole life of a machine.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firebrick_protocol::agent::{Exec, Shutdown, ShutdownMode};
use firebrick_testkit::oracle;
use firebrick_vmm::firecracker::config_file;
use firebrick_vmm::{Drive, LaunchError, MachineSpec, Network, Port, Vmm as _, Vsock};
use serde_json::json;

use crate::common::chain;
use crate::fake::{LIMIT, agent, console_says, fake, here};

#[test]
fn a_machine_is_set_up_starts_answers_and_ends_in_order() {
    let Some(fake) = fake("") else { return };
    let machine = fake.vmm().launch(&fake.spec()).unwrap();
    let mut client = agent(&*machine);
    client.ping(LIMIT).unwrap();
    let ask = Shutdown {
        mode: Some(ShutdownMode::Reboot),
        ..Shutdown::default()
    };
    client.shutdown(ask, LIMIT).unwrap();
    let exit = machine.wait(LIMIT).unwrap().expect("it has ended");
    assert_eq!((exit.code, exit.signal), (Some(0), None));
    let console = console_says(&*machine, "reboot: Restarting system");
    assert!(console.starts_with("booted: console=ttyS0"), "{console}");
    assert!(
        machine.complaints().contains("Running Firecracker"),
        "its own words are not the guest's"
    );
    assert_eq!(
        machine.dial(Port::AGENT, LIMIT).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionAborted
    );
    drop(machine);
    let asked = [
        "PUT /logger 204",
        "PUT /machine-config 204",
        "PUT /boot-source 204",
        "PUT /drives/drive0 204",
        "PUT /drives/drive1 204",
        "PUT /vsock 204",
        "PUT /entropy 204",
        "PUT /actions 204",
    ];
    assert_eq!(fake.requests(), asked);
    let log = fake.log();
    let words = log[2]["body"]["boot_args"].as_str().unwrap();
    for word in ["reboot=k", "panic=1", "console=ttyS0", "root=/dev/vda"] {
        assert!(words.split(' ').any(|found| found == word), "{word}: {words}");
    }
    assert_eq!(log[3]["body"]["is_read_only"], true);
    assert_eq!(log[4]["body"]["is_read_only"], false);
    let caches = [3, 4].map(|index: usize| log[index]["body"]["cache_type"].clone());
    assert_eq!(
        caches,
        [json!(null), json!("Writeback")],
        "what a guest syncs is synced"
    );
    fake.is_clean();
}

#[test]
fn the_console_is_typed_to() {
    let Some(fake) = fake("") else { return };
    let machine = fake.vmm().launch(&fake.spec()).unwrap();
    let mut console = std::fs::File::from(machine.attach_console().unwrap());
    console.write_all(b"hello\n").unwrap();
    console_says(&*machine, "typed: hello\n");
    let mut read = [0; 64];
    let count = console.read(&mut read).unwrap();
    assert!(count > 0, "what is printed comes to who is attached");
}

#[test]
fn the_guest_dials_the_host() {
    let Some(fake) = fake("") else { return };
    let machine = fake.vmm().launch(&fake.spec()).unwrap();
    let listener = machine.listen(Port(1024)).unwrap();
    let dial = Exec {
        cmd: Some("dial 1024".to_owned()),
        ..Exec::default()
    };
    agent(&*machine).exec(dial, LIMIT).unwrap();
    let mut said = String::new();
    listener.accept().unwrap().0.read_to_string(&mut said).unwrap();
    assert_eq!(said, "hello from the guest\n");
    drop(machine);
    fake.is_clean();
}

#[test]
fn ctrl_alt_del_ends_a_guest_that_heeds_it() {
    let Some(fake) = fake("") else { return };
    let machine = fake.vmm().launch(&fake.spec()).unwrap();
    machine.press_ctrl_alt_del().unwrap();
    assert!(machine.wait(LIMIT).unwrap().is_some());
}

#[test]
fn a_socket_of_the_users_choice_leads_to_the_vsock_and_goes() {
    let Some(fake) = fake("") else { return };
    let socket = fake.at("v,sock");
    let spec = MachineSpec {
        vsock: Vsock::Socket(socket.clone()),
        ..fake.spec()
    };
    // What a killed machine has left is no hindrance.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let machine = fake.vmm().launch(&spec).unwrap();
    agent(&*machine).ping(LIMIT).unwrap();
    let mut direct = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    direct.write_all(b"CONNECT 52\n").unwrap();
    let mut answer = [0; 3];
    direct.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"OK ");
    // A port that nobody listens on is the end of the connection.
    let refused = machine.dial(Port(53), Duration::from_millis(100)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut);
    drop(machine);
    assert!(!socket.exists());
}

#[test]
fn a_guest_that_never_wakes_its_vsock_is_given_up_each_time() {
    let Some(fake) = fake("asleep") else { return };
    let machine = fake.vmm().launch(&fake.spec()).unwrap();
    // More than find room where they wait to be let in.
    for _ in 0..200 {
        let error = machine.dial(Port::AGENT, Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    }
}

#[test]
fn machines_share_what_they_read_and_not_what_they_write() {
    let Some(fake) = fake("") else { return };
    let shared = MachineSpec {
        drives: fake.spec().drives[..1].to_vec(),
        ..fake.spec()
    };
    let _one = fake.vmm().launch(&shared).unwrap();
    let two = fake.vmm().launch(&fake.spec()).unwrap();
    let error = fake.vmm().launch(&fake.spec()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("sharing a drive that a machine writes"),
        "{error}"
    );
    drop(two);
    fake.vmm().launch(&fake.spec()).unwrap();
}

/// A QEMU that has the drive and runs nothing; or does not start.
fn qemu(drive: &Path, read_only: bool) -> Child {
    let file = json!({ "driver": "file", "filename": drive, "read-only": read_only, "locking": "on" });
    let node = json!({ "driver": "raw", "node-name": "drive", "read-only": read_only, "file": file });
    Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "q35,accel=tcg",
            "-nodefaults",
            "-display",
            "none",
            "-S",
        ])
        .args([
            "-blockdev",
            &node.to_string(),
            "-device",
            "virtio-blk-pci,drive=drive",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is installed")
}

#[test]
fn a_machine_of_firecrackers_and_one_of_qemus_do_not_both_write_a_drive() {
    let Some(fake) = fake("") else { return };
    if !oracle::have("qemu-system-x86_64").unwrap() {
        return;
    }
    let data = fake.at("data");
    std::fs::write(&data, vec![0; 1 << 20]).unwrap();
    let with = |read_only| {
        let drive = Drive {
            path: data.clone(),
            read_only,
        };
        MachineSpec {
            drives: vec![drive],
            ..fake.spec()
        }
    };
    for (first, second, is_had) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
        (false, false, false),
    ] {
        // QEMU comes second,
        let machine = fake.vmm().launch(&with(first)).unwrap();
        let ours = fake.locks_of("data");
        let mut other = qemu(&data, second);
        if is_had {
            let deadline = Instant::now() + LIMIT;
            while fake.locks_of("data").len() <= ours.len() {
                assert!(Instant::now() < deadline && other.try_wait().unwrap().is_none());
                std::thread::sleep(Duration::from_millis(5));
            }
            other.kill().unwrap();
        }
        let ended = other.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(
            !is_had,
            ended.status.code() == Some(1) && said.contains("lock"),
            "{first} {second}: {said}"
        );
        drop(machine);
        assert_eq!(fake.locks_of("data"), [""; 0]);
        // and first.
        let mut other = qemu(&data, first);
        let deadline = Instant::now() + LIMIT;
        while covered(&fake.locks_of("data")) < covered(&ours) {
            assert!(Instant::now() < deadline && other.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(
            covered(&fake.locks_of("data")),
            covered(&ours),
            "each locks what the other does"
        );
        assert_eq!(
            fake.vmm().launch(&with(second)).is_ok(),
            is_had,
            "{first} {second}"
        );
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

/// This program's own test of that name, where every lock fails with the error of that number. What it says.
fn where_locks_fail(test: &str, errno: i32) -> String {
    let dir = tempfile::tempdir().unwrap();
    let shim = dir.path().join("no-locks.so");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&shim)
        .arg(here().join("no-locks.c"))
        .status();
    assert!(made.expect("Rust needs a C compiler, too").success());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("LD_PRELOAD", &shim)
        .env("NO_LOCKS", errno.to_string())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    said
}

#[test]
fn a_filesystem_without_locks_is_told_and_no_hindrance_and_other_faults_are_told() {
    if fake("").is_none() {
        return;
    }
    let child = "machines::launched_where_locks_fail";
    let said = where_locks_fail(child, 37); // ENOLCK
    assert!(
        said.contains("it starts")
            && said.contains(
                "/data cannot be locked, so nothing stops two VMs from writing it at once: No locks available"
            ),
        "{said}"
    );
    let said = where_locks_fail(child, 5); // EIO
    assert!(
        said.contains("/image\ncaused by: Input/output error (os error 5)") && said.contains("cannot lock"),
        "{said}"
    );
}

#[test]
#[ignore = "the test above runs it in a process of its own"]
#[expect(clippy::print_stderr, reason = "that one reads it")]
fn launched_where_locks_fail() {
    let Some(fake) = fake("") else { return };
    let vmm = fake
        .vmm()
        .with_warnings(|warning| eprintln!("warning: {warning}"));
    match vmm.launch(&fake.spec()) {
        Ok(machine) => {
            agent(&*machine).ping(LIMIT).unwrap();
            eprintln!("it starts");
        }
        Err(error) => eprintln!("{}", chain(&error)),
    }
}

/// The bytes that are locked, whether with one lock or with several.
fn covered(locks: &[String]) -> Vec<u64> {
    let mut bytes: Vec<u64> = locks
        .iter()
        .flat_map(|lock| {
            let words: Vec<&str> = lock.split(' ').collect();
            let ["OFDLCK", "READ", first, last] = words[..] else {
                panic!("{lock}");
            };
            first.parse().unwrap()..=last.parse().unwrap()
        })
        .collect();
    bytes.sort_unstable();
    bytes
}

#[test]
fn what_firecracker_cannot_do_is_refused_before_it_starts() {
    let Some(fake) = fake("") else { return };
    let network = MachineSpec {
        network: Network::User,
        ..fake.spec()
    };
    let many = MachineSpec {
        vcpus: 33,
        ..fake.spec()
    };
    let wordy = MachineSpec {
        append: "a".repeat(1800),
        ..fake.spec()
    };
    for spec in [network, many, wordy] {
        let error = fake.vmm().launch(&spec).unwrap_err();
        assert!(matches!(error, LaunchError::Unsupported { .. }), "{error}");
    }
    assert!(fake.log().is_empty());
}

#[test]
fn a_config_file_is_taken_as_it_stands() {
    let Some(fake) = fake("") else { return };
    std::fs::write(fake.at("initramfs"), "an initramfs").unwrap();
    let spec = MachineSpec {
        vsock: Vsock::Socket(fake.at("vsock")),
        ..fake.spec()
    };
    let config = config_file(&spec, &fake.at("initramfs")).unwrap();
    assert_eq!(config["vsock"]["uds_path"], json!(fake.at("vsock")));
    std::fs::write(fake.at("vm.json"), config.to_string()).unwrap();
    // The fake validates it, opens no API socket, and boots.
    let mut child = Command::new(fake.at("firecracker"))
        .args(["--no-api", "--config-file"])
        .arg(fake.at("vm.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + LIMIT;
    while std::os::unix::net::UnixStream::connect(fake.at("vsock")).is_err() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
