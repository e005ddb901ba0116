//! One side of a wire: the state machine that host and guest share.

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use alloc::collections::{BTreeMap, VecDeque};

use super::frame::{self, Desync, Found, Frame, Parser};
use super::stream::{Phase, SendEnd, Step, Stream};
use super::{MAX_STREAMS, Nonce, Refusal, SEND_BUFFER_BYTES, SPARE_BYTES, StreamId, WINDOW_BYTES};
use crate::Queue;

/// How many bytes for the wire are encoded ahead. Little, so that a small answer never waits behind much bulk.
const OUTPUT_TARGET_BYTES: usize = 64 * 1024;

/// How many frames for streams that are gone may wait before no more input is wanted.
const MAX_LOOSE: usize = 1024;

/// A host has enough for every stream.
const HOST_SPARE_BYTES: usize = MAX_STREAMS * WINDOW_BYTES;

/// The nonce by which a guest says that it has lost the session. No host chooses it.
const LOST: Nonce = Nonce(1);

/// Something that the user of an [`Endpoint`] should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Host: the guest has answered, streams can be opened. Guest: a host has begun; all earlier streams are gone.
    Session,
    /// The wire brought something that is no frame of this session; all streams are gone. A host starts anew with
    /// another [`Endpoint::host`] on the same wire; a guest's endpoint waits for that by itself.
    Lost,
    /// The other side asks for a port: answer with [`Endpoint::accept`] or [`Endpoint::refuse`].
    Incoming {
        /// The new stream.
        stream: StreamId,
        /// The port it asks for.
        port: u32,
    },
    /// The other side has opened the stream that we asked for.
    Accepted(StreamId),
    /// The other side has refused the stream that we asked for; its id is no longer valid.
    Refused {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: Refusal,
    },
    /// [`Endpoint::read`] has something new: bytes, the end, or that the stream was closed.
    Readable(StreamId),
    /// [`Endpoint::write`] was cut short and now has room.
    Writable(StreamId),
}

/// What [`Endpoint::read`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, at least 1.
    Data(usize),
    /// Nothing yet.
    Pending,
    /// The other side has sent its last byte. It may still read.
    End,
    /// The stream is closed by either side, or was never there.
    Gone,
}

/// Why a stream cannot be opened now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no session.
    #[error("the guest has not answered yet")]
    NoSession,
    /// [`MAX_STREAMS`] are open.
    #[error("{MAX_STREAMS} streams are open")]
    TooManyStreams,
    /// Every id of the session was used.
    #[error("the session has used up its stream ids")]
    NoIds,
}

/// One side of a wire.
///
/// Feed it with [`Endpoint::receive`], fetch every [`Event`], then send what [`Endpoint::transmit`] shows.
/// Each stream that was opened or came in, and was not refused, is ended by [`Endpoint::close`].
#[derive(Debug)]
pub struct Endpoint {
    host: bool,
    /// What all streams may hold beyond their floors, in each direction.
    spare_bytes: usize,
    parser: Parser,
    /// The session's nonce; a host has it before the session stands.
    nonce: Nonce,
    in_session: bool,
    streams: BTreeMap<u32, Stream>,
    next_id: u32,
    /// The other side's newest stream.
    last_foreign_id: u32,
    /// Streams that have something to send, in turn.
    turn: VecDeque<u32>,
    /// Frames for streams that are not, or no longer, in `streams`.
    loose: VecDeque<(u32, Frame<'static>)>,
    events: VecDeque<Event>,
    output: Queue,
}

impl Endpoint {
    /// The host's side of a session with that nonce. Its HELLO is the first thing to transmit.
    pub fn host(nonce: Nonce) -> Endpoint {
        let nonce = if nonce == LOST { Nonce(3) } else { nonce };
        let mut endpoint = Endpoint::new(true, Parser::of_host(), nonce);
        endpoint.hello_again();
        endpoint
    }

    /// The guest's side, for as many sessions as hosts begin.
    pub fn guest() -> Endpoint {
        Endpoint::new(false, Parser::of_guest(), LOST)
    }

    /// The guest's side of a wire on which another guest's side may have spoken until it died, perhaps in the middle of a frame:
    /// the host learns first that its session is lost.
    pub fn guest_again() -> Endpoint {
        let mut endpoint = Endpoint::guest();
        frame::encode_zeros(&mut endpoint.output);
        frame::encode_guest_hello(&mut endpoint.output, LOST);
        endpoint
    }

