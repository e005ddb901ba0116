//! Proves that a registry that sends without end costs a clear error, in bounded memory and time. Each build runs in a
//! process of its own; the registry is a thread of the test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use firebrick_digest::Digest;
use firebrick_testkit::child;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What is sent over and over again is this long.
const PIECE: usize = 1 << 20;

/// An answer: what the head says, and a body that may be followed by a gigabyte.
#[derive(Clone, Default)]
struct Answer {
    head: String,
    body: Vec<u8>,
    endless: Option<&'static str>,
}

impl Answer {
    fn new(status: &str, media_type: &str, body: impl ToString) -> Answer {
        Answer {
            head: format!("HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nConnection: close\r\n"),
            body: body.to_string().into_bytes(),
            endless: None,
        }
    }

    fn then_endless(mut self, text: &'static str) -> Answer {
        self.endless = Some(text);
        self
    }
}

/// Serves until the test program ends. The answer is a function of the path.
fn serve(answer: impl Fn(&str, SocketAddr) -> Answer + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let stream = stream.unwrap();
                if let Some(path) = path_asked(&stream) {
                    let answer = match path.as_str() {
                        "/v2/" => Answer::new("200 OK", "text/plain", ""),
                        path => answer(path, address),
                    };
                    send(stream, &answer);
                }
            });
        }
    });
    address
}

fn path_asked(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    first.split(' ').nth(1).map(str::to_owned)
}

/// The client hangs up when it has had enough; that is no failure here.
fn send(mut stream: TcpStream, answer: &Answer) {
    let piece = answer.endless.map(|text| text.repeat(PIECE / text.len()));
    let _ = stream.write_all(answer.head.as_bytes());
    let is_endless_head = answer.head.ends_with("X-Long: ");
    if !is_endless_head {
        let _ = stream.write_all(b"\r\n");
        let _ = stream.write_all(&answer.body);
    }
    for _ in 0..1024 {
        if let Some(piece) = &piece
            && stream.write_all(piece.as_bytes()).is_err()
        {
            return;
        }
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

fn manifest(config: &Value, layers: &[Value]) -> String {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).to_string()
}

fn config_descriptor(bytes: &[u8]) -> Value {
    descriptor("application/vnd.oci.image.config.v1+json", bytes)
}

fn refused(name: &str, address: SocketAddr, words: &[&str]) {
    let program = env!("CARGO_BIN_EXE_build-image");
    child::refused(program, name, &format!("{address}/x:v1"), words).unwrap();
}

#[test]
fn documents_without_end() {
    for (name, start, rest) in [
        ("nested", "{\"a\":", "{\"a\":"),
        ("a string", "{\"a\":\"", "long"),
        ("members", "{", "\"a\":1,"),
        (
            "manifests",
            "{\"schemaVersion\":2,\"manifests\":[",
            "{\"digest\":\"x\",\"size\":1},",
        ),
        ("spaces", "", " "),
    ] {
        let answer = Answer::new("200 OK", MANIFEST, start).then_endless(rest);
        let address = serve(move |_, _| answer.clone());
        refused(name, address, &["the manifest", "over the limit of 4194304"]);
    }
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(MANIFEST, b"{}")]}).to_string();
    let address = serve(move |path, _| match path.ends_with("/v1") {
        true => Answer::new("200 OK", INDEX, &index),
        false => Answer::new("200 OK", MANIFEST, "{").then_endless("\"a\":1,"),
    });
    refused(
        "below an index",
        address,
        &["the manifest", "over the limit of 4194304"],
    );
}

#[test]
fn configs_without_end() {
    let small = manifest(&config_descriptor(b"{}"), &[]);
    let address = serve(move |path, _| match path.contains("/manifests/") {
        true => Answer::new("200 OK", MANIFEST, &small),
        false => Answer::new("200 OK", "application/json", "{").then_endless("\"a\":1,"),
    });
    refused(
        "longer than said",
        address,
        &["the config", "over the limit of 4194304"],
    );
    let mut config = config_descriptor(b"{}");
    config["size"] = json!(1 << 30);
    let large = manifest(&config, &[]);
    let address = serve(move |_, _| Answer::new("200 OK", MANIFEST, &large));
    refused(
        "as long as said",
        address,
        &["the config", "1073741824, over the limit of 4194304"],
    );
}

#[test]
fn layers_without_end() {
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"").to_string()]}});
    let config = config.to_string();
    let config = config.replace("amd64", &firebrick_source::Platform::host().architecture);
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar", &[0; 1024]);
    let manifest = manifest(&config_descriptor(config.as_bytes()), &[layer]);
    let config_path = format!("/v2/x/blobs/{}", Digest::of(config.as_bytes()));
    let address = serve(move |path, _| {
        if path.contains("/manifests/") {
            Answer::new("200 OK", MANIFEST, &manifest)
        } else if path == config_path {
            Answer::new("200 OK", "application/json", &config)
        } else {
            Answer::new("200 OK", "application/octet-stream", "").then_endless("\0")
        }
    });
    refused(
        "layer",
        address,
        &["layer 0", "length is at least", "expected 1024"],
    );
}

/// What else a server can say, it can say without end.
#[test]
fn words_without_end() {
    let answer = Answer::new(
        "404 Not Found",
        "application/json",
        "{\"errors\":[{\"message\":\"",
    )
    .then_endless("no ");
    let address = serve(move |_, _| answer.clone());
    refused("a refusal", address, &["does not exist"]);

    let address = serve(move |path, address| match path.starts_with("/token") {
        true => Answer::new("200 OK", "application/json", "{\"token\":\"").then_endless("x"),
        false => {
            let mut answer = Answer::new("401 Unauthorized", "application/json", "");
            answer.head +=
                &format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"x\"\r\n");
            answer
        }
    });
    refused(
        "a token",
        address,
        &["the token server's answer is longer than 1 MiB"],
    );

    let address = serve(move |_, address| {
        let mut answer = Answer::new("302 Found", "text/plain", "");
        answer.head += &format!("Location: http://{address}/v2/again\r\n");
        answer
    });
    refused("redirects", address, &["more than 5 redirects"]);

    let mut answer = Answer::new("200 OK", MANIFEST, "").then_endless("x");
    answer.head += "X-Long: ";
    let address = serve(move |_, _| answer.clone());
    refused("a header", address, &["cannot read http://127.0.0.1"]);
}
