//! Which descriptors the loop waits for, and what each stands for.

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

/// What a descriptor stands for. The number is that of the connection, job or listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Signals,
    Serial,
    Listener(u32),
    Conn(u32),
    JobStart(u32),
    JobStdin(u32),
    JobStdout(u32),
    JobStderr(u32),
}

impl Token {
    fn data(self) -> EventData {
        let (kind, number) = match self {
            Token::Signals => (0, 0),
            Token::Serial => (1, 0),
            Token::Listener(number) => (2, number),
            Token::Conn(number) => (3, number),
            Token::JobStart(number) => (4, number),
            Token::JobStdin(number) => (5, number),
            Token::JobStdout(number) => (6, number),
            Token::JobStderr(number) => (7, number),
        };
        EventData::new_u64(kind << 32 | u64::from(number))
    }

    pub(super) fn from_data(data: EventData) -> Token {
        let number = data.u64() as u32;
        match data.u64() >> 32 {
            0 => Token::Signals,
            1 => Token::Serial,
            2 => Token::Listener(number),
            3 => Token::Conn(number),
            4 => Token::JobStart(number),
            5 => Token::JobStdin(number),
            6 => Token::JobStdout(number),
            _ => Token::JobStderr(number),
        }
    }
}

/// The epoll descriptor.
pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(super) fn new() -> Result<Poller, Errno> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(|epoll| Poller { epoll })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Waits for `flags` on a descriptor for as long as it is open.
    pub(super) fn watch(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, token.data(), flags)
    }

    /// Sets the interest anew, so that what is ready now is told once more.
    pub(super) fn watch_again(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> Result<(), Errno> {
        epoll::modify(&self.epoll, fd, token.data(), flags)
    }
}

/// A descriptor whose interest changes. With none it is not in epoll at all: hang-ups are told always, and would
/// wake the loop again and again.
pub(super) struct Watched {
    pub(super) fd: OwnedFd,
    token: Token,
    flags: EventFlags,
}

impl Watched {
    pub(super) fn new(fd: OwnedFd, token: Token) -> Watched {
        Watched {
            fd,
            token,
            flags: EventFlags::empty(),
        }
    }

    /// Waits for exactly `flags` from now on.
    pub(super) fn set(&mut self, poller: &Poller, flags: EventFlags) {
        if flags == self.flags {
            return;
        }
        let changed = if flags.is_empty() {
            epoll::delete(&poller.epoll, &self.fd)
        } else if self.flags.is_empty() {
            epoll::add(&poller.epoll, &self.fd, self.token.data(), flags)
        } else {
            epoll::modify(&poller.epoll, &self.fd, self.token.data(), flags)
        };
        match changed {
            Ok(()) => self.flags = flags,
            Err(error) => crate::say(format_args!("epoll: {}", crate::errno::describe(error))),
        }
    }
}
