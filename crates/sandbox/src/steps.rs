//! What is run, within which bounds, and how it ended.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a step runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Run {
    /// A script's bytes. If they start with `#!`, the kernel finds the interpreter in the copy; else `/bin/sh -e` reads them.
    Script(Vec<u8>),
    /// A program of the copy and its arguments. A name without a slash is looked for in the `PATH` of the step's environment.
    Command(Vec<String>),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it is called in messages. Not part of the cache's key.
    pub name: String,
    /// What runs.
    pub run: Run,
    /// Its whole environment, but for `HOME`: that is of the user's line in `/etc/passwd` where it is not here.
    pub env: Vec<(String, String)>,
    /// More of its environment, that says how to reach the network from here (`http_proxy`). Not part of the cache's key.
    pub network_env: Vec<(String, String)>,
    /// Who it runs as: a name or number of the copy's `/etc/passwd`, with `:GROUP` behind it if need be. Empty is root.
    pub user: String,
    /// Where it starts. Made if it is missing. Empty is `/`.
    pub workdir: String,
    /// It uses the host's network.
    pub network: bool,
    /// How long it may run, if not as long as all others. Not part of the cache's key.
    pub time: Option<Duration>,
}

/// What a step may take. `docs/sandbox.md` says how exactly each is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How long it may run.
    pub time: Duration,
    /// Most memory of all its processes together, in bytes.
    pub memory_bytes: u64,
    /// Most processes and threads.
    pub processes: u64,
    /// Most bytes by which the free space of the disk may shrink.
    pub disk_bytes: u64,
}

/// An hour, 4 GiB, 2048 processes, 64 GiB.
impl Default for Limits {
    fn default() -> Limits {
        Limits {
            time: Duration::from_secs(3600),
            memory_bytes: 4 << 30,
            processes: 2048,
            disk_bytes: 64 << 30,
        }
    }
}

/// How a step ended. Only `Exited(0)` is a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Outcome {
    /// With an exit code.
    Exited(i32),
    /// By a signal.
    Signal(i32),
    /// It ran longer than it may, and was killed.
    TimedOut(Duration),
    /// It took more than it may, and was killed.
    OverLimit {
        /// What of: `memory`, `processes`, `disk`.
        what: String,
        /// How much there was.
        limit: u64,
    },
    /// It did not start.
    NotStarted(String),
}

impl Outcome {
    /// Whether the step did what it should.
    pub fn is_success(&self) -> bool {
        *self == Outcome::Exited(0)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Exited(code) => write!(f, "ended with exit code {code}"),
            Outcome::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Outcome::TimedOut(limit) => {
                write!(f, "ran longer than {} seconds, and was killed", limit.as_secs())
            }
            Outcome::OverLimit { what, limit } if what == "processes" => {
                write!(f, "had more than {limit} processes, and was killed")
            }
            Outcome::OverLimit { what, limit } => {
                write!(f, "took more {what} than {} MiB, and was killed", limit >> 20)
            }
            Outcome::NotStarted(why) => write!(f, "could not be started: {why}"),
        }
    }
}
