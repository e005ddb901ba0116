//! Files and trees on their way into the guest and out of it.
//!
//! An [`Upload`] is written to, a [`Download`] read from, whatever their lengths: what is under way is bounded, by the protocol's
//! flow control. Each must be finished, which gives the guest's word on it; dropping one leaves the connection of no further use.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use firebrick_protocol::RAW_SINCE;
use firebrick_protocol::agent::{Data, MAX_DATA_BYTES, Output, Stdin, method};
use firebrick_protocol::files::{
    ClockSync, ClockSynced, FileStatus, Get, MakeDir, Put, Remove, StatParams, Transferred,
};
use firebrick_protocol::rpc::{Id, Incoming, notification_line};

use super::{CallError, Client, response};
use crate::deadline;

/// So many bytes go behind one line, where they go as they are.
const RAW_BYTES: usize = 64 << 10;

/// How much may wait to be sent before a writer waits.
const AHEAD_BYTES: usize = 256 << 10;

/// Bytes on their way into the guest.
#[derive(Debug)]
pub struct Upload<'a> {
    client: &'a mut Client,
    id: Id,
    stall: Duration,
    /// Bytes go as they are.
    is_raw: bool,
    /// What waits for more to go with it.
    waiting: Vec<u8>,
    /// The guest's word came before the end: then it is an error.
    early: Option<CallError>,
}

/// Bytes on their way out of the guest.
#[derive(Debug)]
pub struct Download<'a> {
    client: &'a mut Client,
    id: Id,
    stall: Duration,
    waiting: VecDeque<u8>,
    /// So many bytes come before the next line.
    raw_left: usize,
    end: Option<Result<Transferred, CallError>>,
}

impl Client {
    /// Starts to put a file, or with [`Put::tree`] a tar.
    ///
    /// `stall` is how long nothing at all may move.
    pub fn put(&mut self, put: Put, stall: Duration) -> Upload<'_> {
        let is_raw = self.speaks_raw(stall);
        let id = self.request(method::PUT, put);
        Upload {
            client: self,
            id,
            stall,
            is_raw,
            waiting: Vec::new(),
            early: None,
        }
    }

    /// Starts to get a file, or with [`Get::tree`] a tar. `stall` is as in [`Client::put`].
    pub fn get(&mut self, get: Get, stall: Duration) -> Download<'_> {
        let raw = self.speaks_raw(stall);
        let id = self.request(method::GET, Get { raw, ..get });
        Download {
            client: self,
            id,
            stall,
            waiting: VecDeque::new(),
            raw_left: 0,
            end: None,
        }
    }

    /// Whether the agent takes and gives bytes as they are; an older one does not.
    fn speaks_raw(&mut self, limit: Duration) -> bool {
        let protocol = match self.protocol {
            Some(protocol) => protocol,
            // An agent that does not answer this does not answer the transfer either, which then says so.
            None => self.status(limit).map_or(0, |status| status.protocol),
        };
        self.protocol = Some(protocol);
        protocol >= RAW_SINCE
    }

    /// Tells about a file.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn stat(&mut self, stat: StatParams, limit: Duration) -> Result<FileStatus, CallError> {
        self.call(method::STAT, stat, limit)
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn make_dir(&mut self, make: MakeDir, limit: Duration) -> Result<(), CallError> {
        self.call::<serde::de::IgnoredAny>(method::MAKE_DIR, make, limit)
            .map(drop)
    }

    /// Removes a file or folder.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn remove(&mut self, remove: Remove, limit: Duration) -> Result<(), CallError> {
        self.call::<serde::de::IgnoredAny>(method::REMOVE, remove, limit)
            .map(drop)
    }

    /// Sets the guest's clock to this host's, and tells by how much it was moved, in microseconds.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn clock_sync(&mut self, limit: Duration) -> Result<i64, CallError> {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let unix_us = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let synced: ClockSynced = self.call(method::CLOCK_SYNC, ClockSync { unix_us }, limit)?;
        Ok(synced.adjusted_us)
    }
}

