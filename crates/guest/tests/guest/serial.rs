//! `--serial`: the mux on a character device, spoken to as `docs/protocol-mux.md` says and with none of the crate's code.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use crate::common::{Agent, assert_nothing_left, assert_small};

const OPEN: u8 = 1;
const OPENED: u8 = 2;
const REFUSED: u8 = 3;
const DATA: u8 = 4;
const WINDOW: u8 = 7;

/// How many bytes of a stream may go before the agent grants more.
const FLOOR_BYTES: usize = 4096;

type Frame = (u8, u32, Vec<u8>);

/// The host's end of a pseudo terminal, whose other end an agent serves.
pub(crate) struct Wire {
    host: File,
    nonce: u64,
    /// How many bytes may be sent, by stream.
    credits: BTreeMap<u32, usize>,
    /// Frames that came while others were awaited.
    inbox: VecDeque<Frame>,
}

impl Wire {
    /// In a session. The agent listens on TCP, too.
    pub(crate) fn start() -> (Wire, Agent) {
        let host = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
        grantpt(&host).expect("it is ours");
        unlockpt(&host).expect("it opens");
        let mut mode = tcgetattr(&host).expect("a terminal");
        mode.make_raw();
        tcsetattr(&host, OptionalActions::Now, &mode).expect("a raw terminal");
        let path = ptsname(&host, Vec::new())
            .expect("a name")
            .into_string()
            .expect("UTF-8");
        let mut agent = Agent::start_with(&["--serial", &path]);
        let mut wire = Wire {
            host: host.into(),
            nonce: 0,
            credits: BTreeMap::new(),
            inbox: VecDeque::new(),
        };
        wire.hello(0x99aa_bbcc_ddee_ff00);
        // It has the port open by now.
        agent.files = agent.open_files();
        (wire, agent)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.host.read_exact(&mut bytes).expect("the agent sends");
        bytes
    }

    /// Begins a session, passing over what an earlier one left.
    pub(crate) fn hello(&mut self, nonce: u64) {
        self.nonce = nonce;
        self.credits.clear();
        self.inbox.clear();
        let mut bytes = vec![0; 16_396];
        bytes.extend_from_slice(b"FBMUX2H\n");
        bytes.extend_from_slice(&nonce.to_le_bytes());
        self.host.write_all(&bytes).expect("the agent takes it");
        let wanted = [b"FBMUX2G\n".as_slice(), &nonce.to_le_bytes()].concat();
        let mut seen = self.take(wanted.len());
        while seen != wanted {
            seen.remove(0);
            seen.extend(self.take(1));
        }
    }

    fn send(&mut self, kind: u8, stream: u32, payload: &[u8]) {
        let mut frame = vec![kind, 0];
        frame.extend_from_slice(
            &u16::try_from(payload.len())
                .expect("a short payload")
                .to_le_bytes(),
        );
        frame.extend_from_slice(&stream.to_le_bytes());
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&self.nonce.to_le_bytes()[..4]);
        self.host.write_all(&frame).expect("the agent takes it");
    }

    /// The next frame that is no WINDOW: kind, stream, payload.
    fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.inbox.pop_front() {
                return frame;
            }
            self.receive();
        }
    }

    /// Takes one frame off the wire.
    fn receive(&mut self) {
        let kind = self.take(1)[0];
        if kind == 0 {
            return;
        }
        let head = self.take(7);
        let len = u16::from_le_bytes([head[1], head[2]]);
        let stream = u32::from_le_bytes(head[3..7].try_into().expect("4 bytes"));
        let payload = self.take(len.into());
        assert_eq!(self.take(4), self.nonce.to_le_bytes()[..4], "the frame's tag");
        if kind == WINDOW {
            let bytes = u32::from_le_bytes(payload.try_into().expect("4 bytes"));
            *self.credits.entry(stream).or_default() += usize::try_from(bytes).expect("small");
        } else {
            self.inbox.push_back((kind, stream, payload));
        }
    }

    /// Takes what comes until nothing does for so long.
    fn receive_all(&mut self, patience: Duration) {
        let patience = Timespec::try_from(patience).expect("short");
        while poll(&mut [PollFd::new(&self.host, PollFlags::IN)], Some(&patience)) == Ok(1) {
            self.receive();
        }
    }

    /// Opens a stream to the agent's port.
    pub(crate) fn open(&mut self, stream: u32, port: u32) {
        self.send(OPEN, stream, &port.to_le_bytes());
        self.credits.insert(stream, FLOOR_BYTES);
        loop {
            self.receive();
            if let Some(at) = self.inbox.iter().position(|frame| frame.1 == stream) {
                assert_eq!(self.inbox.remove(at), Some((OPENED, stream, vec![])));
                return;
            }
        }
    }

    /// Sends as much as the agent allows, in pieces; gives how much that was.
    pub(crate) fn stuff(&mut self, stream: u32, bytes: &[u8]) -> usize {
        let credit = self.credits.get_mut(&stream).expect("an open stream");
        let count = bytes.len().min(*credit);
        *credit -= count;
        for piece in bytes[..count].chunks(16_384) {
            self.send(DATA, stream, piece);
        }
        count
    }

    /// Calls a method on an open stream and gives its result.
    pub(crate) fn call(&mut self, stream: u32, method: &str, params: &Value) -> Value {
        let line = json!({"jsonrpc": "2.0", "id": method, "method": method, "params": params});
        let line = format!("{line}\n");
        assert_eq!(self.stuff(stream, line.as_bytes()), line.len(), "it is short");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") {
            let (kind, from, payload) = self.frame();
            if from == stream {
                assert_eq!(kind, DATA);
                let answered = payload.len();
                answer.extend(payload);
                self.send(
                    WINDOW,
                    stream,
                    &u32::try_from(answered).expect("short").to_le_bytes(),
                );
            }
        }
        serde_json::from_slice::<Value>(&answer).expect("JSON")["result"].clone()
    }
}

