//! A job: one program that runs for a connection.

use alloc::string::String;
use alloc::vec::Vec;

use firebrick_protocol::Queue;
use firebrick_protocol::agent::{
    Data, ExecResult, MAX_DATA_BYTES, MAX_OUTPUT_BYTES, Output, OutputStream, Signal, TRUNCATED,
    TerminalSize, method, whole_letters,
};
use firebrick_protocol::rpc::{Id, RpcError, error_line, notification_line, result_line};
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsRawFd as _, RawFd};
use rustix::io::Errno;
use rustix::process::WaitStatus;

use super::Agent;
use super::conn::Conn;
use super::outbox::Outbox;
use super::poll::{Poller, Token, Watched};
use super::sessions::{self, Session};
use super::spawn::{self, Asked, Child, Command, StartFailure};
use super::work::Direction;
use crate::kernel::{self, Clock};

/// With so many bytes that a job has not read, no more is taken from its client.
pub(super) const STDIN_HIGH_BYTES: usize = 1024 * 1024;

/// How long output pipes may stay open after the program has ended, because something it left behind holds them. What
/// that prints makes it no longer.
const LEFTOVER_NS: u64 = 1_000_000_000;
/// How many pieces are read of each output when that is over: all that a pipe holds, and not without end.
const LAST_PIECES: usize = (1 << 20) / MAX_DATA_BYTES + 2;

const KILL: i32 = 9;

/// What ends the line of a result.
const RESULT_END: &[u8] = b"}}\n";

/// Indices of a job's outputs.
pub(super) const STDOUT: usize = 0;
pub(super) const STDERR: usize = 1;

/// What a job is to do and how to answer.
pub(super) struct Plan {
    pub(super) purpose: Purpose,
    pub(super) command: Command,
    pub(super) stdin: bool,
    pub(super) pty: Option<TerminalSize>,
    pub(super) timeout_ms: Option<u64>,
    /// How much of each output is kept, where it is not streamed.
    pub(super) keep_bytes: usize,
}

/// Who asked for a job, and so what its end means.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// A request that is answered when it ends.
    Request {
        id: Id,
        /// Output goes out as it comes.
        stream: bool,
        /// A program that cannot be started is a result with exit code -1, as the seed's hosts expect, not an error.
        failure_is_result: bool,
    },
    /// A step of a framed job.
    Step,
    /// Work on files by a copy of the agent; its report is the response.
    Work {
        id: Id,
        /// Bytes come in: their end is told to the copy by a signal, and it is never killed, so that it can put away what
        /// is not whole.
        takes: bool,
        /// Bytes go out as they are.
        is_raw: bool,
    },
}

/// How a job has ended.
pub(super) struct End {
    /// In words, why the program was not started.
    pub(super) not_started: Option<String>,
    pub(super) exit_code: i32,
    pub(super) timed_out: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// One of a job's two outputs.
#[derive(Default)]
struct Pipe {
    /// `None` once it has ended.
    source: Option<Watched>,
    /// What was read, when it is not streamed.
    kept: Vec<u8>,
    /// More came than is kept.
    is_cut: bool,
    /// More is there than may be read now.
    waits_for_room: bool,
}

pub(super) struct Job {
    pub(super) conn: u32,
    pub(super) purpose: Purpose,
    pub(super) pid: i32,
    /// When it was there already (CLOCK_BOOTTIME).
    since_ns: u64,
    /// Tells by its end that the program runs, or why it does not.
    start: Option<Watched>,
    failure: Option<StartFailure>,
    asked: Asked,
    pub(super) stdin: Option<Watched>,
    pub(super) stdin_queue: Queue,
    pub(super) stdin_ended: bool,
    /// Its standard input ends with a line that has no end.
    pub(super) is_within_line: bool,
    outputs: [Pipe; 2],
    /// `None` while it runs.
    pub(super) status: Option<WaitStatus>,
    keep_bytes: usize,
    /// When to kill it (CLOCK_BOOTTIME).
    kill_at_ns: Option<u64>,
    timed_out: bool,
    /// When to stop waiting for outputs that something else holds open.
    leave_at_ns: Option<u64>,
    /// Its client does not read, so its outputs wait.
    choked: bool,
    /// Its output is a terminal's.
    pub(super) has_pty: bool,
}

impl Job {
    fn id(&self) -> Option<&Id> {
        match &self.purpose {
            Purpose::Request { id, .. } | Purpose::Work { id, .. } => Some(id),
            Purpose::Step => None,
        }
    }

