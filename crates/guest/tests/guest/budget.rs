//! All clients together cannot make the agent hold more than it may, and none of them stops the others by trying.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::common::{Agent, Client, assert_nothing_left, assert_small, wait_until};
use crate::serial::{Hogs, Wire};
use serde_json::{Value, json};

/// Sends as much as is taken.
fn stuff(socket: &mut TcpStream, bytes: &[u8]) {
    let short = Duration::from_millis(1);
    socket.set_write_timeout(Some(short)).expect("a timeout");
    let _ = socket.write_all(bytes);
    socket.set_write_timeout(None).expect("a timeout");
}

/// A client that has little to say is answered.
fn assert_answers(agent: &Agent) {
    let start = Instant::now();
    let mut client = agent.dial();
    client.call("ping", json!({}));
    assert_eq!(
        client.call("exec", json!({"cmd": "echo here"}))["stdout"],
        "here\n"
    );
    let job = json!({"lang": "sh", "code": "echo there"});
    assert_eq!(agent.job(&job)["stdout"], "there\n");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn unfinished_messages_are_bounded_together() {
    let agent = Agent::start();
    let line = [b"{\"jsonrpc\":\"2.0\",\"id\":\"".to_vec(), vec![b'x'; 3 << 20]].concat();
    let frame = [(4u32 << 20).to_be_bytes().to_vec(), vec![b'x'; 3 << 20]].concat();
    let mut hogs: Vec<_> = (0..400)
        .map(|_| TcpStream::connect(agent.address).expect("a connection"))
        .collect();
    for (number, hog) in hogs.iter_mut().enumerate() {
        stuff(hog, if number % 4 == 3 { &frame } else { &line });
    }
    assert_answers(&agent);
    assert_small(&agent);
    // Somebody with a long message gets through, when those who do not go on have lost their turns.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let text = "long\n".repeat(600_000);
    let mut client = agent.dial();
    client.call("write_file", json!({"path": path, "content": text}));
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), text);
    assert_small(&agent);
    // Who has lost his turn is told, and that is the end.
    let mut told = Client::over(hogs.swap_remove(0));
    assert_eq!(told.receive()["error"]["code"], -32000);
    assert!(told.at_end());
    drop((told, hogs, client));
    assert_nothing_left(&agent);
}

#[test]
fn a_turn_that_is_not_used_is_lost_with_a_word() {
    let agent = Agent::start();
    let line = [b"{\"jsonrpc\":\"2.0\",\"id\":\"".to_vec(), vec![b'x'; 3 << 20]].concat();
    let mut hogs: Vec<_> = (0..3).map(|_| agent.dial()).collect();
    for hog in &mut hogs {
        stuff(&mut hog.socket, &line);
    }
    // Two are too many: one of them is told so, and then there is room.
    let start = Instant::now();
    let mut told = 0;
    for hog in &mut hogs {
        hog.socket
            .set_read_timeout(Some(Duration::from_secs(8)))
            .expect("a timeout");
        if let Some(line) = hog.try_receive_line() {
            let reply: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(
                (&reply["id"], &reply["error"]["code"]),
                (&Value::Null, &json!(-32000))
            );
            assert!(hog.at_end());
            told += 1;
        }
    }
    assert!(told > 0, "nobody was told in {:?}", start.elapsed());
    assert_small(&agent);
}

/// A slow client whose message alone fills the agent disturbs nobody, and is not disturbed.
#[test]
fn who_is_alone_may_be_slow() {
    let agent = Agent::start();
    let mut slow = agent.dial();
    let cmd = format!("true {}", "x".repeat(3_500_000));
    let line = format!(
        "{}\n",
        json!({"jsonrpc": "2.0", "id": 1, "method": "exec", "params": {"argv": ["true"], "env": {"A": cmd}}})
    );
    let (first, rest) = line.split_at(3_000_000);
    slow.send_raw(first.as_bytes());
    std::thread::sleep(Duration::from_secs(4));
    assert_answers(&agent);
    slow.send_raw(rest.as_bytes());
    // It is more than a program can be given; that is what is said of it.
    assert_eq!(slow.receive()["error"]["code"], -32602);
    slow.call("ping", json!({}));
    assert_small(&agent);
}

