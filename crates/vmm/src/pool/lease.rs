//! What is asked of a keeper from outside.

use std::io::{self, BufReader, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::PoolFiles;
use super::message::{PoolStatus, Reply, Request, Wish, receive, send};
use crate::client::Client;
use crate::deadline;
use crate::interrupts::Interrupts;
use crate::run::Up;

/// How long a keeper may take to answer what it can answer at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long all of its machines may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A machine taken from a pool. Dropping it ends the machine.
#[derive(Debug)]
pub struct Lease {
    keeper: BufReader<UnixStream>,
    agent: Option<OwnedFd>,
}

/// What came of the wish for a machine.
#[derive(Debug)]
pub enum Taking {
    /// There is no such pool.
    NoPool,
    /// It has none right now.
    Empty,
    /// Its machines are others.
    Refused(String),
    /// Here it is.
    Taken(Lease),
    /// A signal came first.
    Interrupted {
        /// Its number.
        signal: i32,
    },
}

/// Takes a machine, if there is such a pool and it has one.
///
/// With `interrupts`, a signal ends the wait.
///
/// # Errors
/// What the host said.
pub fn take(files: &PoolFiles, wish: Wish, interrupts: Option<&Interrupts>) -> io::Result<Taking> {
    let Some(stream) = files.connect().map_err(in_words)? else {
        return Ok(Taking::NoPool);
    };
    let limit = ANSWER_LIMIT.saturating_add(Duration::from_millis(wish.wait_ms));
    request(&stream, &Request::Take(Box::new(wish)))?;
    wait_for_answer(&stream, deadline::after(limit), interrupts)?;
    if let Some(signal) = interrupts.and_then(Interrupts::take) {
        return Ok(Taking::Interrupted { signal });
    }
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let Some((reply, agent)) = receive_with_descriptor(&stream).map_err(in_words)? else {
        return Ok(Taking::NoPool);
    };
    Ok(match reply {
        Reply::Taken if agent.is_some() => Taking::Taken(Lease {
            keeper: BufReader::new(stream),
            agent,
        }),
        Reply::Empty => Taking::Empty,
        Reply::Refused(reason) => Taking::Refused(reason),
        other => return Err(unexpected(&other)),
    })
}

/// Waits until there is something to read, or a signal to heed.
fn wait_for_answer(
    stream: &UnixStream,
    deadline: Instant,
    interrupts: Option<&Interrupts>,
) -> io::Result<()> {
    let mut fds = vec![PollFd::new(stream, PollFlags::IN)];
    fds.extend(interrupts.map(|interrupts| PollFd::new(interrupts, PollFlags::IN)));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(silent());
        }
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            // Being stopped and continued interrupts it, too.
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// An answer, and the stream that comes with it; `None` if its keeper ended instead.
fn receive_with_descriptor(stream: &UnixStream) -> io::Result<Option<(Reply, Option<OwnedFd>)>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut byte)];
    // It comes with the line's first byte, so that one is not read through a buffer.
    let received = retry_on_intr(|| recvmsg(stream, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC));
    let received = match received {
        // One that is killed with the question unread resets the connection.
        Err(Errno::CONNRESET) => return Ok(None),
        received => received?,
    };
    let mut agent = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            agent = descriptors.last();
        }
    }
    let rest = io::Read::chain(&byte[..received.bytes], stream);
    let mut line = String::new();
    io::BufRead::read_line(&mut BufReader::with_capacity(1, rest), &mut line)?;
    match line.ends_with('\n') {
        true => Ok(Some((serde_json::from_str(&line)?, agent))),
        false => Ok(None),
    }
}

impl Lease {
    /// The stream to the agent; once.
    pub fn agent(&mut self) -> Option<OwnedFd> {
        self.agent.take()
    }
}

impl Up for Lease {
    fn connect(&mut self, _limit: Duration) -> io::Result<Client> {
        let stream = self.keeper.get_ref();
        send(stream, &Request::Dial)?;
        match receive_with_descriptor(stream)? {
            Some((Reply::Taken, Some(agent))) => Client::new(agent),
            Some((other, _)) => Err(unexpected(&other)),
            None => Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the pool's keeper ended",
            )),
        }
    }

    fn last_words(&mut self) -> String {
        let asked = send(self.keeper.get_ref(), &Request::Words);
        match asked.and_then(|()| receive(&mut self.keeper)) {
            Ok(Some(Reply::Words(words))) => words,
            _ => "its pool was stopped".to_owned(),
        }
    }
}

/// How a pool is; `None` if there is none.
///
/// # Errors
/// What the host said; [`io::ErrorKind::TimedOut`] and [`io::ErrorKind::ResourceBusy`] if its keeper does not answer.
pub fn status(files: &PoolFiles) -> io::Result<Option<PoolStatus>> {
    match ask(files, &Request::Status, ANSWER_LIMIT)? {
        None => Ok(None),
        Some(Reply::Status(status)) => Ok(Some(*status)),
        Some(other) => Err(unexpected(&other)),
    }
}

/// Ends a pool with all of its machines, those in use too, and waits for it. Whether there was one.
///
/// # Errors
/// What the host said.
pub fn stop(files: &PoolFiles) -> io::Result<bool> {
    match ask(files, &Request::Stop, STOP_LIMIT)? {
        None => Ok(false),
        Some(Reply::Stopped) => Ok(true),
        Some(other) => Err(unexpected(&other)),
    }
}

fn ask(files: &PoolFiles, request: &Request, limit: Duration) -> io::Result<Option<Reply>> {
    let Some(stream) = files.connect().map_err(in_words)? else {
        return Ok(None);
    };
    stream.set_read_timeout(Some(limit))?;
    self::request(&stream, request)?;
    match receive(&mut BufReader::new(stream)).map_err(in_words)? {
        Some(Reply::Refused(reason)) => Err(io::Error::new(io::ErrorKind::ResourceBusy, reason)),
        Some(reply) => Ok(Some(reply)),
        // Its keeper is ending.
        None => Ok(None),
    }
}

/// Asks. A keeper that has no room for one more has said so already, and listens no more.
fn request(stream: &UnixStream, request: &Request) -> io::Result<()> {
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    match send(stream, request) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        sent => sent.map_err(in_words),
    }
}

/// What a time-out of a socket is called by the system says nothing.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => silent(),
        _ => error,
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "its keeper does not answer")
}

fn unexpected(reply: &Reply) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the pool's keeper answers {reply:?}"),
    )
}
