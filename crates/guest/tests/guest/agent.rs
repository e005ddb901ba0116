//! The agent over TCP: jobs, bounds and the ways in which clients end.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::common::{Agent, is_root, runs, wait_until};
use serde_json::{Value, json};

fn decode(data: &Value) -> Vec<u8> {
    // Enough base64 for a test: what `base64 -d` says.
    let text = data.as_str().expect("data is text");
    let mut bits = 0u32;
    let mut count = 0;
    let mut bytes = Vec::new();
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => panic!("{letter} is no base64"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}

#[test]
fn jobs_get_what_they_ask_for() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let env = client.call(
        "exec",
        json!({"argv": ["env"], "env": {"A": "b=c ü", "PATH": "/usr/bin:/bin"}}),
    );
    let env = env["stdout"].as_str().expect("text").to_owned();
    assert!(env.lines().any(|line| line == "A=b=c ü"), "{env}");
    assert!(env.lines().any(|line| line == "PATH=/usr/bin:/bin"), "{env}");
    assert!(env.lines().any(|line| line.starts_with("HOME=/")), "{env}");
    assert_eq!(env.lines().count(), 3, "nothing of the agent's own environment");
    assert_eq!(
        client.call("exec", json!({"cmd": "pwd", "cwd": "/usr"}))["stdout"],
        "/usr\n"
    );
    let as_root = json!({"argv": ["id", "-u"], "user": "0"});
    if is_root() {
        let user = client.call("exec", as_root);
        assert_eq!((&user["stdout"], &user["exit_code"]), (&json!("0\n"), &json!(0)));
    } else {
        let refused = client.fail("exec", as_root);
        assert_eq!(
            (&refused["code"], &refused["data"]["errno"]),
            (&json!(-32603), &json!(1))
        );
    }
    // A session and group of its own, default signals, three descriptors and what `ls` opens itself.
    let script = "ps -o pid=,pgid=,sid= -p $$; grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd";
    let output = client.call("exec", json!({"cmd": script}))["stdout"]
        .as_str()
        .expect("text")
        .to_owned();
    let mut lines = output.lines();
    let ids: Vec<&str> = lines.next().expect("ids").split_whitespace().collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    for line in lines.by_ref().take(2) {
        assert!(line.ends_with("0000000000000000"), "{line}");
    }
    assert_eq!(lines.collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn a_user_who_is_not_root_owns_the_job() {
    if !is_root() {
        return; // only root can become somebody else; the agent says so otherwise
    }
    let agent = Agent::start();
    let mut client = agent.dial();
    let output = client.call(
        "exec",
        json!({"cmd": "id -u; id -g; id -G; echo $HOME", "user": "1234:77"}),
    );
    assert_eq!(output["stdout"], "1234\n77\n77\n/\n");
    assert_eq!(
        client.fail("exec", json!({"cmd": "id", "user": "no-such-user"}))["code"],
        -32602
    );
    assert_eq!(
        client.fail("exec", json!({"cmd": "id", "user": "0:no-such-group"}))["code"],
        -32602
    );
}

#[test]
fn output_that_is_not_streamed_is_cut() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let result = client.call(
        "exec",
        json!({"cmd": "head -c 5000000 /dev/zero | tr '\\0' x; echo err >&2"}),
    );
    let stdout = result["stdout"].as_str().expect("text");
    assert_eq!(stdout.len(), 1_048_576 + "\n... [output truncated]".len());
    assert!(stdout.ends_with("x\n... [output truncated]"));
    assert_eq!(result["stderr"], "err\n");
    // A letter of two bytes over the limit leaves no half letter.
    let result = client.call(
        "exec",
        json!({"cmd": "printf x; yes ü | head -n 900000 | tr -d '\\n'"}),
    );
    let stdout = result["stdout"].as_str().expect("text");
    assert!(stdout.starts_with("xüü") && stdout.ends_with("ü\n... [output truncated]"));
    assert!(!stdout.contains('\u{fffd}'));
    // What is no text stays as long, though all of it could be the rest of a letter.
    let result = client.call(
        "exec",
        json!({"cmd": "head -c 2000000 /dev/zero | tr '\\0' '\\200'"}),
    );
    let stdout = result["stdout"].as_str().expect("text");
    assert_eq!(stdout.matches('\u{fffd}').count(), 1_048_576);
    // What is no text becomes U+FFFD.
    assert_eq!(
        client.call("exec", json!({"cmd": "printf 'a\\377b'"}))["stdout"],
        "a\u{fffd}b"
    );
    // Exactly the limit is whole.
    let result = client.call("exec", json!({"cmd": "head -c 1048576 /dev/zero | tr '\\0' y"}));
    assert_eq!(result["stdout"].as_str().expect("text").len(), 1_048_576);
}

#[test]
fn streamed_output_is_complete_and_binary_safe() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let script = "i=0; while [ $i -lt 40 ]; do head -c 100003 /dev/urandom; i=$((i+1)); done | tee /dev/stderr | sha256sum >/dev/null";
    client.send(
        json!("s"),
        "exec",
        json!({"cmd": format!("{script}; printf '\\000\\377done'; exit 5"), "stream": true}),
    );
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let result = loop {
        let message = client.receive();
        if message["method"] == "output" {
            let params = &message["params"];
            assert_eq!(params["id"], "s");
            let data = decode(&params["data"]);
            assert!(!data.is_empty() && data.len() <= 32 * 1024);
            if params["stream"] == "stdout" {
                stdout.extend(data)
            } else {
                stderr.extend(data)
            }
        } else {
            break message;
        }
    };
    assert_eq!(
        (&result["id"], &result["result"]),
        (&json!("s"), &json!({"exit_code": 5}))
    );
    assert_eq!(stdout, b"\0\xffdone");
    assert_eq!(stderr.len(), 40 * 100_003);
}

