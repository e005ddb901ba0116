//! What hostile, broken and vanished clients, and programs that do not end well, cannot make the agent do.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::{Agent, PATIENCE, assert_nothing_left, is_root, wait_until};
use serde_json::{Value, json};

#[test]
fn a_leftover_that_prints_does_not_hold_the_answer() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let cmd = "(while :; do echo x; sleep 0.2; done) & exit 3";
    for stream in [false, true] {
        let start = Instant::now();
        let params = json!({"cmd": cmd, "timeout_ms": 30_000, "stream": stream});
        client.send(json!(1), "exec", params);
        let mut lines = 0;
        let result = loop {
            let message = client.receive();
            if message["id"] == 1 {
                break message["result"].clone();
            }
            lines += 1;
        };
        assert!(start.elapsed() < Duration::from_secs(20));
        assert_eq!(
            (&result["exit_code"], &result["timed_out"]),
            (&json!(3), &Value::Null)
        );
        assert!(
            if stream {
                lines > 0
            } else {
                result["stdout"]
                    .as_str()
                    .is_some_and(|text| text.starts_with("x\n"))
            },
            "{result}"
        );
    }
    // Nobody reads what they print any more, which ends them.
    drop(client);
    assert_nothing_left(&agent);
}

/// The processor time that a process has used, in hundredths of a second.
fn processor_time(agent: &Agent) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.process.id())).expect("its state");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let mut times = fields.split(' ').skip(11).take(2);
    let mut next = || {
        times
            .next()
            .and_then(|time| time.parse::<u64>().ok())
            .expect("a time")
    };
    next() + next()
}

#[test]
fn clients_wait_in_peace_when_descriptors_run_out() {
    let agent = Agent::start_after("ulimit -n 40");
    let mut clients: Vec<_> = (0..80).map(|_| agent.dial()).collect();
    clients[0].call("ping", json!({}));
    wait_until("descriptors run out", || agent.open_files() >= 39);
    let before = processor_time(&agent);
    std::thread::sleep(Duration::from_secs(2));
    let used = processor_time(&agent) - before;
    assert!(used < 60, "{used} hundredths of a second for nothing");
    clients[1].call("ping", json!({}));
    // Those who waited come in as others go.
    let mut late = clients.split_off(60);
    drop(clients);
    for client in &mut late {
        client.call("ping", json!({}));
    }
    drop(late);
    assert_nothing_left(&agent);
}

#[test]
fn programs_have_the_limit_on_descriptors_that_the_agent_was_started_with() {
    let agent = Agent::start_after("ulimit -Sn 100; ulimit -Hn 300");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.process.id())).expect("its limits");
    let open_files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("the limit");
    assert_eq!(open_files.split_whitespace().nth(3), Some("300"), "{open_files}");
    let cmd = json!({"cmd": "ulimit -Sn; ulimit -Hn"});
    assert_eq!(agent.dial().call("exec", cmd)["stdout"], "100\n300\n");
}

#[test]
fn an_agent_that_is_not_root_refuses_other_groups() {
    if !is_root() {
        return; // somebody else must be there to become
    }
    let agent = Agent::start_with(&["--user", "1234:77"]);
    let mut client = agent.dial();
    let ids = json!({"cmd": "id -u; id -g"});
    assert_eq!(client.call("exec", ids)["stdout"], "1234\n77\n");
    for user in ["1234", "1234:77"] {
        let ids = json!({"cmd": "id -u; id -g", "user": user});
        assert_eq!(client.call("exec", ids)["stdout"], "1234\n77\n", "{user}");
    }
    for user in ["1234:0", "1234:78", "0", "1235:77"] {
        let error = client.fail("exec", json!({"cmd": "id", "user": user}));
        assert_eq!(
            (&error["code"], &error["data"]["errno"]),
            (&json!(-32603), &json!(1)),
            "{user}"
        );
    }
}

