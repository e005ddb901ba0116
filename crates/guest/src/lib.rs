//! PID 1 and agent inside the microVM: one small static program without libc.
//!
//! It runs in one of four *modes*:
//!
//! - *stage 1*, as `/init` of firebrick's initramfs: loads modules, mounts the image's root, switches to it ([`stage1`]);
//! - *init*, as PID 1 of the image: mounts what Linux needs, names and connects the machine, serves the agent and ends
//!   the machine in order ([`init`]);
//! - *overlay-init*, as PID 1 for a moment: makes a read-only root writable and becomes the image's init ([`overlay`]);
//! - *agent*, as an ordinary process under another init or on a developer's machine ([`agent`]).
//!
//! Everything is single-threaded. The agent is one loop around epoll; nothing in it waits for a client or a job.
//! The library holds all of the program but its entry point, so that it can be tested with a standard library around it.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod agent;
pub mod boot;
pub mod cmdline;
mod errno;
mod file;
pub mod heap;
pub mod image;
pub mod init;
pub mod kernel;
pub mod options;
pub mod overlay;
pub mod stage1;
pub mod users;
pub mod version;

use core::ffi::CStr;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

pub use kernel::exit;

/// Where the program lies in an image.
pub const PROGRAM: &str = "/usr/lib/firebrick/firebrick-guest";

/// Runs the program: `arguments` with its own name first, `environment` as `NAME=VALUE`. Gives the exit code.
pub fn run(arguments: &[&CStr], environment: &[&CStr]) -> i32 {
    let mode = match options::Mode::parse(arguments) {
        Ok(mode) => mode,
        Err(problem) => {
            say(format_args!("{problem}\n{}", options::USAGE));
            return 2;
        }
    };
    match mode {
        options::Mode::Help => {
            let _ = rustix::io::write(kernel::standard(1), options::USAGE.as_bytes());
            0
        }
        options::Mode::Agent(options) => agent::run_as_process(&options),
        options::Mode::SetUp => init::set_up_for_another_init(),
        options::Mode::Stage1 => {
            ENDS_THE_MACHINE.store(true, Ordering::Relaxed);
            stage1::run(environment)
        }
        options::Mode::Overlay => {
            ENDS_THE_MACHINE.store(true, Ordering::Relaxed);
            overlay::run_before_init(arguments, environment)
        }
        options::Mode::Init => {
            ENDS_THE_MACHINE.store(true, Ordering::Relaxed);
            init::run(environment)
        }
    }
}

/// Whether this process is init, whose end would panic the kernel.
static ENDS_THE_MACHINE: AtomicBool = AtomicBool::new(false);

/// Writes a line to standard error, which for PID 1 is the console.
pub fn say(message: fmt::Arguments<'_>) {
    let line = alloc::format!("firebrick-guest: {message}\n");
    let mut rest = line.as_bytes();
    while let Ok(count @ 1..) = rustix::io::write(kernel::standard(2), rest) {
        rest = rest.get(count..).unwrap_or_default();
    }
}

/// Says that the program cannot go on, and ends it: as init by ending the machine.
pub fn die(message: fmt::Arguments<'_>) -> ! {
    say(format_args!("fatal: {message}"));
    if ENDS_THE_MACHINE.load(Ordering::Relaxed) {
        init::end_machine(init::Exit::from_kernel_command_line());
    }
    exit(125)
}
