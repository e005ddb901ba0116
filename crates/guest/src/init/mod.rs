//! PID 1 of an image: sets the machine up, serves the agent, and ends the machine in order.
//!
//! Nothing here stops the start: what goes wrong is printed, kept for `status`, and gone past, because a guest that answers can be
//! asked what it lacks.

mod cgroups;
mod machine;
pub mod modules;
pub mod mounts;
pub mod network;
mod shutdown;

use core::ffi::CStr;

use firebrick_protocol::{AGENT_PORT, JOB_PORT};
use rustix::fd::IntoRawFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::agent::{Agent, Ending, Service, find_serial_port};
use crate::boot::Boot;
use crate::cmdline::Cmdline;
use crate::errno::describe;
use crate::image::Image;
use crate::kernel;

pub use machine::{SEED_BYTES, add_entropy, reseed};
pub use shutdown::{Exit, end_machine};

/// Runs as PID 1 until the machine ends.
pub fn run(environment: &[&CStr]) -> ! {
    run_after(Boot::from_environment(environment))
}

/// As [`run`], going on with a record that was begun.
pub fn run_after(mut boot: Boot) -> ! {
    boot.stamp("pid1_start");
    let had_console = open_standard_descriptors();
    kernel::close_on_exec_from(3);
    crate::overlay::lay_in_place(&mut boot);
    mounts::mount_all(&mut boot);
    if !had_console {
        use_console();
    }
    boot.stamp("mounts_done");
    let cmdline = Cmdline::of_this_machine();
    machine::take_ctrl_alt_del();
    machine::set_name(&cmdline, &mut boot);
    connect(&cmdline, &mut boot);
    let (image, problem) = Image::load();
    if let Some(problem) = problem {
        boot.warn(format_args!("{problem}"));
    }
    let mut agent = match Agent::new(true, image, boot) {
        Ok(agent) => agent,
        Err(error) => crate::die(format_args!("cannot start the agent: {}", describe(error))),
    };
    // From here on the agent hears of children that end.
    let mounting = cgroups::mount_in_child(&cmdline, agent.boot());
    agent.wait_before_jobs(mounting);
    listen(&mut agent, &cmdline);
    agent.boot().stamp("agent_listening");
    machine::seed_entropy(agent.boot());
    run_entrypoint(&mut agent, &cmdline);
    let ending = agent.serve();
    let grace_ms = match &ending {
        Ending::Asked(shutdown) => shutdown.grace_ms,
        _ => None,
    };
    agent.stop_entrypoint(grace_ms.unwrap_or(ENTRYPOINT_GRACE_MS));
    drop(agent);
    let configured = Exit::from_command_line(&cmdline);
    let (exit, grace_ms) = match ending {
        Ending::Asked(shutdown) => (shutdown.mode.map_or(configured, Exit::from), shutdown.grace_ms),
        Ending::Signal(2) => (Exit::Reboot, None), // Ctrl-Alt-Del
        Ending::Signal(_) | Ending::Entrypoint => (configured, None),
    };
    shutdown::shut_down(exit, grace_ms)
}

/// How long the image's program may take to end, where nobody says: as long as containers have.
const ENTRYPOINT_GRACE_MS: u64 = 10_000;

/// Clock, modules, network, and what names of hosts are known.
fn connect(cmdline: &Cmdline, boot: &mut Boot) {
    machine::set_clock(cmdline, boot);
    modules::load_configured(boot);
    network::set_up(cmdline, boot);
    network::hosts(boot);
    boot.stamp("network_up");
}

/// Does what PID 1 does before it serves, for an init that knows none of it; gives the exit code.
pub fn set_up_for_another_init() -> i32 {
    let mut boot = Boot::default();
    open_standard_descriptors();
    mounts::mount_all(&mut boot);
    let cmdline = Cmdline::of_this_machine();
    // The services of that init may have named it by now.
    if !machine::is_named() {
        machine::set_name(&cmdline, &mut boot);
    }
    connect(&cmdline, &mut boot);
    cgroups::mount(&cmdline, &mut boot);
    machine::seed_entropy(&mut boot);
    0
}

/// Starts the image's own program if the command line asks for it.
fn run_entrypoint(agent: &mut Agent, cmdline: &Cmdline) {
    match cmdline.value("firebrick.run") {
        None | Some("agent") => {}
        Some("entrypoint") => {
            if let Err(problem) = agent.start_entrypoint() {
                crate::die(format_args!("firebrick.run=entrypoint: {problem}"));
            }
            agent.boot().stamp("entrypoint_started");
        }
        Some(other) => agent.boot().warn(format_args!(
            "firebrick.run={other} is neither agent nor entrypoint"
        )),
    }
}

/// Opens every way in that the machine has, and counts them.
pub(crate) fn listen(agent: &mut Agent, cmdline: &Cmdline) -> usize {
    let mut ways = 0;
    if kernel_has_vsock() {
        for (port, service) in [(AGENT_PORT, Service::Rpc), (JOB_PORT, Service::Jobs)] {
            match agent.listen_vsock(port, service) {
                Ok(()) => ways += 1,
                Err(Errno::AFNOSUPPORT) => {}
                Err(error) => agent.boot().warn(format_args!(
                    "cannot listen on vsock port {port}: {}",
                    describe(error)
                )),
            }
        }
    }
    if let Some(path) = find_serial_port() {
        match agent.open_serial(&path) {
            Ok(()) => ways += 1,
            Err(error) => agent
                .boot()
                .warn(format_args!("cannot open {path}: {}", describe(error))),
        }
    }
    if let Some(address) = cmdline.value("firebrick.tcp") {
        match agent.listen_tcp(address) {
            Ok(_) => ways += 1,
            Err(problem) => agent.boot().warn(format_args!("{problem}")),
        }
    }
    if ways == 0 {
        let port = firebrick_protocol::SERIAL_PORT_NAME;
        agent.boot().warn(format_args!(
            "the agent cannot be reached: no vsock, no virtio-serial port {port:?}, no firebrick.tcp= on the kernel command line"
        ));
    }
    ways
}

/// Whether vsock is built in or loaded. Asking for a socket without it would have the kernel start the image's `modprobe`
/// first, and wait for it.
fn kernel_has_vsock() -> bool {
    let known = crate::file::text("/proc/net/protocols");
    known.is_empty() || known.lines().any(|line| line.starts_with("AF_VSOCK"))
}

/// Makes sure that 0, 1 and 2 are open, so that no other file gets these numbers. Says whether they were.
pub fn open_standard_descriptors() -> bool {
    let mut were_open = true;
    loop {
        let open = |path, flags| rustix::fs::open(path, flags, Mode::empty());
        let opened = open("/dev/console", OFlags::RDWR | OFlags::NOCTTY)
            .or_else(|_| open("/dev/null", OFlags::RDWR))
            .or_else(|_| open("/", OFlags::RDONLY));
        // Descriptors come in order: the first above 2 shows that the others are open, and closes here.
        match opened.map(|file| {
            if kernel::is_standard(&file) {
                Some(file.into_raw_fd())
            } else {
                None
            }
        }) {
            Ok(Some(_)) => were_open = false,
            Ok(None) | Err(_) => return were_open,
        }
    }
}

/// Talks to the console from now on, if there is one.
fn use_console() {
    if let Ok(console) = rustix::fs::open("/dev/console", OFlags::RDWR | OFlags::NOCTTY, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&console);
        let _ = rustix::stdio::dup2_stdout(&console);
        let _ = rustix::stdio::dup2_stderr(&console);
    }
}
