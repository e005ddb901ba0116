//! The host's end of a virtio-serial port: one thread that carries the mux's streams to and from socket pairs.
//!
//! For each dialled stream there is a socket pair: the dialler holds one end, the thread the other. Bytes wait in at most
//! one small buffer per direction besides the mux's own windows, so a stream that nobody reads holds up no other.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use firebrick_protocol::mux::{Endpoint, Event, Nonce, OpenError, Read, StreamId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::deadline;
use crate::machine::{Port, ended, not_listening};

/// How often the HELLO is repeated while the guest has not answered it.
const HELLO_INTERVAL: Duration = Duration::from_secs(1);
/// How long a port that nothing listens on is left alone before it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
const BUFFER_BYTES: usize = 32 << 10;

/// The handle by which machines are dialled.
#[derive(Debug)]
pub(super) struct Wire {
    requests: Sender<Dial>,
    /// A byte written here wakes the thread; closing it ends the thread.
    wake: UnixStream,
}

#[derive(Debug)]
struct Dial {
    port: Port,
    deadline: Instant,
    not_before: Instant,
    answer: Sender<io::Result<OwnedFd>>,
}

impl Wire {
    /// Starts the thread on the host's end of the port's socket.
    pub(super) fn start(socket: OwnedFd) -> io::Result<Wire> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        let (requests, inbox) = mpsc::channel();
        let pump = Pump {
            socket,
            woken,
            inbox,
            waiting: VecDeque::new(),
            endpoint: Endpoint::host(nonce()?),
            streams: BTreeMap::new(),
            next_hello: Instant::now() + HELLO_INTERVAL,
            buffer: vec![0; BUFFER_BYTES].into(),
        };
        std::thread::Builder::new()
            .name("mux".into())
            .spawn(move || pump.run())?;
        Ok(Wire { requests, wake })
    }

    /// Waits up to `limit` until the guest has answered on the wire.
    pub(super) fn wait_for_guest(&self, limit: Duration) -> io::Result<()> {
        self.dial(Port::AGENT, limit).map(drop)
    }

    /// Connects to a port, waiting up to `limit` until the guest listens there.
    pub(super) fn dial(&self, port: Port, limit: Duration) -> io::Result<OwnedFd> {
        let (answer, answered) = mpsc::channel();
        let now = Instant::now();
        let dial = Dial {
            port,
            deadline: deadline::after(limit),
            not_before: now,
            answer,
        };
        self.requests.send(dial).map_err(|_| ended())?;
        let _ = io::Write::write(&mut &self.wake, &[1]);
        // The thread answers at the deadline itself; the margin is for a host that stops it for a while.
        match answered.recv_timeout(limit.saturating_add(Duration::from_secs(5))) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
            Err(RecvTimeoutError::Timeout) => Err(not_listening(port)),
        }
    }
}

fn nonce() -> io::Result<Nonce> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(Nonce::new(u64::from_le_bytes(random)))
}

/// One stream between a dialler and the mux.
struct Stream {
    local: OwnedFd,
    /// Asked for and not yet opened: whom to tell.
    dial: Option<(Dial, OwnedFd)>,
    /// From the dialler, not yet taken by the mux.
    outgoing: Vec<u8>,
    /// From the mux, not yet taken by the dialler.
    incoming: Vec<u8>,
    /// The dialler sends no more.
    local_ended: bool,
    /// The guest sends no more.
    guest_ended: bool,
    /// The mux has room for more.
    writable: bool,
}

struct Pump {
    socket: OwnedFd,
    woken: UnixStream,
    inbox: Receiver<Dial>,
    waiting: VecDeque<Dial>,
    endpoint: Endpoint,
    streams: BTreeMap<StreamId, Stream>,
    next_hello: Instant,
    buffer: Box<[u8]>,
}

/// The wire, or the handle, is gone: the machine has ended.
struct Ended;

impl Pump {
    fn run(mut self) {
        while self.turn().is_ok() {}
        // Dropping everything answers every dialler with "ended" and closes every stream.
    }

