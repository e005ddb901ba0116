//! System calls that rustix has no safe form for, and the one place with code for each processor.
//!
//! Everything else goes through rustix. Numbers and layouts are the kernel's, from `linux-raw-sys`.
#![expect(unsafe_code, reason = "raw system calls")]

use core::ffi::{CStr, c_char};
use core::ptr;

use linux_raw_sys::general as sys;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;

/// A system call with up to six arguments. Negative results are errors.
///
/// # Safety
/// The arguments must be what the call takes: pointers valid for what the kernel does with them.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: u32, args: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: by the caller's contract; `syscall` clobbers rcx and r11.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") number as usize => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    outcome(result)
}

/// A system call with up to six arguments. Negative results are errors.
///
/// # Safety
/// The arguments must be what the call takes: pointers valid for what the kernel does with them.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: u32, args: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: by the caller's contract.
    unsafe {
        core::arch::asm!("svc 0", in("x8") number as usize, inlateout("x0") args[0] => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3], in("x4") args[4], in("x5") args[5], options(nostack));
    }
    outcome(result)
}

fn outcome(result: isize) -> Result<usize, Errno> {
    if (-4095..0).contains(&result) {
        Err(Errno::from_raw_os_error(-result as i32))
    } else {
        Ok(result as usize)
    }
}

/// Maps fresh zeroed memory; null when there is none. `bytes` is a multiple of the page size.
pub fn map_memory(bytes: usize) -> *mut u8 {
    let protection = (sys::PROT_READ | sys::PROT_WRITE) as usize;
    let flags = (sys::MAP_PRIVATE | sys::MAP_ANONYMOUS) as usize;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let mapped = unsafe { call(sys::__NR_mmap, [0, bytes, protection, flags, usize::MAX, 0]) };
    mapped.map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
}

/// Unmaps memory.
///
/// # Safety
/// `block` must be a mapping of `bytes` bytes from [`map_memory`] that nothing uses any more.
pub unsafe fn unmap_memory(block: *mut u8, bytes: usize) {
    // SAFETY: by the caller's contract. The call fails only for arguments that break it.
    let _ = unsafe { call(sys::__NR_munmap, [block.expose_provenance(), bytes, 0, 0, 0, 0]) };
}

/// Resizes a mapping, moving it if need be; null when that fails, and the old one stays.
///
/// # Safety
/// `block` must be a mapping of `old` bytes from [`map_memory`].
pub unsafe fn remap_memory(block: *mut u8, old: usize, new: usize) -> *mut u8 {
    let flags = sys::MREMAP_MAYMOVE as usize;
    // SAFETY: by the caller's contract.
    let mapped = unsafe {
        call(
            sys::__NR_mremap,
            [block.expose_provenance(), old, new, flags, 0, 0],
        )
    };
    mapped.map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
}

/// A clock of the kernel's.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// Time since the kernel started, sleep included.
    Boottime,
    /// Time of day, since 1970.
    Realtime,
}

impl Clock {
    fn id(self) -> usize {
        match self {
            Clock::Boottime => sys::CLOCK_BOOTTIME as usize,
            Clock::Realtime => sys::CLOCK_REALTIME as usize,
        }
    }

    /// The clock's time in nanoseconds.
    pub fn now_ns(self) -> u64 {
        let mut time = [0i64; 2];
        // SAFETY: a timespec is two 64-bit numbers on the processors that we know.
        let read = unsafe {
            call(
                sys::__NR_clock_gettime,
                [self.id(), time.as_mut_ptr().addr(), 0, 0, 0, 0],
            )
        };
        match read {
            Ok(_) => (time[0] as u64)
                .wrapping_mul(1_000_000_000)
                .wrapping_add(time[1] as u64),
            Err(_) => 0,
        }
    }

    /// Sets the clock.
    pub fn set_ns(self, nanoseconds: u64) -> Result<(), Errno> {
        let time = [
            (nanoseconds / 1_000_000_000) as i64,
            (nanoseconds % 1_000_000_000) as i64,
        ];
        // SAFETY: as in `now_ns`; the kernel only reads.
        unsafe {
            call(
                sys::__NR_clock_settime,
                [self.id(), time.as_ptr().addr(), 0, 0, 0, 0],
            )
        }
        .map(drop)
    }
}

