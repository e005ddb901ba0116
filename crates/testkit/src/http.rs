//! A small HTTP server in the test's own process, and a proxy in front of a real registry that can be told to fail.
//!
//! Whatever goes wrong in here is a test's failure, so it panics.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a client asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What follows the head.
    pub body: Vec<u8>,
}

impl Request {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Whether it is about a blob, or an upload of one.
    pub fn is_blob(&self) -> bool {
        self.target.contains("/blobs/")
    }
}

/// What the server answers.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The HTTP status; with 0 the connection ends without an answer.
    pub status: u16,
    /// Besides the length and the end of the connection.
    pub headers: Vec<(String, String)>,
    /// What follows the head; of an answer to `HEAD` only its length is told.
    pub body: Vec<u8>,
    /// The connection breaks after this many bytes of the body, whatever the length says.
    pub cut: Option<usize>,
    /// The body is held back after this many bytes until `release` is set.
    pub hold: Option<(usize, Arc<AtomicBool>)>,
}

impl Answer {
    /// An answer without headers of its own.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            body: body.into(),
            ..Answer::default()
        }
    }

    /// With one more header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A server on a free loopback port; ends with this value.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Answers every request by `handler`, each in a thread of its own.
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        Server::start_at("127.0.0.1:0", handler)
    }

    /// As [`Server::start`], at another address of this machine.
    pub fn start_at(address: &str, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let handler: Arc<Handler> = Arc::new(handler);
        let (log, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                thread::spawn(move || serve(&stream.unwrap(), &*handler, &log));
            }
        });
        Server {
            address,
            requests,
            stop,
        }
    }

    /// A proxy before the registry at `upstream`; `edit` may change each answer.
    pub fn before(
        upstream: &str,
        edit: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
    ) -> Server {
        let upstream = upstream.to_owned();
        Server::start(move |request| edit(request, forward(&upstream, request)))
    }

    /// What has been asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// What of it was about blobs.
    pub fn blob_requests(&self) -> Vec<Request> {
        self.requests().into_iter().filter(Request::is_blob).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: &TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) {
    // Head and body are written one after the other; neither is to wait for word of the other.
    let _ = stream.set_nodelay(true);
    let Some(request) = read_request(stream) else {
        return;
    };
    log.lock().unwrap().push(request.clone());
    let answer = handler(&request);
    if answer.status == 0 {
        return;
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", answer.body.len()));
    let mut stream = stream;
    let mut write = |bytes: &[u8]| stream.write_all(bytes).is_ok();
    let end = match request.method.as_str() {
        "HEAD" => 0,
        _ => answer.cut.unwrap_or(answer.body.len()).min(answer.body.len()),
    };
    let first = answer.hold.as_ref().map_or(end, |(first, _)| *first).min(end);
    if !write(head.as_bytes()) || !write(&answer.body[..first]) {
        return;
    }
    if let Some((_, release)) = &answer.hold {
        while !release.load(Ordering::Relaxed) {
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    write(&answer.body[first..end]);
    let _ = stream.shutdown(Shutdown::Both);
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = read_headers(&mut reader);
    let len = headers
        .get("content-length")
        .and_then(|len| len.parse().ok())
        .unwrap_or(0);
    let mut body = Vec::new();
    reader.take(len).read_to_end(&mut body).ok()?;
    Some(Request {
        method,
        target,
        headers,
        body,
    })
}

fn read_headers(reader: &mut impl BufRead) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|len| len > 2) {
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        line.clear();
    }
    headers
}

/// Asks the real server the same, who takes itself to be where the client asked. HTTP/1.0, so that the answer comes in one piece.
pub fn forward(upstream: &str, request: &Request) -> Answer {
    let mut stream = TcpStream::connect(upstream).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut head = format!("{} {} HTTP/1.0\r\n", request.method, request.target);
    for name in [
        "host",
        "accept",
        "range",
        "authorization",
        "content-type",
        "content-length",
    ] {
        if let Some(value) = request.header(name) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // Who has seen enough hangs up early.
    let _ = stream.write_all(&request.body);
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let headers = read_headers(&mut reader);
    let mut body = Vec::new();
    reader.read_to_end(&mut body).unwrap();
    if request.method == "HEAD" {
        let len = headers.get("content-length").and_then(|len| len.parse().ok());
        body = vec![0; len.unwrap_or(0)];
    }
    let kept = [
        "content-type",
        "docker-content-digest",
        "content-range",
        "www-authenticate",
        "location",
        "retry-after",
        "link",
        "oci-subject",
    ];
    let headers = headers
        .into_iter()
        .filter(|(name, _)| kept.contains(&name.as_str()))
        .collect();
    Answer {
        status,
        headers,
        body,
        ..Answer::default()
    }
}

/// A proxy for `CONNECT` that counts its tunnels.
#[derive(Debug)]
pub struct Tunnels {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its tunnels were to lead, as the clients said.
    pub targets: Arc<Mutex<Vec<String>>>,
}

impl Tunnels {
    /// A proxy that does what it is asked.
    pub fn start() -> Tunnels {
        Tunnels::start_with(None)
    }

    /// All tunnels lead to `target`, whatever the client asks.
    pub fn start_to(target: SocketAddr) -> Tunnels {
        Tunnels::start_with(Some(target))
    }

    fn start_with(fixed: Option<SocketAddr>) -> Tunnels {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let targets = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&targets);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let log = Arc::clone(&log);
                thread::spawn(move || tunnel(stream.unwrap(), fixed, &log));
            }
        });
        Tunnels { address, targets }
    }
}

fn tunnel(client: TcpStream, fixed: Option<SocketAddr>, log: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let target = line.split_whitespace().nth(1).unwrap_or("").to_owned();
    read_headers(&mut reader);
    if !line.starts_with("CONNECT ") {
        return;
    }
    log.lock().unwrap().push(target.clone());
    let upstream = match fixed {
        Some(address) => TcpStream::connect(address),
        None => TcpStream::connect(&target),
    };
    let Ok(upstream) = upstream else {
        return;
    };
    (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut from, mut to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut reader, &mut &upstream);
    let _ = upstream.shutdown(Shutdown::Write);
}
