//! A guest's serial console, and the collecting of what comes out of a descriptor: that console, or a VMM's complaints.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};

/// How much is kept: the newest bytes.
const KEPT_BYTES: usize = 64 << 10;

/// The newest bytes of a stream, collected by a thread that ends with the stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    copy_to: Option<UnixStream>,
}

impl Tail {
    /// Starts collecting.
    pub(crate) fn of(fd: OwnedFd, name: &str) -> io::Result<Tail> {
        let tail = Tail::default();
        let mine = tail.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || mine.collect(fd))?;
        Ok(tail)
    }

    /// What is kept.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
            .clone()
    }

    /// What is kept, which is then forgotten.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes)
    }

    /// Copies what comes from now on to `stream` too, until that is closed. A reader that does not keep up loses bytes.
    pub(crate) fn copy_to(&self, stream: UnixStream) -> io::Result<()> {
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

/// The two directions of a serial console: what the guest prints is collected, what is typed is passed on.
#[derive(Debug)]
pub(crate) struct Console {
    printed: Tail,
    typed: OwnedFd,
}

impl Console {
    /// The console behind our ends of the VMM's terminal: what it prints comes from one, what is typed goes to the other.
    pub(crate) fn of(printed: OwnedFd, typed: OwnedFd) -> io::Result<Console> {
        let printed = Tail::of(printed, "console")?;
        Ok(Console { printed, typed })
    }

    /// The newest bytes that were printed.
    pub(crate) fn printed(&self) -> &Tail {
        &self.printed
    }

    /// A stream that is the console from now on.
    pub(crate) fn attach(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut typed = std::fs::File::from(self.typed.try_clone()?);
        let mut from_user = ours.try_clone()?;
        self.printed.copy_to(ours)?;
        // `copy_to` makes the stream non-blocking, on all its descriptors.
        std::thread::Builder::new().name("typing".into()).spawn(move || {
            let mut buffer = [0; 256];
            while let Some(count) = read_when_ready(&mut from_user, &mut buffer) {
                if io::Write::write_all(&mut typed, &buffer[..count]).is_err() {
                    break;
                }
            }
        })?;
        Ok(theirs.into())
    }
}

/// Waits for bytes; `None` at the end.
fn read_when_ready(stream: &mut UnixStream, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match io::Read::read(stream, buffer) {
            Ok(0) => return None,
            Ok(count) => return Some(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(stream, PollFlags::IN)], None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
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