#[test]
fn the_mux_on_a_character_device() {
    let (mut wire, _agent) = Wire::start();
    for nonce in [0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00] {
        wire.hello(nonce);
        wire.open(1, 52);
        wire.send(OPEN, 3, &53_u32.to_le_bytes());
        assert_eq!(wire.frame(), (REFUSED, 3, vec![1]), "nothing listens there");
        assert_eq!(wire.call(1, "ping", &json!({})), json!({"pong": true}));
        wire.open(5, 52);
        let result = wire.call(5, "exec", &json!({"cmd": "printf 'a\\0b'; echo no >&2; exit 3"}));
        assert_eq!(
            result,
            json!({"exit_code": 3, "stdout": "a\0b", "stderr": "no\n"})
        );
        assert_eq!(
            wire.call(1, "status", &json!({}))["connections"],
            2,
            "a session starts clean"
        );
        // A frame half sent when the host vanishes does the next session no harm.
        wire.host
            .write_all(&[DATA, 0, 200, 0, 1])
            .expect("the agent takes it");
    }
}

/// What hogs say, none of which reads an answer.
pub(crate) struct Hogs {
    /// By stream: what is still to be sent, and again once all was.
    texts: BTreeMap<u32, (Vec<u8>, usize)>,
}

impl Hogs {
    /// Streams from `first` on, so many.
    pub(crate) fn open(wire: &mut Wire, first: u32, count: u32) -> Hogs {
        let unfinished = [b"{\"jsonrpc\":\"2.0\",\"id\":\"".to_vec(), vec![b'x'; 3 << 20]].concat();
        let frame = [(4u32 << 20).to_be_bytes().to_vec(), vec![b'x'; 3 << 20]].concat();
        let call = |method: &str, params: Value| {
            format!(
                "{}\n",
                json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            )
        };
        let endless = call("exec", json!({"cmd": "exec yes unread", "stream": true}));
        let unread = call("exec", json!({"argv": ["sleep", "1000"], "stdin": true}));
        let input = call("stdin", json!({"id": 1, "data": "QUFB".repeat(8000)})).replacen(
            "\"id\":1,\"jsonrpc",
            "\"jsonrpc",
            1,
        );
        let stuck = [unread, input.repeat(40)].concat();
        let pings = call("ping", json!({})).repeat(1000);
        let texts = [
            unfinished,
            frame,
            endless.into_bytes(),
            stuck.into_bytes(),
            pings.into_bytes(),
        ];
        let texts = (0..count).zip(texts.iter().cycle()).map(|(number, text)| {
            let stream = first + 2 * number;
            wire.open(stream, if text[0] == b'{' { 52 } else { 5000 });
            (stream, (text.clone(), 0))
        });
        Hogs {
            texts: texts.collect(),
        }
    }

    /// Has each say as much as the agent takes, until it takes no more for a while.
    pub(crate) fn stuff(&mut self, wire: &mut Wire) {
        let mut rests = 0;
        for _ in 0..1000 {
            let mut sent = 0;
            for (stream, (text, done)) in &mut self.texts {
                let count = wire.stuff(*stream, &text[*done..]);
                *done += count;
                sent += count;
            }
            wire.receive_all(Duration::from_millis(5));
            rests = if sent == 0 { rests + 1 } else { 0 };
            if rests == 20 {
                return;
            }
        }
    }
}

#[test]
fn as_many_streams_as_there_can_be_are_bounded_together() {
    let (mut wire, agent) = Wire::start();
    wire.open(1, 52);
    let mut hogs = Hogs::open(&mut wire, 3, 255);
    for _ in 0..3 {
        hogs.stuff(&mut wire);
        assert_small(&agent);
        assert_eq!(wire.call(1, "ping", &json!({})), json!({"pong": true}));
        let result = wire.call(1, "exec", &json!({"cmd": "echo here"}));
        assert_eq!(result["stdout"], "here\n");
    }
    assert_small(&agent);
    // Another host: nothing of all that is left.
    wire.hello(0x1122_3344_5566_7788);
    assert_nothing_left(&agent);
}
