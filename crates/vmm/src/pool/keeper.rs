//! The process that keeps a pool: threads that fill it, one for each who asks, and the one that waits for them.

use std::collections::VecDeque;
use std::io::{self, BufReader, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::message::{ImageId, PoolStatus, Reply, Request, Terms, Wish, line, receive, send};
use super::template::{FillError, Member, Template};
use crate::deadline;
use crate::interrupts::Interrupts;
use crate::last_words;
use crate::machine::{Port, Snapshot, Vmm};
use crate::spec::BootSpec;

/// How long who connects may take to say what they want.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long who has asked may take to make room for the answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a warm machine may take to show that it is still there.
const ALIVE_LIMIT: Duration = Duration::from_secs(2);
/// How often the warm ones are looked at.
const TICK: Duration = Duration::from_millis(500);
/// The longest pause after starts that failed.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How many may wait for a machine, besides those who have one.
const WAITING_MAX: usize = 256;
/// How many more may be connected: there is room for commands however many want machines.
const COMMANDS_MAX: usize = 64;
/// What is said to who is one too many.
const TOO_MANY: &str = "too many programs want VMs of it at once";
/// How long to wait when the host has no room for another connection.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(100);

/// Keeps machines warm, and gives each to one who asks.
pub struct Keeper<'a> {
    vmm: &'a dyn Vmm,
    spec: &'a BootSpec<'a>,
    size: usize,
    at_once: usize,
    snapshot_folder: PathBuf,
    log: &'a (dyn Fn(&str) + Sync),
    fits: &'a (dyn Fn(&Path) -> Result<(), String> + Sync),
    state: Mutex<State>,
    changed: Condvar,
    /// Ends the boots that are under way.
    cut: Interrupts,
    cutter: crate::interrupts::InterruptSender,
}

struct State {
    terms: Terms,
    warm: VecDeque<Member>,
    starting: usize,
    in_use: usize,
    /// Those of them that were not given away yet. Nothing takes their places before: they may come back unused.
    lending: usize,
    used: u64,
    failed: u64,
    /// Starts that failed in a row.
    failures: u32,
    not_before: Instant,
    last_start: Option<Duration>,
    last_error: Option<String>,
    source: Source,
    /// Counts the images that the name has had. What was begun for one of them is no good for the next.
    generation: u64,
    connected: usize,
    /// Those of them who have a machine or wait for one.
    takers: usize,
    /// Why there will be no more machines; the pool ends with the last one in use.
    retired: Option<String>,
    stopping: bool,
}

/// What the next machine is made from.
enum Source {
    /// It is not known yet whether a snapshot can be had.
    Unknown,
    /// One thread is making it.
    Making,
    Snapshot(Snapshot),
    Boot,
}

