//! Servers that take connections and give next to nothing.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a connection by TLS begins with.
const TLS_HANDSHAKE: u8 = 22;

/// A server of this machine that says its words as slowly as it was made to.
#[derive(Debug)]
pub struct SlowServer {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl SlowServer {
    /// Takes connections, and says nothing to any.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn silent() -> io::Result<SlowServer> {
        SlowServer::start(String::new(), Duration::ZERO)
    }

    /// Answers with these headers (behind the status, each ended by CRLF) at once, then with an `x` after each pause, 1,000 times.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn trickling(status: u16, headers: &str, pause: Duration) -> io::Result<SlowServer> {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 1000\r\n{headers}\r\n");
        SlowServer::start(head, pause)
    }

    fn start(head: String, pause: Duration) -> io::Result<SlowServer> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = SlowServer {
            address: listener.local_addr()?,
            requests: Arc::default(),
        };
        let count = Arc::clone(&server.requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (head, count) = (head.clone(), Arc::clone(&count));
                std::thread::spawn(move || serve(stream, &head, pause, &count));
            }
        });
        Ok(server)
    }

    /// How many requests there were. What asks whether this is TLS is none.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Until the other side goes.
fn serve(mut stream: TcpStream, head: &str, pause: Duration, count: &AtomicUsize) -> Option<()> {
    let mut buffer = [0; 4096];
    let len = stream.read(&mut buffer).ok()?;
    if len > 0 && buffer[0] != TLS_HANDSHAKE {
        count.fetch_add(1, Ordering::Relaxed);
    }
    stream.write_all(head.as_bytes()).ok()?;
    for _ in 0..1000 {
        if head.is_empty() {
            break;
        }
        std::thread::sleep(pause);
        stream.write_all(b"x").ok()?;
    }
    while stream.read(&mut buffer).ok()? > 0 {}
    Some(())
}