    /// Whether its output goes out as it comes.
    fn streams(&self) -> bool {
        matches!(
            self.purpose,
            Purpose::Request { stream: true, .. } | Purpose::Work { .. }
        )
    }

    /// Under which id an output goes out as it comes, if it does.
    fn streams_as(&self, which: usize) -> Option<&Id> {
        match &self.purpose {
            Purpose::Request { id, stream: true, .. } => Some(id),
            Purpose::Work { id, .. } if which == STDOUT => Some(id),
            _ => None,
        }
    }

    /// Gives its terminal, if it has one, another size.
    pub(super) fn resize(&self, size: TerminalSize) {
        if let (true, Some(terminal)) = (self.has_pty, &self.outputs[STDOUT].source) {
            spawn::resize(&terminal.fd, size);
        }
    }

    pub(super) fn has_much_stdin(&self) -> bool {
        self.stdin_queue.len() > STDIN_HIGH_BYTES
    }

    /// When time alone changes something.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let leave = self.leave_at_ns.filter(|_| !self.is_held_up());
        [self.kill_at_ns, leave].into_iter().flatten().min()
    }

    fn session(&self) -> Session {
        Session {
            leader: self.pid,
            since_ns: self.since_ns,
        }
    }

    /// Signals the whole process group, whose number is the process's; all that the job has started, when it is to be killed.
    /// The group exists from before the program is started; until then the process alone is signalled, unless it has ended.
    pub(super) fn signal(&self, signal: Signal) {
        match self.purpose {
            Purpose::Work { takes: true, .. } => return, // it ends with its input
            Purpose::Request { .. } | Purpose::Step if signal.number() == KILL => {
                return sessions::end(&[self.session()], &[]);
            }
            _ => {}
        }
        if self.start.is_some() && self.status.is_none() {
            let _ = kernel::kill(self.pid, signal.number());
        }
        // The number of a process that was reaped is given out again, but not while a group has it: whoever has it now,
        // if anybody, is somebody else, and the group is gone.
        if self.status.is_some() && kernel::kill(self.pid, 0) != Err(Errno::SRCH) {
            return;
        }
        let _ = kernel::kill(self.pid.wrapping_neg(), signal.number());
    }

    fn kill(&self) {
        if let Some(kill) = Signal::new(KILL) {
            self.signal(kill);
        }
    }

    /// Our ends of its pipes and terminal.
    fn ends(&self) -> impl Iterator<Item = RawFd> {
        let outputs = self.outputs.iter().filter_map(|output| output.source.as_ref());
        outputs.chain(&self.stdin).map(|end| end.fd.as_raw_fd())
    }

    /// Reads its outputs, or leaves them in their pipes because the client does not read.
    pub(super) fn watch_output(&mut self, poller: &Poller, wanted: bool) {
        if !self.streams() || self.choked != wanted {
            return; // collected output is bounded by itself; or nothing changes
        }
        self.choked = !wanted;
        for source in self
            .outputs
            .iter_mut()
            .filter_map(|output| output.source.as_mut())
        {
            source.set(
                poller,
                if wanted {
                    EventFlags::IN
                } else {
                    EventFlags::empty()
                },
            );
        }
        if wanted && self.leave_at_ns.is_some() {
            self.leave_at_ns = Some(Clock::Boottime.now_ns().saturating_add(LEFTOVER_NS));
        }
    }

    /// Answers the request that started it.
    fn answer(&mut self, id: &Id, failure_is_result: bool, out: &mut Outbox) {
        match self.failure.take() {
            Some(failure) if failure_is_result && failure.is_of_program() => {
                let stderr = Some(failure.in_words(&self.asked));
                out.push(result_line(
                    id,
                    ExecResult {
                        exit_code: -1,
                        stdout: Some(String::new()),
                        stderr,
                        ..ExecResult::default()
                    },
                ));
            }
            Some(failure) => out.push(error_line(id, &failure.to_error(&self.asked))),
            None => self.tell_result(id, out),
        }
    }