#[test]
fn stdin_arrives_and_ends() {
    let agent = Agent::start();
    let mut client = agent.dial();
    client.send(json!(1), "exec", json!({"argv": ["sha256sum"], "stdin": true}));
    let piece = "QUJD".repeat(8192); // "ABC", 24 KiB of it
    for _ in 0..200 {
        client.send(Value::Null, "stdin", json!({"id": 1, "data": piece}));
    }
    client.send(Value::Null, "stdin", json!({"id": 1, "eof": true}));
    let expected = {
        let mut child = std::process::Command::new("sha256sum")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sha256sum");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all("ABC".repeat(8192 * 200).as_bytes())
            .expect("it reads");
        String::from_utf8(child.wait_with_output().expect("it ends").stdout).expect("text")
    };
    assert_eq!(client.receive()["result"]["stdout"], expected);
    // Without `stdin` it is empty, and stdin for nobody is ignored.
    client.send(
        Value::Null,
        "stdin",
        json!({"id": 77, "data": "QUJD", "eof": true}),
    );
    assert_eq!(client.call("exec", json!({"argv": ["cat"]}))["stdout"], "");
    // A program that does not read its stdin does not disturb; more than a pipe and a buffer hold waits with us.
    client.send(
        json!(2),
        "exec",
        json!({"cmd": "exec <&-; sleep 0.2; echo done", "stdin": true}),
    );
    for _ in 0..20 {
        client.send(Value::Null, "stdin", json!({"id": 2, "data": piece}));
    }
    assert_eq!(client.receive()["result"]["stdout"], "done\n");
}

#[test]
fn signals_reach_the_whole_group() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let script = "trap 'echo got; exit 7' TERM; sleep 100 & echo $!; wait";
    client.send(json!(9), "exec", json!({"cmd": script, "stream": true}));
    let first = client.receive();
    let pid: u64 = String::from_utf8(decode(&first["params"]["data"]))
        .expect("text")
        .trim()
        .parse()
        .expect("a pid");
    assert!(runs(pid));
    // The shell's child may still be the shell, with its trap.
    std::thread::sleep(Duration::from_millis(500));
    client.send(Value::Null, "signal", json!({"id": 9, "signal": "TERM"}));
    assert_eq!(decode(&client.receive()["params"]["data"]), b"got\n");
    assert_eq!(client.receive()["result"], json!({"exit_code": 7}));
    wait_until("the child is gone, too", || !runs(pid));
    client.send(json!(10), "exec", json!({"argv": ["sleep", "100"]}));
    client.send(Value::Null, "signal", json!({"id": 10, "signal": 9}));
    let result = client.receive()["result"].clone();
    assert_eq!(
        result,
        json!({"exit_code": 137, "signal": 9, "stdout": "", "stderr": ""})
    );
}

#[test]
fn a_timeout_kills_the_whole_group() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let start = Instant::now();
    let params = json!({"cmd": "sleep 100 & echo $!; sleep 100", "timeout_ms": 300});
    let result = client.call("exec", params);
    assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < Duration::from_secs(30));
    assert_eq!(
        (&result["timed_out"], &result["signal"], &result["exit_code"]),
        (&json!(true), &json!(9), &json!(137))
    );
    let pid: u64 = result["stdout"]
        .as_str()
        .expect("text")
        .trim()
        .parse()
        .expect("a pid");
    wait_until("the child is gone", || !runs(pid));
    // A job that ends in time is not touched.
    let result = client.call("exec", json!({"cmd": "exit 4", "timeout_ms": 50_000}));
    assert_eq!(
        (&result["exit_code"], &result["timed_out"]),
        (&json!(4), &Value::Null)
    );
}

