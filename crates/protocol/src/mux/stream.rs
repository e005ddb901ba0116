//! One stream's buffers, credits and ends.

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use super::{MAX_PAYLOAD_BYTES, SEND_BUFFER_BYTES, WINDOW_BYTES};
use crate::Queue;

/// How far opening has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// We asked for it; OPEN not yet sent.
    Asking { port: u32 },
    /// We asked for it and await the answer. Data may already go: it saves a round trip.
    Asked,
    /// The other side asked, and our user has not answered.
    Incoming,
    /// Our user has accepted; OPENED not yet sent.
    Accepting,
    /// Open.
    Open,
}

/// The end of what we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendEnd {
    /// More may come.
    None,
    /// EOF goes behind what is queued.
    Queued,
    /// EOF has gone.
    Sent,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) phase: Phase,
    /// Received and not read.
    pub(super) received: Queue,
    /// The other side's EOF has come.
    pub(super) receive_end: bool,
    /// How many bytes more the other side may send.
    pub(super) receive_credit: usize,
    /// How many bytes were read and not yet granted anew.
    pub(super) consumed: usize,
    /// To be sent.
    pub(super) sending: Queue,
    pub(super) send_end: SendEnd,
    /// How many bytes more we may send.
    pub(super) send_credit: usize,
    /// The other side has closed the stream: what was received can be read, nothing can be sent.
    pub(super) closed: bool,
    /// Our user has closed it; it stays until its queued bytes and EOF have gone.
    pub(super) lingering: bool,
    /// A write was cut short: tell when there is room.
    pub(super) wants_room: bool,
    /// A `Readable` event waits to be fetched.
    pub(super) readable_told: bool,
    /// It stands in the endpoint's list of streams that have something to send.
    pub(super) in_turn: bool,
}

/// A step of sending.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Open { port: u32 },
    Opened,
    Window { bytes: u32 },
    Data { len: usize },
    Eof,
}

impl Stream {
    pub(super) fn new(phase: Phase) -> Stream {
        Stream {
            phase,
            received: Queue::new(),
            receive_end: false,
            receive_credit: WINDOW_BYTES,
            consumed: 0,
            sending: Queue::new(),
            send_end: SendEnd::None,
            send_credit: WINDOW_BYTES,
            closed: false,
            lingering: false,
            wants_room: false,
            readable_told: false,
            in_turn: false,
        }
    }

    /// What is to be sent next, if anything may be.
    pub(super) fn step(&self) -> Option<Step> {
        if self.closed {
            return None;
        }
        match self.phase {
            Phase::Asking { port } => return Some(Step::Open { port }),
            Phase::Incoming => return None,
            Phase::Accepting => return Some(Step::Opened),
            Phase::Asked | Phase::Open => {}
        }
        if self.consumed >= WINDOW_BYTES / 2 && !self.receive_end {
            return u32::try_from(self.consumed)
                .ok()
                .map(|bytes| Step::Window { bytes });
        }
        let len = self.sending.len().min(self.send_credit).min(MAX_PAYLOAD_BYTES);
        if len > 0 {
            return Some(Step::Data { len });
        }
        (self.sending.is_empty() && self.send_end == SendEnd::Queued).then_some(Step::Eof)
    }

    /// Notes that the step has been encoded.
    pub(super) fn done(&mut self, step: &Step) {
        match step {
            Step::Open { .. } => self.phase = Phase::Asked,
            Step::Opened => self.phase = Phase::Open,
            Step::Window { .. } => {
                self.receive_credit = self.receive_credit.saturating_add(self.consumed);
                self.consumed = 0;
            }
            Step::Data { len } => {
                self.sending.consume(*len);
                self.send_credit = self.send_credit.saturating_sub(*len);
            }
            Step::Eof => self.send_end = SendEnd::Sent,
        }
    }

    /// How many bytes a write may bring.
    pub(super) fn room(&self) -> usize {
        SEND_BUFFER_BYTES.saturating_sub(self.sending.len())
    }

    /// Both directions have ended by EOF: no CLOSE is needed.
    pub(super) fn ended(&self) -> bool {
        self.closed || (self.receive_end && self.send_end == SendEnd::Sent)
    }
}
