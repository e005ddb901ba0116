//! vsock through the host's `vhost_vsock` module: the guest has an address (CID), and its ports are dialled directly.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::deadline;
use crate::machine::{Port, ended, not_listening};

const DEVICE: &str = "/dev/vhost-vsock";
/// How long to wait before a port that does not answer is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// An address for a guest if this host has vhost-vsock and we may use it.
pub(super) fn available() -> Option<u32> {
    std::fs::File::options()
        .read(true)
        .write(true)
        .open(DEVICE)
        .ok()?;
    let mut random = [0; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).ok()?;
    // 0 to 2 are taken, and the highest one means "any". Two machines of one host meet once in a billion launches.
    Some(3 + u32::from_le_bytes(random) % 0x7fff_fff0)
}

/// Connects to a port of the guest `cid`, waiting up to `limit` until it listens there.
pub(super) fn dial(
    cid: u32,
    port: Port,
    limit: Duration,
    has_ended: &dyn Fn() -> bool,
) -> io::Result<OwnedFd> {
    let deadline = deadline::after(limit);
    loop {
        match connect(cid, port) {
            Ok(fd) => return Ok(fd),
            Err(_) if has_ended() => return Err(ended()),
            // No driver yet, nothing listening yet, or no answer within the kernel's own two seconds.
            Err(
                Errno::CONNRESET
                | Errno::CONNREFUSED
                | Errno::NODEV
                | Errno::TIMEDOUT
                | Errno::INTR
                | Errno::HOSTUNREACH,
            ) if Instant::now() < deadline => {}
            Err(Errno::CONNRESET | Errno::CONNREFUSED | Errno::NODEV | Errno::TIMEDOUT) => {
                return Err(not_listening(port));
            }
            Err(errno) => return Err(errno.into()),
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

fn connect(cid: u32, port: Port) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::VSOCK,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&socket, &VmAddress::new(cid, port))?;
    Ok(socket)
}

/// The kernel's `struct sockaddr_vm` (`linux/vm_sockets.h`), fields without their `svm_`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct VmAddress {
    family: u16,
    reserved1: u16,
    port: u32,
    cid: u32,
    flags: u8,
    zero: [u8; 3],
}

const _: () = assert!(size_of::<VmAddress>() == 16);

impl VmAddress {
    fn new(cid: u32, port: Port) -> VmAddress {
        VmAddress {
            family: AddressFamily::VSOCK.as_raw(),
            reserved1: 0,
            port: port.0,
            cid,
            flags: 0,
            zero: [0; 3],
        }
    }
}

#[expect(unsafe_code, reason = "rustix knows no vsock addresses of its own")]
// SAFETY: the pointer is to a whole `sockaddr_vm`, which lives until `f` returns, and the length is its own.
unsafe impl SocketAddrArg for VmAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_laid_out_as_the_kernel_has_them() {
        let address = VmAddress::new(0x0102_0304, Port(52));
        assert_eq!(address.family, 40);
        assert_eq!(std::mem::offset_of!(VmAddress, port), 4);
        assert_eq!(std::mem::offset_of!(VmAddress, cid), 8);
        assert_eq!((address.port, address.cid, address.flags), (52, 0x0102_0304, 0));
    }
}
