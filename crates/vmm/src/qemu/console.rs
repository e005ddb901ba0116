//! Collects what comes out of a descriptor: the guest's console, or QEMU's own complaints.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// How much is kept: the newest bytes.
const KEPT_BYTES: usize = 64 << 10;

/// The newest bytes of a stream, collected by a thread that ends with the stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    copy_to: Option<std::os::unix::net::UnixStream>,
}

impl Tail {
    /// Starts collecting.
    pub(super) fn of(fd: OwnedFd, name: &str) -> io::Result<Tail> {
        let tail = Tail::default();
        let mine = tail.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || mine.collect(fd))?;
        Ok(tail)
    }

    /// What is kept.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
            .clone()
    }

    /// Copies what comes from now on to `stream` too, until that is closed. A reader that does not keep up loses bytes.
    pub(super) fn copy_to(&self, stream: std::os::unix::net::UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).copy_to = Some(stream);
        Ok(())
    }

    fn collect(&self, fd: OwnedFd) {
        let mut file = std::fs::File::from(fd);
        let mut buffer = [0; 4096];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => self
                    .0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).copy_to = None;
    }
}

impl State {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * KEPT_BYTES {
            self.bytes.drain(..self.bytes.len() - KEPT_BYTES);
        }
        if let Some(stream) = &mut self.copy_to {
            let sent = io::Write::write(stream, bytes);
            if sent.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                self.copy_to = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_bytes_are_kept() {
        let mut state = State::default();
        for n in 0..100_000_u32 {
            state.push(&n.to_le_bytes());
        }
        assert!((KEPT_BYTES..=2 * KEPT_BYTES).contains(&state.bytes.len()));
        assert!(state.bytes.ends_with(&99_999_u32.to_le_bytes()));
    }
}