    fn turn(&mut self) -> Result<(), Ended> {
        self.take_requests();
        self.pass_events();
        self.open_waiting();
        self.transmit()?;
        let (wire, wake, streams) = self.poll_all();
        if wake.contains(PollFlags::IN) || wake.contains(PollFlags::HUP) {
            self.drain_wake()?;
        }
        if wire.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.receive()?;
        }
        for (id, flags) in streams {
            self.serve(id, flags);
        }
        let now = Instant::now();
        if !self.endpoint.in_session() && now >= self.next_hello {
            self.next_hello = now + HELLO_INTERVAL;
            // While the last one still waits to be sent, another would only lengthen the queue.
            if self.endpoint.transmit().is_empty() {
                self.endpoint.hello_again();
            }
        }
        Ok(())
    }

    fn take_requests(&mut self) {
        self.waiting.extend(self.inbox.try_iter());
    }

    /// Opens what was asked for, where it is time; gives up what has waited too long.
    fn open_waiting(&mut self) {
        let now = Instant::now();
        for _ in 0..self.waiting.len() {
            let Some(dial) = self.waiting.pop_front() else {
                break;
            };
            if now >= dial.deadline {
                let _ = dial.answer.send(Err(not_listening(dial.port)));
            } else if now < dial.not_before || !self.endpoint.in_session() {
                self.waiting.push_back(dial);
            } else {
                self.open(dial);
            }
        }
    }

    fn open(&mut self, dial: Dial) {
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .and_then(|(local, theirs)| rustix::io::ioctl_fionbio(&theirs, false).map(|()| (local, theirs)));
        let (local, theirs) = match pair {
            Ok(pair) => pair,
            Err(errno) => {
                let _ = dial.answer.send(Err(errno.into()));
                return;
            }
        };
        match self.endpoint.open(dial.port.0) {
            Ok(id) => {
                let stream = Stream {
                    local,
                    dial: Some((dial, theirs)),
                    outgoing: Vec::new(),
                    incoming: Vec::new(),
                    local_ended: false,
                    guest_ended: false,
                    writable: true,
                };
                self.streams.insert(id, stream);
            }
            Err(OpenError::NoSession) => self.waiting.push_back(dial),
            Err(error) => {
                let _ = dial.answer.send(Err(io::Error::other(error)));
            }
        }
    }

    fn pass_events(&mut self) {
        while let Some(event) = self.endpoint.next_event() {
            match event {
                Event::Session => {}
                Event::Lost => self.begin_again(),
                // Nothing on the host listens for the guest's streams.
                Event::Incoming { stream, .. } => {
                    self.endpoint
                        .refuse(stream, firebrick_protocol::mux::Refusal::NoListener);
                }
                Event::Accepted(id) => {
                    if let Some((dial, theirs)) =
                        self.streams.get_mut(&id).and_then(|stream| stream.dial.take())
                    {
                        let _ = dial.answer.send(Ok(theirs));
                    }
                }
                Event::Refused { stream, .. } => {
                    if let Some((mut dial, _)) = self.streams.remove(&stream).and_then(|stream| stream.dial) {
                        dial.not_before = Instant::now() + RETRY_INTERVAL;
                        self.waiting.push_back(dial);
                    }
                }
                Event::Readable(id) => self.give_to_dialler(id),
                Event::Writable(id) => {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.writable = true;
                    }
                    self.give_to_mux(id);
                }
            }
        }
    }

    /// The session was lost: streams that stood are closed, those asked for are asked for again.
    fn begin_again(&mut self) {
        for (_, stream) in std::mem::take(&mut self.streams) {
            self.waiting.extend(stream.dial.map(|(dial, _)| dial));
        }
        if let Ok(nonce) = nonce() {
            self.endpoint = Endpoint::host(nonce);
        }
        self.next_hello = Instant::now() + HELLO_INTERVAL;
    }

    fn transmit(&mut self) -> Result<(), Ended> {
        loop {
            let bytes = self.endpoint.transmit();
            if bytes.is_empty() {
                return Ok(());
            }
            match rustix::net::send(&self.socket, bytes, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => self.endpoint.transmitted(count),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Ended),
            }
        }
    }

    fn receive(&mut self) -> Result<(), Ended> {
        while self.endpoint.wants_input() {
            match rustix::io::read(&self.socket, &mut *self.buffer) {
                Ok(0) => return Err(Ended),
                Ok(count) => {
                    self.endpoint.receive(&self.buffer[..count]);
                    self.pass_events();
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Ended),
            }
        }
        Ok(())
    }

    fn drain_wake(&mut self) -> Result<(), Ended> {
        let mut bytes = [0; 64];
        match rustix::io::read(&self.woken, &mut bytes) {
            Ok(0) => Err(Ended),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(Ended),
        }
    }

    /// Waits until something can be done; gives what happened on the wire, the wake-up, and each stream.
    fn poll_all(&mut self) -> (PollFlags, PollFlags, Vec<(StreamId, PollFlags)>) {
        let timeout = self.timeout();
        let mut wire = PollFlags::empty();
        wire.set(PollFlags::IN, self.endpoint.wants_input());
        wire.set(PollFlags::OUT, !self.endpoint.transmit().is_empty());
        let mut ids = Vec::new();
        let mut fds = vec![
            PollFd::new(&self.socket, wire),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
        for (id, stream) in &self.streams {
            if !stream.outgoing.is_empty() && stream.incoming.is_empty() {
                // It waits for the mux alone. Polling would report a dialler that has gone again and again.
                continue;
            }
            ids.push(*id);
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, stream.dial.is_none() && !stream.local_ended);
            wanted.set(PollFlags::OUT, !stream.incoming.is_empty());
            fds.push(PollFd::from_borrowed_fd(stream.local.as_fd(), wanted));
        }
        // Interrupted or not: what is ready is in the flags, which stay empty otherwise.
        let _ = poll(&mut fds, timeout.as_ref());
        let flags: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let streams = ids
            .into_iter()
            .zip(flags[2..].iter().copied())
            .filter(|(_, flags)| !flags.is_empty());
        (flags[0], flags[1], streams.collect())
    }

    fn timeout(&self) -> Option<Timespec> {
        let hello = (!self.endpoint.in_session()).then_some(self.next_hello);
        let waiting = self.waiting.iter().map(|dial| {
            if self.endpoint.in_session() {
                dial.not_before.min(dial.deadline)
            } else {
                dial.deadline
            }
        });
        let next = hello.into_iter().chain(waiting).min()?;
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_micros(100);
        Timespec::try_from(left).ok()
    }

    fn serve(&mut self, id: StreamId, flags: PollFlags) {
        if flags.contains(PollFlags::OUT) {
            self.give_to_dialler(id);
        }
        if flags.contains(PollFlags::IN) {
            self.take_from_dialler(id);
        } else if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
            // The dialler has closed its end, and all it sent has been read.
            self.close(id);
        }
    }

    fn close(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(&id)
            && stream.dial.is_none()
            && stream.outgoing.is_empty()
        {
            self.endpoint.finish(id);
            self.endpoint.close(id);
            self.streams.remove(&id);
        }
    }

    fn take_from_dialler(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        match rustix::io::read(&stream.local, &mut *self.buffer) {
            Ok(0) => {
                stream.local_ended = true;
                self.endpoint.finish(id);
                self.forget_if_over(id);
            }
            Ok(count) => {
                stream.outgoing.extend_from_slice(&self.buffer[..count]);
                self.give_to_mux(id);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                stream.outgoing.clear();
                self.close(id);
            }
        }
    }

    fn give_to_mux(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.outgoing.is_empty() || !stream.writable {
            return;
        }
        match self.endpoint.write(id, &stream.outgoing) {
            Some(taken) => {
                stream.outgoing.drain(..taken);
                stream.writable = stream.outgoing.is_empty();
            }
            // The guest has closed the stream: nobody will read these.
            None => stream.outgoing.clear(),
        }
    }

    fn give_to_dialler(&mut self, id: StreamId) {
        loop {
            let Some(stream) = self.streams.get_mut(&id) else {
                return;
            };
            if stream.incoming.is_empty() {
                match self.endpoint.read(id, &mut self.buffer) {
                    Read::Data(count) => stream.incoming.extend_from_slice(&self.buffer[..count]),
                    Read::Pending => return,
                    Read::End if stream.guest_ended => return,
                    Read::End => {
                        stream.guest_ended = true;
                        let _ = shutdown(&stream.local, Shutdown::Write);
                        self.forget_if_over(id);
                        return;
                    }
                    Read::Gone => {
                        self.endpoint.close(id);
                        self.streams.remove(&id);
                        return;
                    }
                }
            }
            match rustix::net::send(&stream.local, &stream.incoming, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => drop(stream.incoming.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    stream.incoming.clear();
                    stream.outgoing.clear();
                    self.close(id);
                    return;
                }
            }
        }
    }

    fn forget_if_over(&mut self, id: StreamId) {
        let over = |stream: &Stream| stream.local_ended && stream.guest_ended && stream.incoming.is_empty();
        if self.streams.get(&id).is_some_and(over) {
            self.endpoint.close(id);
            self.streams.remove(&id);
        }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
