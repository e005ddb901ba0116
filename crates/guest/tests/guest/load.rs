//! Many clients, slow clients, long output: one loop serves them all, and its memory stays small.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::common::{Agent, assert_nothing_left, assert_small, guest};
use serde_json::json;

#[test]
fn a_hundred_clients_at_once() {
    let agent = Agent::start();
    let files = agent.open_files() + 1;
    std::thread::scope(|scope| {
        for number in 0..100 {
            let agent = &agent;
            scope.spawn(move || {
                let mut client = agent.dial();
                for round in 0..5 {
                    let result = client.call("exec", json!({"cmd": format!("echo {number} {round}")}));
                    assert_eq!(result["stdout"], format!("{number} {round}\n"));
                }
            });
        }
    });
    assert_small(&agent);
    crate::common::wait_until("nothing is left open", || agent.open_files() <= files);
}

/// Jobs that end together on a machine so busy that the agent comes to run now and then only: what they wrote is told all the same.
#[test]
fn outputs_are_told_however_late_they_are_read() {
    let agent = Agent::start();
    let mut clients: Vec<_> = (0..150).map(|_| agent.dial()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let stream = number % 3 == 2;
        let cmd = format!("sleep 1; echo {number}");
        client.send(json!(1), "exec", json!({"cmd": cmd, "stream": stream}));
    }
    std::thread::sleep(Duration::from_millis(700));
    let pid = rustix::process::Pid::from_child(&agent.process);
    let send = |signal| rustix::process::kill_process(pid, signal).expect("it runs");
    send(rustix::process::Signal::STOP);
    std::thread::sleep(Duration::from_millis(1500));
    for _ in 0..20 {
        send(rustix::process::Signal::CONT);
        std::thread::sleep(Duration::from_micros(500));
        send(rustix::process::Signal::STOP);
        std::thread::sleep(Duration::from_millis(250));
    }
    send(rustix::process::Signal::CONT);
    for (number, client) in clients.iter_mut().enumerate() {
        let mut reply = client.receive();
        if number % 3 == 2 {
            assert!(reply["params"]["data"].is_string(), "{number}: {reply}");
            reply = client.receive();
        } else {
            assert_eq!(reply["result"]["stdout"], format!("{number}\n"), "{reply}");
        }
        assert_eq!(reply["result"]["exit_code"], 0, "{reply}");
    }
}

#[test]
fn slow_clients_hold_up_nobody() {
    let agent = Agent::start();
    // They ask for endless output and never read it.
    let mut slow: Vec<_> = (0..20).map(|_| agent.dial()).collect();
    for client in &mut slow {
        client.send(json!(1), "exec", json!({"cmd": "exec yes slow", "stream": true}));
    }
    // And these never finish a line.
    let mut unfinished: Vec<_> = (0..20).map(|_| agent.dial()).collect();
    for client in &mut unfinished {
        client.send_raw(b"{\"jsonrpc\":\"2.0\",\"id\":1,");
    }
    // This one sends requests and never reads the answers, until nothing more fits.
    let mut greedy = agent.dial();
    greedy
        .socket
        .set_write_timeout(Some(Duration::from_millis(300)))
        .expect("a timeout");
    let pings = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n".repeat(1000);
    while std::io::Write::write_all(&mut greedy.socket, pings.as_bytes()).is_ok() {}
    std::thread::sleep(Duration::from_millis(300));
    let mut client = agent.dial();
    let mut worst = Duration::ZERO;
    for _ in 0..50 {
        let start = Instant::now();
        client.call("ping", json!({}));
        worst = worst.max(start.elapsed());
    }
    assert!(worst < Duration::from_secs(2), "a ping took {worst:?}");
    assert_small(&agent);
    // A slow client that reads after all finds its output, in order.
    let mut bytes = vec![0; 4 << 20];
    slow[0].socket.read_exact(&mut bytes).expect("it goes on");
    assert!(bytes.starts_with(b"{\"jsonrpc\":\"2.0\",\"method\":\"output\""));
}

