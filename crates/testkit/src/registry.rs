//! A registry that serves one OCI image layout over plain HTTP on loopback, for tests of whoever uses registries.
//!
//! Only what a pull needs (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull>), without
//! ranges or tokens: real registries judge those, in the tests of crate `source`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

/// The server; it ends with this value.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Registry {
    /// Serves the layout in `dir` under every repository's name and every tag.
    ///
    /// # Errors
    /// If no port can be had.
    pub fn serve(dir: &Path) -> anyhow::Result<Registry> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening on loopback")?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (dir, stopped) = (dir.to_owned(), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let dir = dir.clone();
                // A client that hangs up is none of our business.
                std::thread::spawn(move || answer(&stream, &dir).ok());
            }
        });
        Ok(Registry { address, stop })
    }

    /// The image's name there, for `docker://` or bare.
    pub fn image(&self) -> String {
        format!("{}/test/image:v1", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It looks when somebody comes.
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut stream: &TcpStream, dir: &Path) -> anyhow::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().context("no request")??;
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let path = first.split(' ').nth(1).context("no path")?;
    let found = file(path, dir).map(|(media_type, file)| (media_type, std::fs::read(file)));
    let (status, media_type, body) = match found {
        Some((media_type, Ok(body))) => ("200 OK", media_type, body),
        _ if path == "/v2/" => ("200 OK", "application/json", b"{}".to_vec()),
        _ => ("404 Not Found", "application/json", b"{}".to_vec()),
    };
    let len = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n"
    )?;
    Ok(stream.write_all(&body)?)
}

/// The file that is asked for, and its media type.
fn file(path: &str, dir: &Path) -> Option<(&'static str, PathBuf)> {
    let (kind, name) = path.strip_prefix("/v2/test/image/")?.split_once('/')?;
    let hex = name.strip_prefix("sha256:");
    match (kind, hex) {
        ("manifests", None) => Some(("application/vnd.oci.image.index.v1+json", dir.join("index.json"))),
        ("manifests", Some(hex)) => Some((
            "application/vnd.oci.image.manifest.v1+json",
            dir.join("blobs/sha256").join(hex),
        )),
        ("blobs", Some(hex)) => Some(("application/octet-stream", dir.join("blobs/sha256").join(hex))),
        _ => None,
    }
}
