//! Lines to and from the agent over a stream that never blocks us.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use firebrick_protocol::Queue;
use firebrick_protocol::line::LineSplitter;
use firebrick_protocol::rpc::Incoming;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::CallError;
use crate::interrupts::Interrupts;

/// The longest line of an agent: two outputs of 1 MiB, each byte of which JSON may write as six.
const MAX_LINE_BYTES: usize = 16 << 20;
const BUFFER_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Channel {
    stream: OwnedFd,
    lines: LineSplitter,
    outgoing: Queue,
    buffer: Box<[u8]>,
    ended: bool,
    /// What ends a wait.
    interrupts: Option<Interrupts>,
}

impl Channel {
    pub(super) fn new(stream: OwnedFd) -> io::Result<Channel> {
        rustix::io::ioctl_fionbio(&stream, true)?;
        let buffer = vec![0; BUFFER_BYTES].into();
        let lines = LineSplitter::new(MAX_LINE_BYTES);
        Ok(Channel {
            stream,
            lines,
            outgoing: Queue::new(),
            buffer,
            ended: false,
            interrupts: None,
        })
    }

    /// Lets these end a wait, or nothing.
    pub(super) fn heed(&mut self, interrupts: Option<Interrupts>) {
        self.interrupts = interrupts;
    }

    /// Puts a line into what is to be sent.
    pub(super) fn queue(&mut self, line: &[u8]) {
        self.outgoing.push(line);
    }

    /// How much waits to be sent.
    pub(super) fn queued_bytes(&self) -> usize {
        self.outgoing.len()
    }

    /// The next message, sending meanwhile; `None` when the deadline comes first.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Option<Incoming>, CallError> {
        loop {
            if let Some(message) = self.next_message()? {
                return Ok(Some(message));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            self.wait(&[], Some(deadline))?;
        }
    }

    /// The next message, or `None` as soon as something was sent, or when the deadline comes first.
    pub(super) fn receive_or_progress(&mut self, deadline: Instant) -> Result<Option<Incoming>, CallError> {
        let queued = self.outgoing.len();
        loop {
            if let Some(message) = self.next_message()? {
                return Ok(Some(message));
            }
            if self.outgoing.len() < queued || Instant::now() >= deadline {
                return Ok(None);
            }
            self.wait(&[], Some(deadline))?;
        }
    }

    /// A message that has arrived whole.
    pub(super) fn next_message(&mut self) -> Result<Option<Incoming>, CallError> {
        match self.lines.next_line() {
            Some(Ok([])) => Ok(None),
            Some(Ok(line)) => Incoming::parse(line).map(Some).map_err(CallError::Protocol),
            Some(Err(error)) => Err(CallError::Unexpected {
                what: error.to_string(),
            }),
            None if self.ended => Err(CallError::Closed),
            None => Ok(None),
        }
    }

    /// Up to `count` of the bytes that a line has announced behind it, sending meanwhile; none when the deadline comes first.
    pub(super) fn receive_bytes(&mut self, count: usize, deadline: Instant) -> Result<&[u8], CallError> {
        while self.lines.pending_bytes() == 0 {
            if self.ended {
                return Err(CallError::Closed);
            }
            if Instant::now() >= deadline {
                return Ok(&[]);
            }
            self.wait(&[], Some(deadline))?;
        }
        Ok(self.lines.take_bytes(count))
    }

    /// Waits until the stream or one of `others` has something to read, or the deadline comes; sends and receives what
    /// can be. Gives which of `others` are ready.
    pub(super) fn wait(
        &mut self,
        others: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
    ) -> Result<Vec<bool>, CallError> {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !self.outgoing.is_empty());
        let mut fds = vec![PollFd::from_borrowed_fd(self.stream.as_fd(), wanted)];
        let own = self.interrupts.iter().map(AsFd::as_fd);
        fds.extend(
            others
                .iter()
                .copied()
                .chain(own)
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        let timeout = deadline.and_then(|deadline| {
            // A little more, so that the deadline has come when poll returns.
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(100);
            Timespec::try_from(left).ok()
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(CallError::Channel(errno.into())),
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        if let Some(signal) = self.interrupts.as_ref().and_then(Interrupts::take) {
            return Err(CallError::Interrupted { signal });
        }
        if ready[0].contains(PollFlags::OUT) {
            self.send()?;
        }
        if ready[0].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.read()?;
        }
        let others = ready.iter().skip(1).take(others.len());
        Ok(others.map(|flags| !flags.is_empty()).collect())
    }

    fn send(&mut self) -> Result<(), CallError> {
        match rustix::net::send(&self.stream, self.outgoing.front(), SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.outgoing.consume(count);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            // The answers that came before the end may still be read.
            Err(Errno::PIPE | Errno::CONNRESET) => {
                self.outgoing.clear();
                Ok(())
            }
            Err(errno) => Err(CallError::Channel(errno.into())),
        }
    }

    fn read(&mut self) -> Result<(), CallError> {
        match rustix::io::read(&self.stream, &mut *self.buffer) {
            Ok(0) | Err(Errno::CONNRESET) => self.ended = true,
            Ok(count) => self.lines.push(&self.buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(CallError::Channel(errno.into())),
        }
        Ok(())
    }
}