impl std::fmt::Debug for Keeper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl<'a> Keeper<'a> {
    /// A keeper of `size` machines of this kind. What it does is told to `log`; a snapshot goes to a folder of this name.
    ///
    /// # Errors
    /// What the host said.
    pub fn new(
        vmm: &'a dyn Vmm,
        spec: &'a BootSpec<'a>,
        terms: Terms,
        size: usize,
        snapshot_folder: PathBuf,
        log: &'a (dyn Fn(&str) + Sync),
    ) -> io::Result<Keeper<'a>> {
        let (cutter, cut) = Interrupts::pair()?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Keeper {
            vmm,
            spec,
            size,
            at_once: (processors / 2).clamp(1, 4),
            snapshot_folder,
            log,
            fits: &|_| Ok(()),
            state: Mutex::new(State {
                terms,
                warm: VecDeque::new(),
                starting: 0,
                in_use: 0,
                lending: 0,
                used: 0,
                failed: 0,
                failures: 0,
                not_before: Instant::now(),
                last_start: None,
                last_error: None,
                source: Source::first(vmm),
                generation: 0,
                connected: 0,
                takers: 0,
                retired: None,
                stopping: false,
            }),
            changed: Condvar::new(),
            cut,
            cutter,
        })
    }

    /// The same, which asks `fits` whether what is described is still what the name means, when the image at the path that it is given
    /// is no longer there or another, or somebody wants another. If it is not, no machine is made or lent any more, and
    /// [`Keeper::run`] ends with the reason when the last one comes back.
    #[must_use]
    pub fn while_it_fits(self, fits: &'a (dyn Fn(&Path) -> Result<(), String> + Sync)) -> Keeper<'a> {
        Keeper { fits, ..self }
    }

    /// Keeps the pool until it is asked to stop or a signal comes. No machine is left when this returns.
    ///
    /// # Errors
    /// What the host said of the listener; why the pool had to end.
    pub fn run(&self, listener: &UnixListener, interrupts: &Interrupts) -> io::Result<()> {
        std::thread::scope(|scope| {
            for _ in 0..self.at_once {
                scope.spawn(|| self.fill());
            }
            let ended = loop {
                if let Some(ended) = self.ended() {
                    break ended;
                }
                if interrupts.take().is_some() {
                    break Ok(());
                }
                match wait_for(listener, interrupts) {
                    Ok(false) => self.look_after(),
                    Ok(true) => match listener.accept() {
                        Ok((stream, _)) => self.admit(scope, stream),
                        Err(error) if is_passing(&error) => {
                            (self.log)(&format!("cannot let somebody in: {error}"));
                            std::thread::sleep(NO_ROOM_PAUSE);
                        }
                        Err(error) => break Err(error),
                    },
                    Err(error) => break Err(error),
                }
            };
            self.stop();
            ended
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the pool has come to its end.
    fn ended(&self) -> Option<io::Result<()>> {
        let state = self.lock();
        if state.stopping {
            return Some(Ok(()));
        }
        let reason = state.retired.as_ref()?;
        (state.takers + state.starting == 0).then(|| Err(io::Error::other(reason.clone())))
    }

    /// Lets somebody in, who is served by a thread; or says why not.
    fn admit<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, stream: UnixStream) {
        if !is_ours(&stream) {
            return;
        }
        {
            let mut state = self.lock();
            if state.connected >= self.size + WAITING_MAX + COMMANDS_MAX {
                let _ = stream.set_nonblocking(true);
                let _ = send(&stream, &Reply::Refused(TOO_MANY.to_owned()));
                return;
            }
            state.connected += 1;
        }
        let served = std::thread::Builder::new().spawn_scoped(scope, move || {
            self.serve(stream);
            self.lock().connected -= 1;
        });
        if let Err(error) = served {
            (self.log)(&format!("cannot let somebody in: {error}"));
            self.lock().connected -= 1;
        }
    }

    /// Ends the boots, the warm machines, and lets everyone who waits see it.
    fn stop(&self) {
        let warm = {
            let mut state = self.lock();
            state.stopping = true;
            std::mem::take(&mut state.warm)
        };
        self.changed.notify_all();
        for _ in 0..self.at_once {
            self.cutter.send(15);
        }
        drop(warm);
    }

    /// Forgets warm machines that have ended, and those of an image that is another now.
    fn look_after(&self) {
        let mut gone: Vec<Member> = Vec::new();
        let mut state = self.lock();
        if !state.terms.image.is_current() {
            self.renew(&mut state, &mut gone);
        }
        let all = std::mem::take(&mut state.warm);
        for member in all {
            match member.machine.wait(Duration::ZERO) {
                Ok(None) => state.warm.push_back(member),
                _ => gone.push(member),
            }
        }
        if !gone.is_empty() {
            self.changed.notify_all();
        }
        drop(state);
        drop(gone);
    }

    /// Goes on with the image that has the name now.
    fn renew(&self, state: &mut State, gone: &mut Vec<Member>) {
        gone.extend(std::mem::take(&mut state.warm));
        if !self.retire(state) {
            // While there is none the old one is waited for.
            if let Ok(image) = ImageId::of(state.terms.image.path()) {
                (self.log)("the image is another now: all VMs are replaced");
                if matches!(state.source, Source::Snapshot(_)) {
                    self.forget_snapshot(state.generation);
                }
                state.terms.image = image;
                state.generation += 1;
                state.source = Source::first(self.vmm);
            }
        }
        self.changed.notify_all();
    }

    /// Makes and lends no more machines if they would be others than what the name means now. Whether that is so.
    fn retire(&self, state: &mut State) -> bool {
        if state.retired.is_none()
            && let Err(reason) = (self.fits)(state.terms.image.path())
        {
            (self.log)(&reason);
            state.last_error = Some(reason.clone());
            state.retired = Some(reason);
        }
        state.retired.is_some()
    }

    /// Each has a folder of its own: machines in use map the file of theirs, which must not change. They keep it when it is removed.
    fn snapshot_of(&self, generation: u64) -> PathBuf {
        self.snapshot_folder.join(generation.to_string())
    }

    fn forget_snapshot(&self, generation: u64) {
        let _ = std::fs::remove_dir_all(self.snapshot_of(generation));
    }

    fn status(&self) -> PoolStatus {
        let state = self.lock();
        PoolStatus {
            pid: std::process::id(),
            size: self.size,
            warm: state.warm.len(),
            starting: state.starting,
            in_use: state.in_use,
            waiting: state.takers.saturating_sub(state.in_use),
            used: state.used,
            failed: state.failed,
            snapshot: matches!(state.source, Source::Snapshot(_)),
            last_start_ms: state
                .last_start
                .map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            last_error: state.last_error.clone(),
            terms: state.terms.clone(),
        }
    }

    /// A thread that starts machines while there are too few.
    fn fill(&self) {
        let template = Template::new(self.vmm, self.spec, &self.cut);
        while let Some((task, generation)) = self.next_task() {
            let started = Instant::now();
            let done = match &task {
                Task::Boot => template.boot().map(Done::Member),
                Task::Restore(snapshot) => template.restore(snapshot).map(Done::Member),
                Task::Snapshot => template
                    .snapshot(&self.snapshot_of(generation))
                    .map(Done::Snapshot),
            };
            self.settle(&task, generation, done, started.elapsed());
        }
    }

    /// What is to be done next; `None` at the end.
    fn next_task(&self) -> Option<(Task, u64)> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            let wait = state.not_before.saturating_duration_since(Instant::now());
            let there = state.warm.len() + state.lending + state.starting;
            let lacks = there < self.size && state.retired.is_none();
            if lacks && wait.is_zero() {
                let task = match &state.source {
                    Source::Unknown => Some(Task::Snapshot),
                    Source::Snapshot(snapshot) => Some(Task::Restore(snapshot.clone())),
                    Source::Boot => Some(Task::Boot),
                    Source::Making => None,
                };
                if let Some(task) = task {
                    if matches!(task, Task::Snapshot) {
                        state.source = Source::Making;
                    }
                    state.starting += 1;
                    return Some((task, state.generation));
                }
            }
            let wait = if wait.is_zero() { TICK } else { wait };
            state = self
                .changed
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Counts what came of a task; if it was begun for an image that is gone by now, it is of no use.
    fn settle(&self, task: &Task, generation: u64, done: Result<Done, FillError>, took: Duration) {
        let mut state = self.lock();
        let mut gone = Vec::new();
        if !state.stopping && !state.terms.image.is_current() {
            self.renew(&mut state, &mut gone);
        }
        state.starting -= 1;
        let useless = state.stopping || state.retired.is_some() || state.generation != generation;
        let kept_snapshot = match done {
            Ok(Done::Member(member)) if useless => {
                gone.push(member);
                false
            }
            Ok(Done::Snapshot(_)) if useless => false,
            Err(error) if useless => {
                (self.log)(&format!("a VM that is of no use any more: {}", chain(&error)));
                false
            }
            Ok(done) => {
                state.failures = 0;
                state.last_error = None;
                match done {
                    Done::Member(member) => {
                        state.last_start = Some(took);
                        state.warm.push_back(member);
                        false
                    }
                    Done::Snapshot(snapshot) => {
                        state.source = Source::Snapshot(snapshot);
                        true
                    }
                }
            }
            Err(error) => {
                self.fail(&mut state, task, &error);
                false
            }
        };
        if matches!(task, Task::Snapshot) && !kept_snapshot {
            self.forget_snapshot(generation);
        }
        drop(state);
        self.changed.notify_all();
        drop(gone);
    }

    fn fail(&self, state: &mut State, task: &Task, error: &FillError) {
        let words = chain(error);
        (self.log)(&words);
        state.failed += 1;
        if !matches!(task, Task::Boot) && !matches!(error, FillError::Boot(_)) {
            (self.log)("no snapshots: from now on VMs are booted");
            state.source = Source::Boot;
            return;
        }
        state.last_error = Some(words);
        state.failures = state.failures.saturating_add(1);
        let pause = Duration::from_secs(1 << state.failures.min(6)).min(PAUSE_MAX);
        state.not_before = Instant::now() + pause;
        if matches!(task, Task::Snapshot) {
            state.source = Source::Unknown;
        }
    }

    /// One who has connected.
    fn serve(&self, stream: UnixStream) {
        let limited = stream
            .set_read_timeout(Some(REQUEST_LIMIT))
            .and_then(|()| stream.set_write_timeout(Some(ANSWER_LIMIT)));
        if limited.is_err() {
            return;
        }
        let Ok(writer) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        let _ = match receive(&mut reader) {
            Ok(Some(Request::Status)) => send(&writer, &Reply::Status(Box::new(self.status()))),
            Ok(Some(Request::Take(wish))) => self.take(&wish, &writer, &mut reader),
            Ok(Some(Request::Stop)) => {
                self.stop();
                self.wait_until_all_have_ended();
                send(&writer, &Reply::Stopped)
            }
            Ok(Some(Request::Words | Request::Dial) | None) | Err(_) => Ok(()),
        };
    }

    fn wait_until_all_have_ended(&self) {
        let mut state = self.lock();
        while state.in_use + state.starting > 0 {
            state = self
                .changed
                .wait_timeout(state, TICK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// One who wants a machine.
    fn take(&self, wish: &Wish, writer: &UnixStream, reader: &mut BufReader<UnixStream>) -> io::Result<()> {
        {
            let mut state = self.lock();
            if state.takers >= self.size + WAITING_MAX {
                return send(writer, &Reply::Refused(TOO_MANY.to_owned()));
            }
            state.takers += 1;
        }
        let lent = self.lend(wish, writer, reader);
        self.lock().takers -= 1;
        lent
    }

    /// Gives one machine away, and ends it when who has it is gone.
    fn lend(&self, wish: &Wish, writer: &UnixStream, reader: &mut BufReader<UnixStream>) -> io::Result<()> {
        let mut member = match self.choose(wish, writer) {
            Ok(member) => member,
            Err(Denied::HasLeft) => return Ok(()),
            Err(Denied::Told(reply)) => return send(writer, &reply),
        };
        // Who has left in the meantime has no use for it, and others may.
        let passed = match has_left(writer) {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => pass(writer, member.stream.as_fd()),
        };
        if passed.is_err() {
            self.take_back(member, wish);
            return passed;
        }
        self.lock().lending -= 1;
        self.changed.notify_all();
        self.until_returned(&mut member, writer, reader);
        drop(member);
        let mut state = self.lock();
        state.in_use -= 1;
        state.used += 1;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// A machine that nobody has got is warm again, unless it is of no use any more.
    fn take_back(&self, member: Member, wish: &Wish) {
        let mut state = self.lock();
        state.in_use -= 1;
        state.lending -= 1;
        let is_of_use = !state.stopping
            && state.retired.is_none()
            && state.terms.image == wish.image
            && state.terms.image.is_current();
        let gone = match is_of_use {
            true => {
                state.warm.push_front(member);
                None
            }
            false => Some(member),
        };
        drop(state);
        self.changed.notify_all();
        drop(gone);
    }

    fn until_returned(&self, member: &mut Member, writer: &UnixStream, reader: &mut BufReader<UnixStream>) {
        // Short, so that the end of the pool is seen.
        if reader.get_ref().set_read_timeout(Some(TICK / 5)).is_err() {
            return;
        }
        while !self.lock().stopping {
            match receive(reader) {
                Ok(Some(Request::Words)) => {
                    // Either the machine is going down, and its last words are still coming, or its agent alone has failed.
                    let _ = member.machine.wait(TICK);
                    let words = last_words::of(&member.machine.console(), &member.machine.complaints());
                    if send(writer, &Reply::Words(words)).is_err() {
                        return;
                    }
                }
                Ok(Some(Request::Dial)) => {
                    let dialled = member.machine.dial(Port::AGENT, ALIVE_LIMIT);
                    if dialled.and_then(|stream| pass(writer, stream.as_fd())).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// A warm machine that is alive and as wished, for who waits at the other end of this stream.
    fn choose(&self, wish: &Wish, who: &UnixStream) -> Result<Member, Denied> {
        let deadline = deadline::after(Duration::from_millis(wish.wait_ms));
        let refused = |reason: String| Err(Denied::Told(Reply::Refused(reason)));
        let mut gone = Vec::new();
        loop {
            if has_left(who) {
                return Err(Denied::HasLeft);
            }
            let mut state = self.lock();
            if !state.terms.image.is_current() {
                self.renew(&mut state, &mut gone);
            }
            if state.terms.image != wish.image {
                self.retire(&mut state);
            }
            if let Some(reason) = &state.retired {
                return refused(reason.clone());
            }
            if let Some(difference) = state.terms.mismatch(wish) {
                return refused(difference);
            }
            if state.stopping {
                return Err(Denied::Told(Reply::Empty));
            }
            let Some(mut member) = state.warm.pop_front() else {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Denied::Told(Reply::Empty));
                }
                drop(self.changed.wait_timeout(state, left.min(TICK)));
                continue;
            };
            state.in_use += 1;
            state.lending += 1;
            drop(state);
            let alive = matches!(member.machine.wait(Duration::ZERO), Ok(None))
                && member.client.ping(ALIVE_LIMIT).is_ok();
            if alive {
                // Its clock may have gone astray while it waited. An agent that cannot set it has a clock that was never stopped.
                let _ = member.client.clock_sync(ALIVE_LIMIT);
                return Ok(member);
            }
            let mut state = self.lock();
            state.in_use -= 1;
            state.lending -= 1;
            drop(state);
            self.changed.notify_all();
            gone.push(member);
        }
    }
}

/// Why somebody gets no machine.
enum Denied {
    /// What there is to say.
    Told(Reply),
    /// Nobody is there any more to be told.
    HasLeft,
}

enum Task {
    Snapshot,
    Restore(Snapshot),
    Boot,
}

enum Done {
    Member(Member),
    Snapshot(Snapshot),
}

impl Source {
    fn first(vmm: &dyn Vmm) -> Source {
        match vmm.facts().snapshots {
            true => Source::Unknown,
            false => Source::Boot,
        }
    }
}

/// Whether an error of `accept` is about one connection, or about what the host has in use just now.
fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [
        Errno::INTR,
        Errno::CONNABORTED,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

/// Waits a while; whether somebody wants to be let in.
fn wait_for(listener: &UnixListener, interrupts: &Interrupts) -> io::Result<bool> {
    let mut fds = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(interrupts, PollFlags::IN),
    ];
    let limit = Timespec::try_from(TICK).expect("it is short");
    match poll(&mut fds, Some(&limit)) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether who connects is the user that we are, or root.
fn is_ours(stream: &UnixStream) -> bool {
    let us = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == us || peer.uid.is_root())
}

/// Whether who has connected is gone, or says nothing any more.
fn has_left(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut fds, Some(&now)), Ok(1..))
}

/// Passes the stream to the agent on, with the line that says so. An error says that nobody has got it.
fn pass(writer: &UnixStream, stream: BorrowedFd<'_>) -> io::Result<()> {
    let line = line(&Reply::Taken);
    let descriptors = [stream];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let line_slices = [IoSlice::new(&line)];
    let sent = retry_on_intr(|| sendmsg(writer, &line_slices, &mut ancillary, SendFlags::NOSIGNAL))?;
    // Who does not get the rest is gone, which is seen by who listens.
    let _ = io::Write::write_all(&mut &*writer, &line[sent..]);
    Ok(())
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
