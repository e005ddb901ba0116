//! The end of the machine: processes first, then file systems, then power.

use firebrick_protocol::agent::ShutdownMode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use crate::cmdline::Cmdline;
use crate::errno::describe;
use crate::kernel::{self, Clock};
use crate::say;

/// How long processes have between SIGTERM and SIGKILL, where nobody says.
const GRACE_MS: u64 = 2000;

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By ACPI or PSCI.
    Poweroff,
    /// Firecracker on x86_64 has no power-off and takes a restart as the end, as does QEMU with `-no-reboot`.
    Reboot,
}

impl Exit {
    /// What `firebrick.exit=` says; power-off where it says nothing.
    pub fn from_command_line(cmdline: &Cmdline) -> Exit {
        match cmdline.value("firebrick.exit") {
            Some("reboot") => Exit::Reboot,
            _ => Exit::Poweroff,
        }
    }

    /// As [`Exit::from_command_line`], for when nothing else is known any more.
    pub fn from_kernel_command_line() -> Exit {
        Exit::from_command_line(&Cmdline::of_this_machine())
    }
}

impl From<ShutdownMode> for Exit {
    fn from(mode: ShutdownMode) -> Exit {
        match mode {
            ShutdownMode::Poweroff => Exit::Poweroff,
            ShutdownMode::Reboot => Exit::Reboot,
        }
    }
}

/// Ends everything in order.
pub(super) fn shut_down(exit: Exit, grace_ms: Option<u64>) -> ! {
    const EVERYTHING: i32 = -1;
    const TERM: i32 = 15;
    const CONT: i32 = 18;
    const KILL: i32 = 9;
    let _ = kernel::kill(EVERYTHING, TERM);
    let _ = kernel::kill(EVERYTHING, CONT); // a stopped process must run to end itself
    if !all_ended(grace_ms.unwrap_or(GRACE_MS)) {
        say(format_args!("killing processes that did not end"));
        let _ = kernel::kill(EVERYTHING, KILL);
        all_ended(1000);
    }
    rustix::fs::sync();
    leave_file_systems();
    end_machine(exit)
}

/// Makes the disks read-only, so that nothing on them is half-written, and unmounts them, newest first. The root comes before all,
/// since an overlay writes to its disk even where that is not mounted any more.
fn leave_file_systems() {
    let read_only = |target: &str| {
        if let Err(error) = mount_remount(target, MountFlags::RDONLY, c"") {
            say(format_args!(
                "cannot make {target} read-only: {}",
                describe(error)
            ));
        }
    };
    let mounted = super::mounts::mounted();
    read_only("/");
    for (_, target, _) in mounted
        .iter()
        .rev()
        .filter(|(device, ..)| device.starts_with("/dev/"))
    {
        if target != "/" {
            read_only(target);
            let _ = unmount(target.as_str(), UnmountFlags::empty());
        }
    }
}

/// Waits until this process has no children, and so the machine no processes, for at most so long.
fn all_ended(limit_ms: u64) -> bool {
    let deadline = Clock::Boottime
        .now_ns()
        .saturating_add(limit_ms.saturating_mul(1_000_000));
    loop {
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return true,
            Ok(Some(_)) => continue,
            Ok(None) | Err(_) => {}
        }
        if Clock::Boottime.now_ns() >= deadline {
            return false;
        }
        kernel::sleep_ms(2);
    }
}

/// Ends the machine now. Never returns, so that the kernel does not lose its init.
pub fn end_machine(exit: Exit) -> ! {
    rustix::fs::sync();
    let (wanted, other) = match exit {
        Exit::Poweroff => (RebootCommand::PowerOff, RebootCommand::Restart),
        Exit::Reboot => (RebootCommand::Restart, RebootCommand::PowerOff),
    };
    let _ = reboot(wanted);
    let _ = reboot(other);
    // Only in a container, whose init may end.
    kernel::exit(1)
}