    fn new(host: bool, parser: Parser, nonce: Nonce) -> Endpoint {
        Endpoint {
            host,
            spare_bytes: if host { HOST_SPARE_BYTES } else { SPARE_BYTES },
            parser,
            nonce,
            in_session: false,
            streams: BTreeMap::new(),
            next_id: if host { 1 } else { 2 },
            last_foreign_id: 0,
            turn: VecDeque::new(),
            loose: VecDeque::new(),
            events: VecDeque::new(),
            output: Queue::new(),
        }
    }

    /// Sends a host's HELLO once more while the session does not stand; for wires that may drop bytes before the
    /// guest listens. Does nothing otherwise.
    pub fn hello_again(&mut self) {
        if self.host && !self.in_session && self.output.is_empty() {
            frame::encode_host_hello(&mut self.output, self.nonce);
        }
    }

    /// Whether a session stands.
    pub fn in_session(&self) -> bool {
        self.in_session
    }

    /// The number of streams, those included that still have to send what was written before they were closed.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// What all streams hold: received and not read, and to be sent. The bounds are in [`super`].
    pub fn held_bytes(&self) -> (usize, usize) {
        let received = self.streams.values().map(|stream| stream.received.len()).sum();
        let sending = self.streams.values().map(|stream| stream.sending.len()).sum();
        (received, sending)
    }

    /// Whether to read from the wire now. False only while the other side lets answers pile up.
    pub fn wants_input(&self) -> bool {
        self.loose.len() < MAX_LOOSE
    }

    /// Takes bytes that the wire brought, in pieces of any size. Fetch all events before the next call.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        // The parser is set apart while what it found borrows from it.
        let mut parser = core::mem::replace(&mut self.parser, Parser::of_host());
        while let Some(found) = parser.next(&mut bytes) {
            let outcome = found.and_then(|found| self.found(found));
            match outcome {
                Ok(()) if self.in_session => parser.enter(self.nonce),
                Ok(()) => {}
                Err(Desync) => {
                    self.lose();
                    parser.scan();
                }
            }
        }
        self.parser = parser;
    }

