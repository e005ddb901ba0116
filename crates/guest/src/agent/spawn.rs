//! Starting a program: what is decided before the fork, what the child does, and how it says that it failed.

use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use firebrick_protocol::agent::TerminalSize;
use firebrick_protocol::rpc::RpcError;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit};
use rustix::pty::OpenptFlags;

use crate::errno;
use crate::kernel::{self, StringList};
use crate::users::User;

/// A program with all that it needs, so that the child allocates nothing.
pub(super) struct Command {
    /// Where the program may be, in order.
    pub(super) candidates: Vec<CString>,
    pub(super) argv: StringList,
    pub(super) env: StringList,
    pub(super) cwd: CString,
    pub(super) user: User,
    /// How many descriptors it may have, which is not what the agent allows itself.
    pub(super) open_files: Rlimit,
}

/// What was asked for, in words, for when it cannot be done.
#[derive(Default)]
pub(super) struct Asked {
    program: String,
    folder: String,
    uid: u32,
}

impl Command {
    pub(super) fn asked(&self) -> Asked {
        let program = self.argv.strings().first();
        Asked {
            program: program.map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            folder: self.cwd.to_string_lossy().into_owned(),
            uid: self.user.uid,
        }
    }
}

/// A process that is starting. Its other ends block; ours do not.
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    /// None on a terminal, where all output is one.
    pub(super) stderr: Option<OwnedFd>,
    /// Ends when the program runs; brings [`FAILURE_BYTES`] when it does not. A copy of the agent has none.
    pub(super) start: Option<OwnedFd>,
}

/// Length of a [`StartFailure`] on its way from the child.
pub(super) const FAILURE_BYTES: usize = 5;

/// What the child was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Setup,
    Folder,
    User,
    Program,
}

/// Why a program was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StartFailure {
    step: Step,
    errno: Errno,
}

impl StartFailure {
    fn to_bytes(self) -> [u8; FAILURE_BYTES] {
        let [a, b, c, d] = self.errno.raw_os_error().to_le_bytes();
        [self.step as u8, a, b, c, d]
    }

    pub(super) fn from_bytes([step, a, b, c, d]: [u8; FAILURE_BYTES]) -> StartFailure {
        let step = [Step::Setup, Step::Folder, Step::User]
            .into_iter()
            .find(|known| *known as u8 == step);
        let errno = Errno::from_raw_os_error(i32::from_le_bytes([a, b, c, d]));
        StartFailure {
            step: step.unwrap_or(Step::Program),
            errno,
        }
    }

    /// Whether all was well but the program itself.
    pub(super) fn is_of_program(self) -> bool {
        self.step == Step::Program
    }

    pub(super) fn in_words(self, asked: &Asked) -> String {
        let reason = errno::describe(self.errno);
        match self.step {
            Step::Setup => alloc::format!("cannot set up the process: {reason}"),
            Step::Folder => alloc::format!("cannot enter the folder {:?}: {reason}", asked.folder),
            Step::User => alloc::format!("cannot become user {}: {reason}", asked.uid),
            Step::Program => alloc::format!("cannot start {:?}: {reason}", asked.program),
        }
    }

    pub(super) fn to_error(self, asked: &Asked) -> RpcError {
        let mut error = RpcError::internal(self.in_words(asked), Some(self.errno.raw_os_error()));
        if self.step == Step::Folder {
            error.code = firebrick_protocol::rpc::INVALID_PARAMS;
        }
        error
    }
}

/// Forks a child that becomes the program. Whether it could is told on [`Child::start`].
pub(super) fn spawn(command: &Command, with_stdin: bool) -> Result<Child, Errno> {
    let (stdin, stdin_end) = if with_stdin {
        let (child_end, our_end) = pipe_with(PipeFlags::CLOEXEC)?;
        (child_end, Some(our_end))
    } else {
        (empty_input()?, None)
    };
    let (stdout_end, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr_end, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let (start_end, start) = pipe_with(PipeFlags::CLOEXEC)?;
    for end in stdin_end.iter().chain([&stdout_end, &stderr_end, &start_end]) {
        rustix::io::ioctl_fionbio(end, true)?;
    }
    let Some(pid) = kernel::fork()? else {
        let failure = become_program(command, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], false);
        let _ = rustix::io::write(&start, &failure.to_bytes());
        kernel::exit(127);
    };
    Ok(Child {
        pid: pid.as_raw_nonzero().get(),
        stdin: stdin_end,
        stdout: stdout_end,
        stderr: Some(stderr_end),
        start: Some(start_end),
    })
}

/// As [`spawn`], on a new terminal of that size, which is the session's own.
pub(super) fn spawn_on_terminal(
    command: &Command,
    size: TerminalSize,
    with_stdin: bool,
) -> Result<Child, Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    resize(&terminal, size);
    rustix::io::ioctl_fionbio(&master, true)?;
    // Each way of the same end is watched for itself.
    let typing = rustix::io::fcntl_dupfd_cloexec(&master, 3)?;
    let (start_end, start) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&start_end, true)?;
    let Some(pid) = kernel::fork()? else {
        let failure = become_program(command, [terminal.as_fd(); 3], true);
        let _ = rustix::io::write(&start, &failure.to_bytes());
        kernel::exit(127);
    };
    let stdin = if with_stdin {
        Some(typing)
    } else {
        // There is always somebody at a terminal; here they have left.
        let _ = rustix::io::write(&typing, &[4]);
        None
    };
    Ok(Child {
        pid: pid.as_raw_nonzero().get(),
        stdin,
        stdout: master,
        stderr: None,
        start: Some(start_end),
    })
}

