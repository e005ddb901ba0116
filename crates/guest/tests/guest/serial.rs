//! `--serial`: the mux on a character device, spoken to as `docs/protocol-mux.md` says and with none of the crate's code.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use crate::common::guest;

const OPEN: u8 = 1;
const OPENED: u8 = 2;
const REFUSED: u8 = 3;
const DATA: u8 = 4;
const WINDOW: u8 = 7;

/// The host's end of a pseudo terminal, whose other end an agent serves.
struct Wire {
    host: File,
    agent: Child,
    nonce: u64,
}

impl Wire {
    fn start() -> Wire {
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
        let agent = Command::new(guest())
            .args(["--agent", "--serial", &path])
            .spawn()
            .expect("the guest starts");
        Wire {
            host: host.into(),
            agent,
            nonce: 0,
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.host.read_exact(&mut bytes).expect("the agent sends");
        bytes
    }

    /// Begins a session, passing over what an earlier one left.
    fn hello(&mut self, nonce: u64) {
        self.nonce = nonce;
        let mut bytes = vec![0; 16_396];
        bytes.extend_from_slice(b"FBMUX1H\n");
        bytes.extend_from_slice(&nonce.to_le_bytes());
        self.host.write_all(&bytes).expect("the agent takes it");
        let wanted = [b"FBMUX1G\n".as_slice(), &nonce.to_le_bytes()].concat();
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
    fn frame(&mut self) -> (u8, u32, Vec<u8>) {
        loop {
            let kind = self.take(1)[0];
            if kind == 0 {
                continue;
            }
            let head = self.take(7);
            let len = u16::from_le_bytes([head[1], head[2]]);
            let stream = u32::from_le_bytes(head[3..7].try_into().expect("4 bytes"));
            let payload = self.take(len.into());
            assert_eq!(self.take(4), self.nonce.to_le_bytes()[..4], "the frame's tag");
            if kind != WINDOW {
                return (kind, stream, payload);
            }
        }
    }

    /// Calls a method on an open stream and gives its result.
    fn call(&mut self, stream: u32, method: &str, params: &Value) -> Value {
        let line = json!({"jsonrpc": "2.0", "id": method, "method": method, "params": params});
        self.send(DATA, stream, format!("{line}\n").as_bytes());
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n") {
            let (kind, from, payload) = self.frame();
            assert_eq!((kind, from), (DATA, stream));
            answer.extend(payload);
        }
        serde_json::from_slice::<Value>(&answer).expect("JSON")["result"].clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

#[test]
fn the_mux_on_a_character_device() {
    let mut wire = Wire::start();
    for nonce in [0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00] {
        wire.hello(nonce);
        wire.send(OPEN, 1, &52_u32.to_le_bytes());
        assert_eq!(wire.frame(), (OPENED, 1, vec![]));
        wire.send(OPEN, 3, &53_u32.to_le_bytes());
        assert_eq!(wire.frame(), (REFUSED, 3, vec![1]), "nothing listens there");
        assert_eq!(wire.call(1, "ping", &json!({})), json!({"pong": true}));
        wire.send(OPEN, 5, &52_u32.to_le_bytes());
        assert_eq!(wire.frame(), (OPENED, 5, vec![]));
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