#[test]
fn a_gigabyte_passes_through_little_memory() {
    const BYTES: u64 = 1 << 30;
    let agent = Agent::start();
    let mut client = agent.dial();
    let start = Instant::now();
    client.send(
        json!(1),
        "exec",
        json!({"argv": ["head", "-c", BYTES.to_string(), "/dev/zero"], "stream": true}),
    );
    let mut wire = Vec::with_capacity(1 << 20);
    let mut passed = 0u64;
    let mut tail = Vec::new();
    let needle = b"\"result\"";
    loop {
        wire.resize(1 << 20, 0);
        let count = client.socket.read(&mut wire).expect("it goes on");
        assert!(count > 0, "the agent closed the connection");
        passed += count as u64;
        tail.extend_from_slice(&wire[..count]);
        if tail.windows(needle.len()).any(|window| window == needle) {
            break;
        }
        let keep = tail.len().saturating_sub(200);
        tail.drain(..keep);
    }
    assert!(
        passed > BYTES / 3 * 4,
        "base64 of a gigabyte is longer than {passed} bytes"
    );
    assert_small(&agent);
    assert!(start.elapsed() < Duration::from_secs(300));
}

#[test]
fn ten_thousand_short_jobs_leave_nothing() {
    let agent = Agent::start();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let agent = &agent;
            scope.spawn(move || {
                let mut client = agent.dial();
                for round in 0..2000 {
                    let result = client.call("exec", json!({"argv": ["/bin/true"]}));
                    assert_eq!(result["exit_code"], 0, "client {number}, round {round}");
                }
            });
            scope.spawn(move || {
                for round in 0..500 {
                    let result = agent.job(&json!({"lang": "sh", "code": "exit 3"}));
                    assert_eq!(result["exit_code"], 3, "client {number}, round {round}");
                }
            });
        }
    });
    assert_small(&agent);
    assert_nothing_left(&agent);
}

#[test]
fn a_hundred_framed_jobs_at_once() {
    let agent = Agent::start();
    std::thread::scope(|scope| {
        for number in 0..100 {
            let agent = &agent;
            scope.spawn(move || {
                let job = json!({"lang": "sh", "code": "read -r x; sleep 0.3; echo got $x", "stdin": format!("{number}\n"), "timeout": 60});
                assert_eq!(agent.job(&job)["stdout"], format!("got {number}\n"));
            });
        }
    });
    assert_small(&agent);
    assert_nothing_left(&agent);
}

#[test]
fn clients_that_vanish_take_their_work_along() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..50 {
        let mut socket = TcpStream::connect(agent.address).expect("a connection");
        let job = json!({"lang": "sh", "code": "echo x > file; sleep 100 & sleep 100"}).to_string();
        let length = u32::try_from(job.len()).expect("short").to_be_bytes();
        socket.write_all(&length).expect("it reads");
        // Some go in the middle of a frame.
        let part = if round % 3 == 0 { job.len() / 2 } else { job.len() };
        socket.write_all(&job.as_bytes()[..part]).expect("it reads");
        let mut client = agent.dial();
        client.send(json!("p"), "put", json!({"path": folder.path().join("file")}));
        client.send(
            serde_json::Value::Null,
            "stdin",
            json!({"id": "p", "data": "QUJD"}),
        );
        client.send(json!("g"), "get", json!({"path": "/proc", "tree": true}));
        client.call("ping", json!({}));
    }
    assert_nothing_left(&agent);
    assert_small(&agent);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn a_fork_bomb_is_ended_and_disturbs_nobody() {
    if !rustix::process::geteuid().is_root() {
        return; // the limit must not count the tests' own processes
    }
    const USER: &str = "61234";
    let agent = Agent::start();
    let mut bomber = agent.dial();
    let bomb = "ulimit -u 150; bomb() { bomb | bomb & }; bomb; sleep 100";
    let params = json!({"argv": ["bash", "-c", bomb], "user": USER, "timeout_ms": 3000});
    bomber.send(json!(1), "exec", params);
    let mut client = agent.dial();
    for _ in 0..20 {
        let start = Instant::now();
        client.call("exec", json!({"argv": ["/bin/true"]}));
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "a job took {:?}",
            start.elapsed()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let result = bomber.receive()["result"].clone();
    assert_eq!(
        (&result["timed_out"], &result["signal"]),
        (&json!(true), &json!(9))
    );
    let processes = || {
        let command = std::process::Command::new("pgrep").args(["-u", USER]).output();
        command.expect("pgrep").stdout.len()
    };
    crate::common::wait_until("the bomb is gone", || processes() == 0);
    assert_small(&agent);
    drop((bomber, client));
    assert_nothing_left(&agent);
}

#[test]
fn a_fork_bomb_is_ended_by_an_agent_that_cannot_fork() {
    if !rustix::process::geteuid().is_root() {
        return; // somebody else's limit must be had
    }
    const USER: &str = "61235";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("guest");
    std::fs::copy(guest(), &path).expect("a copy that everybody can run");
    for path in [folder.path(), &path] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("a mode");
    }
    let limited = format!(
        "exec setpriv --reuid={USER} --regid={USER} --clear-groups \\
           sh -c 'ulimit -u 40; exec \"$0\" \"$@\"' {} \"$@\"",
        path.display()
    );
    let agent = Agent::start_after(&limited);
    let mut client = agent.dial();
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 100";
    let params = json!({"argv": ["bash", "-c", bomb], "timeout_ms": 1000});
    assert_eq!(client.call("exec", params)["timed_out"], true);
    // Nobody is left but the agent.
    crate::common::wait_until("the bomb is gone", || {
        let command = std::process::Command::new("pgrep").args(["-u", USER]).output();
        command
            .expect("pgrep")
            .stdout
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            == 1
    });
    client.call("exec", json!({"argv": ["/bin/true"]}));
    drop(client);
    assert_nothing_left(&agent);
}

