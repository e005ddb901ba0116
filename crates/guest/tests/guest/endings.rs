//! What a job has started ends with it: whole sessions, of many process groups, and what descends from them.

use std::path::Path;
use std::time::Duration;

use crate::common::{Agent, Client, assert_nothing_left, runs, wait_until};
use serde_json::{Value, json};

/// The processes that a script has told of, once there are so many.
fn told(path: &Path, count: usize) -> Vec<u64> {
    let mut pids = Vec::new();
    wait_until("all are there", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        pids = text.lines().filter_map(|line| line.parse().ok()).collect();
        pids.len() == count
    });
    pids
}

/// A way to end a job: its name, what is asked beside its parameters, and what is done then.
type Way = (&'static str, Value, fn(Client) -> Option<Client>);

fn ways() -> [Way; 3] {
    [
        ("the client vanishes", json!({}), |_| None),
        ("it is killed", json!({}), |mut client| {
            client.send(Value::Null, "signal", json!({"id": 1, "signal": "KILL"}));
            Some(client)
        }),
        ("its time is over", json!({"timeout_ms": 1500}), Some),
    ]
}

/// Runs a shell's script, which writes the numbers of its processes to `$FILE`, and ends it in each way.
fn check(program: &[&str], script: &str, count: usize, pty: bool) {
    let agent = Agent::start();
    for (what, more, end) in ways() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pids");
        let mut client = agent.dial();
        let argv: Vec<&str> = program.iter().copied().chain([script]).collect();
        let mut params = json!({"argv": argv, "stdin": true, "stream": true, "env": {"FILE": path}});
        if pty {
            params["pty"] = json!({"rows": 24, "cols": 80});
        }
        if let Value::Object(more) = more {
            params.as_object_mut().expect("an object").extend(more);
        }
        client.send(json!(1), "exec", params);
        let pids = told(&path, count);
        let _client = end(client);
        for pid in pids {
            wait_until(&format!("{what}: {pid} has ended"), || !runs(pid));
        }
    }
    assert_nothing_left(&agent);
}

/// Does not end by a hang-up.
const STUBBORN: &str = "sh -c 'trap \"\" HUP TERM INT; echo $$ >> $FILE; while :; do sleep 1000; done'";

#[test]
fn a_shell_s_jobs_on_a_terminal_end_with_it() {
    let script = format!("set -m; {STUBBORN} & {STUBBORN} & echo $$ >> $FILE; wait");
    check(&["bash", "-c"], &script, 3, true);
}

#[test]
fn process_groups_without_a_terminal_end_too() {
    let script = format!("set -m; {STUBBORN} & echo $$ >> $FILE; wait");
    check(&["bash", "-c"], &script, 2, false);
}

#[test]
fn descendants_in_sessions_of_their_own_end_too() {
    let script = format!("setsid {STUBBORN} & echo $$ >> $FILE; wait");
    check(&["sh", "-c"], &script, 2, false);
}

/// What a shell is just about to put into a session of its own is found, too.
#[test]
fn clients_that_vanish_while_their_jobs_start_leave_nothing() {
    let agent = Agent::start();
    for n in 0..60 {
        let mut client = agent.dial();
        let mut params = json!({"cmd": "setsid sleep 1000 & sleep 1000 & wait"});
        if n % 2 == 0 {
            params["pty"] = json!({"rows": 24, "cols": 80});
        }
        client.send(json!(1), "exec", params);
        std::thread::sleep(Duration::from_millis(n / 6));
    }
    assert_nothing_left(&agent);
}

/// The first process ends with its terminal, or when nobody reads its output: what descends from it is found all the same.
#[test]
fn descendants_of_who_ends_with_the_client_end_too() {
    let script = format!("setsid {STUBBORN} & echo $$ >> $FILE; wait");
    check(&["sh", "-c"], &script, 2, true);
    let script = format!("setsid {STUBBORN} > /dev/null 2>&1 & echo $$ >> $FILE; exec yes");
    check(&["sh", "-c"], &script, 2, false);
}

#[test]
fn what_the_first_process_left_ends_with_its_job() {
    // The shell has ended; what it left holds its outputs, which nobody reads.
    let agent = Agent::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pids");
    let mut client = agent.dial();
    let script = format!("set -m; {STUBBORN} & yes & echo $! >> $FILE; exit 0");
    let params = json!({"argv": ["bash", "-c", script], "stream": true, "env": {"FILE": path}});
    client.send(json!(1), "exec", params);
    let pids = told(&path, 2);
    std::thread::sleep(Duration::from_millis(300));
    drop(client);
    for pid in pids {
        wait_until("it has ended", || !runs(pid));
    }
    assert_nothing_left(&agent);
}

#[test]
fn steps_of_framed_jobs_leave_nothing() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pids");
    let stubborn = STUBBORN.replace("$FILE", path.to_str().expect("text"));
    let code = format!(
        "set -m; {stubborn} > /dev/null 2>&1 & while [ ! -s {} ]; do sleep 0.05; done; echo done",
        path.display()
    );
    let answer = agent.job(&json!({"lang": "bash", "code": code}));
    assert_eq!(answer["stdout"], "done\n");
    for pid in told(&path, 1) {
        wait_until("it has ended", || !runs(pid));
    }
    assert_nothing_left(&agent);
}

#[test]
fn what_is_left_on_purpose_lives_on_until_its_end() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let cmd = "setsid sleep 2 > /dev/null 2>&1 < /dev/null & echo $!";
    let result = client.call("exec", json!({"cmd": cmd}));
    let pid = result["stdout"]
        .as_str()
        .and_then(|text| text.trim().parse().ok())
        .expect("a number");
    drop(client);
    std::thread::sleep(Duration::from_millis(700));
    assert!(runs(pid), "it was ended");
    wait_until("it ends", || !runs(pid));
    assert_nothing_left(&agent);
}
