//! The clients that share no code with ours, of the guest's tests, against an agent that is PID 1 of a VM.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use firebrick_vmm::{Machine, Port};
use serde_json::json;

use crate::host::{ANSWER_LIMIT, host};
use crate::images;

/// Runs a script of the guest's tests against a port of the machine, which it reaches over TCP.
fn check(machine: &dyn Machine, port: u32, script: &str, words: &[&str]) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../guest/tests")
        .join(script);
    let is_over = AtomicBool::new(false);
    let is_over = &is_over;
    std::thread::scope(|scope| {
        let ran = scope.spawn(move || {
            let output = Command::new("python3")
                .arg(script)
                .args([address.ip().to_string(), address.port().to_string()])
                .args(words)
                .output()
                .expect("python3 is needed for this test");
            is_over.store(true, Ordering::SeqCst);
            // Wakes the listener, which then sees it.
            drop(TcpStream::connect(address));
            output
        });
        for client in listener.incoming() {
            if is_over.load(Ordering::SeqCst) {
                break;
            }
            let client = client.expect("a client");
            scope.spawn(move || join(machine, port, client));
        }
        let output = ran.join().expect("it ends");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    });
}

/// Carries bytes both ways until both sides have ended.
fn join(machine: &dyn Machine, port: u32, client: TcpStream) {
    let Ok(stream) = machine.dial(Port(port), ANSWER_LIMIT) else {
        return;
    };
    let guest = UnixStream::from(stream);
    guest.set_nonblocking(false).expect("a socket");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &client, &mut &guest);
            let _ = guest.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &guest, &mut &client);
        let _ = client.shutdown(Shutdown::Write);
        // The guest has closed: what the client still sends is for nobody.
        let _ = guest.shutdown(Shutdown::Both);
    });
}

#[test]
fn both_protocols_keep_their_contracts_in_a_vm() {
    let Some(image) = images::alpine(json!({}), &[]) else {
        return;
    };
    let Some(host) = host() else { return };
    let mut booted = host.boot(&image);
    check(
        booted.machine(),
        firebrick_protocol::AGENT_PORT,
        "conformance.py",
        &["guest"],
    );
    check(booted.machine(), firebrick_protocol::JOB_PORT, "jobs.py", &["sh"]);

    // All of it has left nothing.
    let left = "ls -d /tmp/job-* /tmp/conformance-* 2>/dev/null; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null; ls /proc/1/fd | wc -l";
    let clean = |text: &str| text.trim().parse::<u32>().is_ok_and(|files| files < 16);
    let mut text = String::new();
    for _ in 0..50 {
        text = crate::host::exec(&mut booted.client, left, Default::default()).1;
        if clean(&text) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert!(clean(&text), "{text}");
    let status = booted.client.status(ANSWER_LIMIT).expect("a status");
    assert_eq!((status.jobs, status.connections), (0, 1));
    assert!(status.agent_bytes < 16 << 20, "{}", status.agent_bytes);
}

#[test]
fn a_fork_bomb_in_a_control_group_is_ended() {
    let Some(image) = images::alpine(json!({}), &[]) else {
        return;
    };
    let Some(host) = host() else { return };
    let mut booted = host.boot(&image);
    let mut other = booted.connect(ANSWER_LIMIT).expect("a second connection");
    let bomb = "mkdir /sys/fs/cgroup/bomb && echo 60 > /sys/fs/cgroup/bomb/pids.max && echo $$ > /sys/fs/cgroup/bomb/cgroup.procs \
                && bomb() { bomb | bomb & }; bomb; sleep 100";
    let limited = firebrick_protocol::agent::JobOptions {
        timeout_ms: Some(5000),
        ..Default::default()
    };
    let bombing = std::thread::spawn(move || crate::host::exec(&mut other, bomb, limited));
    std::thread::sleep(std::time::Duration::from_secs(2));
    booted.client.ping(ANSWER_LIMIT).expect("an answer meanwhile");
    assert_eq!(bombing.join().expect("it ends").0, 137);
    let left = crate::host::exec(
        &mut booted.client,
        "for i in 1 2 3 4 5 6 7 8 9 10; do [ -s /sys/fs/cgroup/bomb/cgroup.procs ] && [ -n \"$(cat /sys/fs/cgroup/bomb/cgroup.procs)\" ] || break; sleep 0.3; done; cat /sys/fs/cgroup/bomb/cgroup.procs",
        Default::default(),
    );
    assert_eq!((left.0, left.1.as_str()), (0, ""));
}
