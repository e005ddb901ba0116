//! One stream's buffers, credits and ends.

#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use super::{FLOOR_BYTES, MAX_PAYLOAD_BYTES, SEND_BUFFER_BYTES, WINDOW_BYTES};
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
    /// How many bytes more it may send as soon as it is told.
    pub(super) to_grant: usize,
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
            receive_credit: FLOOR_BYTES,
            to_grant: 0,
            sending: Queue::new(),
            send_end: SendEnd::None,
            send_credit: FLOOR_BYTES,
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
        if self.to_grant > 0 && !self.receive_end {
            return u32::try_from(self.to_grant)
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
                self.receive_credit = self.receive_credit.saturating_add(self.to_grant);
                self.to_grant = 0;
            }
            Step::Data { len } => {
                self.sending.consume(*len);
                self.send_credit = self.send_credit.saturating_sub(*len);
            }
            Step::Eof => self.send_end = SendEnd::Sent,
        }
    }

    /// Nothing more comes.
    fn receives_no_more(&self) -> bool {
        self.receive_end || self.closed
    }

    /// All that is received, or may be without another word of ours.
    fn receivable(&self) -> usize {
        if self.receives_no_more() {
            return self.received.len();
        }
        self.received
            .len()
            .saturating_add(self.receive_credit)
            .saturating_add(self.to_grant)
    }

    /// How much of what the endpoint can spare this stream has for what it receives.
    pub(super) fn spared_to_receive(&self) -> usize {
        self.receivable().saturating_sub(FLOOR_BYTES)
    }

    /// The same for what it sends.
    pub(super) fn spared_to_send(&self) -> usize {
        self.sending.len().saturating_sub(FLOOR_BYTES)
    }

    /// Whether so much was read that the other side should be granted more.
    pub(super) fn wants_grant(&self) -> bool {
        if self.receives_no_more() {
            return false;
        }
        let receivable = self.receivable();
        // A window of its own half used up; or little left of any, lest the other side has to stop.
        receivable <= FLOOR_BYTES / 2 || (receivable > FLOOR_BYTES && receivable <= WINDOW_BYTES / 2)
    }

    /// Grants the other side as much as `spare` bytes allow.
    pub(super) fn grant(&mut self, spare: usize) {
        let receivable = self.receivable();
        let window = receivable
            .max(FLOOR_BYTES)
            .saturating_add(spare)
            .min(WINDOW_BYTES);
        self.to_grant = self.to_grant.saturating_add(window.saturating_sub(receivable));
    }

    /// How many bytes a write may bring where the endpoint can spare so many.
    pub(super) fn room(&self, spare: usize) -> usize {
        let held = self.sending.len();
        let limit = held.max(FLOOR_BYTES).saturating_add(spare).min(SEND_BUFFER_BYTES);
        limit.saturating_sub(held)
    }

    /// Both directions have ended by EOF: no CLOSE is needed.
    pub(super) fn ended(&self) -> bool {
        self.closed || (self.receive_end && self.send_end == SendEnd::Sent)
    }
}
