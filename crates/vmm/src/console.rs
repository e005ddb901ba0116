//! A guest's serial console, and the collecting of what comes out of a descriptor: that console, or a VMM's complaints.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much is kept: the newest bytes.
const KEPT_BYTES: usize = 64 << 10;

/// The newest bytes of a stream, collected by a thread that ends with the stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    copy_to: Option<Arc<UnixStream>>,
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
        self.lock().bytes.clone()
    }

    /// What is kept, which is then forgotten.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock().bytes)
    }

    /// Copies what comes from now on to `stream` too, until that is closed; whoever had the copy until now is told its end.
    ///
    /// While the stream is not read nothing is collected either. Whoever prints has to wait, unless it does not wait for anyone, as
    /// Firecracker: then what the pipe has no room for is lost.
    fn copy_to(&self, stream: UnixStream) {
        let before = self.lock().copy_to.replace(Arc::new(stream));
        if let Some(before) = before {
            // Wakes the collecting thread, too, if it waits for that reader.
            let _ = before.shutdown(Shutdown::Both);
        }
    }

    fn collect(&self, fd: OwnedFd) {
        let mut file = std::fs::File::from(fd);
        let mut buffer = [0; 4096];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => self.take_in(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if let Some(stream) = self.lock().copy_to.take() {
            // There are other descriptors of it; this is what its reader sees as the end.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn take_in(&self, bytes: &[u8]) {
        let stream = {
            let mut state = self.lock();
            state.push(bytes);
            state.copy_to.clone()
        };
        // Not under the lock: it may take as long as its reader likes.
        let Some(stream) = stream else { return };
        if (&*stream).write_all(bytes).is_err() {
            let mut state = self.lock();
            if state
                .copy_to
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(now, &stream))
            {
                state.copy_to = None;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * KEPT_BYTES {
            self.bytes.drain(..self.bytes.len() - KEPT_BYTES);
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

    /// A stream that is the console from now on, until the machine ends.
    pub(crate) fn attach(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut typed = std::fs::File::from(self.typed.try_clone()?);
        let mut from_user = ours.try_clone()?;
        std::thread::Builder::new().name("typing".into()).spawn(move || {
            // Not `io::copy`: that splices, and holds a pipe's lock while it waits for more.
            let mut buffer = [0; 256];
            while let Ok(len @ 1..) = from_user.read(&mut buffer) {
                if typed.write_all(&buffer[..len]).is_err() {
                    break;
                }
            }
        })?;
        self.printed.copy_to(ours);
        Ok(theirs.into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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

    #[test]
    fn a_slow_reader_loses_nothing() {
        const LEN: usize = 4 << 20;
        let (printed, mut guest) = io::pipe().unwrap();
        let (_typed_at, typed) = io::pipe().unwrap();
        let console = Console::of(printed.into(), typed.into()).unwrap();
        let mut attached = UnixStream::from(console.attach().unwrap());
        let bytes: Vec<u8> = (0..LEN).map(|n| (n / 7 % 251).to_le_bytes()[0]).collect();
        let wanted = bytes.clone();
        let guest = std::thread::spawn(move || guest.write_all(&bytes).unwrap());
        // Nobody reads for a while: then the guest waits, and nothing grows.
        std::thread::sleep(Duration::from_millis(300));
        assert!(!guest.is_finished());
        let mut read = Vec::new();
        let mut buffer = [0; 50_000];
        while let len @ 1.. = attached.read(&mut buffer).unwrap() {
            read.extend_from_slice(&buffer[..len]);
            std::thread::sleep(Duration::from_micros(200));
        }
        guest.join().unwrap();
        assert!(read == wanted, "{} of {LEN} bytes", read.len());
        assert!(wanted.ends_with(&console.printed().bytes()));
    }

    #[test]
    fn who_does_not_read_can_be_relieved() {
        let (printed, mut guest) = io::pipe().unwrap();
        let (_typed_at, typed) = io::pipe().unwrap();
        let console = Console::of(printed.into(), typed.into()).unwrap();
        let mut first = UnixStream::from(console.attach().unwrap());
        let guest = std::thread::spawn(move || {
            guest.write_all(&vec![b'a'; 2 << 20]).unwrap();
            guest.write_all(b"the end").unwrap();
        });
        std::thread::sleep(Duration::from_millis(100));
        let mut second = UnixStream::from(console.attach().unwrap());
        let mut read = Vec::new();
        second.read_to_end(&mut read).unwrap();
        assert!(read.ends_with(b"athe end"));
        guest.join().unwrap();
        read.clear();
        first.read_to_end(&mut read).unwrap();
        assert!(!read.is_empty() && read.iter().all(|byte| *byte == b'a'));
        // One that is gone is in nobody's way either.
        let (printed, mut guest) = io::pipe().unwrap();
        let console = Console::of(printed.into(), io::pipe().unwrap().1.into()).unwrap();
        drop(console.attach().unwrap());
        guest.write_all(&vec![b'b'; 2 << 20]).unwrap();
    }
}