/// Tells a terminal its size, and thereby the programs in its foreground.
pub(super) fn resize(terminal: impl AsFd, size: TerminalSize) {
    let _ = rustix::termios::tcsetwinsize(
        terminal,
        rustix::termios::Winsize {
            ws_row: size.rows,
            ws_col: size.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    );
}

/// Forks a copy of the agent that does `work` and ends with its exit code. It has three pipes and nothing else of ours.
pub(super) fn fork_work(with_stdin: bool, work: impl FnOnce() -> i32) -> Result<Child, Errno> {
    let (stdin, stdin_end) = if with_stdin {
        let (child_end, our_end) = pipe_with(PipeFlags::CLOEXEC)?;
        (child_end, Some(our_end))
    } else {
        (empty_input()?, None)
    };
    let (stdout_end, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr_end, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    for end in stdin_end.iter().chain([&stdout_end, &stderr_end]) {
        rustix::io::ioctl_fionbio(end, true)?;
    }
    let Some(pid) = kernel::fork()? else {
        let ready = rustix::stdio::dup2_stdin(&stdin)
            .and_then(|()| rustix::stdio::dup2_stdout(&stdout))
            .and_then(|()| rustix::stdio::dup2_stderr(&stderr))
            .and_then(|()| rustix::process::setsid().map(drop));
        if ready.is_err() {
            kernel::exit(127);
        }
        // Other clients' streams must not stay open because of us.
        kernel::close_from(3);
        rustix::process::umask(Mode::empty());
        kernel::exit(work());
    };
    Ok(Child {
        pid: pid.as_raw_nonzero().get(),
        stdin: stdin_end,
        stdout: stdout_end,
        stderr: Some(stderr_end),
        start: None,
    })
}

/// Standard input with nothing in it. An image may lack `/dev/null`; a pipe without writer ends at once, too.
fn empty_input() -> Result<OwnedFd, Errno> {
    let null = rustix::fs::open(
        "/dev/null",
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    );
    null.or_else(|_| pipe_with(PipeFlags::CLOEXEC).map(|(reader, _)| reader))
}

/// The child's part. It returns only when it has failed.
pub(super) fn become_program(
    command: &Command,
    [stdin, stdout, stderr]: [BorrowedFd<'_>; 3],
    on_terminal: bool,
) -> StartFailure {
    let step = |step| move |errno| StartFailure { step, errno };
    let prepare = || {
        kernel::default_signal_actions();
        kernel::block_signals(0);
        rustix::process::setsid().map_err(step(Step::Setup))?;
        // The ends are all above 2, since 0, 1 and 2 are open in the agent; copies stay open across `exec`.
        rustix::stdio::dup2_stdin(stdin).map_err(step(Step::Setup))?;
        rustix::stdio::dup2_stdout(stdout).map_err(step(Step::Setup))?;
        rustix::stdio::dup2_stderr(stderr).map_err(step(Step::Setup))?;
        if on_terminal {
            rustix::process::ioctl_tiocsctty(stdin).map_err(step(Step::Setup))?;
            // Programs that open their terminal by its name must be allowed to.
            let owner = rustix::fs::Uid::from_raw(command.user.uid);
            let _ = rustix::fs::fchown(stdin, Some(owner), None);
        }
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let _ = rustix::process::setrlimit(Resource::Nofile, command.open_files);
        rustix::process::chdir(command.cwd.as_c_str()).map_err(step(Step::Folder))?;
        let user = &command.user;
        if rustix::process::geteuid().is_root() {
            kernel::become_user(user.uid, user.gid, &user.groups).map_err(step(Step::User))?;
        } else if rustix::process::geteuid().as_raw() != user.uid {
            return Err(StartFailure {
                step: Step::User,
                errno: Errno::PERM,
            });
        }
        Ok(())
    };
    if let Err(failure) = prepare() {
        return failure;
    }
    let mut worst = Errno::NOENT;
    for candidate in &command.candidates {
        match kernel::exec(candidate, &command.argv, &command.env) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => worst = Errno::ACCESS,
            other => {
                return StartFailure {
                    step: Step::Program,
                    errno: other,
                };
            }
        }
    }
    StartFailure {
        step: Step::Program,
        errno: worst,
    }
}

/// Where a program of that name may be: itself if it has a slash, else in each folder of `path`.
pub(super) fn candidates(program: &CStr, path: &str) -> Vec<CString> {
    let name = program.to_bytes();
    if name.contains(&b'/') {
        return [program.into()].into();
    }
    path.split(':')
        .filter_map(|folder| {
            let folder = if folder.is_empty() { "." } else { folder };
            CString::new([folder.as_bytes(), b"/", name].concat()).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_path() {
        assert_eq!(
            candidates(c"ls", "/bin::/usr/bin"),
            [c"/bin/ls".into(), c"./ls".into(), CString::from(c"/usr/bin/ls")]
        );
        assert_eq!(candidates(c"./x/ls", "/bin"), [CString::from(c"./x/ls")]);
    }

    #[test]
    fn failures_survive_the_pipe() {
        for step in [Step::Setup, Step::Folder, Step::User, Step::Program] {
            let failure = StartFailure {
                step,
                errno: Errno::NOENT,
            };
            assert_eq!(StartFailure::from_bytes(failure.to_bytes()), failure);
        }
    }
}