/// Ends the process.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: the call takes a number and does not return.
        let _ = unsafe { call(sys::__NR_exit_group, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

/// A copy of this process, in which it returns `None`. Only for a process with one thread.
pub fn fork() -> Result<Option<rustix::process::Pid>, Errno> {
    // SAFETY: `clone` without new stack or shared memory is a plain fork.
    let child = unsafe { call(sys::__NR_clone, [sys::SIGCHLD as usize, 0, 0, 0, 0, 0]) }?;
    Ok(rustix::process::Pid::from_raw(child as i32))
}

/// Strings as `execve` takes them: a null-terminated list of C strings.
#[derive(Debug, Default)]
pub struct StringList {
    strings: alloc::vec::Vec<alloc::ffi::CString>,
    pointers: alloc::vec::Vec<*const c_char>,
}

impl StringList {
    /// The list of these strings.
    pub fn new(strings: alloc::vec::Vec<alloc::ffi::CString>) -> StringList {
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect();
        StringList { strings, pointers }
    }

    /// The strings.
    pub fn strings(&self) -> &[alloc::ffi::CString] {
        &self.strings
    }
}

/// Becomes another program; returns only when that fails.
pub fn exec(path: &CStr, argv: &StringList, env: &StringList) -> Errno {
    let args = [
        path.as_ptr().addr(),
        argv.pointers.as_ptr().addr(),
        env.pointers.as_ptr().addr(),
        0,
        0,
        0,
    ];
    // SAFETY: all three are null-terminated and live until the call returns, if it does.
    match unsafe { call(sys::__NR_execve, args) } {
        Err(error) => error,
        Ok(_) => Errno::NOSYS,
    }
}

const SIGSET_BYTES: usize = 8;

/// Sets which signals wait instead of arriving: a bit each, signal 1 the lowest.
pub fn block_signals(mask: u64) {
    let args = [
        sys::SIG_SETMASK as usize,
        ptr::from_ref(&mask).addr(),
        0,
        SIGSET_BYTES,
        0,
        0,
    ];
    // SAFETY: the kernel reads 8 bytes.
    let _ = unsafe { call(sys::__NR_rt_sigprocmask, args) };
}

/// Gives every signal its default action, whatever this process inherited.
pub fn default_signal_actions() {
    /// `struct sigaction` of the kernel: handler, flags, restorer (x86_64) and mask.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..=64usize {
        let args = [signal, DEFAULT.as_ptr().addr(), 0, SIGSET_BYTES, 0, 0];
        // SAFETY: the kernel reads at most 32 bytes; the default action runs no code of ours.
        let _ = unsafe { call(sys::__NR_rt_sigaction, args) };
    }
}

/// Whether a blocked signal has come.
pub fn is_pending(signal: i32) -> bool {
    let mut pending = 0u64;
    let args = [
        ptr::from_mut(&mut pending).expose_provenance(),
        SIGSET_BYTES,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: the kernel writes 8 bytes.
    let asked = unsafe { call(sys::__NR_rt_sigpending, args) };
    asked.is_ok() && u32::try_from(signal - 1).is_ok_and(|bit| pending >> bit & 1 == 1)
}

/// A descriptor that gives the blocked signals of `mask` to read.
pub fn signal_descriptor(mask: u64) -> Result<OwnedFd, Errno> {
    let flags = (sys::O_CLOEXEC | sys::O_NONBLOCK) as usize;
    let args = [usize::MAX, ptr::from_ref(&mask).addr(), SIGSET_BYTES, flags, 0, 0];
    // SAFETY: the kernel reads 8 bytes and gives a descriptor that is ours alone.
    unsafe { call(sys::__NR_signalfd4, args).map(|fd| OwnedFd::from_raw_fd(fd as RawFd)) }
}

/// An `ioctl` whose argument is a structure of plain bytes, read and written in place. The length that the kernel takes
/// depends on the request alone: `bytes` must be that long.
pub(crate) fn ioctl_bytes(fd: impl AsFd, request: u32, bytes: &mut [u8]) -> Result<(), Errno> {
    let argument = bytes.as_mut_ptr().expose_provenance();
    let args = [
        fd.as_fd().as_raw_fd() as usize,
        request as usize,
        argument,
        0,
        0,
        0,
    ];
    // SAFETY: the callers, all in this crate, pass the length of the request's structure; none holds pointers.
    unsafe { call(sys::__NR_ioctl, args) }.map(drop)
}

/// Binds a vsock socket to a port of this machine, for connections from any CID.
pub fn bind_vsock(fd: BorrowedFd<'_>, port: u32) -> Result<(), Errno> {
    /// `struct sockaddr_vm`.
    #[repr(C)]
    struct Address {
        family: u16,
        reserved: u16,
        port: u32,
        cid: u32,
        flags_and_zero: [u8; 4],
    }
    let address = Address {
        family: 40,
        reserved: 0,
        port,
        cid: u32::MAX,
        flags_and_zero: [0; 4],
    };
    let args = [
        fd.as_raw_fd() as usize,
        ptr::from_ref(&address).addr(),
        size_of::<Address>(),
        0,
        0,
        0,
    ];
    // SAFETY: the kernel reads the address, which is as long as we say.
    unsafe { call(sys::__NR_bind, args) }.map(drop)
}

/// Becomes a user: supplementary groups, then group, then user.
///
/// The number that means "unchanged" to the kernel is refused.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Errno> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    let (uid, gid) = (uid as usize, gid as usize);
    // SAFETY: the kernel reads `groups`; the other calls take numbers.
    unsafe {
        call(
            sys::__NR_setgroups,
            [groups.len(), groups.as_ptr().addr(), 0, 0, 0, 0],
        )?;
        call(sys::__NR_setresgid, [gid, gid, gid, 0, 0, 0])?;
        call(sys::__NR_setresuid, [uid, uid, uid, 0, 0, 0])?;
    }
    Ok(())
}

/// Marks every descriptor from `first` on to close at the next `exec`; closes them where the kernel cannot mark.
pub fn close_on_exec_from(first: u32) {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    let (first, all) = (first as usize, u32::MAX as usize);
    // SAFETY: the call takes numbers; marking closes nothing now.
    let marked = unsafe { call(sys::__NR_close_range, [first, all, CLOSE_RANGE_CLOEXEC, 0, 0, 0]) };
    if marked.is_err() {
        for fd in first..1024 {
            // SAFETY: called at start, before any descriptor of ours exists.
            let _ = unsafe { call(sys::__NR_close, [fd, 0, 0, 0, 0, 0]) };
        }
    }
}

/// Closes every descriptor from `first` on. Only for a process that goes on without what they were.
pub fn close_from(first: u32) {
    close_from_but(first, &[]);
}

/// The same, but for some that stay open; their numbers rise.
pub fn close_from_but(first: u32, kept: &[RawFd]) {
    let mut first = first;
    for fd in kept.iter().filter_map(|fd| u32::try_from(*fd).ok()) {
        if fd > first {
            close_range(first, fd - 1);
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    let (first, last) = (first as usize, last as usize);
    // SAFETY: the call takes numbers; the callers, copies of the agent that use none of its descriptors, never touch them again.
    let closed = unsafe { call(sys::__NR_close_range, [first, last, 0, 0, 0, 0]) };
    if closed.is_err() {
        for fd in first..=last.min(16_383) {
            // SAFETY: as above.
            let _ = unsafe { call(sys::__NR_close, [fd, 0, 0, 0, 0, 0]) };
        }
    }
}

/// Standard input, output or error; whether it is open is for the call that uses it to find out.
pub fn standard(number: RawFd) -> BorrowedFd<'static> {
    debug_assert!((0..3).contains(&number));
    // SAFETY: this program opens 0, 1 and 2 at its start and never closes them.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Sends a signal to a process, or, when `process` is negative, to a process group, or to every process but this one and
/// init when it is -1.
pub fn kill(process: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: the call takes numbers.
    unsafe {
        call(
            sys::__NR_kill,
            [process as isize as usize, signal as usize, 0, 0, 0, 0],
        )
    }
    .map(drop)
}

/// Whether it is standard input, output or error.
pub fn is_standard(file: &OwnedFd) -> bool {
    file.as_raw_fd() < 3
}

/// Sleeps.
pub fn sleep_ms(milliseconds: u64) {
    let time = [
        (milliseconds / 1000) as i64,
        (milliseconds % 1000 * 1_000_000) as i64,
    ];
    // SAFETY: the kernel reads a timespec of two 64-bit numbers.
    let _ = unsafe { call(sys::__NR_nanosleep, [time.as_ptr().addr(), 0, 0, 0, 0, 0]) };
}
