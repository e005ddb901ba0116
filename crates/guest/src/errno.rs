//! Error numbers in words: there is no `strerror` here.

use alloc::string::String;

use rustix::io::Errno;

/// The error in words, or its number.
pub(crate) fn describe(error: Errno) -> String {
    let text = match error {
        Errno::PERM => "operation not permitted",
        Errno::NOENT => "no such file or directory",
        Errno::IO => "input/output error",
        Errno::NXIO => "no such device or address",
        Errno::TOOBIG => "argument list too long",
        Errno::NOEXEC => "not an executable for this machine",
        Errno::AGAIN => "resource temporarily unavailable",
        Errno::NOMEM => "out of memory",
        Errno::ACCESS => "permission denied",
        Errno::NOTBLK => "not a block device",
        Errno::BUSY => "device or resource busy",
        Errno::EXIST => "file exists",
        Errno::NODEV => "no such device",
        Errno::NOTDIR => "not a directory",
        Errno::ISDIR => "is a directory",
        Errno::INVAL => "invalid argument",
        Errno::NOSPC => "no space left on device",
        Errno::ROFS => "read-only file system",
        Errno::LOOP => "too many levels of symbolic links",
        Errno::NAMETOOLONG => "file name too long",
        Errno::NOSYS => "not in this kernel",
        Errno::ADDRINUSE => "address in use",
        Errno::ADDRNOTAVAIL => "no address of this machine",
        Errno::AFNOSUPPORT => "address family not in this kernel",
        Errno::NETUNREACH => "network unreachable",
        Errno::NOTEMPTY => "directory not empty",
        Errno::XDEV => "on another file system",
        Errno::CANCELED => "given up: not all of it came",
        Errno::FBIG => "file too large",
        Errno::ILSEQ => "not UTF-8",
        Errno::OVERFLOW => "too many entries",
        Errno::PIPE => "broken pipe",
        Errno::TXTBSY => "text file busy",
        other => return alloc::format!("errno {}", other.raw_os_error()),
    };
    alloc::format!("{text} (errno {})", error.raw_os_error())
}