#[test]
fn long_messages_at_once_are_all_taken() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().expect("a folder");
    let text = "a line of text\n".repeat(70_000);
    std::thread::scope(|scope| {
        for number in 0..40 {
            let (agent, path, text) = (&agent, folder.path().join(number.to_string()), &text);
            scope.spawn(move || {
                agent
                    .dial()
                    .call("write_file", json!({"path": path, "content": text}));
                assert_eq!(std::fs::read_to_string(path).expect("the file").len(), text.len());
            });
        }
    });
    assert_small(&agent);
    assert_nothing_left(&agent);
}

#[test]
fn kept_outputs_are_bounded_together() {
    let agent = Agent::start();
    let mut hogs: Vec<_> = (0..40).map(|_| agent.dial()).collect();
    for hog in &mut hogs {
        let cmd = "head -c 1000000 /dev/zero | tee /dev/stderr | tr '\\0' x; exec sleep 1000";
        hog.send(json!(1), "exec", json!({"cmd": cmd}));
    }
    std::thread::sleep(Duration::from_secs(1));
    assert_answers(&agent);
    // Whoever comes later gets all of a long output, since the longest are cut for it.
    let params = json!({"cmd": "head -c 300000 /dev/zero | tr '\\0' y"});
    assert_eq!(
        agent.dial().call("exec", params)["stdout"].as_str().map(str::len),
        Some(300_000)
    );
    assert_small(&agent);
    drop(hogs);
    assert_nothing_left(&agent);
}

#[test]
fn long_outputs_at_once_are_all_told() {
    let agent = Agent::start();
    std::thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| {
                let params = json!({"cmd": "head -c 900000 /dev/zero | tr '\\0' z"});
                let result = agent.dial().call("exec", params);
                assert_eq!(result["stdout"].as_str().map(str::len), Some(900_000));
            });
        }
    });
    assert_small(&agent);
}

#[test]
fn answers_that_are_long_as_json_cost_no_more() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let cmd = "head -c 1048576 /dev/zero; head -c 1048576 /dev/zero | tr '\\0' '\\377' >&2";
    let result = client.call("exec", json!({"cmd": cmd}));
    assert!(result["stdout"] == "\0".repeat(1 << 20));
    assert!(result["stderr"] == "\u{fffd}".repeat(1 << 20));
    let answer = agent.job(
        &json!({"lang": "sh", "code": cmd, "stdin": ["", ""], "trace_id": "\"stdout\":\"\",\"stderr\":null"}),
    );
    for result in answer.as_array().expect("a batch") {
        assert!(result["stdout"] == "\0".repeat(1 << 20));
        assert!(result["stderr"] == "\u{fffd}".repeat(1 << 20));
        assert_eq!(result["trace_id"], "\"stdout\":\"\",\"stderr\":null");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    std::fs::write(&path, "\u{1}ü".repeat(3 << 20)).expect("a file");
    let mut slow: Vec<_> = (0..20).map(|_| agent.dial()).collect();
    for client in &mut slow {
        client.send(json!(1), "read_file", json!({"path": path}));
    }
    let content = client.call("read_file", json!({"path": path}))["content"].clone();
    assert!(content == "\u{1}ü".repeat(3 << 20));
    assert_small(&agent);
}

#[test]
fn input_that_no_job_reads_is_bounded_together() {
    let agent = Agent::start();
    let mut hogs: Vec<_> = (0..30).map(|_| agent.dial()).collect();
    let data = json!({"id": 1, "data": "QUFB".repeat(900_000)});
    let stdin = format!(
        "{}\n",
        json!({"jsonrpc": "2.0", "method": "stdin", "params": data})
    );
    for hog in &mut hogs {
        hog.send(
            json!(1),
            "exec",
            json!({"argv": ["sleep", "1000"], "stdin": true}),
        );
        stuff(&mut hog.socket, stdin.as_bytes());
    }
    assert_answers(&agent);
    assert_small(&agent);
    drop(hogs);
    assert_nothing_left(&agent);
}

