//! The copy: unpacked once, changed by steps, compared after each.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use firebrick_layer::ScanSummary;
use firebrick_tree::RegionIndex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::compare::compare;
use super::mounts::MOUNT_POINTS;
use super::record::{Record, open, record};
use super::setup::COPY;
use super::step::{Start, be_pid_1};
use super::unpack::{Origins, Sink};
use super::watch::Watch;
use super::{Doing as _, Failure, layer};
use crate::steps::{Limits, Outcome};
use crate::sys::{self, Side};
use crate::users;
use crate::wire::{Frames, Kind, RunStep, Settings, receive, send};

/// How often a running step is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Clocks of filesystems tick more seldom than things happen: what happens after this has another time than what happened before.
const CLOCK_TICK: Duration = Duration::from_millis(25);
/// What of `/etc/passwd` and `/etc/group` is read, at most.
const USERS_MAX: u64 = 4 << 20;

/// The copy and what is known of it.
pub(crate) struct Copy {
    root: OwnedFd,
    settings: Settings,
    origins: Origins,
    record: Record,
    /// What the sandbox itself put there.
    ours: BTreeSet<Box<[u8]>>,
    /// `/etc/resolv.conf` is there to mount on.
    resolver: bool,
}

impl Copy {
    /// An empty one. The work folder may hold what a killed sandbox left.
    pub(crate) fn create(settings: Settings) -> Result<Copy, Failure> {
        if rustix::fs::mkdir(COPY, Mode::from_raw_mode(0o755)).is_err() {
            // The caller locked the folder, so it is nobody's: it is only to be removed.
            return Err(Failure("the folder is not empty".to_owned()));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(COPY, flags, Mode::empty()).doing(|| "open the copy".into())?;
        if let Some(text) = &settings.resolver {
            std::fs::write("/resolv.conf", text).doing(|| "keep the resolver".into())?;
        }
        Ok(Copy {
            root,
            settings,
            origins: Origins::default(),
            record: Record::new(),
            ours: BTreeSet::new(),
            resolver: false,
        })
    }

    /// Unpacks the tar whose first frame is `first`.
    pub(crate) fn unpack(&mut self, control: &UnixStream, first: Vec<u8>) -> Result<(), Failure> {
        let mut tar = TarFrames {
            control,
            frame: first,
            at: 0,
            ended: false,
        };
        let mut sink = Sink::new(&self.root, self.settings.ids);
        let limits = firebrick_layer::Limits {
            entries: u64::MAX,
            unpacked_bytes: u64::MAX,
            metadata_bytes: u64::MAX,
            ratio: u64::MAX,
        };
        let none = ScanSummary::default();
        let scanned = firebrick_layer::scan(
            BufReader::with_capacity(256 << 10, &mut tar),
            RegionIndex(0),
            &mut sink,
            &limits,
            none,
        );
        let result = match scanned {
            Ok(_) => sink.finish(),
            Err(error) => {
                let said = sink.failure.take();
                Err(said.unwrap_or_else(|| Failure(format!("unpack: {error}: {}", cause(&error)))))
            }
        };
        self.origins = std::mem::take(&mut sink.origins);
        drop(sink);
        // The host writes to the end before it reads.
        tar.drain().doing(|| "read the image".into())?;
        result?;
        self.prepare()?;
        self.record = record(&self.root)?;
        Ok(())
    }

    /// Makes what is mounted on, where the image lacks it. Parents keep their times.
    fn prepare(&mut self) -> Result<(), Failure> {
        let root_times = rustix::fs::fstat(&self.root).doing(|| "look at /".into())?;
        for name in MOUNT_POINTS {
            if rustix::fs::mkdirat(&self.root, name, Mode::from_raw_mode(0o755)).is_ok() {
                self.ours.insert(name.as_bytes().into());
            }
            let is_folder = open(&self.root, name.as_bytes(), OFlags::PATH | OFlags::DIRECTORY).is_ok();
            if !is_folder {
                return Err(Failure(format!(
                    "the image's /{name} is not a folder, so nothing can be mounted there"
                )));
            }
        }
        set_mtime(&self.root, &root_times).doing(|| "set the time of /".into())?;
        if self.settings.resolver.is_some()
            && let Ok(etc) = open(&self.root, b"etc", OFlags::RDONLY | OFlags::DIRECTORY)
        {
            self.resolver = self
                .prepare_resolver(&etc)
                .doing(|| "make room for /etc/resolv.conf".into())?;
        }
        Ok(())
    }

    /// A plain file to mount on. In the layer the image's own stays what it was: whatever stands there after a step is not looked at.
    fn prepare_resolver(&mut self, etc: &OwnedFd) -> io::Result<bool> {
        const NAME: &str = "resolv.conf";
        let times = rustix::fs::fstat(etc)?;
        let kind = rustix::fs::statat(etc, NAME, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .map(|found| rustix::fs::FileType::from_raw_mode(found.st_mode));
        match kind {
            Ok(rustix::fs::FileType::RegularFile) => return Ok(true),
            // Mostly a link to where a service would put it.
            Ok(rustix::fs::FileType::Symlink) => {
                let flags = rustix::fs::AtFlags::empty();
                rustix::fs::unlinkat(etc, NAME, flags)?;
            }
            Ok(_) => return Ok(false),
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        drop(rustix::fs::openat(etc, NAME, flags, Mode::from_raw_mode(0o644))?);
        self.ours.insert(b"etc/resolv.conf".as_slice().into());
        set_mtime(etc, &times)?;
        Ok(true)
    }

    /// Writes what changed since the record, and records anew.
    pub(crate) fn layer(&mut self, control: &UnixStream) -> Result<(), Failure> {
        let after = record(&self.root)?;
        let source = layer::Source {
            root: &self.root,
            before: &self.record,
            after: &after,
            origins: &self.origins,
            single: self.settings.ids == 1,
            created: self.settings.created(),
        };
        let changes = compare(&self.record, &after, &self.ours);
        let frames = Frames {
            out: control,
            kind: Kind::LayerData,
        };
        layer::write(&source, &changes, BufWriter::with_capacity(256 << 10, frames))?;
        self.origins.paths.retain(|path, origin| {
            let (old, new) = (self.record.get(path), after.get(path));
            let (Some(old), Some(new)) = (old, new) else {
                return false;
            };
            if old.ino != new.ino {
                origin.xattrs.clear();
            }
            if self.settings.ids > 1 && (old.ino, old.uid, old.gid) != (new.ino, new.uid, new.gid) {
                origin.owner = None;
            }
            old.kind() == new.kind()
        });
        self.record = after;
        Ok(())
    }

    /// Runs a step; `None` if the host wants no answer any more.
    pub(crate) fn run(&mut self, control: &UnixStream, run: &RunStep) -> Result<Option<Outcome>, Failure> {
        std::thread::sleep(CLOCK_TICK);
        let text = |path: &[u8]| self.read_text(path);
        let identity = match users::find(&run.step.user, &text(b"etc/passwd"), &text(b"etc/group")) {
            Ok(identity) => identity,
            Err(why) => return Ok(Some(Outcome::NotStarted(why))),
        };
        let pipe = || pipe_with(PipeFlags::CLOEXEC).doing(|| "make a pipe".into());
        let (output, output_in) = pipe()?;
        let (status, status_in) = pipe()?;
        let mut namespaces = libc::CLONE_NEWPID
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        if !run.step.network {
            namespaces |= libc::CLONE_NEWNET;
        }
        match sys::clone(namespaces).doing(|| "namespaces: make those of a step".into())? {
            Side::Child => be_pid_1(Start {
                run,
                settings: &self.settings,
                identity: &identity,
                copy: &self.root,
                resolver: run.step.network && self.resolver,
                output: output_in,
                status: status_in,
            }),
            Side::Parent { pid, pidfd } => {
                drop((output_in, status_in));
                let ended = Watched {
                    control,
                    copy: &self.root,
                    pidfd: &pidfd,
                    output: &output,
                    limits: &run.limits,
                    watch: Watch::new(pid, &self.root),
                }
                .wait();
                // Whatever it was: when this returns, no process of the step is left.
                _ = pidfd_send_signal(&pidfd, Signal::KILL);
                let id = WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd));
                waitid(id, WaitIdOptions::EXITED).doing(|| "wait for the step's PID 1".into())?;
                let Ok(ended) = ended else { return Ok(None) };
                if drain(control, &output).is_err() {
                    return Ok(None);
                }
                Ok(Some(match ended {
                    Some(killed) => killed,
                    None => told_as_limit(outcome(&status), &run.limits),
                }))
            }
        }
    }

    fn read_text(&self, path: &[u8]) -> String {
        let resolve = rustix::fs::ResolveFlags::IN_ROOT | rustix::fs::ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut bytes = Vec::new();
        if let Ok(file) = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
            // What cannot be read has no users.
            _ = File::from(file).take(USERS_MAX).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn set_mtime(folder: &OwnedFd, stat: &rustix::fs::Stat) -> rustix::io::Result<()> {
    #[expect(
        clippy::unnecessary_cast,
        reason = "the fields of struct stat have other types on other processors"
    )]
    let time = rustix::fs::Timespec {
        tv_sec: stat.st_mtime as i64,
        tv_nsec: stat.st_mtime_nsec as _,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::futimens(folder, &times)
}

fn cause(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// What PID 1 said when it ended; nothing if it was killed.
fn outcome(status: &OwnedFd) -> Outcome {
    let mut said = Vec::new();
    let read = rustix::io::dup(status).map(|status| File::from(status).take(8192).read_to_end(&mut said));
    if let (Ok(Ok(_)), Some((b'S', [a, b, c, d, ..]))) = (read, said.split_first()) {
        let status = i32::from_le_bytes([*a, *b, *c, *d]);
        return match (libc::WIFSIGNALED(status), libc::WIFEXITED(status)) {
            (true, _) => Outcome::Signal(libc::WTERMSIG(status)),
            (_, true) => Outcome::Exited(libc::WEXITSTATUS(status)),
            _ => Outcome::NotStarted(format!("the wait status {status:#x} means nothing")),
        };
    }
    match said.split_first() {
        // What could not be done, up to a NUL byte; behind it may stand how that ended.
        Some((b'E', why)) => {
            let why = why.split(|&byte| byte == 0).next().unwrap_or_default();
            Outcome::NotStarted(String::from_utf8_lossy(why).into_owned())
        }
        _ => Outcome::Signal(libc::SIGKILL),
    }
}

/// A single file that was to become larger than all may be together ends its writer.
fn told_as_limit(outcome: Outcome, limits: &Limits) -> Outcome {
    match outcome {
        Outcome::Signal(libc::SIGXFSZ) => Outcome::OverLimit {
            what: "disk".to_owned(),
            limit: limits.disk_bytes,
        },
        other => other,
    }
}

/// A running step.
struct Watched<'a> {
    control: &'a UnixStream,
    copy: &'a OwnedFd,
    pidfd: &'a OwnedFd,
    output: &'a OwnedFd,
    limits: &'a Limits,
    watch: Watch,
}

impl Watched<'_> {
    /// Passes its output on until it ends or must be ended: `Some` says why. An error: the host is gone.
    fn wait(&self) -> io::Result<Option<Outcome>> {
        let started = Instant::now();
        let mut looked = started;
        let mut buffer = vec![0; 64 << 10];
        let mut output_open = true;
        loop {
            let tick = Timespec {
                tv_sec: 0,
                tv_nsec: i64::from(TICK.subsec_nanos()),
            };
            let mut fds = vec![
                PollFd::new(self.control, PollFlags::IN),
                PollFd::new(self.pidfd, PollFlags::IN),
            ];
            if output_open {
                fds.push(PollFd::new(self.output, PollFlags::IN));
            }
            match poll(&mut fds, Some(&tick)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            // The host says nothing while a step runs; it can only have gone.
            if ready[0] {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if ready.get(2) == Some(&true) {
                match rustix::io::read(self.output, &mut buffer)? {
                    0 => output_open = false,
                    len => send(self.control, Kind::Output, &buffer[..len])?,
                }
            }
            if ready[1] {
                return Ok(None);
            }
            if started.elapsed() > self.limits.time {
                return Ok(Some(Outcome::TimedOut(self.limits.time)));
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                if let Some((what, limit)) = self.watch.over(self.copy, self.limits) {
                    let what = what.to_owned();
                    return Ok(Some(Outcome::OverLimit { what, limit }));
                }
            }
        }
    }
}

/// Passes on what is left in the pipe. All who could write to it are gone.
fn drain(control: &UnixStream, output: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match rustix::io::read(output, &mut buffer)? {
            0 => return Ok(()),
            len => send(control, Kind::Output, &buffer[..len])?,
        }
    }
}

/// The tar, out of frames.
struct TarFrames<'a> {
    control: &'a UnixStream,
    frame: Vec<u8>,
    at: usize,
    ended: bool,
}

impl TarFrames<'_> {
    fn drain(&mut self) -> io::Result<()> {
        let mut rest = vec![0; 64 << 10];
        while self.read(&mut rest)? > 0 {}
        Ok(())
    }
}

impl Read for TarFrames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.frame.len() {
            if self.ended {
                return Ok(0);
            }
            self.at = 0;
            match receive(self.control, &mut self.frame)? {
                Some(Kind::Tar) => {}
                Some(Kind::TarEnd) => {
                    self.frame.clear();
                    self.ended = true;
                }
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let len = buffer.len().min(self.frame.len() - self.at);
        buffer[..len].copy_from_slice(&self.frame[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}
