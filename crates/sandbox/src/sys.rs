//! System calls that need `unsafe`, each behind a function that does not.
#![expect(
    unsafe_code,
    reason = "these calls have no safe form; each block says why it holds"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use libc::{c_int, c_long, c_ulong};

use crate::seccomp::Instruction;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Leaves the namespaces in `flags` for new ones.
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: the flags that callers pass make namespaces; none of them unshares memory or descriptors with other threads.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Side {
    Child,
    Parent {
        /// The child's number, in the parent's namespace.
        pid: i32,
        pidfd: OwnedFd,
    },
}

/// Forks into new namespaces. Only to be called while this process has one thread, which the keeper and its children always have.
pub(crate) fn clone(namespaces: c_int) -> io::Result<Side> {
    let mut pidfd: RawFd = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: without CLONE_VM the child has its own copy of memory, and with a null stack it goes on on the same one, as after
    // fork. There is one thread, so no lock is held by another. The kernel writes a descriptor to `pidfd`, which lives on.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone,
            c_long::from(flags),
            null,
            &raw mut pidfd,
            null,
            null,
        )
    })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: the kernel made the descriptor for us, and nobody else knows it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok(Side::Parent { pid, pidfd })
}

/// Closes descriptors from `first` on.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called before any of these descriptors is owned by a value of ours: they are what the process was started with.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            c_ulong::from(first),
            c_ulong::from(u32::MAX),
            0,
        )
    })
    .map(drop)
}

/// Marks descriptors from `first` on to be closed by [`exec`].
pub(crate) fn close_from_on_exec(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_ulong = 4;
    // SAFETY: it only sets a flag of descriptors.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            c_ulong::from(first),
            c_ulong::from(u32::MAX),
            CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}

/// Becomes another program; comes back only if that fails.
pub(crate) fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts
            .iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer, and the strings that they point to outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, as a forked child must: nothing of its parent's is flushed or removed.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: it takes a number and never returns.
    unsafe { libc::_exit(code) }
}

/// Default dispositions and no blocked signals: what a program expects to be started with.
pub(crate) fn reset_signals() {
    for signal in 1..65 {
        // SAFETY: SIG_DFL runs no code of ours; numbers that cannot be set are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero set is an empty one, and it lives through the call.
    unsafe {
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Ignores what a terminal or a service manager sends to a whole group: the keeper ends when its caller does.
pub(crate) fn ignore_interrupts() {
    for signal in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGPIPE,
    ] {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Nobody without more capabilities than this process may look into it, or end it by a debugger.
pub(crate) fn not_dumpable() -> io::Result<()> {
    // SAFETY: it takes numbers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into()).map(drop)
}

/// When the parent ends, the kernel kills this process.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: it takes numbers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }.into()).map(drop)
}

/// From now on this filter answers every system call. Needs `no_new_privs`.
pub(crate) fn install_filter(program: &mut [Instruction]) -> io::Result<()> {
    const SECCOMP_SET_MODE_FILTER: c_ulong = 1;
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies `len` instructions from `filter`, which is a slice of that length.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            0 as c_ulong,
            &raw const program,
        )
    })
    .map(drop)
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: it takes numbers and gives a descriptor that nobody else knows.
    let socket = unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into())?;
        OwnedFd::from_raw_fd(socket as RawFd)
    };
    // SAFETY: all zeros is a valid ifreq; the kernel reads name and flags of it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (at, byte) in b"lo".iter().enumerate() {
            request.ifr_name[at] = *byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        check(libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request).into()).map(drop)
    }
}

/// Makes `from` the descriptor number `to`.
pub(crate) fn move_to(from: &impl std::os::fd::AsRawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: `to` is 0, 1 or 2 of a process that is about to become another program: no value of ours owns them.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) }.into()).map(drop)
}

/// Takes a descriptor that this process was started with.
///
/// # Panics
/// If it is not one of the two that the keeper is started with.
pub(crate) fn inherited(fd: RawFd) -> OwnedFd {
    assert!(fd == 0 || fd == 1, "only these are promised");
    // SAFETY: the keeper's caller puts a socket at 0 and a folder at 1 (`host::spawn`), this is called once for each, and nothing else
    // in this process uses standard input or output.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Bounds of a process that later ones inherit.
pub(crate) fn limit(resource: rustix::process::Resource, most: u64) -> io::Result<()> {
    let held = rustix::process::getrlimit(resource);
    let most = held.maximum.map_or(most, |maximum| maximum.min(most));
    let limit = rustix::process::Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    Ok(rustix::process::setrlimit(resource, limit)?)
}
