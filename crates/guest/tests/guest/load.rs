//! Many clients, slow clients, long output: one loop serves them all, and its memory stays small.

use std::io::Read as _;
use std::time::{Duration, Instant};

use crate::common::Agent;
use serde_json::json;

/// What the agent may hold at any time in these tests, in KiB.
const RSS_LIMIT_KIB: u64 = 16 * 1024;

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
    let rss_kib = agent.proc_status("VmHWM");
    assert!(rss_kib < RSS_LIMIT_KIB, "{rss_kib} KiB");
    crate::common::wait_until("nothing is left open", || agent.open_files() <= files);
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
    let rss_kib = agent.proc_status("VmHWM");
    assert!(
        rss_kib < 2 * RSS_LIMIT_KIB,
        "{rss_kib} KiB for 21 clients that do not read"
    );
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
    let rss_kib = agent.proc_status("VmHWM");
    assert!(rss_kib < RSS_LIMIT_KIB, "{rss_kib} KiB");
    assert!(start.elapsed() < Duration::from_secs(300));
}

#[test]
fn thousands_of_short_jobs_leave_nothing() {
    let agent = Agent::start();
    let files = agent.open_files() + 1;
    let mut client = agent.dial();
    for round in 0..2000 {
        let result = client.call("exec", json!({"argv": ["/bin/true"]}));
        assert_eq!(result["exit_code"], 0, "round {round}");
    }
    let children = format!("/proc/{0}/task/{0}/children", agent.process.id());
    assert_eq!(
        std::fs::read_to_string(children).expect("children"),
        "",
        "no zombie stays"
    );
    assert!(agent.open_files() <= files);
    assert!(agent.proc_status("VmRSS") < RSS_LIMIT_KIB);
}