#[test]
fn what_is_left_in_the_background_does_not_hold_the_answer() {
    let agent = Agent::start();
    let mut client = agent.dial();
    let start = Instant::now();
    let result = client.call("exec", json!({"cmd": "sleep 50 & echo $!"}));
    assert!(start.elapsed() < Duration::from_secs(20));
    let pid: u64 = result["stdout"]
        .as_str()
        .expect("text")
        .trim()
        .parse()
        .expect("a pid");
    assert!(runs(pid), "what was started on purpose goes on");
    client.call("exec", json!({"cmd": format!("kill -9 {pid}")}));
    // Output that comes a little later than the end of the program is still there.
    assert_eq!(
        client.call("exec", json!({"cmd": "(sleep 0.2; echo late) & echo now"}))["stdout"],
        "now\nlate\n"
    );
}

#[test]
fn a_client_that_vanishes_takes_its_jobs_along() {
    let agent = Agent::start();
    let files = agent.open_files() + 1;
    for how in ["close", "reset", "half"] {
        let mut client = agent.dial();
        client.send(
            json!(1),
            "exec",
            json!({"cmd": "echo $$; sleep 100 & echo $!; wait", "stream": true}),
        );
        let mut text = String::new();
        while text.lines().count() < 2 {
            text.push_str(&String::from_utf8(decode(&client.receive()["params"]["data"])).expect("text"));
        }
        let pids: Vec<u64> = text.lines().map(|line| line.parse().expect("a pid")).collect();
        assert!(pids.iter().all(|pid| runs(*pid)));
        match how {
            "close" => drop(client),
            "half" => {
                client.socket.shutdown(Shutdown::Write).expect("half closed");
                assert!(client.at_end(), "the agent closes its side, too");
            }
            _ => {
                // Unread input makes the close a reset.
                client.send(json!(2), "ping", json!({}));
                std::thread::sleep(Duration::from_millis(50));
                drop(client);
            }
        }
        wait_until(how, || pids.iter().all(|pid| !runs(*pid)));
    }
    wait_until("no descriptor is left", || agent.open_files() <= files);
}

#[test]
fn a_vanished_client_that_never_read_is_noticed() {
    let agent = Agent::start();
    let mut client = agent.dial();
    client.send(json!(1), "exec", json!({"cmd": "exec yes", "stream": true}));
    let yes = || {
        let children = format!("/proc/{0}/task/{0}/children", agent.process.id());
        !std::fs::read_to_string(children)
            .unwrap_or_default()
            .trim()
            .is_empty()
    };
    wait_until("it runs", yes);
    std::thread::sleep(Duration::from_millis(200));
    drop(client);
    wait_until("it is killed", || !yes());
}

#[test]
fn ids_and_limits() {
    let agent = Agent::start();
    let mut client = agent.dial();
    for id in [json!(0), json!(-5), json!("ü"), json!(1.5), json!(u64::MAX)] {
        client.send(id.clone(), "ping", json!({}));
        let reply = client.receive();
        assert_eq!((&reply["id"], &reply["result"]), (&id, &json!({"pong": true})));
    }
    client.send_raw(b"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}\n");
    assert_eq!(client.receive()["result"]["pong"], true);
    for number in 0..64 {
        client.send(json!(number), "exec", json!({"argv": ["sleep", "100"]}));
    }
    client.send(json!(63), "exec", json!({"argv": ["true"]}));
    let reply = client.receive();
    assert_eq!(
        (&reply["id"], &reply["error"]["code"]),
        (&json!(63), &json!(-32600)),
        "the id is in use"
    );
    client.send(json!(64), "exec", json!({"argv": ["true"]}));
    assert_eq!(client.receive()["error"]["code"], -32000, "64 jobs are the limit");
    assert_eq!(agent.dial().call("status", json!({}))["jobs"], 64);
    for number in 0..64 {
        client.send(Value::Null, "signal", json!({"id": number, "signal": "KILL"}));
    }
    let mut ids: Vec<u64> = (0..64)
        .map(|_| client.receive()["id"].as_u64().expect("an id"))
        .collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..64));
}

