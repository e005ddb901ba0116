//! Runs one job in a throw-away machine.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use firebrick_protocol::agent::{Exec, ExecCode, ExecResult, JobOptions};

use crate::boot::{BootError, boot};
use crate::client::{CallError, Client, Command, CopyError, Ended, LeftOut, StreamIo};
use crate::interrupts::Interrupts;
use crate::last_words;
use crate::machine::{Machine, Port, Vmm};
use crate::spec::BootSpec;
use crate::timeline::Timeline;

/// How much longer than the guest, which ends the job itself, the host waits.
const MARGIN: Duration = Duration::from_secs(5);

/// How long nothing may move while files are copied.
const COPY_STALL: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Code in a language that the agent knows.
    Code {
        /// The language.
        lang: String,
        /// The code.
        code: String,
    },
    /// A program and its arguments.
    Argv(Vec<String>),
    /// The image's own ENTRYPOINT and CMD.
    Default,
}

/// What to run, in what.
#[derive(Clone, Debug)]
pub struct RunSpec<'a> {
    /// What to boot.
    pub boot: BootSpec<'a>,
    /// What to run.
    pub job: Job,
    /// Its environment, user and folder. `stdin`, `stream`, `timeout_ms` and `image_defaults` are set by [`run()`].
    pub options: JobOptions,
    /// How long the job may take, the boot not counted: that has [`BootSpec::answer_limit`].
    pub timeout: Option<Duration>,
    /// How long the job may go on after a signal was passed on to it.
    pub patience: Duration,
    /// Files and folders of this host that are copied into the guest before the job, and where to.
    pub copy_in: Vec<(PathBuf, String)>,
    /// Files and folders of the guest that are copied to this host after the job, however it ended, and where to.
    pub copy_out: Vec<(String, PathBuf)>,
}

/// What to run in a guest that is up. The fields are those of [`RunSpec`].
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// What to run.
    pub job: Job,
    /// Its environment, user and folder.
    pub options: JobOptions,
    /// How long the job may take.
    pub timeout: Option<Duration>,
    /// How long the job may go on after a signal was passed on to it.
    pub patience: Duration,
    /// What is copied into the guest before the job.
    pub copy_in: Vec<(PathBuf, String)>,
    /// What is copied out of it afterwards.
    pub copy_out: Vec<(String, PathBuf)>,
}

/// A machine that is up, as far as a job needs it.
pub trait Up {
    /// One more connection to the agent.
    ///
    /// # Errors
    /// What the host said.
    fn connect(&mut self, limit: Duration) -> io::Result<Client>;

    /// What it said last, once it seems to have ended.
    fn last_words(&mut self) -> String;
}

/// Where the job's bytes come from and go to.
pub struct Streams<'a> {
    /// Its input, or `None` for an empty one.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Where its output goes.
    pub stdout: &'a mut dyn std::io::Write,
    /// Where its errors go.
    pub stderr: &'a mut dyn std::io::Write,
    /// The terminal that the job's own is to be like, if it is to have one.
    pub terminal: Option<BorrowedFd<'a>>,
    /// Called when the machine is up and the job about to start.
    pub starting: Option<&'a mut dyn FnMut() -> io::Result<()>>,
    /// Signals to pass on: the first goes to the job, the second ends the machine.
    pub interrupts: Option<&'a Interrupts>,
    /// Told of each file that was not copied, where that is no failure of the run.
    pub warn: Option<&'a mut dyn FnMut(&str)>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// The job ended. 128 + n if signal n ended it.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// The program could not be started.
    NotStarted {
        /// 127 if there is no such program, 126 if it cannot be executed.
        code: i32,
        /// Why, as the guest says.
        message: String,
    },
    /// The job took longer than [`RunSpec::timeout`] and was killed.
    TimedOut {
        /// How long it had.
        limit: Duration,
    },
    /// A signal came before the job ran, or the job did not end after it.
    Interrupted {
        /// Its number.
        signal: i32,
    },
}

