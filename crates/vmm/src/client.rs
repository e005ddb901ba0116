//! A client of the agent's JSON-RPC over one dialled stream. The contract is `docs/protocol-jsonrpc.md`.
//!
//! One [`Client`] is one connection, and has one request under way at a time; dial again for more at once. Dropping it ends
//! the connection, and the agent then kills whatever job it was running.
//!
//! The guest is not trusted: lines are bounded, what is not understood is an error, and every wait has a limit.

mod channel;
mod copy;
mod entries;
mod received;
mod stream;
mod transfer;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use firebrick_protocol::agent::{self, Exec, ExecCode, ExecResult, OutputStream, Pong, Status, method};
use firebrick_protocol::files::Reseed;
use firebrick_protocol::rpc::{BadReply, Id, Incoming, Payload, RpcError, request_line};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::deadline;
use crate::interrupts::Interrupts;
use channel::Channel;
pub use copy::{Copied, CopyError, LeftOut, check_place};
pub use stream::{Command, Ended, StreamIo};
pub use transfer::{Download, Upload};

/// A connection to the agent.
#[derive(Debug)]
pub struct Client {
    channel: Channel,
    next_id: u64,
    /// What the agent speaks, once it was asked.
    protocol: Option<u32>,
}

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The agent refused, or could not do it.
    #[error("{method} failed in the guest")]
    Refused {
        /// The method.
        method: &'static str,
        /// What the agent says.
        source: RpcError,
    },
    /// The guest sent what the protocol does not allow.
    #[error("the guest does not follow the protocol")]
    Protocol(#[source] BadReply),
    /// The guest sent what was not asked for.
    #[error("the guest does not follow the protocol: {what}")]
    Unexpected {
        /// What it sent.
        what: String,
    },
    /// No answer in time.
    #[error("the guest did not answer {method} within {} s", limit.as_secs_f32())]
    TimedOut {
        /// The method.
        method: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The guest closed the connection: its agent, or all of it, has ended.
    #[error("the guest closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection to the guest broke")]
    Channel(#[source] io::Error),
    /// The job's output could not be written where the caller wanted it.
    #[error("cannot write the job's {}", match stream { OutputStream::Stdout => "output", OutputStream::Stderr => "errors" })]
    Output {
        /// Which stream.
        stream: OutputStream,
        /// Why.
        source: io::Error,
    },
    /// The job's input could not be read.
    #[error("cannot read the job's input")]
    Input(#[source] io::Error),
    /// A signal came for who [heeds](Client::heed) them.
    #[error("signal {signal} came")]
    Interrupted {
        /// Its number.
        signal: i32,
    },
}

impl CallError {
    /// The kernel's error number in the guest, where the agent gave one.
    pub fn guest_errno(&self) -> Option<i32> {
        match self {
            CallError::Refused { source, .. } => source.data.as_ref()?.errno,
            _ => None,
        }
    }
}

impl Client {
    /// A client on a stream that leads to the agent's port.
    ///
    /// # Errors
    /// What the host said.
    pub fn new(stream: OwnedFd) -> io::Result<Client> {
        Ok(Client {
            channel: Channel::new(stream)?,
            next_id: 1,
            protocol: None,
        })
    }

    /// From here on a signal ends whatever waits for the agent, with [`CallError::Interrupted`]; but not [`Client::stream`], which
    /// passes its own on.
    ///
    /// # Errors
    /// What the host said.
    pub fn heed(&mut self, interrupts: Option<&Interrupts>) -> io::Result<()> {
        let interrupts = interrupts.map(Interrupts::try_clone).transpose()?;
        self.channel.heed(interrupts);
        Ok(())
    }

    /// Asks whether the agent is there.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn ping(&mut self, limit: Duration) -> Result<(), CallError> {
        let pong: Pong = self.call(method::PING, agent::NoParams {}, limit)?;
        if pong.pong {
            Ok(())
        } else {
            Err(CallError::Unexpected {
                what: "pong is false".to_owned(),
            })
        }
    }

    /// Asks for versions and boot timings.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn status(&mut self, limit: Duration) -> Result<Status, CallError> {
        self.call(method::STATUS, agent::NoParams {}, limit)
    }

    /// Mixes random bytes into the guest's generator, which begins anew: that of a restored machine goes on as the snapshot's would.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn reseed(&mut self, random: &[u8], limit: Duration) -> Result<(), CallError> {
        let data = agent::Data(random.to_vec());
        self.call::<serde::de::IgnoredAny>(method::RESEED, Reseed { data }, limit)
            .map(drop)
    }

    /// Asks the guest to end in order. The answer comes before it does.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn shutdown(&mut self, shutdown: agent::Shutdown, limit: Duration) -> Result<(), CallError> {
        self.call::<serde::de::IgnoredAny>(method::SHUTDOWN, shutdown, limit)
            .map(drop)
    }

    /// Runs a program and gives all its output at the end, up to 1 MiB of each stream.
    ///
    /// # Errors
    /// [`CallError`]; that the program failed is none.
    pub fn exec(&mut self, exec: Exec, limit: Duration) -> Result<ExecResult, CallError> {
        self.call(method::EXEC, exec, limit)
    }

    /// Runs a snippet of code and gives all its output at the end, up to 1 MiB of each stream.
    ///
    /// # Errors
    /// [`CallError`]; that the code failed is none.
    pub fn exec_code(&mut self, code: ExecCode, limit: Duration) -> Result<ExecResult, CallError> {
        self.call(method::EXEC_CODE, code, limit)
    }

    fn call<R: DeserializeOwned>(
        &mut self,
        method: &'static str,
        params: impl Serialize,
        limit: Duration,
    ) -> Result<R, CallError> {
        let id = self.request(method, params);
        let deadline = deadline::after(limit);
        loop {
            match self.channel.receive(deadline)? {
                None => return Err(CallError::TimedOut { method, limit }),
                Some(incoming) => {
                    if let Some(result) = response(incoming, &id, method)? {
                        return result.read().map_err(CallError::Protocol);
                    }
                }
            }
        }
    }

    fn request(&mut self, method: &'static str, params: impl Serialize) -> Id {
        let id = Id::from(self.next_id);
        self.next_id += 1;
        self.channel.queue(&request_line(&id, method, params));
        id
    }
}

/// The result, if this is the response to `id`. Notifications mean nothing to a call that is answered at its end.
fn response(incoming: Incoming, id: &Id, method: &'static str) -> Result<Option<Payload>, CallError> {
    match incoming {
        Incoming::Notification { .. } => Ok(None),
        Incoming::Response {
            id: answered,
            outcome,
        } if answered == *id => match outcome {
            Ok(payload) => Ok(Some(payload)),
            Err(source) => Err(CallError::Refused { method, source }),
        },
        // What could not be read as a request is answered without its id.
        Incoming::Response {
            id: Id::Null,
            outcome: Err(source),
        } => Err(CallError::Refused { method, source }),
        Incoming::Response { id: other, .. } => Err(CallError::Unexpected {
            what: format!("a response to {other:?}, which was not asked"),
        }),
    }
}

#[cfg(test)]
mod tests;
