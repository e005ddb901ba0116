//! A connection: what one client says and is told, and the jobs it started.

use alloc::vec::Vec;

use firebrick_protocol::line::{LineSplitter, MAX_LINE_BYTES};
use firebrick_protocol::mux::{Read, StreamId};
use firebrick_protocol::rpc::{INVALID_REQUEST, Id, RpcError, error_line};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::Shutdown;

use super::Agent;
use super::framed::Exchange;
use super::outbox::Outbox;
use super::poll::Watched;
use crate::kernel::Clock;

/// With so many bytes waiting for a client, nothing more is read that could add to them.
pub(super) const OUT_HIGH_BYTES: usize = 256 * 1024;
/// With no more than so many bytes waiting, reading goes on.
const OUT_LOW_BYTES: usize = 64 * 1024;

/// A connection that is closing is given up when its client has taken nothing for so long.
pub(super) const CLOSING_NS: u64 = 30_000_000_000;
/// How long it may go on sending what nobody reads.
const DRAINING_NS: u64 = 5_000_000_000;

/// What carries a connection.
pub(super) enum Transport {
    /// TCP or vsock.
    Socket { socket: Watched, is_tcp: bool },
    /// A stream of the mux on the serial port.
    Stream(StreamId),
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The client has sent its end, or we are done with it: what it is owed goes out, then we close.
    Closing,
    /// It has all it is owed, and our end; what it still sends is thrown away. Closing a TCP connection before that was
    /// read would be a reset, which destroys what the client has not read.
    Draining,
    /// Nothing can be sent any more.
    Dead,
}

/// What a client speaks.
pub(super) enum Speech {
    /// Not known yet: the first byte tells. A frame that is short enough starts with zero, and no JSON does.
    Either,
    /// JSON-RPC, a line each.
    Lines(LineSplitter),
    /// One framed job.
    Frame(Exchange),
}

impl Speech {
    pub(super) fn lines() -> Speech {
        Speech::Lines(LineSplitter::new(MAX_LINE_BYTES))
    }

    pub(super) fn frame() -> Speech {
        Speech::Frame(Exchange::new())
    }

    /// Takes bytes, at least one.
    fn push(&mut self, bytes: &[u8]) {
        if let Speech::Either = self {
            *self = match bytes.first() {
                Some(0) => Speech::frame(),
                _ => Speech::lines(),
            };
        }
        match self {
            Speech::Lines(lines) => lines.push(bytes),
            Speech::Frame(exchange) => exchange.push(bytes),
            Speech::Either => {}
        }
    }
}

/// Bytes that come as they are, for a job's standard input; for nobody when its number is 0.
#[derive(Clone, Copy)]
pub(super) struct Raw {
    pub(super) job: u32,
    pub(super) left: usize,
    /// They are the last.
    pub(super) eof: bool,
}

pub(super) struct Conn {
    transport: Transport,
    pub(super) speech: Speech,
    pub(super) out: Outbox,
    /// What a line has announced behind it.
    pub(super) raw: Option<Raw>,
    /// Lines have announced bytes: behind one that cannot be read, lines cannot be told from such bytes.
    pub(super) has_announced: bool,
    /// What else it has sent is not looked at.
    broken_off: bool,
    /// The numbers of its jobs.
    pub(super) jobs: Vec<u32>,
    phase: Phase,
    /// The client has sent its end.
    has_ended: bool,
    /// When to give it up (CLOCK_BOOTTIME), if it is closing.
    give_up_at_ns: Option<u64>,
    /// More may be there than can be read now, because the agent is full.
    pub(super) waits_for_room: bool,
    /// When something was read last (CLOCK_BOOTTIME).
    pub(super) read_at_ns: u64,
    /// When it, or a job of its, took something last (CLOCK_BOOTTIME).
    pub(super) taken_at_ns: u64,
    /// More than [`OUT_HIGH_BYTES`] waited and not yet fewer than [`OUT_LOW_BYTES`] do.
    choked: bool,
}

impl Conn {
    pub(super) fn new(transport: Transport, speech: Speech) -> Conn {
        Conn {
            transport,
            speech,
            out: Outbox::default(),
            raw: None,
            has_announced: false,
            broken_off: false,
            jobs: Vec::new(),
            phase: Phase::Open,
            has_ended: false,
            give_up_at_ns: None,
            choked: false,
            waits_for_room: false,
            read_at_ns: Clock::Boottime.now_ns(),
            taken_at_ns: Clock::Boottime.now_ns(),
        }
    }

