//! The guest's vsock, through a device that speaks Firecracker's protocol on a Unix socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use firebrick_vmm::{BootError, LaunchError, boot};
use serde_json::{Value, json};

use crate::host::{ANSWER_LIMIT, host, output};
use crate::images;

/// What any client of Firecracker does: ask for a port, then speak with what listens there.
fn connect(socket: &Path, port: u32) -> Option<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket).expect("the device listens");
    stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    // In one piece: the device takes what the first read gives for the whole line.
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    // A connection that is refused may be reset too.
    let _ = reader.read_line(&mut answer);
    answer.starts_with("OK ").then_some(reader)
}

fn call(agent: &mut BufReader<UnixStream>, method: &str, params: &Value) -> Value {
    let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    writeln!(agent.get_mut(), "{request}").unwrap();
    let mut line = String::new();
    agent.read_line(&mut line).unwrap();
    let mut answer: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(answer["id"], 7, "{line}");
    answer["result"].take()
}

/// A framed job: a length of four bytes, the most significant first, and JSON; the same back.
fn framed(jobs: &mut BufReader<UnixStream>, job: &Value) -> Value {
    let body = job.to_string();
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    jobs.get_mut()
        .write_all(&[&len, body.as_bytes()].concat())
        .unwrap();
    let mut len = [0; 4];
    jobs.read_exact(&mut len).unwrap();
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
    jobs.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn the_agent_answers_on_vsock_as_under_firecracker() {
    let (Some(image), Some(host)) = (images::any(json!({})), host()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("v,sock");
    // What a killed run left is no hindrance.
    drop(UnixListener::bind(&socket).unwrap());
    let mut spec = host.spec(&image.path);
    spec.vsock_socket = Some(socket.clone());
    let mut booted =
        boot(&host.qemu, &spec, None).unwrap_or_else(|error| panic!("{}", crate::common::chain(&error)));
    // The connection that `boot` made is one of these: nothing of the serial port is in it.
    assert_eq!(output(&mut booted.client, "echo over vsock"), "over vsock\n");

    let mut agent = connect(&socket, 52).expect("the agent listens on port 52");
    assert_eq!(call(&mut agent, "ping", &json!({}))["pong"], true);
    let mut second = connect(&socket, 52).expect("many clients at once");
    let ran = call(&mut second, "exec", &json!({ "cmd": "echo $((6 * 7)); exit 3" }));
    assert_eq!((&ran["stdout"], &ran["exit_code"]), (&json!("42\n"), &json!(3)));
    let many = json!({ "cmd": "head -c 600000 /dev/zero | tr '\\0' x" });
    let ran = call(&mut agent, "exec", &many);
    assert_eq!(ran["stdout"].as_str().map(str::len), Some(600_000));
    assert!(connect(&socket, 53).is_none(), "nothing listens on port 53");
    let mut jobs = connect(&socket, 5000).expect("the agent listens on port 5000");
    let job = json!({ "trace_id": "t", "lang": "sh", "code": "echo $((6 * 7)); cat", "stdin": "typed" });
    let result = framed(&mut jobs, &job);
    assert_eq!(
        (&result["status"], &result["stdout"]),
        (&json!("success"), &json!("42\ntyped")),
        "{result}"
    );

    drop(booted);
    assert!(agent.read(&mut [0]).is_ok_and(|count| count == 0) || !socket.exists());
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_socket_in_use_and_a_file_in_the_way_are_left_alone() {
    let (Some(image), Some(host)) = (images::any(json!({})), host()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (used, file) = (folder.path().join("used"), folder.path().join("file"));
    let _listener = UnixListener::bind(&used).unwrap();
    std::fs::write(&file, "precious").unwrap();
    for path in [used, file] {
        let mut spec = host.spec(&image.path);
        spec.vsock_socket = Some(path.clone());
        spec.answer_limit = Duration::from_secs(1);
        let error = boot(&host.qemu, &spec, None).unwrap_err();
        assert!(
            matches!(error, BootError::Launch(LaunchError::Host { .. })),
            "{error:?}"
        );
        assert!(path.exists());
    }
}