/// The work folders of an agent.
fn folders(id: u32) -> Vec<PathBuf> {
    let prefix = format!("job-{id}-");
    let names = std::fs::read_dir("/tmp").expect("a folder").flatten();
    names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}

fn begin_job(agent: &Agent) -> TcpStream {
    let mut socket = TcpStream::connect(agent.address).expect("a connection");
    let job = json!({"lang": "sh", "code": "mkdir -p a/b; echo $$ > a/b/c; exec sleep 30", "timeout": 200})
        .to_string();
    let length = u32::try_from(job.len()).expect("short").to_be_bytes();
    socket
        .write_all(&[&length, job.as_bytes()].concat())
        .expect("it reads");
    wait_until("it runs", || {
        folders(agent.process.id())
            .iter()
            .any(|folder| folder.join("a/b/c").exists())
    });
    socket
}

#[test]
fn an_agent_that_ends_leaves_no_work_folder() {
    let mut agent = Agent::start();
    let id = agent.process.id();
    let _client = begin_job(&agent);
    let term = std::process::Command::new("kill").arg(id.to_string()).status();
    assert!(term.expect("kill").success());
    agent.process.wait().expect("it ends");
    wait_until("no folder is left", || folders(id).is_empty());
}

#[test]
fn what_a_killed_agent_left_is_swept_away() {
    let mut killed = Agent::start();
    let id = killed.process.id();
    let client = begin_job(&killed);
    let alive = Agent::start();
    let _client = begin_job(&alive);
    // Not ours: a name of another form, and what is no folder.
    let others = [format!("/tmp/job-{id}-xyz"), format!("/tmp/job-{id}-f")];
    std::fs::create_dir(&others[0]).expect("a folder");
    std::fs::write(&others[1], "").expect("a file");
    let job = folders(id).into_iter().map(|folder| folder.join("a/b/c"));
    let pids: Vec<_> = job
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .collect();
    killed.last_words();
    drop(client);
    // Nobody else does.
    let kill = std::process::Command::new("kill")
        .args(pids.iter().map(|pid| pid.trim()))
        .status();
    assert!(kill.expect("kill").success());
    assert_eq!(folders(id).len(), 3, "a killed agent removes nothing");
    let next = Agent::start();
    next.dial().call("ping", json!({}));
    wait_until("the folder is swept away", || folders(id).len() == 2);
    assert_eq!(folders(alive.process.id()).len(), 1);
    std::fs::remove_dir(&others[0]).expect("it is there");
    std::fs::remove_file(&others[1]).expect("it is there");
}

#[test]
fn the_end_of_file_reaches_a_terminal_within_a_line() {
    let agent = Agent::start();
    for (typed, printed) in [
        (&["YWJj"][..], "abcabc"),
        (&["YWJj", ""], "abcabc"),
        (&["YWJj", "Cg=="], "abc\r\nabc\r\n"),
        (&[""], ""),
    ] {
        let mut client = agent.dial();
        let params = json!({"argv": ["sh", "-c", "cat"], "stdin": true, "timeout_ms": 60_000, "pty": {"rows": 24, "cols": 80}});
        client.send(json!(1), "exec", params);
        for (index, data) in typed.iter().enumerate() {
            let eof = index + 1 == typed.len();
            client.send(Value::Null, "stdin", json!({"id": 1, "data": data, "eof": eof}));
        }
        let result = client.receive()["result"].clone();
        assert_eq!(result["timed_out"], Value::Null, "{typed:?}: {result}");
        let stdout = result["stdout"]
            .as_str()
            .expect("text")
            .replace("^D\u{8}\u{8}", "");
        assert_eq!(stdout, printed, "{typed:?}");
    }
}