impl Upload<'_> {
    /// Sends the rest, says that it was all, and gives the guest's word.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn finish(mut self) -> Result<Transferred, CallError> {
        if let Some(early) = self.early.take() {
            return Err(early);
        }
        self.send_waiting(true);
        loop {
            let queued = self.client.channel.queued_bytes();
            let deadline = deadline::after(self.stall);
            match self.client.channel.receive_or_progress(deadline)? {
                Some(incoming) => {
                    if let Some(result) = response(incoming, &self.id, method::PUT)? {
                        return result.read().map_err(CallError::Protocol);
                    }
                }
                None if self.client.channel.queued_bytes() < queued => {}
                None => {
                    return Err(CallError::TimedOut {
                        method: method::PUT,
                        limit: self.stall,
                    });
                }
            }
        }
    }

    /// Sends what waits.
    fn send_waiting(&mut self, eof: bool) {
        let bytes = std::mem::take(&mut self.waiting);
        let raw = self
            .is_raw
            .then(|| u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let (data, behind) = if self.is_raw {
            (Data::default(), bytes)
        } else {
            (Data(bytes), Vec::new())
        };
        let id = self.id.clone();
        let params = Stdin { id, data, raw, eof };
        let channel = &mut self.client.channel;
        channel.queue(&notification_line(method::STDIN, params));
        channel.queue(&behind);
        self.waiting = behind;
        self.waiting.clear();
    }

    /// Waits until there is room, or the guest has said that it wants no more.
    fn make_room(&mut self) -> Result<(), CallError> {
        let mut deadline = deadline::after(self.stall);
        while self.client.channel.queued_bytes() > AHEAD_BYTES {
            let queued = self.client.channel.queued_bytes();
            if let Some(incoming) = self.client.channel.receive_or_progress(deadline)? {
                // An error is the reason why it wants no more.
                if response(incoming, &self.id, method::PUT)?.is_some() {
                    return Err(CallError::Unexpected {
                        what: "the result of put before all bytes were sent".to_owned(),
                    });
                }
            } else if self.client.channel.queued_bytes() < queued {
                deadline = deadline::after(self.stall);
            } else if Instant::now() >= deadline {
                return Err(CallError::TimedOut {
                    method: method::PUT,
                    limit: self.stall,
                });
            }
        }
        Ok(())
    }
}

impl Write for Upload<'_> {
    /// An error here says only that the guest takes no more; [`Upload::finish`] tells why.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.early.is_none()
            && let Err(error) = self.make_room()
        {
            self.early = Some(error);
        }
        if self.early.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the guest takes no more",
            ));
        }
        let most = if self.is_raw { RAW_BYTES } else { MAX_DATA_BYTES };
        let piece = &bytes[..bytes.len().min(most - self.waiting.len())];
        self.waiting.extend_from_slice(piece);
        if self.waiting.len() >= most {
            self.send_waiting(false);
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Download<'_> {
    /// The guest's word, once everything was read.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn finish(mut self) -> Result<Transferred, CallError> {
        loop {
            if let Some(end) = self.end.take() {
                return end;
            }
            // What nobody has read is of no use to anybody.
            self.waiting.clear();
            self.receive();
        }
    }

    fn receive(&mut self) {
        if let Err(error) = self.take_next() {
            self.end = Some(Err(error));
        }
    }

    fn take_next(&mut self) -> Result<(), CallError> {
        let deadline = deadline::after(self.stall);
        let timed_out = CallError::TimedOut {
            method: method::GET,
            limit: self.stall,
        };
        if self.raw_left > 0 {
            let bytes = self.client.channel.receive_bytes(self.raw_left, deadline)?;
            if bytes.is_empty() {
                return Err(timed_out);
            }
            self.raw_left -= bytes.len();
            self.waiting.extend(bytes);
            return Ok(());
        }
        let incoming = self.client.channel.receive(deadline)?;
        match incoming.ok_or(timed_out)? {
            Incoming::Notification { method: name, params } if name == method::OUTPUT => {
                let output: Output = params.read().map_err(CallError::Protocol)?;
                if output.id == self.id {
                    self.waiting.extend(output.data.0);
                    self.raw_left = output.raw.map_or(0, |count| count as usize);
                }
            }
            incoming => {
                if let Some(result) = response(incoming, &self.id, method::GET)? {
                    self.end = Some(result.read().map_err(CallError::Protocol));
                }
            }
        }
        Ok(())
    }
}

impl Read for Download<'_> {
    /// An error here says only that no more comes; [`Download::finish`] tells why.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.waiting.is_empty() && !into.is_empty() {
            match &self.end {
                Some(Ok(_)) => return Ok(0),
                Some(Err(_)) => {
                    return Err(io::Error::new(
                        io::ErrorKind::BrokenPipe,
                        "the guest sends no more",
                    ));
                }
                None => self.receive(),
            }
        }
        self.waiting.read(into)
    }
}