    /// The next event, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Readable(StreamId(id)) = event
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.readable_told = false;
        }
        Some(event)
    }

    /// The bytes to put on the wire next; empty when there is nothing to send. Tell [`Endpoint::transmitted`] how
    /// many went.
    pub fn transmit(&mut self) -> &[u8] {
        self.fill_output();
        self.output.front()
    }

    /// Notes that the first `count` bytes of [`Endpoint::transmit`] are on the wire.
    pub fn transmitted(&mut self, count: usize) {
        self.output.consume(count);
    }

    /// Asks the other side for a stream to `port`. It may be written at once; what was written is dropped if it is
    /// refused.
    ///
    /// # Errors
    /// [`OpenError`] when there is no session or no more room in it.
    pub fn open(&mut self, port: u32) -> Result<StreamId, OpenError> {
        if !self.in_session {
            return Err(OpenError::NoSession);
        }
        if self.streams.len() >= MAX_STREAMS || !self.wants_input() {
            return Err(OpenError::TooManyStreams);
        }
        let id = self.next_id;
        self.next_id = id.checked_add(2).ok_or(OpenError::NoIds)?;
        let mut stream = Stream::new(Phase::Asking { port });
        if self.host {
            // It has enough, and so the guest need not wait.
            stream.grant(WINDOW_BYTES);
        }
        self.streams.insert(id, stream);
        self.take_turn(id);
        Ok(StreamId(id))
    }

    /// Opens a stream that [`Event::Incoming`] told of.
    pub fn accept(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.get_mut(&stream.0)
            && state.phase == Phase::Incoming
        {
            state.phase = Phase::Accepting;
            self.take_turn(stream.0);
        }
    }

    /// Refuses a stream that [`Event::Incoming`] told of. Its id is no longer valid.
    pub fn refuse(&mut self, stream: StreamId, reason: Refusal) {
        if self
            .streams
            .get(&stream.0)
            .is_some_and(|state| state.phase == Phase::Incoming)
        {
            self.streams.remove(&stream.0);
            self.loose.push_back((stream.0, Frame::Refused(reason)));
        }
    }

    /// Takes as much of `bytes` as there is room for, and says how many; [`Event::Writable`] follows when that was
    /// not all. `None` when the stream is gone or was finished.
    pub fn write(&mut self, stream: StreamId, bytes: &[u8]) -> Option<usize> {
        let spare = self.spare(Stream::spared_to_send);
        let state = self.streams.get_mut(&stream.0)?;
        if state.closed || state.lingering || state.send_end != SendEnd::None {
            return None;
        }
        let (taken, rest) = bytes.split_at(state.room(spare).min(bytes.len()));
        state.sending.push(taken);
        state.wants_room = !rest.is_empty();
        self.take_turn(stream.0);
        Some(taken.len())
    }

    /// Moves received bytes into `into`, and so lets the other side send more.
    pub fn read(&mut self, stream: StreamId, into: &mut [u8]) -> Read {
        let Some(state) = self.streams.get_mut(&stream.0).filter(|state| !state.lingering) else {
            return Read::Gone;
        };
        let count = state.received.take(into);
        let wants_grant = count > 0 && state.wants_grant();
        let read = match (count, state.receive_end, state.closed) {
            _ if !state.received.is_empty() || count > 0 => Read::Data(count),
            (_, true, _) => Read::End,
            (_, _, true) => Read::Gone,
            _ => Read::Pending,
        };
        if wants_grant {
            let spare = self.spare(Stream::spared_to_receive);
            if let Some(state) = self.streams.get_mut(&stream.0) {
                state.grant(spare);
            }
        }
        self.take_turn(stream.0);
        read
    }

    /// What is left to spare in one direction.
    fn spare(&self, spared: fn(&Stream) -> usize) -> usize {
        let spared: usize = self.streams.values().map(spared).sum();
        self.spare_bytes.saturating_sub(spared)
    }

    /// Sends the end of our bytes behind those written. Reading goes on.
    pub fn finish(&mut self, stream: StreamId) {
        if let Some(state) = self.streams.get_mut(&stream.0)
            && state.send_end == SendEnd::None
        {
            state.send_end = SendEnd::Queued;
            self.take_turn(stream.0);
        }
    }

    /// Gives the stream up in both directions; its id is no longer valid. What was written goes first if
    /// [`Endpoint::finish`] was called, and is dropped otherwise.
    pub fn close(&mut self, stream: StreamId) {
        let Some(state) = self.streams.get_mut(&stream.0) else {
            return;
        };
        if state.send_end == SendEnd::Queued && !state.closed && state.phase != Phase::Incoming {
            state.lingering = true;
            state.received.clear();
            return;
        }
        let unannounced = matches!(state.phase, Phase::Asking { .. });
        let ended = state.ended();
        self.streams.remove(&stream.0);
        if !ended && !unannounced {
            self.loose.push_back((stream.0, Frame::Close));
        }
    }

    fn take_turn(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.in_turn
            && stream.step().is_some()
        {
            stream.in_turn = true;
            self.turn.push_back(id);
        }
    }

    fn fill_output(&mut self) {
        while self.in_session && self.output.len() < OUTPUT_TARGET_BYTES {
            if let Some((id, frame)) = self.loose.pop_front() {
                frame::encode(&mut self.output, self.nonce, id, frame);
            } else if let Some(id) = self.turn.pop_front() {
                self.send_one(id);
            } else {
                break;
            }
        }
    }

    /// Encodes one frame of the stream whose turn it is, and puts it last if it has more.
    fn send_one(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.in_turn = false;
        let Some(step) = stream.step() else { return };
        let frame = match step {
            Step::Open { port } => Frame::Open { port },
            Step::Opened => Frame::Opened,
            Step::Window { bytes } => Frame::Window { bytes },
            Step::Data { len } => Frame::Data(stream.sending.front().get(..len).unwrap_or_default()),
            Step::Eof => Frame::Eof,
        };
        frame::encode(&mut self.output, self.nonce, id, frame);
        stream.done(&step);
        if stream.wants_room && stream.sending.len() <= SEND_BUFFER_BYTES / 2 {
            stream.wants_room = false;
            self.events.push_back(Event::Writable(StreamId(id)));
        }
        if stream.lingering && stream.send_end == SendEnd::Sent {
            let ended = stream.ended();
            self.streams.remove(&id);
            if !ended {
                self.loose.push_back((id, Frame::Close));
            }
            return;
        }
        self.take_turn(id);
    }

    fn found(&mut self, found: Found<'_>) -> Result<(), Desync> {
        match found {
            Found::Hello(nonce) if self.host => self.guest_said_hello(nonce),
            Found::Hello(nonce) => {
                self.forget_streams();
                self.nonce = nonce;
                self.in_session = true;
                self.output.clear();
                self.events.clear();
                frame::encode_guest_hello(&mut self.output, nonce);
                self.events.push_back(Event::Session);
                Ok(())
            }
            Found::Frame { stream, frame } => self.received_frame(stream, frame),
        }
    }

    fn guest_said_hello(&mut self, nonce: Nonce) -> Result<(), Desync> {
        if nonce == self.nonce {
            if !self.in_session {
                self.in_session = true;
                self.events.push_back(Event::Session);
            }
            return Ok(());
        }
        // An answer to an earlier host is passed over while we wait for ours; later it means that the guest is lost.
        if self.in_session { Err(Desync) } else { Ok(()) }
    }

    fn lose(&mut self) {
        if !self.in_session {
            return;
        }
        self.in_session = false;
        self.forget_streams();
        self.events.clear();
        self.events.push_back(Event::Lost);
        if !self.host {
            // Behind whole frames only, so that the host finds it.
            frame::encode_guest_hello(&mut self.output, LOST);
        }
    }

    fn forget_streams(&mut self) {
        self.streams.clear();
        self.turn.clear();
        self.loose.clear();
        self.last_foreign_id = 0;
        self.next_id = if self.host { 1 } else { 2 };
    }

    fn received_frame(&mut self, id: u32, frame: Frame<'_>) -> Result<(), Desync> {
        let is_foreign = id.is_multiple_of(2) == self.host;
        if let Frame::Open { port } = frame {
            return if is_foreign && id > self.last_foreign_id {
                self.incoming(id, port)
            } else {
                Err(Desync)
            };
        }
        let newest = if is_foreign {
            self.last_foreign_id
        } else {
            self.next_id.saturating_sub(2)
        };
        if id == 0 || id > newest {
            return Err(Desync);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(()); // sent before the other side learned that the stream was closed
        };
        match frame {
            Frame::Open { .. } => {}
            Frame::Opened | Frame::Refused(_) if stream.phase != Phase::Asked => return Err(Desync),
            Frame::Opened => {
                stream.phase = Phase::Open;
                if !stream.lingering {
                    self.events.push_back(Event::Accepted(StreamId(id)));
                }
            }
            Frame::Refused(reason) => {
                if !stream.lingering {
                    self.events.push_back(Event::Refused {
                        stream: StreamId(id),
                        reason,
                    });
                }
                self.streams.remove(&id);
            }
            Frame::Data(bytes) => return self.received_data(id, bytes),
            Frame::Eof => {
                stream.receive_end = true;
                self.tell_readable(id);
            }
            Frame::Close => {
                stream.closed = true;
                stream.sending.clear();
                if stream.lingering {
                    self.streams.remove(&id);
                } else {
                    self.tell_readable(id);
                }
            }
            Frame::Window { bytes } => {
                let bytes = usize::try_from(bytes).map_err(|_| Desync)?;
                // More than any receiver could mean: the sum must stay countable.
                stream.send_credit = stream
                    .send_credit
                    .checked_add(bytes)
                    .filter(|sum| *sum <= 1 << 30)
                    .ok_or(Desync)?;
                self.take_turn(id);
            }
        }
        Ok(())
    }

    fn incoming(&mut self, id: u32, port: u32) -> Result<(), Desync> {
        self.last_foreign_id = id;
        if self.streams.len() >= MAX_STREAMS {
            self.loose
                .push_back((id, Frame::Refused(Refusal::TooManyStreams)));
        } else {
            self.streams.insert(id, Stream::new(Phase::Incoming));
            self.events.push_back(Event::Incoming {
                stream: StreamId(id),
                port,
            });
        }
        Ok(())
    }

    fn received_data(&mut self, id: u32, bytes: &[u8]) -> Result<(), Desync> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if stream.receive_end || stream.closed || bytes.len() > stream.receive_credit {
            return Err(Desync);
        }
        stream.receive_credit = stream.receive_credit.saturating_sub(bytes.len());
        if !stream.lingering {
            stream.received.push(bytes);
            self.tell_readable(id);
        }
        Ok(())
    }

    fn tell_readable(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.readable_told
            && !stream.lingering
        {
            stream.readable_told = true;
            self.events.push_back(Event::Readable(StreamId(id)));
        }
    }
}