    pub(super) fn has_sent_all(&self) -> bool {
        self.out.is_empty() || self.phase == Phase::Dead
    }

    /// Queues a line for the client.
    pub(super) fn send(&mut self, line: Vec<u8>) {
        if self.phase != Phase::Dead {
            self.out.push(line);
        }
    }

    /// The bytes of a message that is not whole, or not answered.
    pub(super) fn message_bytes(&self) -> usize {
        match &self.speech {
            Speech::Lines(lines) => lines.pending_bytes(),
            Speech::Frame(Exchange::Receiving(reader)) => reader.held_bytes(),
            Speech::Frame(_) | Speech::Either => 0,
        }
    }

    /// All that is held for it, but by its jobs.
    pub(super) fn held_bytes(&self) -> usize {
        let run = match &self.speech {
            Speech::Frame(Exchange::Running(run)) => run.held_bytes(),
            _ => 0,
        };
        self.message_bytes()
            .saturating_add(self.out.held_bytes())
            .saturating_add(run)
    }

    /// Nothing more is read; what the client is owed still goes out.
    pub(super) fn close_after_answers(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
        }
    }

    /// The same with what went wrong as the last answer, for one who speaks in lines. What it has sent besides is dropped.
    pub(super) fn break_off(&mut self, error: &RpcError) {
        self.send(error_line(&Id::Null, error));
        self.broken_off = true;
        self.raw = None;
        self.speech = Speech::lines();
        self.close_after_answers();
    }

    /// What is told of a line that cannot be read.
    pub(super) fn misread(&mut self, id: &Id, error: &RpcError) {
        if self.has_announced {
            self.break_off(error);
        } else {
            self.send(error_line(id, error));
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether nothing runs for it and nothing waits to be taken by it: it is the client who could go on.
    pub(super) fn is_idle(&self) -> bool {
        let is_running = matches!(self.speech, Speech::Frame(Exchange::Running(_)));
        self.jobs.is_empty() && !is_running && self.out.is_empty()
    }

    /// When time alone ends it.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.give_up_at_ns
    }

    /// Gives it so much time from now on.
    fn allow(&mut self, ns: u64) {
        self.give_up_at_ns = Some(Clock::Boottime.now_ns().saturating_add(ns));
    }

    /// Sends our end and goes on reading, where closing at once could destroy what was sent.
    fn drain(&mut self) {
        if let Transport::Socket { socket, is_tcp: true } = &self.transport
            && self.phase == Phase::Closing
            && !self.has_ended
            && self.out.is_empty()
            && rustix::net::shutdown(&socket.fd, Shutdown::Write).is_ok()
        {
            self.phase = Phase::Draining;
            self.allow(DRAINING_NS);
        }
    }

    pub(super) fn stream(&self) -> Option<StreamId> {
        match self.transport {
            Transport::Socket { .. } => None,
            Transport::Stream(stream) => Some(stream),
        }
    }
}

impl Conn {
    /// Reads what nobody wants, and notices its end.
    fn throw_away(&mut self) {
        let mut piece = [0u8; 32 * 1024];
        if let Transport::Socket { socket, .. } = &self.transport
            && !matches!(
                rustix::io::read(&socket.fd, &mut piece[..]),
                Ok(1..) | Err(Errno::AGAIN | Errno::INTR)
            )
        {
            self.phase = Phase::Dead;
        }
    }
}

