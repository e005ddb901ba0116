//! A tool at work: its stdout is the layer, its stderr is told as it comes, and ends in the words of a failure.
//!
//! It runs in a process group of its own, so that all of it can be ended at once, and in a *scratch* folder of ours, so that
//! nothing of it stays wherever it is ended; where we are killed, a [`Guard`] sees to both. What other users of its namespace
//! own in there, only that namespace can remove.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tempfile::TempDir;

use crate::error::{BootstrapError, Cause, Ending};
use crate::guard::Guard;

/// Where a tool finds others, and what every host has the same. Variables of this host's reach scripts of packages, which may
/// write them anywhere.
const ENVIRONMENT: [(&str, &str); 3] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("LC_ALL", "C.UTF-8"),
];
/// How long a tool may take to tidy up once it is told to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many of its last words are kept, and how much of each line.
const WORDS: usize = 15;
const LINE_LEN: usize = 500;

/// What happens while a set is installed. Comes from threads of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The tool begins with something: `downloading packages with apt`.
    Stage(String),
    /// The tool is not content, but goes on.
    Warning(String),
    /// Anything else that it says.
    Line(String),
}

/// Hears what happens.
pub(crate) type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// What to run, and what to say of it.
pub(crate) struct Spec {
    /// What it is called where it fails.
    pub(crate) program: &'static str,
    /// What it is to do: `install debian bookworm`.
    pub(crate) task: String,
    pub(crate) command: Vec<OsString>,
    /// The command's first program, and Debian's package that has it.
    pub(crate) starter: (&'static str, &'static str),
    pub(crate) env: Vec<(&'static str, OsString)>,
    /// Removes the folder whose path is added, though others own what is in it.
    pub(crate) remove: Vec<OsString>,
    /// What ends it, each if the one before did not.
    pub(crate) signals: &'static [Signal],
    /// Where it works.
    pub(crate) scratch: TempDir,
    /// How a line of its stderr is to be taken.
    pub(crate) hear: fn(&str) -> Event,
}

/// A tool that is about to run, runs, or has run.
pub(crate) struct Run {
    program: &'static str,
    task: String,
    starter: (&'static str, &'static str),
    remove: Vec<OsString>,
    signals: &'static [Signal],
    hear: fn(&str) -> Event,
    events: Events,
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    command: Option<Command>,
    /// While it runs, and as long as nobody has collected its status: so long the number is its own.
    group: Option<Pid>,
    scratch: Option<TempDir>,
    stopped: bool,
    failure: Option<BootstrapError>,
}

impl Run {
    /// It sees `env`, what the spec says and what is the same everywhere, and no other variable.
    pub(crate) fn new(spec: Spec, env: &[(OsString, OsString)], events: Events) -> Arc<Run> {
        let mut words = spec.command.iter();
        let mut command = Command::new(words.next().expect("a command has a program"));
        command
            .args(words)
            .env_clear()
            .envs(ENVIRONMENT)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .envs(spec.env)
            .current_dir(spec.scratch.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Arc::new(Run {
            program: spec.program,
            task: spec.task,
            starter: spec.starter,
            remove: spec.remove,
            signals: spec.signals,
            hear: spec.hear,
            events,
            state: Mutex::new(State {
                command: Some(command),
                group: None,
                scratch: Some(spec.scratch),
                stopped: false,
                failure: None,
            }),
            ended: Condvar::new(),
        })
    }

    /// Starts it; the stream is its stdout, and fails at its end if the tool does.
    pub(crate) fn start(self: &Arc<Run>) -> io::Result<Box<dyn Read + Send>> {
        match self.spawn() {
            Ok(output) => Ok(Box::new(output)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn spawn(self: &Arc<Run>) -> Result<Output, BootstrapError> {
        let mut state = self.lock();
        let start_error = BootstrapError::starting(self.starter.0, self.starter.1);
        let mut command = match state.command.take() {
            Some(command) if !state.stopped => command,
            _ => {
                return Err(BootstrapError::Stopped {
                    program: self.program,
                });
            }
        };
        let mut child = command.spawn().map_err(&start_error)?;
        let group = Pid::from_child(&child);
        state.group = Some(group);
        let scratch = state.scratch.as_ref().map(TempDir::path);
        let guard = Guard::over(group, self.signals, scratch, &self.remove);
        drop(state);
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (said, words) = channel();
        let run = Arc::clone(self);
        let mut output = Output {
            run: Arc::clone(self),
            child,
            stdout: Some(stdout),
            words,
            ended: false,
            guard: None,
        };
        output.guard = Some(guard.map_err(BootstrapError::starting("sh", "dash"))?);
        std::thread::Builder::new()
            .name("words".into())
            .spawn(move || {
                let _ = said.send(run.listen(stderr)); // nobody may wait for it any more
            })
            .map_err(start_error)?;
        Ok(output)
    }

    /// Tells what the tool says, to its end; gives its last words.
    fn listen(&self, stderr: ChildStderr) -> Vec<String> {
        let mut last: VecDeque<String> = VecDeque::new();
        let mut lines = BufReader::new(stderr);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A line without end is told in pieces.
            let limit = (&mut lines).take(64 << 10).read_until(b'\n', &mut line);
            if limit.is_err() || line.is_empty() {
                return last.into();
            }
            // What overwrites itself on a terminal is as good as its last state.
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end().rsplit('\r').next().unwrap_or_default();
            let text: String = text.chars().take(LINE_LEN).collect();
            if text.trim().is_empty() {
                continue;
            }
            let event = (self.hear)(&text);
            if !matches!(event, Event::Stage(_)) {
                last.extend([text]);
            }
            if last.len() > WORDS {
                last.pop_front();
            }
            (self.events)(event);
        }
    }

    /// Ends the tool, and waits until it has tidied up, and so have we.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        for signal in self.signals {
            let Some(group) = state.group else { break };
            let _ = kill_process_group(group, *signal); // it may have ended just now
            let waited = self
                .ended
                .wait_timeout_while(state, PATIENCE, |state| state.group.is_some());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.tidy(&mut state);
    }

    /// Why it failed, once: the stream has only the words.
    pub(crate) fn take_failure(&self) -> Option<BootstrapError> {
        self.lock().failure.take()
    }

    /// Keeps the error, and gives its words to whoever reads.
    fn failed(&self, error: BootstrapError) -> io::Error {
        let words = error.to_string();
        self.lock().failure = Some(error);
        io::Error::other(words)
    }

    /// Removes the scratch folder.
    fn tidy(&self, state: &mut State) {
        let Some(scratch) = state.scratch.take() else {
            return;
        };
        let path = scratch.keep();
        if std::fs::remove_dir_all(&path).is_ok() {
            return;
        }
        if let Some((program, words)) = self.remove.split_first() {
            let _ = Command::new(program)
                .args(words)
                .arg(&path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
        let _ = std::fs::remove_dir_all(&path); // the folder itself is ours
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut state = std::mem::replace(
            &mut *self.lock(),
            State {
                command: None,
                group: None,
                scratch: None,
                stopped: true,
                failure: None,
            },
        );
        self.tidy(&mut state);
    }
}

/// The tool's stdout.
struct Output {
    run: Arc<Run>,
    child: Child,
    /// Closed once nobody wants it any more, so that the tool does not wait for a reader.
    stdout: Option<ChildStdout>,
    words: Receiver<Vec<String>>,
    ended: bool,
    guard: Option<Guard>,
}

impl Output {
    /// Collects the tool, which has ended or is about to, and all that is left of its group.
    fn finish(&mut self) -> Result<(), BootstrapError> {
        self.ended = true;
        let run = &self.run;
        let wait_error = |source| BootstrapError::Start {
            program: run.program.to_owned(),
            source,
        };
        let pid = Pid::from_child(&self.child);
        // Without collecting it: as long as it is there, its group is nobody else's.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
        let mut state = run.lock();
        let _ = kill_process_group(pid, Signal::KILL); // most often there is only the one that has ended
        let status = self.child.wait().map_err(wait_error);
        state.group = None;
        run.tidy(&mut state);
        let stopped = state.stopped;
        drop(state);
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
        run.ended.notify_all();
        let status = status?;
        // Somebody outside of the group may hold its stderr.
        let words = self
            .words
            .recv_timeout(Duration::from_secs(2))
            .unwrap_or_default();
        match (status.success(), stopped) {
            // It may have been done before it heard of it.
            (_, true) => Err(BootstrapError::Stopped { program: run.program }),
            (true, false) => Ok(()),
            (false, false) => Err(BootstrapError::Failed {
                program: run.program,
                task: run.task.clone(),
                status: Ending(status),
                cause: Cause::of(&words),
                words,
            }),
        }
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(stdout) = self.stdout.as_mut().filter(|_| !self.ended && !buffer.is_empty()) else {
            return Ok(0);
        };
        match stdout.read(buffer)? {
            0 => self.finish().map(|()| 0).map_err(|error| self.run.failed(error)),
            len => Ok(len),
        }
    }
}

impl Drop for Output {
    /// Whoever stops reading wants no more of it.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let pid = Pid::from_child(&self.child);
        self.run.lock().stopped = true;
        if let Some(first) = self.run.signals.first() {
            let _ = kill_process_group(pid, *first);
        }
        let since = Instant::now();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        self.stdout = None;
        while since.elapsed() < PATIENCE && matches!(waitid(WaitId::Pid(pid), options), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_sees_no_variable_but_what_it_is_given() {
        let spec = Spec {
            program: "env",
            task: "tell".to_owned(),
            command: vec!["env".into()],
            starter: ("env", "coreutils"),
            env: vec![("TMPDIR", "/t".into())],
            remove: Vec::new(),
            signals: &[],
            scratch: tempfile::tempdir().unwrap(),
            hear: |line| Event::Line(line.to_owned()),
        };
        let given = [("http_proxy".into(), "p".into()), ("HOME".into(), "/h".into())];
        let run = Run::new(spec, &given, Arc::new(|_| ()));
        let mut said = String::new();
        run.start().unwrap().read_to_string(&mut said).unwrap();
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        let path = format!("PATH={}", ENVIRONMENT[0].1);
        assert_eq!(
            lines,
            ["HOME=/h", "LC_ALL=C.UTF-8", &path, "TMPDIR=/t", "http_proxy=p"]
        );
    }
}
