//! `firebrick guest`: the command becomes the guest that it carries.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn guest_serves_both_protocols() {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("firebrick"))
        .args(["guest", "--tcp", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("a pipe"))
        .read_line(&mut line)
        .expect("a line");
    let address = line.trim().rsplit(' ').next().expect("an address").to_owned();

    let mut job = TcpStream::connect(&address).expect("it listens");
    let json = br#"{"lang":"sh","code":"echo $((6 * 7))"}"#;
    job.write_all(
        &[
            &u32::try_from(json.len()).expect("short").to_be_bytes(),
            &json[..],
        ]
        .concat(),
    )
    .expect("it reads");
    let mut answer = String::new();
    job.read_to_string(&mut answer).expect("a frame");
    assert!(answer.contains(r#""stdout":"42\n""#), "{answer}");

    let mut rpc = TcpStream::connect(&address).expect("it listens");
    rpc.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n")
        .expect("it reads");
    let mut answer = String::new();
    BufReader::new(rpc).read_line(&mut answer).expect("a line");
    assert!(answer.contains("\"pong\":true"), "{answer}");

    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn wrong_flags_are_the_guests_to_refuse() {
    let output = Command::new(assert_cmd::cargo::cargo_bin("firebrick"))
        .args(["guest", "--port", "none"])
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no port"));
}