impl Agent {
    /// Does what epoll says can be done on a socket.
    pub(super) fn conn_ready(&mut self, number: u32, flags: EventFlags) {
        let Some(mut conn) = self.conns.remove(&number) else {
            return;
        };
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            conn.phase = Phase::Dead;
        } else if conn.phase == Phase::Open {
            if flags.contains(EventFlags::IN) && !self.is_stalled(&conn) {
                self.read_once(number, &mut conn);
            } else if flags.contains(EventFlags::RDHUP) {
                conn.phase = Phase::Closing;
                conn.has_ended = true;
            }
        } else if conn.phase == Phase::Draining && flags.contains(EventFlags::IN) {
            conn.throw_away();
        }
        self.settle(number, conn);
    }

    /// Reads what a stream of the mux has, as far as the connection may go on.
    pub(super) fn stream_ready(&mut self, number: u32) {
        while let Some(mut conn) = self.conns.remove(&number) {
            let goes_on = conn.phase == Phase::Open
                && !self.is_stalled(&conn)
                && self.read_once(number, &mut conn) == Progress::Read;
            self.settle(number, conn);
            if !goes_on {
                return;
            }
        }
    }

    /// Reads one piece into the connection's lines.
    fn read_once(&mut self, number: u32, conn: &mut Conn) -> Progress {
        let mut buffer = [0u8; 32 * 1024];
        let room = self.room_of_conn(number, conn.held_bytes());
        let piece = match buffer.get_mut(..room) {
            Some([]) => {
                conn.waits_for_room = true;
                return Progress::Nothing;
            }
            Some(piece) => piece,
            None => &mut buffer,
        };
        match &conn.transport {
            Transport::Socket { socket, .. } => match rustix::io::read(&socket.fd, &mut *piece) {
                Ok(0) => {
                    conn.phase = Phase::Closing;
                    conn.has_ended = true;
                }
                Ok(count) => {
                    conn.speech.push(&piece[..count]);
                    conn.read_at_ns = Clock::Boottime.now_ns();
                    return Progress::Read;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => conn.phase = Phase::Dead,
            },
            Transport::Stream(stream) => {
                let Some(serial) = &mut self.serial else {
                    return Progress::Nothing;
                };
                match serial.endpoint.read(*stream, piece) {
                    Read::Data(count) => {
                        conn.speech.push(&piece[..count]);
                        conn.read_at_ns = Clock::Boottime.now_ns();
                        return Progress::Read;
                    }
                    Read::Pending => {}
                    Read::End => conn.phase = Phase::Closing,
                    Read::Gone => conn.phase = Phase::Dead,
                }
            }
        }
        Progress::Nothing
    }

    /// Whether the client must wait: it does not read its answers, or a job does not read its standard input.
    pub(super) fn is_stalled(&self, conn: &Conn) -> bool {
        conn.choked
            || conn
                .jobs
                .iter()
                .any(|job| self.jobs.get(job).is_some_and(super::job::Job::has_much_stdin))
    }

    /// Brings a connection that was taken out, or touched, to rest: answers the lines it holds, sends what can be sent,
    /// waits for what is missing, and keeps it, unless it has ended.
    pub(super) fn settle(&mut self, number: u32, mut conn: Conn) {
        loop {
            let lines_wait = match conn.speech {
                Speech::Lines(_) => self.answer_lines(number, &mut conn),
                Speech::Frame(_) => {
                    self.take_frame(number, &mut conn);
                    false
                }
                Speech::Either => false,
            };
            let waiting = conn.out.sent_bytes();
            self.flush(&mut conn);
            let has_moved = conn.out.sent_bytes() > waiting;
            if has_moved {
                conn.taken_at_ns = Clock::Boottime.now_ns();
            }
            if conn.phase == Phase::Closing && (conn.give_up_at_ns.is_none() || has_moved) {
                conn.allow(self.closing_ns);
            }
            let limit = if conn.choked {
                OUT_LOW_BYTES
            } else {
                OUT_HIGH_BYTES
            };
            // Where the agent is full, its room is what is left of the floor.
            conn.choked = conn.out.held_bytes() > limit.min(self.room(0));
            if !lines_wait || self.is_stalled(&conn) {
                break;
            }
        }
        if conn.phase != Phase::Open {
            self.kill_jobs_of(&mut conn);
            self.end_exchange(&mut conn);
        }
        conn.drain();
        let has_ended = conn.phase == Phase::Dead || (conn.phase == Phase::Closing && conn.out.is_empty());
        if has_ended {
            self.close(conn);
            return;
        }
        for job in &conn.jobs {
            if let Some(job) = self.jobs.get_mut(job) {
                job.watch_output(&self.poller, !conn.choked);
            }
        }
        let stalled = self.is_stalled(&conn);
        let has_room = !conn.waits_for_room;
        if let Transport::Socket { socket, .. } = &mut conn.transport {
            let mut flags = EventFlags::empty();
            let reads = (conn.phase == Phase::Open && !stalled && has_room) || conn.phase == Phase::Draining;
            flags.set(EventFlags::IN, reads);
            flags.set(EventFlags::RDHUP, conn.phase == Phase::Open);
            flags.set(EventFlags::OUT, !conn.out.is_empty());
            socket.set(&self.poller, flags);
        }
        self.conns.insert(number, conn);
    }

    /// Has another look at a connection after one of its jobs changed.
    pub(super) fn touch(&mut self, number: u32) {
        if let Some(conn) = self.conns.remove(&number) {
            let stream = conn.stream();
            self.settle(number, conn);
            if stream.is_some() {
                // The mux tells of new bytes once; those that came while we were stalled are still there.
                self.stream_ready(number);
            }
        }
    }

    /// Answers whole lines until the client must wait; then says that lines may be left.
    fn answer_lines(&mut self, number: u32, conn: &mut Conn) -> bool {
        // Taken out so that a line can be borrowed from it while it is answered.
        let Speech::Lines(mut lines) = core::mem::replace(&mut conn.speech, Speech::Either) else {
            return false;
        };
        let mut lines_wait = false;
        while conn.phase != Phase::Dead && !conn.broken_off {
            lines_wait = self.is_stalled(conn);
            if lines_wait {
                break;
            }
            if let Some(raw) = &mut conn.raw {
                let bytes = lines.take_bytes(raw.left);
                if bytes.is_empty() {
                    break;
                }
                raw.left = raw.left.saturating_sub(bytes.len());
                let is_last = raw.left == 0;
                self.job_stdin(raw.job, bytes.into(), is_last && raw.eof);
                conn.raw.take_if(|_| is_last);
                continue;
            }
            match lines.next_line() {
                Some(Ok(line)) => self.answer(number, conn, line),
                Some(Err(too_long)) => {
                    let error = RpcError::new(INVALID_REQUEST, alloc::format!("{too_long}"));
                    conn.misread(&Id::Null, &error);
                }
                None => break,
            }
            conn.choked = conn.out.held_bytes() > OUT_HIGH_BYTES.min(self.room(0));
        }
        if conn.broken_off {
            conn.speech = Speech::lines();
            return false;
        }
        conn.speech = Speech::Lines(lines);
        lines_wait
    }

    fn flush(&mut self, conn: &mut Conn) {
        while conn.phase != Phase::Dead {
            let front = conn.out.front();
            if front.is_empty() {
                return;
            }
            match &conn.transport {
                Transport::Socket { socket, .. } => {
                    // Not `write`: a client that is gone must not become a SIGPIPE.
                    match rustix::net::send(&socket.fd, front, rustix::net::SendFlags::NOSIGNAL) {
                        Ok(count) => conn.out.consume(count),
                        Err(Errno::INTR) => {}
                        Err(Errno::AGAIN) => return,
                        Err(_) => conn.phase = Phase::Dead,
                    }
                }
                Transport::Stream(stream) => {
                    let Some(serial) = &mut self.serial else { return };
                    match serial.endpoint.write(*stream, front) {
                        Some(0) => return,
                        Some(count) => conn.out.consume(count),
                        None => conn.phase = Phase::Dead,
                    }
                }
            }
        }
    }

    /// Ends the closing connections whose time is up.
    pub(super) fn give_up_conns(&mut self) {
        if self.conns.values().all(|conn| conn.deadline().is_none()) {
            return;
        }
        let now = Clock::Boottime.now_ns();
        let due = |conn: &Conn| conn.deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<u32> = self
            .conns
            .iter()
            .filter(|(_, conn)| due(conn))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            self.drop_conn(number);
        }
    }

    /// Ends a connection at once: its client is gone.
    pub(super) fn drop_conn(&mut self, number: u32) {
        if let Some(mut conn) = self.conns.remove(&number) {
            conn.phase = Phase::Dead;
            self.settle(number, conn);
        }
    }

    fn close(&mut self, conn: Conn) {
        if let (Some(stream), Some(serial)) = (conn.stream(), &mut self.serial) {
            serial.streams.remove(&stream);
            if conn.phase == Phase::Closing {
                serial.endpoint.finish(stream);
            }
            serial.endpoint.close(stream);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Read,
    Nothing,
}