/// Why a job could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The guest did not come up.
    #[error("cannot boot {}", image.display())]
    Boot {
        /// The image.
        image: std::path::PathBuf,
        /// Why.
        source: BootError,
    },
    /// The guest came up, but the job's call failed.
    #[error("cannot run the job")]
    Call(#[source] CallError),
    /// A file could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The machine ended while the job ran: a panic, or out of memory.
    #[error("the machine ended while the job ran; {words}")]
    MachineEnded {
        /// What its console and the VMM said last, a line each.
        words: String,
    },
}

/// Boots the image, runs the job, forgets the machine. The image is the same afterwards.
///
/// # Errors
/// [`RunError`] for our own failures; how the job fared is the outcome.
pub fn run(vmm: &dyn Vmm, spec: &RunSpec<'_>, streams: Streams<'_>) -> Result<RunOutcome, RunError> {
    run_timed(vmm, spec, streams, None)
}

/// As [`run()`]; before the job starts, `hear` is told how the boot went.
///
/// # Errors
/// As [`run()`].
pub fn run_timed(
    vmm: &dyn Vmm,
    spec: &RunSpec<'_>,
    streams: Streams<'_>,
    hear: Option<&mut dyn FnMut(Timeline)>,
) -> Result<RunOutcome, RunError> {
    let booted = match boot(vmm, &spec.boot, streams.interrupts) {
        Ok(booted) => booted,
        Err(BootError::Interrupted { signal }) => return Ok(RunOutcome::Interrupted { signal }),
        Err(source) => {
            return Err(RunError::Boot {
                image: spec.boot.image.clone(),
                source,
            });
        }
    };
    let took = booted.took;
    let launched = Instant::now().checked_sub(took);
    let (machine, mut client) = booted.into_parts();
    if let (Some(hear), Some(launched)) = (hear, launched) {
        hear(Timeline::ask(&mut client, launched, took).map_err(RunError::Call)?);
    }
    let job = JobSpec {
        job: spec.job.clone(),
        options: spec.options.clone(),
        timeout: spec.timeout,
        patience: spec.patience,
        copy_in: spec.copy_in.clone(),
        copy_out: spec.copy_out.clone(),
    };
    run_in(&mut Launched(machine), client, &job, streams)
    // The machine is dropped, which ends it: its root is read-only, so there is nothing to put in order.
}

/// A machine of our own.
struct Launched(Box<dyn Machine>);

impl Up for Launched {
    fn connect(&mut self, limit: Duration) -> io::Result<Client> {
        self.0.dial(Port::AGENT, limit).and_then(Client::new)
    }

    fn last_words(&mut self) -> String {
        // Either the machine is going down, and its last words are still coming, or the agent alone has failed.
        let _ = self.0.wait(Duration::from_millis(500));
        last_words::of(&self.0.console(), &self.0.complaints())
    }
}

/// Runs the job in a guest that has booted already, and whose agent is reached with `client`.
///
/// # Errors
/// [`RunError`], but never [`RunError::Boot`].
pub fn run_in(
    machine: &mut dyn Up,
    mut client: Client,
    spec: &JobSpec,
    streams: Streams<'_>,
) -> Result<RunOutcome, RunError> {
    let mut silent = |_: &str| {};
    let warn = streams.warn.unwrap_or(&mut silent);
    let unheard = |error| RunError::Call(CallError::Channel(error));
    client.heed(streams.interrupts).map_err(unheard)?;
    for (from, to) in &spec.copy_in {
        match client.copy_in(from, to, COPY_STALL) {
            Ok(copied) => tell_left_out(&copied.left_out, warn),
            Err(error) => return interrupted(&error).map_or_else(|| Err(error.into()), Ok),
        }
    }
    client.heed(None).map_err(unheard)?;
    if let Some(starting) = streams.starting {
        starting().map_err(|error| RunError::Call(CallError::Input(error)))?;
    }
    let io = StreamIo {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        interrupts: streams.interrupts,
        patience: spec.patience,
        limit: spec.timeout.map(|timeout| timeout.saturating_add(MARGIN)),
        terminal: streams.terminal,
    };
    match client.stream(spec.command(), io) {
        Ok(ended) => {
            let outcome = outcome(ended, spec.timeout);
            match copy_out(machine, &spec.copy_out, streams.interrupts, warn) {
                Err(RunError::Copy(error)) if let Some(ended) = interrupted(&error) => return Ok(ended),
                // How the job fared says more than a file that it did not get to write.
                Err(error) if outcome != (RunOutcome::Exited { code: 0 }) => warn(&in_words(&error)),
                copied => copied?,
            }
            Ok(outcome)
        }
        Err(CallError::Refused { source, .. }) if not_started(&source).is_some() => {
            let code = not_started(&source).expect("just looked");
            Ok(RunOutcome::NotStarted {
                code,
                message: source.message,
            })
        }
        Err(CallError::Closed | CallError::Channel(_)) => Err(RunError::MachineEnded {
            words: machine.last_words(),
        }),
        Err(error) => Err(RunError::Call(error)),
    }
}

