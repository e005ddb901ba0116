//! What is sent to jobs arrives whole or not at all, and never as something else, however full the agent is.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use crate::common::{Agent, Client, PATIENCE, assert_nothing_left, assert_small};
use serde_json::{Value, json};

/// A file whose lines are requests, and would be answered if anybody took them for such.
fn embedded(mark: &std::path::Path) -> Vec<u8> {
    let params = json!({"cmd": format!("touch {}", mark.display())});
    let request = json!({"jsonrpc": "2.0", "id": "embedded", "method": "exec", "params": params});
    let line = format!("{request}\n");
    line.repeat((3 << 20) / line.len()).into_bytes()
}

/// Sends `bytes` in pieces as the standard input of job 1; whether all were taken.
fn upload(client: &mut Client, bytes: &[u8], is_raw: bool) -> bool {
    let mut pieces = bytes.chunks(20_011).peekable();
    while let Some(piece) = pieces.next() {
        let eof = pieces.peek().is_none();
        let mut params = json!({"id": 1, "eof": eof});
        if is_raw {
            params["raw"] = piece.len().into();
        } else {
            params["data"] = base64(piece).into();
        }
        let line = json!({"jsonrpc": "2.0", "method": "stdin", "params": params});
        let mut message = format!("{line}\n").into_bytes();
        if is_raw {
            message.extend_from_slice(piece);
        }
        if client.socket.write_all(&message).is_err() {
            return false;
        }
    }
    true
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| char::from(LETTERS[bits as usize % 64]);
    let group = |three: &[u8]| {
        let bits = three.iter().chain([&0, &0]).take(3);
        let bits = bits.fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let text = [18, 12, 6, 0].map(|shift| letter(bits >> shift));
        let kept = three.len() + 1;
        let padded = text.into_iter().enumerate();
        padded
            .map(|(at, letter)| if at < kept { letter } else { '=' })
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// All that a client hears, which must be lines of JSON-RPC, whatever happens.
fn hears(client: &mut Client) -> Vec<Value> {
    let mut heard = Vec::new();
    while let Some(line) = client.try_receive_line() {
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"));
        assert_eq!(value["jsonrpc"], "2.0", "{value}");
        assert_ne!(value["id"], "embedded", "what was uploaded is answered");
        let is_result = value["id"] == 1;
        heard.push(value);
        if is_result {
            break;
        }
    }
    heard
}

/// Twelve uploads whose programs begin to read late, which is longer than the agent is patient when it is full.
#[test]
fn uploads_are_whole_or_refused_when_the_agent_is_full() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("mark");
    let bytes = embedded(&mark);
    let refused = std::thread::scope(|scope| {
        let uploads: Vec<_> = (0..12)
            .map(|number| {
                let (agent, bytes) = (&agent, &bytes);
                let path = folder.path().join(number.to_string());
                scope.spawn(move || {
                    let mut client = agent.dial();
                    let cmd = format!("sleep 8; cat > {}.part && mv {0}.part {0}", path.display());
                    client.send(json!(1), "exec", json!({"cmd": cmd, "stdin": true}));
                    let mut reading = Client::over(client.socket.try_clone().expect("a second handle"));
                    let hearing = std::thread::spawn(move || hears(&mut reading));
                    upload(&mut client, bytes, number % 2 == 0);
                    let heard = hearing.join().expect("JSON-RPC alone");
                    let last = heard.last();
                    if let Some(result) = last.filter(|last| last["id"] == 1) {
                        assert_eq!(result["result"]["exit_code"], 0, "{result}");
                        assert!(std::fs::read(&path).expect("the file") == *bytes, "a hole");
                        return 0;
                    }
                    assert!(!path.exists(), "half a file in its place");
                    if let Some(told) = last {
                        assert_eq!(told["error"]["code"], -32000, "{told}");
                    }
                    1
                })
            })
            .collect();
        uploads
            .into_iter()
            .map(|upload| upload.join().expect("whole or refused"))
            .sum::<u32>()
    });
    assert!(!mark.exists(), "what was uploaded was run");
    assert!((1..12).contains(&refused), "{refused} of 12 were refused");
    assert_small(&agent);
    assert_nothing_left(&agent);
}

/// The same with `put`, whose copies are held as a slow disk would.
#[test]
fn a_put_that_is_refused_leaves_nothing_in_its_place() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = embedded(&folder.path().join("mark"));
    let mut refused = 0;
    let mut clients: Vec<_> = (0..6)
        .map(|number| {
            let mut client = agent.dial();
            let path = folder.path().join(number.to_string());
            client.send(json!(1), "put", json!({"path": path}));
            // The copy is there before it is held.
            client.send(json!(2), "ping", json!({}));
            assert_eq!(client.receive()["id"], 2);
            client
        })
        .collect();
    let id = agent.process.id();
    let children =
        std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("the agent's children");
    let signal = |name: &str| {
        let mut kill = std::process::Command::new("kill");
        kill.arg(name).args(children.split_whitespace());
        let _ = kill.stderr(std::process::Stdio::null()).status();
    };
    signal("-STOP");
    std::thread::scope(|scope| {
        let bytes = &bytes;
        let uploads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(number, client)| {
                scope.spawn(move || {
                    let mut reading = Client::over(client.socket.try_clone().expect("a second handle"));
                    let hearing = std::thread::spawn(move || hears(&mut reading));
                    upload(client, bytes, number % 2 == 0);
                    hearing.join().expect("JSON-RPC alone")
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(8));
        signal("-CONT");
        for (number, upload) in uploads.into_iter().enumerate() {
            let heard = upload.join().expect("JSON-RPC alone");
            let path = folder.path().join(number.to_string());
            match heard.last() {
                Some(result) if result["id"] == 1 && result["error"].is_null() => {
                    assert!(
                        std::fs::read(&path).expect("the file") == *bytes,
                        "{result}: a hole"
                    );
                }
                _ => {
                    assert!(!path.exists(), "{heard:?}: half a file in its place");
                    refused += 1;
                }
            }
        }
    });
    assert!((1..6).contains(&refused), "{refused} of 6 were refused");
    drop(clients);
    assert_nothing_left(&agent);
    let names = std::fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(names, 6 - refused, "something is left behind");
}

/// Bytes that a message announces are no messages, though it cannot be read or comes behind one that cannot.
#[test]
fn a_message_that_cannot_be_read_ends_who_announces_bytes() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().expect("a folder");
    let mark = folder.path().join("mark");
    let exec = json!({"jsonrpc": "2.0", "id": "embedded", "method": "exec", "params": {"cmd": format!("touch {}", mark.display())}});
    let exec = format!("{exec}\n");
    let stdin = |params: Value| {
        format!(
            "{}\n",
            json!({"jsonrpc": "2.0", "method": "stdin", "params": params})
        )
    };
    let raw = exec.len();
    let fine = stdin(json!({"id": "nobody", "raw": 3})) + "abc";
    for (message, code) in [
        (stdin(json!({"id": "p", "raw": raw, "more": 1})), -32602),
        (stdin(json!({"id": "p", "raw": raw, "data": "?"})), -32602),
        (stdin(json!({"id": "p", "raw": 1u64 << 32})), -32602),
        (stdin(json!({"raw": raw})), -32602),
        (
            format!(
                "{}\n",
                json!({"jsonrpc": "2.0", "id": 3, "method": "stdin", "params": {"id": "p", "raw": raw}})
            ),
            -32600,
        ),
        (
            format!("{fine}{{\"jsonrpc\": \"2.0\", \"method\": \"stdin\", \"raw\"\n"),
            -32700,
        ),
        (fine + &"x".repeat(4 << 20) + "x\n", -32600),
    ] {
        let mut client = agent.dial();
        let _ = client.socket.write_all(message.as_bytes());
        let _ = client.socket.write_all(exec.as_bytes());
        client.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let reply = client.receive();
        assert_eq!(
            (&reply["id"], &reply["error"]["code"]),
            (&Value::Null, &json!(code)),
            "{reply}"
        );
        let mut rest = Vec::new();
        let _ = client.socket.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
    agent.dial().call("ping", json!({}));
    assert!(!mark.exists(), "what was announced as bytes was run");
    assert_nothing_left(&agent);
}

/// A file or folder in the place of `/dev/null` would change the machine under every program in it.
#[test]
fn devices_pipes_and_sockets_are_not_replaced() {
    use std::os::unix::fs::FileTypeExt as _;
    let agent = Agent::start();
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name);
    let run = |program: &str, args: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.current_dir(folder.path()).args(args);
        command
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    assert!(run("mkfifo", &["pipe"]));
    let _socket = std::os::unix::net::UnixListener::bind(place("socket")).expect("a socket");
    let mut names = vec!["pipe", "socket"];
    // The null device again, where this user can make one.
    if run("mknod", &["device", "c", "1", "3"]) {
        names.push("device");
    }
    let mut client = agent.dial();
    for name in &names {
        let before = std::fs::symlink_metadata(place(name))
            .expect("it is there")
            .file_type();
        let refused = client.fail("put", json!({"path": place(name)}));
        assert_eq!(refused["data"]["errno"], 17, "{refused}");
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(message.contains("which is not replaced"), "{message}");
        // The same by a tar.
        assert!(run("mkdir", &["-p", "tree"]));
        std::fs::write(place("tree").join(name), "x").expect("a file");
        let tar = std::process::Command::new("tar")
            .current_dir(place("tree"))
            .args(["-cf", "-", name])
            .output()
            .expect("tar runs");
        let mut client = agent.dial();
        client.send(json!(1), "put", json!({"path": folder.path(), "tree": true}));
        upload(&mut client, &tar.stdout, true);
        let refused = hears(&mut client);
        let errno = refused.last().map(|answer| &answer["error"]["data"]["errno"]);
        assert_eq!(errno, Some(&json!(17)), "{refused:?}");
        let after = std::fs::symlink_metadata(place(name))
            .expect("it is there")
            .file_type();
        assert_eq!(before, after, "{name}");
        assert!(after.is_fifo() || after.is_socket() || after.is_char_device());
    }
}
