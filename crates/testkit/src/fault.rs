//! HTTP that goes wrong on purpose: a small server whose answers a test writes, alone or as a proxy before a real one.
//!
//! A [`Request`] has been read to its end when the test sees it; the [`Answer`] may be cut, lost or held back. Every connection
//! carries one request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

/// What a client asked.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET`, `PUT`, ….
    pub method: String,
    /// Path and query.
    pub target: String,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
    /// All of it.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("")
    }

    /// A value of the query, as it was sent.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// As it should.
    #[default]
    Whole,
    /// After so many bytes of the body, though the head promises all.
    Cut(usize),
    /// Before it began: the connection closes without an answer.
    Lost,
    /// Never: after so many bytes of the body nothing more comes, for a minute at most.
    Held(usize),
}

/// What the server answers.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// All of it; to `HEAD` only its length is told, unless a header tells another.
    pub body: Vec<u8>,
    /// Whether all of it arrives.
    pub end: End,
}

impl Answer {
    /// An answer that arrives.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            body: body.into(),
            ..Answer::default()
        }
    }

    /// The same with a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same with another end.
    #[must_use]
    pub fn ending(mut self, end: End) -> Answer {
        self.end = end;
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A server on a free port of loopback; it takes no more connections after this value is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// A server that answers as it is told.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> anyhow::Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening on loopback")?;
        let address = listener.local_addr()?;
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let handler: Arc<Handler> = Arc::new(handler);
        let (log, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (handler, log, stopped) = (Arc::clone(&handler), Arc::clone(&log), Arc::clone(&stopped));
                // A client that hangs up is none of our business.
                std::thread::spawn(move || serve(&stream, &*handler, &log, &stopped).ok());
            }
        });
        Ok(Server {
            address,
            requests,
            stop,
        })
    }

    /// A proxy before `upstream` (host and port). `edit` sees each request before it is sent on, with the means to send it.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn before(
        upstream: &str,
        edit: impl Fn(&Request, &dyn Fn() -> Answer) -> Answer + Send + Sync + 'static,
    ) -> anyhow::Result<Server> {
        let upstream = upstream.to_owned();
        Server::start(move |request| {
            let ask = || forward(&upstream, request).unwrap_or_else(|_| Answer::default().ending(End::Lost));
            edit(request, &ask)
        })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It looks when somebody comes.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut stream: &TcpStream,
    handler: &Handler,
    log: &Mutex<Vec<Request>>,
    stopped: &AtomicBool,
) -> anyhow::Result<()> {
    let request = read_request(stream)?;
    // Bodies of many MiB would fill the memory of a long test.
    let noted = Request {
        body: request.body.iter().take(4096).copied().collect(),
        ..request.clone()
    };
    log.lock().unwrap_or_else(PoisonError::into_inner).push(noted);
    let answer = handler(&request);
    let len = answer.body.len();
    let end = match answer.end {
        End::Whole => len,
        End::Cut(end) | End::Held(end) => end.min(len),
        End::Lost => return Ok(stream.shutdown(Shutdown::Both)?),
    };
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let is_told = answer
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !is_told && !matches!(answer.status, 204 | 304) {
        head.push_str(&format!("Content-Length: {len}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(answer.body.get(..end).unwrap_or_default())?;
    }
    if matches!(answer.end, End::Held(_)) {
        for _ in 0..1200 {
            std::thread::sleep(Duration::from_millis(50));
            if stopped.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    Ok(stream.shutdown(Shutdown::Both)?)
}

fn read_request(mut stream: &TcpStream) -> anyhow::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (
        words.next().context("no method")?,
        words.next().context("no target")?,
    );
    let headers = read_headers(&mut reader)?;
    if headers
        .get("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let len = headers
        .get("content-length")
        .and_then(|len| len.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Request {
        method,
        target,
        headers,
        body,
    })
}

fn read_headers(reader: &mut impl BufRead) -> anyhow::Result<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        line.clear();
    }
    Ok(headers)
}

/// Asks the real server the same, with every header as it was, since some are signed. HTTP/1.0, so that the answer is one piece.
///
/// # Errors
/// If it does not answer.
pub fn forward(upstream: &str, request: &Request) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(upstream)?;
    let mut head = format!("{} {} HTTP/1.0\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        if !matches!(name.as_str(), "connection" | "expect") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&request.body)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok());
    let headers = read_headers(&mut reader)?;
    let mut body = Vec::new();
    reader.read_to_end(&mut body)?;
    let is_ours = |name: &str| {
        matches!(name, "connection" | "transfer-encoding" | "keep-alive")
            || (name == "content-length" && request.method != "HEAD")
    };
    Ok(Answer {
        status: status.context("no status")?,
        headers: headers.into_iter().filter(|(name, _)| !is_ours(name)).collect(),
        body,
        end: End::Whole,
    })
}