    fn tell_result(&mut self, id: &Id, out: &mut Outbox) {
        let mut line = result_line(id, self.result());
        if self.streams() {
            return out.push(line);
        }
        // The outputs go in before the end.
        line.truncate(line.len().saturating_sub(RESULT_END.len()));
        line.extend_from_slice(b",\"stdout\":\"");
        let [stdout, stderr] = core::mem::take(&mut self.outputs).map(Pipe::into_kept);
        out.push(line);
        out.push_text(stdout);
        out.push(b"\",\"stderr\":\"".to_vec());
        out.push_text(stderr);
        out.push([b"\"", RESULT_END].concat());
    }

    /// The response to work on files: what the copy reported.
    fn report(&mut self, id: &Id) -> Vec<u8> {
        let done = self
            .status
            .and_then(WaitStatus::exit_status)
            .is_some_and(|code| code == 0);
        let report = core::mem::take(&mut self.outputs[STDERR].kept);
        if done && let Ok(result) = serde_json::from_slice::<serde_json::Value>(&report) {
            return result_line(id, result);
        }
        let error = serde_json::from_slice(&report)
            .unwrap_or_else(|_| RpcError::internal("the work on files was ended by a signal", None));
        error_line(id, &error)
    }

    /// The result, without outputs.
    fn result(&self) -> ExecResult {
        let (exit_code, signal) = match self.status {
            Some(status) => match status.terminating_signal() {
                Some(signal) => (signal.saturating_add(128), Some(signal)),
                None => (status.exit_status().unwrap_or(-1), None),
            },
            None => (-1, None),
        };
        ExecResult {
            exit_code,
            signal,
            timed_out: self.timed_out,
            ..ExecResult::default()
        }
    }

    /// All that is held for it.
    pub(super) fn held_bytes(&self) -> usize {
        let kept = self.kept_bytes(STDOUT).saturating_add(self.kept_bytes(STDERR));
        kept.saturating_add(self.stdin_bytes())
    }

    /// Its standard input that it has not read.
    pub(super) fn stdin_bytes(&self) -> usize {
        self.stdin_queue.len()
    }

    /// What is kept of an output.
    pub(super) fn kept_bytes(&self, which: usize) -> usize {
        self.outputs.get(which).map_or(0, |output| output.kept.len())
    }

    /// Keeps no more than so much of an output, and nothing that comes.
    pub(super) fn cut_output(&mut self, which: usize, bytes: usize, poller: &Poller) {
        if let Some(output) = self.outputs.get_mut(which)
            && output.kept.len() > bytes
        {
            output.kept.truncate(bytes);
            output.kept.shrink_to_fit();
            output.is_cut = true;
        }
        self.watch_kept(poller);
    }

    /// Whether outputs are left in their pipes for now, because of the client or of all clients.
    fn is_held_up(&self) -> bool {
        self.choked || self.waits_for_room()
    }

    /// Whether an output has more than there is room for.
    pub(super) fn waits_for_room(&self) -> bool {
        self.outputs.iter().any(|output| output.waits_for_room)
    }

    /// Reads outputs that are kept, where that waited for room.
    pub(super) fn watch_kept(&mut self, poller: &Poller) {
        if !self.streams() {
            if self.waits_for_room() && self.leave_at_ns.is_some() {
                self.leave_at_ns = Some(Clock::Boottime.now_ns().saturating_add(LEFTOVER_NS));
            }
            for output in &mut self.outputs {
                output.waits_for_room = false;
                if let Some(source) = &mut output.source {
                    source.set(poller, EventFlags::IN);
                }
            }
        }
    }
}