#[test]
fn a_gigabyte_that_nobody_streams_is_cut() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let result = client.call(
        "exec",
        json!({"cmd": "head -c 1073741824 /dev/zero | tr '\\0' x"}),
    );
    assert_eq!(result["stdout"].as_str().map(str::len), Some(1_048_576 + 23));
    let job = json!({"lang": "sh", "code": "head -c 1073741824 /dev/zero | tr '\\0' x >&2", "timeout": 100});
    assert_eq!(
        agent.job(&job)["stderr"].as_str().map(str::len),
        Some(1_048_576 + 23)
    );
    assert_small(&agent);
    drop(client);
    assert_nothing_left(&agent);
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Six bytes, their own number among all sixes, as base64.
fn six(number: u64) -> [u8; 8] {
    std::array::from_fn(|letter| LETTERS[usize::try_from(number >> (42 - 6 * letter) & 63).expect("small")])
}

/// The bytes that base64 stands for.
fn decoded(text: &str) -> Vec<u8> {
    let bits = |letter: u8| {
        LETTERS
            .iter()
            .position(|known| *known == letter)
            .expect("a letter")
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let all = four.iter().fold(0, |all, letter| all << 6 | bits(*letter)) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&all.to_be_bytes()[5..4 + four.len()]);
    }
    bytes
}

/// A file of so many bytes, of which each six are another six, goes in and comes out as it was.
fn in_and_out(bytes: u64) {
    const PIECE: u64 = 24 * 1024;
    assert_eq!(bytes % PIECE, 0);
    let agent = Agent::start();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let path = folder.path().join("large");
    let mut client = agent.dial();
    client.send(json!("p"), "put", json!({"path": path}));
    for piece in 0..bytes / PIECE {
        let data: Vec<u8> = (piece * PIECE / 6..(piece + 1) * PIECE / 6)
            .flat_map(six)
            .collect();
        let params = json!({"id": "p", "data": String::from_utf8(data).expect("letters")});
        client.send(serde_json::Value::Null, "stdin", params);
    }
    client.send(serde_json::Value::Null, "stdin", json!({"id": "p", "eof": true}));
    assert_eq!(client.receive()["result"], json!({"bytes": bytes, "entries": 1}));
    assert_eq!(std::fs::metadata(&path).expect("the file").len(), bytes);
    assert_small(&agent);

    client.send(json!("g"), "get", json!({"path": path}));
    let mut got = 0u64;
    loop {
        let line = client.receive_line();
        let Some(data) = line
            .split("\"data\":\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
        else {
            let reply: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(reply["result"], json!({"bytes": bytes, "entries": 1}));
            break;
        };
        for byte in decoded(data) {
            let six = (got / 6).to_be_bytes();
            assert_eq!(
                byte,
                six[2 + usize::try_from(got % 6).expect("small")],
                "at {got}"
            );
            got += 1;
        }
    }
    assert_eq!(got, bytes);
    assert_small(&agent);
    drop(client);
    assert_nothing_left(&agent);
}

#[test]
fn files_larger_than_the_agent_pass_through_it() {
    in_and_out(96 << 20);
}

#[test]
#[ignore = "two gigabytes on the disk, and half a minute or more; scripts/agent-load runs it"]
fn two_gigabytes_pass_through_it() {
    in_and_out(87_382 * 24 * 1024); // a little more than 2 GiB
}
