//! What makes a machine this machine: name, clock, randomness.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::boot::Boot;
use crate::cmdline::Cmdline;
use crate::errno::describe;
use crate::file;
use crate::kernel::{self, Clock};

/// A clock before this (2020-01-01) was never set.
const PLAUSIBLE_NS: u64 = 1_577_836_800 * 1_000_000_000;

/// What the kernel calls a machine that nobody has named.
pub(super) const NO_NAME: &str = "(none)";

/// Has Ctrl-Alt-Del become SIGINT to us, instead of an immediate reset.
pub(super) fn take_ctrl_alt_del() {
    let _ = rustix::system::reboot(rustix::system::RebootCommand::CadOff);
}

/// Whether somebody has named the machine.
pub(super) fn is_named() -> bool {
    rustix::system::uname().nodename().to_bytes() != NO_NAME.as_bytes()
}

/// Sets the machine's name.
pub(super) fn set_name(cmdline: &Cmdline, boot: &mut Boot) {
    let of_image = file::text("/etc/hostname");
    let name = cmdline
        .value("firebrick.hostname")
        .unwrap_or_else(|| of_image.lines().next().unwrap_or("").trim());
    if !name.is_empty()
        && let Err(error) = rustix::system::sethostname(name.as_bytes())
    {
        boot.warn(format_args!(
            "cannot set the host name {name:?}: {}",
            describe(error)
        ));
    }
}

/// Sets the clock, where it was never set.
pub(super) fn set_clock(cmdline: &Cmdline, boot: &mut Boot) {
    if let Some(text) = cmdline.value("firebrick.epoch")
        && Clock::Realtime.now_ns() < PLAUSIBLE_NS
    {
        match parse_epoch(text) {
            Some(ns) => {
                if let Err(error) = Clock::Realtime.set_ns(ns) {
                    boot.warn(format_args!("cannot set the clock: {}", describe(error)));
                }
            }
            None => boot.warn(format_args!("firebrick.epoch={text} is no number of seconds")),
        }
    }
}

/// Seconds since 1970, with or without a fraction, in nanoseconds.
fn parse_epoch(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = fraction.get(..fraction.len().min(9))?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scale = 10u64.pow(9 - u32::try_from(digits.len()).ok()?);
    let ns = digits.parse::<u64>().ok()?.checked_mul(scale)?;
    seconds
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(ns)
}

/// Gives the kernel's random generator what the host's random device has, so that nothing waits for it.
pub(super) fn seed_entropy(boot: &mut Boot) {
    let mut bytes = [0u8; SEED_BYTES];
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(device) = rustix::fs::open("/dev/hwrng", flags, Mode::empty()) else {
        return;
    };
    let Ok(count @ 1..) = rustix::io::read(&device, &mut bytes) else {
        return;
    };
    if let Err(error) = add_entropy(bytes.get(..count).unwrap_or_default()) {
        boot.warn(format_args!("cannot add randomness: {}", describe(error)));
    }
}

/// The most random bytes that are taken at once.
pub const SEED_BYTES: usize = 64;

/// Gives the kernel's random generator bytes that nobody else knows, at most [`SEED_BYTES`] of them.
///
/// # Errors
/// The kernel's; [`Errno::PERM`] for who is not root.
pub fn add_entropy(bytes: &[u8]) -> Result<(), Errno> {
    const RNDADDENTROPY: u32 = 0x4008_5203;
    // `struct rand_pool_info`: bits of entropy and number of bytes, as `int` each, then the bytes.
    let mut pool = [0u8; 8 + SEED_BYTES];
    let place = pool.get_mut(8..8 + bytes.len()).ok_or(Errno::INVAL)?;
    place.copy_from_slice(bytes);
    let count = u32::try_from(bytes.len()).unwrap_or(0);
    pool[..4].copy_from_slice(&count.saturating_mul(8).to_ne_bytes());
    pool[4..8].copy_from_slice(&count.to_ne_bytes());
    let random = open_random()?;
    kernel::ioctl_bytes(&random, RNDADDENTROPY, &mut pool)
}

/// Has the kernel's random generator begin anew from what it was given, at once and not after its usual minutes.
///
/// # Errors
/// As [`add_entropy`].
pub fn reseed() -> Result<(), Errno> {
    const RNDRESEEDCRNG: u32 = 0x5207;
    kernel::ioctl_bytes(open_random()?, RNDRESEEDCRNG, &mut [])
}

fn open_random() -> Result<rustix::fd::OwnedFd, Errno> {
    rustix::fs::open("/dev/urandom", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs() {
        assert_eq!(parse_epoch("1700000000"), Some(1_700_000_000_000_000_000));
        assert_eq!(parse_epoch("1.5"), Some(1_500_000_000));
        assert_eq!(parse_epoch("1.0000000019"), Some(1_000_000_001));
        for text in [
            "",
            ".",
            "1.",
            "1.x",
            "-1",
            "x",
            "99999999999999999999",
            "20000000000",
            "1.1é1111111",
        ] {
            assert_eq!(parse_epoch(text), None, "{text}");
        }
    }
}