impl Pipe {
    fn keep(&mut self, bytes: &[u8], limit: usize) {
        if self.is_cut {
            return;
        }
        let room = limit.saturating_sub(self.kept.len());
        self.is_cut |= bytes.len() > room;
        let bytes = bytes.get(..room).unwrap_or(bytes);
        self.kept.reserve_exact(bytes.len());
        self.kept.extend_from_slice(bytes);
    }

    fn into_kept(self) -> Vec<u8> {
        let mut kept = self.kept;
        if self.is_cut {
            kept.truncate(whole_letters(&kept).len());
            kept.extend_from_slice(TRUNCATED.as_bytes());
        }
        kept
    }
}

/// Kills jobs that nobody waits for any more.
fn kill_together(jobs: Vec<Job>) {
    let is_work = |job: &Job| matches!(job.purpose, Purpose::Work { .. });
    let (work, programs): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(is_work);
    work.iter().for_each(Job::kill);
    let sessions: Vec<Session> = programs.iter().map(Job::session).collect();
    let mut ends: Vec<RawFd> = programs.iter().flat_map(Job::ends).collect();
    ends.sort_unstable();
    sessions::end(&sessions, &ends);
}

impl Agent {
    /// Starts a job for a connection that is taken out.
    pub(super) fn start_job(
        &mut self,
        conn_number: u32,
        conn: &mut Conn,
        plan: Plan,
    ) -> Result<(), RpcError> {
        self.wait_for_child();
        let asked = plan.command.asked();
        let child = match plan.pty {
            Some(size) => spawn::spawn_on_terminal(&plan.command, size, plan.stdin),
            None => spawn::spawn(&plan.command, plan.stdin),
        };
        let child = child
            .map_err(|error| RpcError::internal("cannot start a process", Some(error.raw_os_error())))?;
        let timeout_ns = plan
            .timeout_ms
            .map(|timeout_ms| timeout_ms.saturating_mul(1_000_000));
        let kill_at_ns = timeout_ns.map(|timeout_ns| Clock::Boottime.now_ns().saturating_add(timeout_ns));
        let job = self.adopt(conn_number, conn, plan.purpose, child, asked);
        job.keep_bytes = plan.keep_bytes;
        job.kill_at_ns = kill_at_ns;
        job.has_pty = plan.pty.is_some();
        Ok(())
    }

    /// Starts work on files for a connection that is taken out.
    pub(super) fn start_work(
        &mut self,
        conn_number: u32,
        conn: &mut Conn,
        id: Id,
        direction: Direction,
        work: impl FnOnce() -> i32,
    ) -> Result<(), RpcError> {
        let takes = direction == Direction::In;
        let child = spawn::fork_work(takes, work)
            .map_err(|error| RpcError::internal("cannot start a process", Some(error.raw_os_error())))?;
        let is_raw = direction == Direction::OutRaw;
        let purpose = Purpose::Work { id, takes, is_raw };
        self.adopt(conn_number, conn, purpose, child, Asked::default());
        Ok(())
    }

    /// Starts to put a framed job's files into its folder, as its first step.
    pub(super) fn start_fill(
        &mut self,
        conn_number: u32,
        conn: &mut Conn,
        timeout_ns: u64,
        fill: impl FnOnce() -> i32,
    ) -> Result<(), Errno> {
        let child = spawn::fork_work(false, fill)?;
        let job = self.adopt(conn_number, conn, Purpose::Step, child, Asked::default());
        job.kill_at_ns = Some(Clock::Boottime.now_ns().saturating_add(timeout_ns));
        Ok(())
    }

    fn adopt(
        &mut self,
        conn_number: u32,
        conn: &mut Conn,
        purpose: Purpose,
        child: Child,
        asked: Asked,
    ) -> &mut Job {
        let number = self.new_number();
        let poller = &self.poller;
        let reading = |fd, token| {
            let mut source = Watched::new(fd, token);
            source.set(poller, EventFlags::IN);
            source
        };
        let pipe = |source| Pipe {
            source,
            ..Pipe::default()
        };
        let outputs = [
            pipe(Some(reading(child.stdout, Token::JobStdout(number)))),
            pipe(child.stderr.map(|fd| reading(fd, Token::JobStderr(number)))),
        ];
        let job = Job {
            conn: conn_number,
            purpose,
            pid: child.pid,
            since_ns: Clock::Boottime.now_ns(),
            start: child.start.map(|fd| reading(fd, Token::JobStart(number))),
            failure: None,
            asked,
            stdin: child.stdin.map(|fd| Watched::new(fd, Token::JobStdin(number))),
            stdin_queue: Queue::new(),
            stdin_ended: false,
            is_within_line: false,
            outputs,
            status: None,
            keep_bytes: MAX_OUTPUT_BYTES,
            kill_at_ns: None,
            timed_out: false,
            leave_at_ns: None,
            choked: false,
            has_pty: false,
        };
        conn.jobs.push(number);
        self.jobs.entry(number).or_insert(job)
    }