/// Everything that a client can make the agent hold, from many at once, over TCP and over as many streams of the mux as there can be.
#[test]
fn all_kinds_of_hogs_at_once_are_bounded_together() {
    let (mut wire, agent) = Wire::start();
    wire.open(1, 52);
    let mut streams = Hogs::open(&mut wire, 3, 200);
    let dial = || TcpStream::connect(agent.address).expect("a connection");
    let line = [b"{\"jsonrpc\":\"2.0\",\"id\":\"".to_vec(), vec![b'x'; 3 << 20]].concat();
    let frame = [(4u32 << 20).to_be_bytes().to_vec(), vec![b'x'; 3 << 20]].concat();
    let request = |method: &str, params: Value| {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        format!("{request}\n").into_bytes()
    };
    let framed = |job: Value| {
        let job = job.to_string();
        [
            &u32::try_from(job.len()).expect("short").to_be_bytes(),
            job.as_bytes(),
        ]
        .concat()
    };
    let noise = "head -c 1000000 /dev/zero | tee /dev/stderr | tr '\\0' x; exec sleep 1000";
    let data = json!({"id": 1, "data": "QUFB".repeat(900_000)});
    let stdin = json!({"jsonrpc": "2.0", "method": "stdin", "params": data});
    let started = request("exec", json!({"argv": ["sleep", "1000"], "stdin": true}));
    let kinds = [
        line,
        frame,
        // Output that is kept, and output that nobody reads.
        request("exec", json!({"cmd": noise})),
        request("exec", json!({"cmd": "exec yes unread", "stream": true})),
        framed(json!({"lang": "sh", "code": noise})),
        // Jobs that read nothing.
        [started, format!("{stdin}\n").into_bytes()].concat(),
        framed(json!({"lang": "sh", "code": "exec sleep 1000", "stdin": "x".repeat(3 << 20)})),
        // Answers that nobody reads.
        request("ping", json!({})).repeat(20_000),
        request("exec", json!({"cmd": "head -c 1000000 /dev/zero"})).repeat(10),
    ];
    let mut hogs: Vec<_> = (0..20 * kinds.len()).map(|_| dial()).collect();
    for _ in 0..2 {
        for (hog, bytes) in hogs.iter_mut().zip(kinds.iter().cycle()) {
            stuff(hog, bytes);
        }
        streams.stuff(&mut wire);
        assert_answers(&agent);
        assert_eq!(wire.call(1, "ping", &json!({})), json!({"pong": true}));
        assert_small(&agent);
    }
    // Somebody with something long gets through. Where it is written too slowly it is cut; then it is tried again.
    let params = json!({"cmd": "head -c 300000 /dev/zero | tr '\\0' y"});
    let is_whole = |_| {
        let result = agent.dial().call("exec", params.clone());
        result["stdout"].as_str().map(str::len) == Some(300_000)
    };
    assert!((0..10).any(is_whole), "it is always cut");
    assert_small(&agent);
    // As when their machine is gone: behind what no job reads, an orderly end would not be seen.
    for hog in &hogs {
        rustix::net::sockopt::set_socket_linger(hog, Some(Duration::ZERO)).expect("a socket");
    }
    drop(hogs);
    wire.hello(0x1122_3344_5566_7788);
    assert_nothing_left(&agent);
}

/// Unfinished messages, a long one that is whole, and jobs whose output nobody reads, all at once.
#[test]
fn streams_beside_unfinished_messages_are_bounded_too() {
    let agent = Agent::start();
    let mut long = agent.dial();
    // Its id is kept no longer than it is read: it is too long for one.
    let ping = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":\"{}\",\"method\":\"ping\"}}\n",
        "i".repeat(3_900_000)
    );
    stuff(&mut long.socket, ping.as_bytes());
    let frame = [4_000_000u32.to_be_bytes().to_vec(), vec![b'x'; 60_000]].concat();
    let mut frames: Vec<_> = (0..440)
        .map(|_| TcpStream::connect(agent.address).expect("a connection"))
        .collect();
    frames.iter_mut().for_each(|socket| stuff(socket, &frame));
    let mut floods: Vec<_> = (0..60).map(|_| agent.dial()).collect();
    for flood in &mut floods {
        for id in 0..8 {
            let cmd = "cat /dev/zero | tr '\\0' z";
            flood.send(json!(id), "exec", json!({"cmd": cmd, "stream": true}));
        }
    }
    for _ in 0..5 {
        assert_answers(&agent);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_small(&agent);
    drop((long, frames, floods));
    assert_nothing_left(&agent);
}

/// As many as there may be, of whom nothing comes, do not lock out who comes later.
#[test]
fn silent_clients_make_place() {
    let agent = Agent::start();
    let mut busy = agent.dial();
    busy.send(json!(1), "exec", json!({"argv": ["sleep", "6"]}));
    let frame = [4_000_000u32.to_be_bytes().to_vec(), vec![b'x'; 3000]].concat();
    let mut silent: Vec<_> = (0..700)
        .map(|_| TcpStream::connect(agent.address).expect("a connection"))
        .collect();
    silent
        .iter_mut()
        .step_by(2)
        .for_each(|socket| stuff(socket, &frame));
    assert_answers(&agent);
    // For whom something runs, his place is kept.
    assert_eq!(busy.receive()["result"]["exit_code"], 0);
    drop((busy, silent));
    assert_nothing_left(&agent);
}