/// On a connection of its own: that of a job that did not end is of no further use. A file that cannot be had does not keep
/// the others from coming.
fn copy_out(
    machine: &mut dyn Up,
    files: &[(String, PathBuf)],
    interrupts: Option<&Interrupts>,
    warn: &mut dyn FnMut(&str),
) -> Result<(), RunError> {
    if files.is_empty() {
        return Ok(());
    }
    let connected = machine.connect(COPY_STALL);
    let unheard = |error| RunError::Call(CallError::Channel(error));
    let mut client = connected.map_err(unheard)?;
    client.heed(interrupts).map_err(unheard)?;
    let mut failed: Option<CopyError> = None;
    for (from, to) in files {
        match client.copy_out(from, to, COPY_STALL) {
            Ok(copied) => tell_left_out(&copied.left_out, warn),
            Err(error) => {
                let goes_on = error.is_about_one_file();
                match &failed {
                    _ if interrupted(&error).is_some() => failed = Some(error),
                    None => failed = Some(error),
                    Some(_) => warn(&in_words(&error)),
                }
                if !goes_on {
                    break;
                }
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// How a run ends whose copying was ended by a signal.
fn interrupted(error: &CopyError) -> Option<RunOutcome> {
    match error {
        CopyError::Guest {
            source: CallError::Interrupted { signal },
            ..
        } => Some(RunOutcome::Interrupted { signal: *signal }),
        _ => None,
    }
}

fn tell_left_out(left_out: &LeftOut, warn: &mut dyn FnMut(&str)) {
    if !left_out.is_empty() {
        warn(&left_out.to_string());
    }
}

/// An error and its causes, in one line.
pub(crate) fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.ends_with(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}

impl JobSpec {
    fn command(&self) -> Command {
        let mut options = self.options.clone();
        options.timeout_ms = self
            .timeout
            .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        options.image_defaults = true;
        match &self.job {
            Job::Code { lang, code } => Command::Code(ExecCode {
                lang: lang.clone(),
                code: code.clone(),
                options,
            }),
            Job::Argv(argv) => Command::Exec(Exec {
                argv: Some(argv.clone()),
                options,
                ..Exec::default()
            }),
            Job::Default => Command::Exec(Exec {
                options,
                ..Exec::default()
            }),
        }
    }
}

fn outcome(ended: Ended, timeout: Option<Duration>) -> RunOutcome {
    let limit = timeout.unwrap_or_default();
    match ended {
        Ended::Result(ExecResult { timed_out: true, .. }) | Ended::TimedOut => RunOutcome::TimedOut { limit },
        Ended::Result(result) => RunOutcome::Exited {
            code: result.exit_code,
        },
        Ended::Interrupted { signal } => RunOutcome::Interrupted { signal },
    }
}

/// The exit code of a program that could not be started, as shells have it.
fn not_started(error: &firebrick_protocol::rpc::RpcError) -> Option<i32> {
    const ENOENT: i32 = 2;
    match error.data.as_ref()?.errno? {
        ENOENT => Some(127),
        _ => Some(126),
    }
}