    /// The number of the connection's job that has this id.
    pub(super) fn job_of(&self, conn: &Conn, id: &Id) -> Option<u32> {
        conn.jobs
            .iter()
            .copied()
            .find(|number| self.jobs.get(number).is_some_and(|job| job.id() == Some(id)))
    }

    /// The program runs, or could not be started.
    pub(super) fn job_start_ready(&mut self, number: u32) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        let Some(start) = &job.start else { return };
        let mut report = [0; spawn::FAILURE_BYTES];
        match rustix::io::read(&start.fd, &mut report[..]) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(count) if count == report.len() => job.failure = Some(StartFailure::from_bytes(report)),
            Ok(_) | Err(_) => {}
        }
        job.start = None;
        self.finish_if_done(number);
    }

    /// Reads a piece of an output; whether one came.
    pub(super) fn job_output_ready(&mut self, number: u32, which: usize) -> bool {
        let room = self
            .jobs
            .get(&number)
            .map_or(0, |job| self.room_of_output(number, job, which));
        let Some(job) = self.jobs.get_mut(&number) else {
            return false;
        };
        let Some(output) = job.outputs.get_mut(which) else {
            return false;
        };
        let Some(source) = &mut output.source else {
            return false;
        };
        if job.choked {
            return false; // the kernel told of it before its client had too much
        }
        if room == 0 {
            source.set(&self.poller, EventFlags::empty());
            output.waits_for_room = true;
            return false;
        }
        let mut buffer = [0; MAX_DATA_BYTES];
        let piece = buffer.get_mut(..room.min(MAX_DATA_BYTES)).unwrap_or_default();
        let count = match rustix::io::read(&source.fd, piece) {
            Err(Errno::AGAIN | Errno::INTR) => return false,
            Ok(0) | Err(_) => {
                output.source = None;
                self.finish_if_done(number);
                return false;
            }
            Ok(count) => count,
        };
        let bytes = &buffer[..count];
        let Some(id) = job.streams_as(which).cloned() else {
            if let Some(output) = job.outputs.get_mut(which) {
                output.keep(bytes, job.keep_bytes);
            }
            return true;
        };
        self.pass_on(number, which, id, bytes);
        true
    }

    /// Tells a client what its job has written.
    fn pass_on(&mut self, number: u32, which: usize, id: Id, bytes: &[u8]) {
        let Some(job) = self.jobs.get(&number) else { return };
        let stream = if which == STDOUT {
            OutputStream::Stdout
        } else {
            OutputStream::Stderr
        };
        let is_raw = matches!(job.purpose, Purpose::Work { is_raw: true, .. });
        let output = |data, raw| {
            notification_line(
                method::OUTPUT,
                Output {
                    id,
                    stream,
                    data,
                    raw,
                },
            )
        };
        let mut line = if is_raw {
            output(Data::default(), u32::try_from(bytes.len()).ok())
        } else {
            output(Data(bytes.to_vec()), None)
        };
        if is_raw {
            line.extend_from_slice(bytes);
        }
        let conn_number = job.conn;
        if let Some(conn) = self.conns.get_mut(&conn_number) {
            conn.send(line);
        }
        self.touch(conn_number);
    }

    /// How much of an output can be read now: what is kept must find room.
    fn room_of_output(&self, number: u32, job: &Job, which: usize) -> usize {
        match job.outputs.get(which) {
            // What goes on to the client at once; the client has room, or this output would not be watched.
            _ if job.streams_as(which).is_some() => self.room(0),
            Some(output) if !output.is_cut => self.room_of_job(number, output.kept.len()),
            _ => usize::MAX,
        }
    }

    /// A child of this process has ended: a job's program, or an orphan.
    pub(super) fn child_ended(&mut self, pid: i32, status: WaitStatus) {
        let number = self
            .jobs
            .iter()
            .find(|(_, job)| job.pid == pid && job.status.is_none())
            .map(|(number, _)| *number);
        if let Some(number) = number
            && let Some(job) = self.jobs.get_mut(&number)
        {
            job.status = Some(status);
            job.kill_at_ns = None;
            job.leave_at_ns = Some(Clock::Boottime.now_ns().saturating_add(LEFTOVER_NS));
            self.finish_if_done(number);
        }
    }

    pub(super) fn pass_time(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let now = Clock::Boottime.now_ns();
        let due: Vec<u32> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.next_deadline().is_some_and(|deadline| deadline <= now))
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            let Some(job) = self.jobs.get_mut(&number) else {
                continue;
            };
            if job.kill_at_ns.is_some_and(|deadline| deadline <= now) {
                job.kill_at_ns = None;
                job.timed_out = true;
                job.kill();
            } else {
                self.leave_outputs(number);
            }
        }
    }

    /// Reads what lies in the pipes of a program that has ended, and no more: somebody else holds them open, or they have ended
    /// and were not looked at, because so much else was to be done.
    fn leave_outputs(&mut self, number: u32) {
        for which in [STDOUT, STDERR] {
            let _ = (0..LAST_PIECES).all(|_| self.job_output_ready(number, which));
        }
        if let Some(job) = self.jobs.get_mut(&number)
            && !job.is_held_up()
        {
            job.outputs.iter_mut().for_each(|output| output.source = None);
            self.finish_if_done(number);
        }
    }

    /// Answers a job that has ended and whose outputs have been read.
    fn finish_if_done(&mut self, number: u32) {
        let is_done = self.jobs.get(&number).is_some_and(|job| {
            job.status.is_some()
                && job.start.is_none()
                && job.outputs.iter().all(|output| output.source.is_none())
        });
        if !is_done {
            return;
        }
        let Some(mut job) = self.jobs.remove(&number) else {
            return;
        };
        if let Some(conn) = self.conns.get_mut(&job.conn) {
            conn.jobs.retain(|other| *other != number);
        }
        match job.purpose.clone() {
            Purpose::Request {
                id,
                stream,
                failure_is_result,
            } => {
                if let Some(conn) = self.conns.get_mut(&job.conn) {
                    job.answer(&id, failure_is_result && !stream, &mut conn.out);
                }
                self.touch(job.conn);
            }
            Purpose::Work { id, .. } => {
                let line = job.report(&id);
                if let Some(conn) = self.conns.get_mut(&job.conn) {
                    conn.send(line);
                }
                self.touch(job.conn);
            }
            Purpose::Step => {
                // Nothing that a step has left behind may disturb the next, or the folder's end.
                if sessions::has_orphans(job.session()) {
                    job.kill();
                }
                let not_started = job.failure.take().map(|failure| failure.in_words(&job.asked));
                let ExecResult {
                    exit_code, timed_out, ..
                } = job.result();
                let [stdout, stderr] = job.outputs.map(Pipe::into_kept);
                let end = End {
                    not_started,
                    exit_code,
                    timed_out,
                    stdout,
                    stderr,
                };
                self.step_ended(job.conn, end);
            }
        }
    }

    /// Kills the jobs of a client that is gone. Their processes are reaped as orphans.
    pub(super) fn kill_jobs_of(&mut self, conn: &mut Conn) {
        let jobs = core::mem::take(&mut conn.jobs);
        let jobs = jobs.iter().filter_map(|number| self.jobs.remove(number));
        kill_together(jobs.collect());
    }

    pub(super) fn kill_all_jobs(&mut self) {
        kill_together(core::mem::take(&mut self.jobs).into_values().collect());
    }
}