#[test]
fn a_message_of_many_values_is_refused_or_answered_within_bounds() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let zeros = "0,".repeat(2_000_000);
    for line in [
        format!("{{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":[{zeros}0]}}\n"),
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"exec\",\"params\":{{\"argv\":[{}\"\"]}}}}\n",
            "\"\",".repeat(1_300_000)
        ),
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"exec\",\"params\":{{\"cmd\":[{zeros}0]}}}}\n"),
    ] {
        client.send_raw(line.as_bytes());
        assert!(client.receive()["error"]["code"].is_number());
    }
    let answer = agent.job_text(&format!(
        "{{\"lang\":\"sh\",\"code\":\"x\",\"stdin\":[{}0]}}",
        "0,".repeat(2_000_000)
    ));
    assert_eq!(answer["status"], "failed");
    let answer = agent.job_text(&format!(
        "{{\"lang\":\"sh\",\"files\":[{}{{\"name\":\"a\"}}]}}",
        "{\"name\":\"\"},".repeat(340_000)
    ));
    assert_eq!(answer["status"], "failed");
    assert_small(&agent);
}

/// A batch's inputs are held until it is done, however long that takes, as long as nobody waits for the room.
#[test]
fn a_long_batch_of_much_input_is_run_to_its_end() {
    let agent = Agent::start();
    let inputs = vec!["x".repeat(700_000); 4];
    let code = "sleep 2; wc -c";
    let answer = agent.job(&json!({"lang": "sh", "code": code, "stdin": inputs, "timeout": 60}));
    let results = answer.as_array().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(results.len(), 4);
    for result in results {
        assert_eq!(
            result["stdout"].as_str().map(str::trim),
            Some("700000"),
            "{}",
            result["stderr"]
        );
    }
    assert_small(&agent);
}

/// What one client after another had the agent hold, in pieces of one size each, is not kept for the next, whose are of another.
#[test]
fn messages_of_many_small_parts_leave_nothing_behind() {
    let agent = Agent::start();
    for size in [30, 100, 400, 1500, 3000, 6000, 12_000] {
        let inputs = vec!["x".repeat(size); (3_500_000 / size).min(1000)];
        let answer = agent.job(&json!({"lang": "none", "code": "true", "stdin": inputs}));
        assert_eq!(answer["exit_code"], 127);
    }
    let mut client = agent.dial();
    let variables = |count: usize| -> serde_json::Map<String, Value> {
        (0..count)
            .map(|n| (format!("v{n:05}"), "y".repeat(20).into()))
            .collect()
    };
    let cmd = json!({"cmd": "env | grep -c ^v0", "env": variables(8192)});
    assert_eq!(client.call("exec", cmd)["stdout"], "8192\n");
    let error = client.fail("exec", json!({"cmd": "true", "env": variables(60_000)}));
    assert_eq!(error["code"], -32602);
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|words| words.contains("8192")),
        "{error}"
    );
    assert_small(&agent);
    let held_kib = agent.proc_status("VmRSS");
    assert!(held_kib < 2048, "{held_kib} KiB are kept");
}

#[test]
fn one_who_leaves_and_takes_nothing_is_given_up() {
    let connections = |agent: &Agent| agent.dial().call("status", json!({}))["connections"].clone();
    for (options, is_given_up) in [(&["--closing-seconds", "1"][..], true), (&[], false)] {
        let agent = Agent::start_with(options);
        let mut client = agent.dial();
        // More than the kernel's buffers take.
        for _ in 0..12 {
            let cmd = "head -c 1048576 /dev/zero";
            client.send(json!(1), "exec", json!({"cmd": cmd}));
            std::thread::sleep(Duration::from_millis(300));
        }
        client.socket.shutdown(Shutdown::Write).expect("a connection");
        let start = Instant::now();
        if is_given_up {
            wait_until("it is given up", || connections(&agent) == 1);
            assert!(
                start.elapsed() > Duration::from_millis(900),
                "{:?}",
                start.elapsed()
            );
            let mut rest = Vec::new();
            let _ = client.socket.read_to_end(&mut rest);
            assert!(rest.len() < (12 * 6) << 20, "{}", rest.len());
        } else {
            std::thread::sleep(Duration::from_secs(3));
            assert_eq!(connections(&agent), 2, "half a minute is not over");
        }
    }
}
