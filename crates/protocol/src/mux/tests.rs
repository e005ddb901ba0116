//! Tests of [`super`]: two endpoints joined by byte queues, without any I/O.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::Queue;

/// The byte at `offset` of what one side sends on a stream: depends on all that could be mixed up.
fn byte_at(session: u64, from_host: bool, stream: u32, offset: usize) -> u8 {
    let mixed = session
        .wrapping_mul(31)
        .wrapping_add(u64::from(stream))
        .wrapping_mul(2)
        .wrapping_add(from_host.into());
    (mixed
        .wrapping_mul(0x9e37_79b9)
        .wrapping_add(offset as u64)
        .wrapping_mul(0x85eb_ca6b)
        >> 13) as u8
}

/// What a side knows of one of its streams.
#[derive(Default)]
struct Track {
    written: usize,
    read: usize,
    finished: bool,
    ended: bool,
    refused: bool,
}

struct Side {
    is_host: bool,
    endpoint: Endpoint,
    tracks: BTreeMap<StreamId, Track>,
    session: u64,
    sessions: usize,
    lost: usize,
    /// Ports below this are accepted.
    ports: u32,
}

impl Side {
    fn new(endpoint: Endpoint, is_host: bool, session: u64) -> Side {
        Side {
            is_host,
            endpoint,
            tracks: BTreeMap::new(),
            session,
            sessions: 0,
            lost: 0,
            ports: 100,
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.endpoint.next_event() {
            match event {
                Event::Session => {
                    self.sessions += 1;
                    self.tracks.clear();
                }
                Event::Lost => {
                    self.lost += 1;
                    self.tracks.clear();
                }
                Event::Incoming { stream, port } if port < self.ports => {
                    self.endpoint.accept(stream);
                    self.tracks.insert(stream, Track::default());
                }
                Event::Incoming { stream, .. } => self.endpoint.refuse(stream, Refusal::NoListener),
                Event::Refused { stream, .. } => {
                    self.tracks.entry(stream).or_default().refused = true;
                }
                Event::Accepted(_) | Event::Readable(_) | Event::Writable(_) => {}
            }
        }
    }

    fn write(&mut self, stream: StreamId, len: usize) {
        let track = self.tracks.get_mut(&stream).expect("a stream of ours");
        let bytes: Vec<u8> = (0..len)
            .map(|i| byte_at(self.session, self.is_host, stream.0, track.written + i))
            .collect();
        if let Some(count) = self.endpoint.write(stream, &bytes) {
            track.written += count;
        }
    }

    fn read(&mut self, stream: StreamId, len: usize) -> Read {
        let mut into = vec![0; len.max(1)];
        let read = self.endpoint.read(stream, &mut into);
        let track = self.tracks.get_mut(&stream).expect("a stream of ours");
        match read {
            Read::Data(count) => {
                for byte in &into[..count] {
                    assert_eq!(*byte, byte_at(self.session, !self.is_host, stream.0, track.read));
                    track.read += 1;
                }
            }
            Read::End => track.ended = true,
            Read::Pending | Read::Gone => {}
        }
        read
    }

    fn nth(&self, index: usize) -> Option<StreamId> {
        self.tracks.keys().nth(index % self.tracks.len().max(1)).copied()
    }
}

/// Both sides and what is on its way between them.
struct Wire {
    host: Side,
    guest: Side,
    to_guest: Queue,
    to_host: Queue,
}

impl Wire {
    fn new() -> Wire {
        let host = Side::new(Endpoint::host(Nonce::new(0xabcd_0000_0001_0203)), true, 1);
        let guest = Side::new(Endpoint::guest(), false, 1);
        Wire {
            host,
            guest,
            to_guest: Queue::new(),
            to_host: Queue::new(),
        }
    }

    fn pump(&mut self, host_to_guest: bool, limit: usize) -> bool {
        let (from, to, queue) = if host_to_guest {
            (&mut self.host, &mut self.guest, &mut self.to_guest)
        } else {
            (&mut self.guest, &mut self.host, &mut self.to_host)
        };
        let out = from.endpoint.transmit();
        let count = out.len().min(limit);
        queue.push(&out[..count]);
        from.endpoint.transmitted(count);
        if !to.endpoint.wants_input() {
            return count > 0;
        }
        let arrived = queue.len().min(limit);
        to.endpoint.receive(&queue.front()[..arrived]);
        queue.consume(arrived);
        from.take_events();
        to.take_events();
        count + arrived > 0
    }

    fn settle(&mut self) {
        while self.pump(true, 50_000) | self.pump(false, 50_000) {}
    }

