//! What we have written down of the API, against the whole description of it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fake::{Fake, LIMIT, fake, full_api, here};

fn read(path: &std::path::Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("the file is there")).expect("it is JSON")
}

#[test]
fn our_facts_are_in_the_description() {
    let facts = read(&here().join("api.json"));
    let Some(full) = full_api() else { return };
    let full = read(&full);
    for (request, definition) in facts["requests"].as_object().unwrap() {
        let (method, path) = request.split_once(' ').unwrap();
        let parameters = full["paths"][path][method.to_lowercase()]["parameters"].as_array();
        let body = parameters
            .into_iter()
            .flatten()
            .find(|parameter| parameter["in"] == "body")
            .unwrap_or_else(|| panic!("there is no {request}"));
        let named = format!("#/definitions/{}", definition.as_str().unwrap());
        assert_eq!(body["schema"]["$ref"], named.as_str(), "{request}");
    }
    for (name, ours) in facts["definitions"].as_object().unwrap() {
        let theirs = &full["definitions"][name];
        let list = |value: &Value| value["required"].as_array().cloned().unwrap_or_default();
        assert_eq!(list(ours), list(theirs), "{name}: what is required");
        for (field, fact) in ours["properties"].as_object().unwrap() {
            for (key, value) in fact.as_object().unwrap() {
                assert_eq!(&theirs["properties"][field][key], value, "{name}.{field}: {key}");
            }
        }
    }
}

/// The other tests are worth something only if what is misspelt is found.
#[test]
fn the_fake_refuses_what_is_not_in_the_description() {
    let Some(fake) = fake("") else { return };
    let good = json!({ "vcpu_count": 1, "mem_size_mib": 128 });
    let server = Server::start(&fake);
    for (request, body, complaint) in [
        (
            "PUT /machine-config",
            json!({ "vcpus": 1, "vcpu_count": 1, "mem_size_mib": 128 }),
            "'vcpus' was unexpected",
        ),
        (
            "PUT /machine-config",
            json!({ "vcpu_count": 1 }),
            "'mem_size_mib' is a required property",
        ),
        (
            "PUT /machine-config",
            json!({ "vcpu_count": 64, "mem_size_mib": 128 }),
            "64 is greater than the maximum",
        ),
        (
            "PUT /actions",
            json!({ "action_type": "Stop" }),
            "'Stop' is not one of",
        ),
        (
            "PUT /machine-conf",
            good.clone(),
            "Invalid request method and/or path",
        ),
        (
            "PATCH /boot-source",
            good.clone(),
            "Invalid request method and/or path",
        ),
        (
            "PATCH /vm",
            json!({ "state": "Paused" }),
            "not supported before starting",
        ),
    ] {
        let answer = server.ask(request, body);
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains(complaint),
            "{request}: {answer}"
        );
    }
    assert!(
        server
            .ask("PUT /machine-config", good)
            .starts_with("HTTP/1.1 204")
    );
}

/// What a description cannot tell: files, sockets, lengths.
#[test]
fn the_fake_looks_at_what_is_named() {
    let Some(fake) = fake("") else { return };
    let server = Server::start(&fake);
    let socket = json!({ "guest_cid": 3, "uds_path": fake.at("api") });
    let drive = json!({ "drive_id": "drive0", "is_root_device": false, "path_on_host": fake.at("image") });
    for (request, body, complaint) in [
        ("PUT /vsock", socket, "in use"),
        ("PUT /drives/drive0", drive, "whether it is read-only"),
        (
            "PUT /boot-source",
            json!({ "kernel_image_path": fake.at("vmlinux"), "boot_args": "a\n" }),
            "non-printable",
        ),
        (
            "PUT /logger",
            json!({ "log_path": fake.at("nothing") }),
            "log file cannot be opened",
        ),
        (
            "PUT /snapshot/create",
            json!({ "snapshot_path": "x", "mem_file_path": "y", "version": "1.0" }),
            "'version' was unexpected",
        ),
    ] {
        let answer = server.ask(request, body);
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains(complaint),
            "{request}: {answer}"
        );
    }
    let long = json!({ "kernel_image_path": "x".repeat(60_000) });
    assert!(server.ask("PUT /boot-source", long).starts_with("HTTP/1.1 413"));
}

/// The fake without our driver.
struct Server {
    socket: PathBuf,
    child: Child,
}

impl Server {
    fn start(fake: &Fake) -> Server {
        let socket = fake.at("api");
        let child = Command::new(fake.at("firecracker"))
            .arg("--api-sock")
            .arg(&socket)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + LIMIT;
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "the fake does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Server { socket, child }
    }

    fn ask(&self, request: &str, body: Value) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let body = body.to_string();
        write!(
            stream,
            "{request} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
