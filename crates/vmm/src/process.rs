//! One VMM's process: started, watched and reaped by a thread of its own.
//!
//! `PR_SET_PDEATHSIG` sends its signal when the *thread* that started the process ends, not when the process does. So the
//! thread that starts a VMM does nothing else until that has ended.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::deadline;
use crate::machine::Exit;

/// A child that ends with us.
#[derive(Debug)]
pub(crate) struct Process {
    id: u32,
    pidfd: OwnedFd,
    exit: Arc<Ended>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Ended {
    exit: Mutex<Option<Exit>>,
    changed: Condvar,
}

impl Process {
    /// Starts `command` with `fds` kept open in it under their own numbers. Its standard error is given back. What it
    /// prints is thrown away, and there is nothing for it to read, unless its `terminal` is given: input and output.
    pub(crate) fn start(
        mut command: Command,
        fds: Vec<OwnedFd>,
        terminal: Option<(OwnedFd, OwnedFd)>,
    ) -> io::Result<(Process, OwnedFd)> {
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let (stdin, stdout) = match terminal {
            Some((input, output)) => (Stdio::from(input), Stdio::from(output)),
            None => (Stdio::null(), Stdio::null()),
        };
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        // Ctrl-C on a terminal goes to a whole process group. It is ours to handle, not the VMM's.
        command.process_group(0);
        let parent = rustix::process::getpid();
        #[expect(unsafe_code, reason = "the only way to set up a child between fork and exec")]
        // SAFETY: the closure makes system calls only, on values prepared before; it allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(move || prepare_child(parent, &numbers));
        }
        let exit = Arc::new(Ended::default());
        let (started, outcome) = mpsc::channel();
        let ended = Arc::clone(&exit);
        let keeper = std::thread::Builder::new()
            .name("vmm".into())
            .spawn(move || keep(command, fds, &started, &ended))?;
        let (id, pidfd, stderr) = outcome
            .recv()
            .map_err(|_| io::Error::other("the starting thread ended"))??;
        Ok((
            Process {
                id,
                pidfd,
                exit,
                keeper: Mutex::new(Some(keeper)),
            },
            stderr,
        ))
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        *self.exit.exit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits up to `limit` for it to end.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Exit> {
        let deadline = deadline::after(limit);
        let mut exit = self.exit.exit.lock().unwrap_or_else(PoisonError::into_inner);
        while exit.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            exit = self
                .exit
                .changed
                .wait_timeout(exit, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *exit
    }

    /// Kills it and waits until it is reaped.
    pub(crate) fn kill(&self) {
        // It may have ended already; then there is nothing to kill.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            let _ = keeper.join();
        }
    }
}

/// Makes what `command` starts end with the thread that starts it.
pub(crate) fn end_with_us(command: &mut Command) {
    let parent = rustix::process::getpid();
    #[expect(unsafe_code, reason = "the only way to set up a child between fork and exec")]
    // SAFETY: the closure makes system calls only, on a value prepared before; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || prepare_child(parent, &[]));
    }
}

/// The processor time that a process has used; `None` once it is gone.
pub(crate) fn cpu_time(id: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The command's name, in parentheses, may hold anything. `utime` and `stime` are fields 14 and 15, of `proc(5)`.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields
        .next()?
        .parse::<u64>()
        .ok()?
        .checked_add(fields.next()?.parse().ok()?)?;
    Some(Duration::from_millis(
        ticks.checked_mul(1000)? / rustix::param::clock_ticks_per_second(),
    ))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs in the child between fork and exec.
fn prepare_child(parent: Pid, fds: &[RawFd]) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        // The parent ended before it was asked for.
        return Err(io::Error::from_raw_os_error(
            rustix::io::Errno::SRCH.raw_os_error(),
        ));
    }
    for &fd in fds {
        #[expect(unsafe_code, reason = "the descriptors are owned by the thread that forked")]
        // SAFETY: the owner holds them open until this child has been started.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    }
    Ok(())
}

/// The process id, a descriptor of the process, and its standard error.
type Started = io::Result<(u32, OwnedFd, OwnedFd)>;

fn keep(mut command: Command, fds: Vec<OwnedFd>, started: &mpsc::Sender<Started>, ended: &Ended) {
    let spawned: io::Result<Child> = command.spawn();
    // Our copies, here and in the command, would keep the channels open after the VMM has gone.
    drop((fds, command));
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let stderr = child.stderr.take().map(OwnedFd::from).expect("it was asked for");
    // Before anything can reap it: afterwards the number may be another's.
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id is positive");
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => {
            let _ = started.send(Ok((child.id(), pidfd, stderr)));
        }
        Err(errno) => {
            let _ = child.kill();
            let _ = started.send(Err(errno.into()));
        }
    }
    let exit = match child.wait() {
        Ok(status) => Exit {
            code: status.code(),
            signal: status.signal(),
        },
        Err(_) => Exit {
            code: None,
            signal: None,
        },
    };
    *ended.exit.lock().unwrap_or_else(PoisonError::into_inner) = Some(exit);
    ended.changed.notify_all();
}