#[test]
fn the_kernel_asks_silent_clients_whether_they_are_there() {
    let agent = Agent::start();
    let mut client = agent.dial();
    client.call("ping", json!({}));
    let hex = |port: u16| format!("0100007F:{port:04X}");
    let from = hex(agent.address.port());
    let to = hex(client.socket.local_addr().expect("an address").port());
    wait_until("a timer runs", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the connections");
        let mut rows = table
            .lines()
            .map(|row| row.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.get(1) == Some(&&*from) && row.get(2) == Some(&&*to));
        // `02` is the keepalive timer, then hundredths of a second.
        let timer = row.expect("the agent's end")[5].split_once(':');
        timer.is_some_and(|(kind, when)| {
            kind == "02" && u64::from_str_radix(when, 16).is_ok_and(|when| when > 0 && when <= 3000)
        })
    });
}

#[test]
fn the_answer_to_a_frame_that_is_too_long_arrives() {
    let agent = Agent::start();
    for _ in 0..10 {
        let mut socket = TcpStream::connect(agent.address).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.write_all(&(8u32 << 20).to_be_bytes()).expect("it reads");
        for _ in 0..8 {
            socket.write_all(&[b'x'; 1 << 20]).expect("it reads on");
        }
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("no reset");
        assert!(String::from_utf8_lossy(&answer).contains("at most 4194304"));
    }
    assert_nothing_left(&agent);
}

#[test]
fn one_who_goes_on_sending_is_given_up() {
    let agent = Agent::start();
    let mut socket = TcpStream::connect(agent.address).expect("a connection");
    socket.write_all(&(8u32 << 20).to_be_bytes()).expect("it reads");
    let start = Instant::now();
    while socket.write_all(&[b'x'; 1000]).is_ok() {
        assert!(start.elapsed() < PATIENCE, "it reads for ever");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_nothing_left(&agent);
}

#[test]
fn arguments_are_bounded() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let many = vec!["true"; 70_000];
    let large = vec!["x".repeat(60_000); 40];
    for params in [
        json!({"argv": many}),
        json!({"argv": large}),
        json!({"cmd": "true", "env": {"A": "x".repeat(3 << 20)}}),
    ] {
        assert_eq!(client.fail("exec", params)["code"], -32602);
    }
    client.call("ping", json!({}));
}

#[test]
fn a_number_that_somebody_else_has_now_is_not_signalled() {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    if !is_root() || std::fs::read(LAST).is_err() {
        return; // nobody else can choose the number of a process
    }
    let agent = Agent::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pids");
    let mut client = agent.dial();
    // The program ends; what it left fills the pipe, since nobody reads, and is killed: the job still waits.
    let params = json!({"cmd": "yes & echo $$ $! > $FILE; exit 0", "stream": true, "env": {"FILE": path}});
    client.send(json!(1), "exec", params);
    let mut pids = Vec::new();
    wait_until("the program has ended", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        pids = text
            .split_whitespace()
            .filter_map(|pid| pid.parse::<u32>().ok())
            .collect();
        text.ends_with('\n') && !exists(pids[0])
    });
    std::thread::sleep(Duration::from_millis(500));
    let kill = std::process::Command::new("kill")
        .args(["-9", &pids[1].to_string()])
        .status();
    assert!(kill.expect("kill").success(), "it waits for the client");
    wait_until("the group is gone", || !exists(pids[1]));
    let other = (0..500).find_map(|_| {
        std::fs::write(LAST, (pids[0] - 1).to_string()).expect("root may");
        let mut setsid = std::process::Command::new("setsid");
        let mut other = setsid.args(["sleep", "60"]).spawn().expect("setsid");
        if other.id() == pids[0] {
            return Some(other);
        }
        other.kill().expect("it is ours");
        other.wait().expect("it ends");
        None
    });
    let mut other = other.expect("some process gets the number");
    std::thread::sleep(Duration::from_millis(300));
    client.send(Value::Null, "signal", json!({"id": 1, "signal": 9}));
    drop(client);
    std::thread::sleep(Duration::from_millis(500));
    let ended = other.try_wait().expect("a child");
    other.kill().expect("it is ours");
    other.wait().expect("it ends");
    assert_eq!(ended, None, "it was signalled");
}

fn exists(pid: u32) -> bool {
    std::fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}