#[test]
fn hostile_lines_do_no_harm() {
    let agent = Agent::start();
    let mut client = agent.dial();
    // Longer than a line may be: one error, then the next line works.
    let junk = vec![b'x'; 64 * 1024];
    for _ in 0..200 {
        client.send_raw(&junk);
    }
    client.send_raw(b"\n");
    let reply = client.receive();
    assert_eq!(
        (&reply["id"], &reply["error"]["code"]),
        (&Value::Null, &json!(-32600))
    );
    assert!(client.call("ping", json!({}))["pong"].as_bool().expect("a pong"));
    // Noise, a line each.
    let mut random = 1u32;
    for _ in 0..2000 {
        let noise: Vec<u8> = (0..random % 60)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"{}[]\",:0123456789abcdefjsonrpc2.0\\\xff\x00 -"[(random >> 16) as usize % 38]
            })
            .collect();
        random = random.wrapping_add(7);
        client.send_raw(&[&noise[..], b"\n"].concat());
    }
    client.send(json!("last"), "ping", json!({}));
    while client.receive()["id"] != "last" {}
    for params in [
        json!([]),
        json!(null),
        json!({"argv": []}),
        json!({"argv": ["a\u{0}b"]}),
        json!({"cmd": "x", "argv": ["y"]}),
        json!({}),
        json!({"cmd": "x", "env": {"a=b": "c"}}),
        json!({"cmd": "x", "timeout_ms": -1}),
        json!({"cmd": "x", "timeout_ms": 0}),
        json!(["x"]),
        json!({"image_defaults": true}),
        json!({"cmd": "x", "cwd": "/no/such/folder"}),
        json!({"cmd": "x", "pty": true}),
    ] {
        assert_eq!(client.fail("exec", params.clone())["code"], -32602, "{params}");
    }
    assert!(agent.proc_status("VmRSS") < 16 * 1024, "memory is given back");
}

#[test]
fn programs_that_cannot_start_say_why() {
    let agent = Agent::start();
    let mut client = agent.dial();
    for (argv, errno) in [
        (json!(["no-such-program"]), 2),
        (json!(["/etc/passwd"]), 13),
        (json!(["/tmp"]), 13),
    ] {
        let error = client.fail("exec", json!({"argv": argv}));
        assert_eq!(
            (&error["code"], &error["data"]["errno"]),
            (&json!(-32603), &json!(errno)),
            "{argv}"
        );
    }
    // The seed's form: a result. As in a guest without that interpreter.
    let result = client.call(
        "exec_code",
        json!({"lang": "python", "code": "1", "env": {"PATH": "/nowhere"}}),
    );
    assert_eq!(
        (&result["exit_code"], &result["stdout"]),
        (&json!(-1), &json!(""))
    );
    assert!(
        result["stderr"]
            .as_str()
            .is_some_and(|text| text.contains("cannot start"))
    );
}

#[test]
fn secrets_stay_in_the_jobs_environment() {
    const SECRET: &str = "hunter2-of-the-test";
    let mut agent = Agent::start();
    let mut client = agent.dial();
    let params = json!({"cmd": "echo $$; sleep 100", "env": {"TOKEN": SECRET}, "stream": true});
    client.send(json!(1), "exec", params);
    let pid = String::from_utf8(decode(&client.receive()["params"]["data"])).expect("text");
    let read = |process: &str, file: &str| std::fs::read(format!("/proc/{process}/{file}")).expect("it runs");
    let holds = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(SECRET);
    assert!(holds(&read(pid.trim(), "environ")), "the job has it");
    let own = agent.process.id().to_string();
    for (process, file) in [
        (pid.trim(), "cmdline"),
        (pid.trim(), "comm"),
        (&own, "cmdline"),
        (&own, "comm"),
        (&own, "environ"),
    ] {
        assert!(!holds(&read(process, file)), "{file} of {process}");
    }
    let mut other = agent.dial();
    assert!(!other.call("status", json!({})).to_string().contains(SECRET));
    // Neither a job that cannot be started nor a broken request is told with it.
    let failed = other.fail(
        "exec",
        json!({"argv": ["/no/such/program"], "env": {"TOKEN": SECRET}}),
    );
    assert!(!failed.to_string().contains(SECRET));
    let refused = other.fail("exec", json!({"cmd": "x", "env": {"TOKEN": SECRET, "a=b": "c"}}));
    assert!(!refused.to_string().contains(SECRET));
    agent.job(&json!({"lang": "sh", "code": format!("true {SECRET}"), "stdin": SECRET}));
    assert!(!agent.last_words().contains(SECRET));
}
