//! What host and keeper say to each other: frames over a stream socket, `kind u8, length u32 little-endian, payload`.
//!
//! ```text
//! keeper: Ready                                  (its user namespace is made)
//! host:   Settings                               (and the ids are mapped)
//! host:   Tar… TarEnd                            keeper: Done | Error
//! host:   Run                                    keeper: Output… Outcome | Error
//! host:   Layer                                  keeper: LayerData… Done | Error
//! host:   end of stream                          (the keeper ends everything, removes the copy and exits)
//! ```

use std::io::{self, Read, Write};

use firebrick_tree::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::steps::{Limits, Step};

/// Most bytes of a frame that is held in memory.
const FRAME_MAX: u32 = 32 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Ready = 1,
    Settings,
    Tar,
    TarEnd,
    Run,
    Layer,
    Done,
    Error,
    Output,
    Outcome,
    LayerData,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        use Kind::*;
        [
            Ready, Settings, Tar, TarEnd, Run, Layer, Done, Error, Output, Outcome, LayerData,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// What the keeper must know before it begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// How many ids are mapped, from 0.
    pub(crate) ids: u32,
    /// Whoever runs firebrick is in a user namespace that has no more.
    pub(crate) confined: bool,
    /// No later time stands in a layer: seconds and nanoseconds.
    pub(crate) created: (i64, u32),
    pub(crate) hostname: String,
    /// What `/etc/resolv.conf` says to steps with a network.
    pub(crate) resolver: Option<Vec<u8>>,
    /// The name of the work folder in its own.
    pub(crate) folder: String,
}

impl Settings {
    pub(crate) fn created(&self) -> Timestamp {
        Timestamp {
            seconds: self.created.0,
            nanoseconds: self.created.1,
        }
    }
}

/// A step and its bounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunStep {
    pub(crate) step: Step,
    pub(crate) limits: Limits,
}

pub(crate) fn send(mut out: impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len())
        .ok()
        .filter(|&len| len <= FRAME_MAX)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a message of over 32 MiB"))?;
    let mut head = [kind as u8, 0, 0, 0, 0];
    head[1..].copy_from_slice(&len.to_le_bytes());
    out.write_all(&head)?;
    out.write_all(payload)
}

pub(crate) fn send_json(out: impl Write, kind: Kind, value: &impl Serialize) -> io::Result<()> {
    send(out, kind, &serde_json::to_vec(value).map_err(io::Error::other)?)
}

/// The next frame; `None` at the end of the stream.
pub(crate) fn receive(mut input: impl Read, payload: &mut Vec<u8>) -> io::Result<Option<Kind>> {
    let mut head = [0; 5];
    let mut filled = 0;
    while filled < head.len() {
        match input.read(&mut head[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a message of no known kind or length");
    let kind = Kind::of(head[0]).ok_or_else(wrong)?;
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    if len > FRAME_MAX {
        return Err(wrong());
    }
    payload.clear();
    let expected = u64::from(len);
    if input.take(expected).read_to_end(payload)? as u64 != expected {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(kind))
}

pub(crate) fn json<T: DeserializeOwned>(payload: &[u8]) -> io::Result<T> {
    serde_json::from_slice(payload).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes a stream as frames of one kind.
#[derive(Debug)]
pub(crate) struct Frames<W> {
    pub(crate) out: W,
    pub(crate) kind: Kind,
}

impl<W: Write> Write for Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(1 << 20);
        send(&mut self.out, self.kind, &bytes[..len])?;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_lies_are_refused() {
        let mut bytes = Vec::new();
        send(&mut bytes, Kind::Output, b"hi").unwrap();
        send(&mut bytes, Kind::Done, b"").unwrap();
        let mut input = bytes.as_slice();
        let mut payload = Vec::new();
        assert_eq!(receive(&mut input, &mut payload).unwrap(), Some(Kind::Output));
        assert_eq!(payload, b"hi");
        assert_eq!(receive(&mut input, &mut payload).unwrap(), Some(Kind::Done));
        assert_eq!(receive(&mut input, &mut payload).unwrap(), None);
        for wrong in [
            &bytes[..6],
            &bytes[..3],
            &[0, 0, 0, 0, 0],
            &[99, 0, 0, 0, 0],
            &[7, 255, 255, 255, 255],
        ] {
            assert!(receive(wrong, &mut payload).is_err(), "{wrong:?}");
        }
    }
}
