//! Signals of this process as bytes from a descriptor, so that one `poll` can wait for them and everything else.
//!
//! A program calls [`Interrupts::catch`] once, early, and hands the value to [`crate::run()`]. From then on SIGINT, SIGTERM,
//! SIGHUP and SIGQUIT no longer end the process: each arrives as one byte, its number.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// Signals that have arrived and were not yet taken.
#[derive(Debug)]
pub struct Interrupts(UnixStream);

impl Interrupts {
    /// Catches the signals that ask this process to end.
    ///
    /// # Errors
    /// What the host said.
    pub fn catch() -> io::Result<Interrupts> {
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        let (sender, interrupts) = Interrupts::pair()?;
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    sender.send(signal);
                }
            })?;
        Ok(interrupts)
    }

    /// Interrupts that only the sender beside them makes; for tests and for programs with signal handling of their own.
    ///
    /// # Errors
    /// What the host said.
    pub fn pair() -> io::Result<(InterruptSender, Interrupts)> {
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        Ok((InterruptSender(sender), Interrupts(receiver)))
    }

    /// The same signals once more: who takes one of them takes it from both.
    ///
    /// # Errors
    /// What the host said.
    pub fn try_clone(&self) -> io::Result<Interrupts> {
        self.0.try_clone().map(Interrupts)
    }

    /// The oldest signal that was not yet taken.
    pub fn take(&self) -> Option<i32> {
        let mut byte = [0];
        match io::Read::read(&mut &self.0, &mut byte) {
            Ok(1) => Some(i32::from(byte[0])),
            _ => None,
        }
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes interrupts.
#[derive(Debug)]
pub struct InterruptSender(UnixStream);

impl InterruptSender {
    /// Sends signal number `signal`.
    pub fn send(&self, signal: i32) {
        if let Ok(byte) = u8::try_from(signal) {
            // Full only if hundreds wait already.
            let _ = io::Write::write(&mut &self.0, &[byte]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_come_in_order() {
        let (sender, interrupts) = Interrupts::pair().unwrap();
        assert_eq!(interrupts.take(), None);
        sender.send(SIGINT);
        sender.send(SIGTERM);
        assert_eq!(
            [interrupts.take(), interrupts.take(), interrupts.take()],
            [Some(2), Some(15), None]
        );
    }
}
