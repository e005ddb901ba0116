//! Requests to Firecracker's API: HTTP/1.1 over a Unix socket, a connection for each.
//!
//! What answers is another program, so its answer is bounded in length and time, and anything odd in it is an error.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::uds;

/// The longest answer that is read.
const ANSWER_LEN_MAX: usize = 256 << 10;

/// How the requests of this API begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Sets something.
    Put,
    /// Changes something.
    Patch,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Put => "PUT",
            Method::Patch => "PATCH",
        })
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// How it begins.
    pub method: Method,
    /// What it is about: `/drives/drive0`.
    pub path: String,
    /// What is said about that.
    pub body: Value,
}

impl Request {
    pub(super) fn put(path: impl Into<String>, body: Value) -> Request {
        Request {
            method: Method::Put,
            path: path.into(),
            body,
        }
    }

    pub(super) fn patch(path: impl Into<String>, body: Value) -> Request {
        Request {
            method: Method::Patch,
            path: path.into(),
            body,
        }
    }
}

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// Firecracker says no.
    #[error("Firecracker refuses {method} {path}: {fault}")]
    Refused {
        /// How the request began.
        method: Method,
        /// What it was about.
        path: String,
        /// The status, 400 as a rule.
        status: u16,
        /// Its own words.
        fault: String,
    },
    /// Firecracker does not answer.
    #[error("Firecracker did not answer {method} {path} within {} s", limit.as_secs_f32())]
    TimedOut {
        /// How the request began.
        method: Method,
        /// What it was about.
        path: String,
        /// How long it had.
        limit: Duration,
    },
    /// What answers is no HTTP server.
    #[error("the answer to {method} {path} is no HTTP: {what}")]
    Malformed {
        /// How the request began.
        method: Method,
        /// What it was about.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The connection broke.
    #[error("the connection broke at {method} {path}")]
    Broken {
        /// How the request began.
        method: Method,
        /// What it was about.
        path: String,
        /// What the host says.
        source: io::Error,
    },
}

/// Why no answer was read, before it is known to which request.
enum Failure {
    TimedOut,
    Malformed(&'static str),
    Io(io::Error),
}

/// The API behind a socket.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) socket: PathBuf,
}

impl Api {
    /// Makes a request, which has `limit` to be answered.
    pub(super) fn send(&self, request: &Request, limit: Duration) -> Result<(), ApiError> {
        let (method, path) = (request.method, request.path.clone());
        match self.exchange(request, limit) {
            Ok((200..=299, _)) => Ok(()),
            Ok((status, body)) => Err(ApiError::Refused {
                method,
                path,
                status,
                fault: fault(status, &body),
            }),
            Err(Failure::TimedOut) => Err(ApiError::TimedOut { method, path, limit }),
            Err(Failure::Malformed(what)) => Err(ApiError::Malformed { method, path, what }),
            Err(Failure::Io(source)) => Err(ApiError::Broken { method, path, source }),
        }
    }

    fn exchange(&self, request: &Request, limit: Duration) -> Result<(u16, Vec<u8>), Failure> {
        let deadline = Instant::now().checked_add(limit);
        let mut stream = uds::connect(&self.socket).map_err(Failure::Io)?;
        stream.set_write_timeout(Some(limit)).map_err(Failure::Io)?;
        let body = request.body.to_string();
        let message = format!(
            "{} {} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            request.method,
            request.path,
            body.len()
        );
        stream.write_all(message.as_bytes()).map_err(failure)?;
        let mut answer = Vec::new();
        loop {
            if let Some(whole) = parse(&answer).map_err(Failure::Malformed)? {
                return Ok(whole);
            }
            if answer.len() >= ANSWER_LEN_MAX {
                return Err(Failure::Malformed("it does not end"));
            }
            let left = deadline.map_or(limit, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return Err(Failure::TimedOut);
            }
            stream.set_read_timeout(Some(left)).map_err(Failure::Io)?;
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer) {
                Ok(0) => {
                    let text = "Firecracker closed it without an answer";
                    return Err(Failure::Io(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                }
                Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failure(error)),
            }
        }
    }
}

fn failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::TimedOut,
        _ => Failure::Io(error),
    }
}

/// Status and body, once all of the answer is there.
fn parse(answer: &[u8]) -> Result<Option<(u16, Vec<u8>)>, &'static str> {
    const BLANK: &[u8] = b"\r\n\r\n";
    let Some(head_len) = answer.windows(BLANK.len()).position(|window| window == BLANK) else {
        return Ok(None);
    };
    let (head, rest) = answer.split_at(head_len);
    let body = rest.get(BLANK.len()..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| "its head is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse::<u16>().ok())
        .ok_or("it has no status")?;
    let mut length = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.trim().eq_ignore_ascii_case("content-length") {
            length = Some(
                value
                    .trim()
                    .parse::<usize>()
                    .map_err(|_| "its length is no number")?,
            );
        }
    }
    let length = match (status, length) {
        (204, _) => 0,
        (_, Some(length)) => length,
        (_, None) => return Err("it has no length"),
    };
    if length > ANSWER_LEN_MAX {
        return Err("it is too long");
    }
    Ok(body.get(..length).map(|body| (status, body.to_vec())))
}

/// What Firecracker says is wrong, in one line.
fn fault(status: u16, body: &[u8]) -> String {
    let message = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|body| body.get("fault_message")?.as_str().map(str::to_owned));
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // It is shown on terminals.
    let message = message.replace(|c: char| c.is_control(), "\u{fffd}");
    match message.is_empty() {
        true => format!("status {status}"),
        false => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_when_they_are_whole() {
        let whole = b"HTTP/1.1 400 \r\nServer: x\r\nContent-Length: 4\r\n\r\nabcd";
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), Ok(None), "{len}");
        }
        assert_eq!(parse(whole), Ok(Some((400, b"abcd".to_vec()))));
        assert_eq!(
            parse(b"HTTP/1.1 204 \r\nConnection: keep-alive\r\n\r\n"),
            Ok(Some((204, Vec::new())))
        );
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        for (answer, what) in [
            (&b"hello\r\n\r\n"[..], "it has no status"),
            (b"HTTP/1.1\r\n\r\n", "it has no status"),
            (b"HTTP/1.1 99999999 x\r\n\r\n", "it has no status"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "it has no length"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
                "its length is no number",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
                "it is too long",
            ),
            (b"HTTP/1.1 200 \xff\r\n\r\n", "its head is no text"),
        ] {
            assert_eq!(parse(answer), Err(what), "{}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn faults_are_one_line() {
        assert_eq!(
            fault(400, br#"{"fault_message": "The kernel\n is  bad"}"#),
            "The kernel is bad"
        );
        assert_eq!(fault(500, b""), "status 500");
        assert_eq!(fault(404, b"nothing here\n"), "nothing here");
    }
}