    /// Both sides read all there is until nothing moves any more.
    fn drain(&mut self) {
        loop {
            self.settle();
            let mut moved = false;
            for side in [&mut self.host, &mut self.guest] {
                for id in side.tracks.keys().copied().collect::<Vec<_>>() {
                    while let Read::Data(_) = side.read(id, 10_000) {
                        moved = true;
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn open(&mut self, port: u32) -> StreamId {
        let id = self.host.endpoint.open(port).expect("room for a stream");
        self.host.tracks.insert(id, Track::default());
        id
    }

    /// Another host connects: of what was on its way, each direction keeps only `kept` bytes.
    fn reconnect(&mut self, kept: usize) {
        self.host.session += 1;
        self.guest.session += 1;
        for queue in [&mut self.to_guest, &mut self.to_host] {
            let front = queue.front()[..queue.len().min(kept)].to_vec();
            queue.clear();
            queue.push(&front);
        }
        self.host.endpoint = Endpoint::host(Nonce::new(0x77 + self.host.session * 0x1_0000_0001));
        self.host.tracks.clear();
        self.guest.tracks.clear();
    }
}

#[test]
fn a_stream_carries_bytes_both_ways_and_ends() {
    let mut wire = Wire::new();
    assert_eq!(wire.host.endpoint.open(52), Err(OpenError::NoSession));
    wire.settle();
    assert_eq!((wire.host.sessions, wire.guest.sessions), (1, 1));
    let id = wire.open(52);
    wire.host.write(id, 1000);
    wire.host.endpoint.finish(id);
    wire.settle();
    wire.guest.write(id, 2000);
    wire.guest.endpoint.finish(id);
    wire.drain();
    for (side, read) in [(&wire.host, 2000), (&wire.guest, 1000)] {
        assert_eq!((side.tracks[&id].read, side.tracks[&id].ended), (read, true));
    }
    wire.host.endpoint.close(id);
    wire.guest.endpoint.close(id);
    wire.settle();
    assert_eq!(
        (
            wire.host.endpoint.stream_count(),
            wire.guest.endpoint.stream_count()
        ),
        (0, 0)
    );
    assert_eq!((wire.host.lost, wire.guest.lost), (0, 0));
}

#[test]
fn a_port_without_listener_is_refused() {
    let mut wire = Wire::new();
    wire.settle();
    let id = wire.open(500);
    wire.host.write(id, 10);
    wire.settle();
    assert!(wire.host.tracks[&id].refused);
    assert_eq!(wire.host.endpoint.write(id, b"x"), None);
    assert_eq!(
        (
            wire.host.endpoint.stream_count(),
            wire.guest.endpoint.stream_count()
        ),
        (0, 0)
    );
}

#[test]
fn a_stream_nobody_reads_stops_no_other_and_is_bounded() {
    let mut wire = Wire::new();
    wire.settle();
    let (stuck, busy) = (wire.open(1), wire.open(2));
    for _ in 0..100 {
        wire.host.write(stuck, 100_000);
        wire.host.write(busy, 20_000);
        wire.settle();
        while let Read::Data(_) = wire.guest.read(busy, 4096) {}
    }
    let written = FLOOR_BYTES + SEND_BUFFER_BYTES;
    assert_eq!(wire.host.tracks[&stuck].written, written);
    wire.settle();
    assert_eq!(wire.guest.tracks[&busy].read, 2_000_000);
    wire.drain();
    assert_eq!(wire.guest.tracks[&stuck].read, written);
}

#[test]
fn a_guest_holds_little_of_all_streams_together() {
    let most = MAX_STREAMS * FLOOR_BYTES + SPARE_BYTES;
    let mut wire = Wire::new();
    wire.settle();
    let ids: Vec<StreamId> = (0..MAX_STREAMS).map(|_| wire.open(1)).collect();
    wire.settle();
    // Each is read until it has a large window, and then no more; the host does not read at all.
    for round in 0..20 {
        for id in &ids {
            wire.host.write(*id, 100_000);
            wire.guest.write(*id, 100_000);
        }
        wire.settle();
        if round < 5 {
            for id in &ids {
                wire.guest.read(*id, 3000);
            }
        }
        let (received, sending) = wire.guest.endpoint.held_bytes();
        assert!(received <= most && sending <= most, "{received} {sending}");
    }
    let (received, sending) = wire.guest.endpoint.held_bytes();
    assert!(received > most / 2 && sending > most / 2, "{received} {sending}");
    // One that is read goes on however the others stand, and so does one that is closed and opened anew.
    let busy = ids[MAX_STREAMS - 1];
    let before = wire.guest.tracks[&busy].read;
    for _ in 0..100 {
        wire.host.write(busy, 20_000);
        wire.settle();
        while let Read::Data(_) = wire.guest.read(busy, 4096) {}
        while let Read::Data(_) = wire.host.read(busy, 4096) {}
        wire.guest.write(busy, 20_000);
    }
    assert!(wire.guest.tracks[&busy].read > before + 200_000);
    assert!(wire.host.tracks[&busy].read > 200_000);
    wire.drain();
    for id in &ids {
        assert_eq!(wire.guest.tracks[id].read, wire.host.tracks[id].written);
        assert_eq!(wire.host.tracks[id].read, wire.guest.tracks[id].written);
    }
    assert_eq!((wire.host.lost, wire.guest.lost), (0, 0));
}

#[test]
fn a_stream_that_is_read_gets_a_large_window_again_when_the_others_have_gone() {
    let mut wire = Wire::new();
    wire.settle();
    let ids: Vec<StreamId> = (0..MAX_STREAMS).map(|_| wire.open(1)).collect();
    wire.settle();
    for _ in 0..4 {
        for id in &ids {
            wire.host.write(*id, 100_000);
            wire.settle();
            wire.guest.read(*id, 3000);
        }
    }
    let last = ids[MAX_STREAMS - 1];
    for id in &ids[..MAX_STREAMS - 1] {
        wire.host.endpoint.close(*id);
        wire.guest.endpoint.close(*id);
    }
    wire.settle();
    while let Read::Data(_) = wire.guest.read(last, 4096) {}
    for _ in 0..10 {
        wire.host.write(last, 100_000);
        wire.settle();
        while let Read::Data(_) = wire.guest.read(last, 4096) {}
    }
    wire.host.write(last, 100_000);
    wire.settle();
    assert!(wire.guest.endpoint.held_bytes().0 > WINDOW_BYTES / 2);
}

#[test]
fn finish_then_close_still_sends_everything() {
    let mut wire = Wire::new();
    wire.settle();
    let id = wire.open(1);
    wire.settle();
    wire.guest.write(id, 65_000);
    wire.guest.endpoint.finish(id);
    wire.guest.endpoint.close(id);
    wire.guest.tracks.clear();
    wire.drain();
    assert_eq!(
        (wire.host.tracks[&id].read, wire.host.tracks[&id].ended),
        (65_000, true)
    );
    assert_eq!(wire.guest.endpoint.stream_count(), 0);
}

#[test]
fn close_reaches_the_other_side_behind_what_was_sent() {
    let mut wire = Wire::new();
    wire.settle();
    let id = wire.open(1);
    wire.host.write(id, 100);
    wire.settle();
    wire.host.endpoint.close(id);
    wire.host.tracks.clear();
    wire.settle();
    assert_eq!(wire.guest.read(id, 1000), Read::Data(100));
    assert_eq!(wire.guest.read(id, 1000), Read::Gone);
    wire.guest.endpoint.close(id);
    wire.settle();
    assert_eq!(wire.guest.endpoint.stream_count(), 0);
}

#[test]
fn no_more_streams_than_agreed() {
    let mut wire = Wire::new();
    wire.settle();
    for _ in 0..MAX_STREAMS {
        wire.open(1);
    }
    assert_eq!(wire.host.endpoint.open(1), Err(OpenError::TooManyStreams));
    wire.settle();
    assert_eq!(wire.guest.endpoint.stream_count(), MAX_STREAMS);
    assert_eq!(wire.guest.endpoint.open(1), Err(OpenError::TooManyStreams));
}

#[test]
fn a_violation_loses_the_session_on_both_sides_and_a_new_host_starts_clean() {
    // Each is wrong in its own way: data beyond the window, an unknown stream, the wrong parity, noise.
    let nonce = Nonce::new(0xabcd_0000_0001_0203);
    let data = vec![0; MAX_PAYLOAD_BYTES];
    let mut too_much = vec![(1, frame::Frame::Open { port: 1 })];
    too_much.extend([(1, frame::Frame::Data(&data)); 5]);
    let cases: [&[(u32, frame::Frame<'_>)]; 6] = [
        &too_much,
        &[(9, frame::Frame::Eof)],
        &[(2, frame::Frame::Open { port: 1 })],
        &[(0, frame::Frame::Close)],
        &[(1, frame::Frame::Open { port: 1 }), (1, frame::Frame::Opened)],
        &[
            (1, frame::Frame::Open { port: 1 }),
            (1, frame::Frame::Window { bytes: u32::MAX }),
        ],
    ];
    for frames in cases {
        let mut wire = Wire::new();
        wire.settle();
        for (stream, frame) in frames {
            frame::encode(&mut wire.to_guest, nonce, *stream, *frame);
        }
        wire.settle();
        assert_eq!((wire.host.lost, wire.guest.lost), (1, 1), "{:?}", frames.last());
        wire.reconnect(usize::MAX);
        wire.settle();
        assert_eq!((wire.host.sessions, wire.guest.sessions), (2, 2));
        assert!(wire.host.endpoint.in_session() && wire.guest.endpoint.in_session());
    }
}

#[test]
fn a_host_cut_off_at_any_byte_leaves_nothing_to_the_next() {
    for cut in 0..400 {
        let mut wire = Wire::new();
        wire.settle();
        let id = wire.open(1);
        wire.host.write(id, 300);
        wire.pump(true, cut);
        wire.reconnect(cut / 2);
        wire.settle();
        assert!(
            wire.host.endpoint.in_session() && wire.guest.endpoint.in_session(),
            "cut {cut}"
        );
        let id = wire.open(1);
        wire.host.write(id, 500);
        wire.drain();
        assert_eq!(wire.guest.tracks[&id].read, 500, "cut {cut}");
    }
}

#[test]
fn the_wire_format_is_pinned() {
    let mut wire = Wire::new();
    let hello = wire.host.endpoint.transmit().to_vec();
    assert_eq!(hello.len(), 16_396 + 16);
    assert!(hello[..16_396].iter().all(|byte| *byte == 0));
    assert_eq!(&hello[16_396..], b"FBMUX2H\n\x03\x02\x01\x00\x00\x00\xcd\xab");
    wire.host.endpoint.transmitted(hello.len());
    wire.guest.endpoint.receive(&hello);
    let answer = wire.guest.endpoint.transmit().to_vec();
    assert_eq!(answer, b"FBMUX2G\n\x03\x02\x01\x00\x00\x00\xcd\xab");
    wire.host.endpoint.receive(&answer);
    let id = wire.host.endpoint.open(52).expect("a stream");
    wire.host.endpoint.write(id, b"hi");
    wire.host.endpoint.finish(id);
    let frames = b"\x01\0\x04\0\x01\0\0\0\x34\0\0\0\x03\x02\x01\0\x07\0\x04\0\x01\0\0\0\0\xf0\0\0\x03\x02\x01\0\x04\0\x02\0\x01\0\0\0hi\x03\x02\x01\0\x05\0\0\0\x01\0\0\0\x03\x02\x01\0";
    assert_eq!(wire.host.endpoint.transmit(), frames);
}

#[derive(Debug, Clone)]
enum Op {
    Open { host: bool, port: u32 },
    Write { host: bool, nth: usize, len: usize },
    Read { host: bool, nth: usize, len: usize },
    Finish { host: bool, nth: usize },
    Close { host: bool, nth: usize },
    Pump { to_guest: bool, limit: usize },
    Reconnect { kept: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let side = any::<bool>;
    prop_oneof![
        2 => (side(), 90u32..110).prop_map(|(host, port)| Op::Open { host, port }),
        6 => (side(), 0usize..9, 0usize..90_000).prop_map(|(host, nth, len)| Op::Write { host, nth, len }),
        6 => (side(), 0usize..9, 0usize..90_000).prop_map(|(host, nth, len)| Op::Read { host, nth, len }),
        1 => (side(), 0usize..9).prop_map(|(host, nth)| Op::Finish { host, nth }),
        1 => (side(), 0usize..9).prop_map(|(host, nth)| Op::Close { host, nth }),
        12 => (side(), 0usize..40_000).prop_map(|(to_guest, limit)| Op::Pump { to_guest, limit }),
        1 => (0usize..60_000).prop_map(|kept| Op::Reconnect { kept }),
    ]
}

fn apply(wire: &mut Wire, op: Op) {
    fn side(wire: &mut Wire, host: bool) -> &mut Side {
        if host { &mut wire.host } else { &mut wire.guest }
    }
    match op {
        Op::Open { host, port } => {
            let side = side(wire, host);
            if let Ok(id) = side.endpoint.open(port) {
                side.tracks.insert(id, Track::default());
            }
        }
        Op::Write { host, nth, len } => {
            let side = side(wire, host);
            side.nth(nth).into_iter().for_each(|id| side.write(id, len));
        }
        Op::Read { host, nth, len } => {
            let side = side(wire, host);
            if let Some(id) = side.nth(nth) {
                side.read(id, len);
            }
        }
        Op::Finish { host, nth } => {
            let side = side(wire, host);
            if let Some(id) = side.nth(nth) {
                side.endpoint.finish(id);
                side.tracks.get_mut(&id).expect("tracked").finished = true;
            }
        }
        Op::Close { host, nth } => {
            let side = side(wire, host);
            if let Some(id) = side.nth(nth) {
                side.endpoint.close(id);
                side.tracks.remove(&id);
            }
        }
        Op::Pump { to_guest, limit } => {
            wire.pump(to_guest, limit);
        }
        Op::Reconnect { kept } => wire.reconnect(kept),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done in whatever order: bytes arrive in order and whole (`Side::read` checks each), nobody is
    /// lost, and streams still open on both sides at the end have all their bytes and ends.
    #[test]
    fn streams_are_faithful(ops in prop::collection::vec(op(), 1..120)) {
        let mut wire = Wire::new();
        let reconnects = ops.iter().filter(|op| matches!(op, Op::Reconnect { .. })).count();
        for op in ops {
            apply(&mut wire, op);
        }
        wire.drain();
        // A frame that a vanished host left half-sent loses the old session just before the new one starts.
        prop_assert_eq!(wire.host.lost, 0);
        prop_assert!(wire.guest.lost <= reconnects);
        prop_assert!(wire.host.endpoint.in_session());
        for (id, here) in &wire.host.tracks {
            if let Some(there) = wire.guest.tracks.get(id) {
                prop_assert_eq!((here.written, there.written), (there.read, here.read));
                prop_assert_eq!((here.finished, there.finished), (there.ended, here.ended));
            }
        }
        for side in [&mut wire.host, &mut wire.guest] {
            for id in side.tracks.keys() {
                side.endpoint.close(*id);
            }
        }
        wire.settle();
        prop_assert_eq!(wire.host.endpoint.stream_count(), 0);
        prop_assert_eq!(wire.guest.endpoint.stream_count(), 0);
    }

    /// Noise, spliced into a session at any point, never panics; a host that starts anew is always answered.
    #[test]
    fn noise_never_wedges_the_guest(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        real in prop::collection::vec(op(), 0..20),
        masked in any::<bool>(),
    ) {
        let mut wire = Wire::new();
        wire.settle();
        for op in real {
            apply(&mut wire, op);
        }
        let mut noise = noise;
        if masked {
            // Small values are likelier to look like frames.
            noise.iter_mut().for_each(|byte| *byte &= 7);
        }
        wire.guest.endpoint.receive(&noise);
        wire.guest.take_events();
        wire.host.endpoint.receive(&noise);
        wire.host.take_events();
        wire.reconnect(usize::MAX);
        wire.settle();
        prop_assert!(wire.host.endpoint.in_session() && wire.guest.endpoint.in_session());
    }
}

/// A guest dies in the middle of a frame; the next one on its wire is heard, and the host begins a new session.
#[test]
fn a_guest_that_was_started_again_is_found() {
    for cut in [0, 1, 7, 12, 500] {
        let mut host = Endpoint::host(Nonce(0x1234_5678_9abc_def1));
        let mut guest = Endpoint::guest();
        let pass = |from: &mut Endpoint, to: &mut Endpoint| {
            let bytes = from.transmit().to_vec();
            from.transmitted(bytes.len());
            to.receive(&bytes);
        };
        pass(&mut host, &mut guest);
        pass(&mut guest, &mut host);
        assert_eq!(host.next_event(), Some(Event::Session));
        let stream = host.open(52).unwrap();
        pass(&mut host, &mut guest);
        assert_eq!(guest.next_event(), Some(Event::Session));
        assert!(matches!(guest.next_event(), Some(Event::Incoming { .. })));
        guest.accept(stream);
        assert_eq!(guest.write(stream, &[7; 1000]), Some(1000));
        let bytes = guest.transmit().to_vec();
        host.receive(&bytes[..bytes.len().min(cut)]);
        while host.next_event().is_some() {}

        let mut guest = Endpoint::guest_again();
        pass(&mut guest, &mut host);
        assert_eq!(host.next_event(), Some(Event::Lost), "cut at {cut}");
        let mut host = Endpoint::host(Nonce(0x1111_2222_3333_4445));
        pass(&mut host, &mut guest);
        pass(&mut guest, &mut host);
        assert_eq!(host.next_event(), Some(Event::Session), "cut at {cut}");
    }
}
