//! Signals of this process as bytes from a descriptor, so that one `poll` can wait for them and everything else.
//!
//! A program calls [`Interrupts::catch`] once, early, and hands the value to [`crate::run()`]. From then on SIGINT, SIGTERM,
//! SIGHUP and SIGQUIT no longer end the process: each arrives as one byte, its number.
//!
//! Not everything can be interrupted: a VMM may not answer, a kernel is being tried. Who has sent three signals, none of which was
//! taken for a second, ends the process after all. Its VMM ends with it, and what it leaves the next machine removes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// So many signals end the process if nobody takes them.
const IN_VAIN: usize = 3;
/// For so long.
const IN_VAIN_FOR: Duration = Duration::from_secs(1);

/// Signals that have arrived and were not yet taken.
#[derive(Debug)]
pub struct Interrupts {
    stream: UnixStream,
    untaken: Untaken,
}

/// When those that were not yet taken came.
#[derive(Clone, Debug, Default)]
struct Untaken(Arc<Mutex<Vec<Instant>>>);

impl Untaken {
    /// One more, now. Whether that is one too many.
    fn add(&self, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < IN_VAIN {
            all.push(now);
        }
        all.len() >= IN_VAIN
            && all
                .first()
                .is_some_and(|first| now.duration_since(*first) >= IN_VAIN_FOR)
    }

    fn take(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.is_empty() {
            all.remove(0);
        }
    }
}

impl Interrupts {
    /// Catches the signals that ask this process to end.
    ///
    /// # Errors
    /// What the host said.
    pub fn catch() -> io::Result<Interrupts> {
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])?;
        let (sender, interrupts) = Interrupts::pair()?;
        let untaken = interrupts.untaken.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    if untaken.add(Instant::now()) {
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
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
        let interrupts = Interrupts {
            stream: receiver,
            untaken: Untaken::default(),
        };
        Ok((InterruptSender(sender), interrupts))
    }

    /// The same signals once more: who takes one of them takes it from both.
    ///
    /// # Errors
    /// What the host said.
    pub fn try_clone(&self) -> io::Result<Interrupts> {
        Ok(Interrupts {
            stream: self.stream.try_clone()?,
            untaken: self.untaken.clone(),
        })
    }

    /// The oldest signal that was not yet taken.
    pub fn take(&self) -> Option<i32> {
        let mut byte = [0];
        match io::Read::read(&mut &self.stream, &mut byte) {
            Ok(1) => {
                self.untaken.take();
                Some(i32::from(byte[0]))
            }
            _ => None,
        }
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
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
    fn three_in_vain_are_one_too_many() {
        let untaken = Untaken::default();
        let start = Instant::now();
        let add = |after_ms| untaken.add(start + Duration::from_millis(after_ms));
        // However many come at once, there was no time to take them.
        assert!(!add(0) && !add(1) && !add(2) && !add(900));
        assert!(add(1000));
        // With those that were taken it begins anew.
        for _ in 0..9 {
            untaken.take();
        }
        assert!(!add(5000) && !add(7000));
        untaken.take();
        assert!(!add(7500) && add(8000));
    }

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
