//! The agent: JSON-RPC lines and framed jobs for many clients at once, on vsock, TCP and the mux. The contracts are
//! `docs/protocol-jsonrpc.md` and `docs/protocol-jobs.md`.
//!
//! - A *connection* is one client (`conn`): what it says and is told, and the jobs that it started.
//! - A *job* is one program that runs for a connection (`job`, `spawn`); it dies with it.
//! - An *exchange* is a connection's one framed job (`framed`): its work folder (`folder`), and its steps, a job each.
//! - The *serial* port carries connections as streams of the mux (`serial`).
//!
//! One loop around epoll serves them all and never waits for any. Bounds: a connection whose client does not read has its
//! jobs' pipes and its own input left unread once `conn::OUT_HIGH_BYTES` wait for it; output that is not streamed
//! is cut; standard input beyond `job::STDIN_HIGH_BYTES` stays with the client; all that waits together is bounded by `budget`.
//! Without descriptors nobody is let in.

mod budget;
mod conn;
mod entrypoint;
mod files;
mod folder;
mod framed;
mod job;
mod listen;
mod methods;
mod outbox;
mod poll;
mod serial;
mod sessions;
mod spawn;
mod stdin;
mod vitals;
mod work;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use firebrick_protocol::agent::{Shutdown, Signal};
use firebrick_protocol::{AGENT_PORT, JOB_PORT};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use crate::boot::Boot;
use crate::cmdline::Cmdline;
use crate::image::Image;
use crate::kernel::{self, Clock};
use crate::options::AgentOptions;
use crate::{errno, say};
use budget::Budget;
use conn::Conn;
use job::Job;
use poll::{Poller, Token, Watched};
use serial::Serial;

pub use listen::Service;
pub(crate) use serial::find_port as find_serial_port;

/// Clients beyond this wait, or take the place of one who is silent.
const MAX_CONNECTIONS: usize = 512;

/// How long answers may take to leave before the machine goes down.
const LAST_WORDS_NS: u64 = 200_000_000;

/// Why [`Agent::serve`] has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A client asked for it.
    Asked(Shutdown),
    /// A signal of this number asked for it.
    Signal(i32),
    /// The image's own program has ended.
    Entrypoint,
}

/// The agent's whole state.
pub struct Agent {
    poller: Poller,
    signals: OwnedFd,
    listeners: Vec<(Watched, Service)>,
    /// When to look at the listeners again, because there was no descriptor for a client.
    listen_again_at_ns: Option<u64>,
    /// The limit on descriptors that this process was started with, and that its programs get.
    open_files: Rlimit,
    serial: Option<Serial>,
    conns: BTreeMap<u32, Conn>,
    jobs: BTreeMap<u32, Job>,
    budget: Budget,
    /// How long a closing connection may take nothing.
    closing_ns: u64,
    /// Numbers connections and jobs; none is given out twice.
    last_number: u32,
    image: Image,
    boot: Boot,
    /// A client has asked something.
    has_answered: bool,
    is_init: bool,
    /// A child that must have ended before a job may start.
    wait_for: Option<i32>,
    /// The process of the image's own program, while it runs.
    entrypoint: Option<i32>,
    /// Why and until when at the latest we go on serving.
    ending: Option<(Ending, u64)>,
}

impl Agent {
    /// An agent that listens nowhere yet. From here on all signals come through its loop.
    ///
    /// # Errors
    /// The kernel's, when it has no epoll or signal descriptors to give.
    pub fn new(is_init: bool, image: Image, boot: Boot) -> Result<Agent, Errno> {
        kernel::block_signals(u64::MAX);
        let poller = Poller::new()?;
        let signals = kernel::signal_descriptor(u64::MAX)?;
        poller.watch(&signals, Token::Signals, epoll::EventFlags::IN)?;
        Ok(Agent {
            poller,
            signals,
            listeners: Vec::new(),
            listen_again_at_ns: None,
            open_files: raise_open_files(),
            serial: None,
            conns: BTreeMap::new(),
            jobs: BTreeMap::new(),
            budget: Budget::default(),
            closing_ns: conn::CLOSING_NS,
            last_number: 0,
            image,
            boot,
            has_answered: false,
            is_init,
            wait_for: None,
            entrypoint: None,
            ending: None,
        })
    }

    /// The record of the start, to add to.
    pub fn boot(&mut self) -> &mut Boot {
        &mut self.boot
    }

    /// Starts no job before the child `process` has ended.
    pub fn wait_before_jobs(&mut self, process: Option<i32>) {
        self.wait_for = process;
    }

    /// Waits for the child that jobs have to wait for.
    fn wait_for_child(&mut self) {
        let Some(pid) = self.wait_for.take().and_then(rustix::process::Pid::from_raw) else {
            return;
        };
        // Reaped elsewhere it has ended, too.
        while matches!(
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()),
            Err(Errno::INTR)
        ) {}
    }

    /// The number for a new connection or job.
    fn new_number(&mut self) -> u32 {
        self.last_number = self.last_number.wrapping_add(1);
        self.last_number
    }

    /// Serves until the end is asked for. Children of this process that are no job are reaped on the way.
    pub fn serve(&mut self) -> Ending {
        folder::sweep();
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(
                self.poller.descriptor(),
                rustix::buffer::spare_capacity(&mut events),
                self.patience().as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => crate::die(format_args!("epoll: {}", errno::describe(error))),
            }
            for event in &events {
                let (data, flags) = (event.data, event.flags);
                self.dispatch(Token::from_data(data), flags);
                self.weigh();
            }
            self.pass_time();
            self.listen_again();
            self.give_up_conns();
            self.drive_serial();
            self.relieve();
            if let Some((ending, deadline)) = &self.ending {
                let ending = ending.clone();
                if Clock::Boottime.now_ns() >= *deadline || self.conns.values().all(Conn::has_sent_all) {
                    self.kill_all_jobs();
                    self.end_all_exchanges();
                    return ending;
                }
            }
        }
    }

    /// How long the loop may sleep.
    fn patience(&self) -> Option<rustix::event::Timespec> {
        let ending = self.ending.as_ref().map(|(_, deadline)| *deadline);
        let deadline = self
            .jobs
            .values()
            .filter_map(Job::next_deadline)
            .chain(ending)
            .chain(self.listen_again_at_ns)
            .chain(self.budget_deadline())
            .chain(self.conns.values().filter_map(Conn::deadline))
            .min()?;
        let ns = deadline.saturating_sub(Clock::Boottime.now_ns());
        // A millisecond more than it takes: kernels without epoll_pwait2 round down.
        let ms = ns.div_ceil(1_000_000);
        Some(rustix::event::Timespec {
            tv_sec: (ms / 1000) as i64,
            tv_nsec: (ms % 1000 * 1_000_000) as _,
        })
    }

    fn dispatch(&mut self, token: Token, flags: epoll::EventFlags) {
        match token {
            Token::Signals => self.take_signals(),
            Token::Listener(index) => self.accept(index),
            Token::Serial => {
                if let Some(serial) = &mut self.serial {
                    serial.woken();
                }
            }
            Token::Conn(number) => self.conn_ready(number, flags),
            Token::JobStart(number) => self.job_start_ready(number),
            Token::JobStdin(number) => self.job_stdin_ready(number),
            Token::JobStdout(number) => drop(self.job_output_ready(number, job::STDOUT)),
            Token::JobStderr(number) => drop(self.job_output_ready(number, job::STDERR)),
        }
    }

    fn take_signals(&mut self) {
        const CHLD: u32 = 17;
        const INT: u32 = 2;
        const TERM: u32 = 15;
        const PWR: u32 = 30;
        const HUP: u32 = 1;
        const USR1: u32 = 10;
        const USR2: u32 = 12;
        const WINCH: u32 = 28;
        // `struct signalfd_siginfo` is 128 bytes and starts with the number.
        let mut infos = [0u8; 128 * 8];
        while let Ok(count @ 128..) = rustix::io::read(&self.signals, &mut infos[..]) {
            for info in infos[..count].chunks_exact(128) {
                let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                match number {
                    CHLD => {}
                    INT | TERM | PWR => self.end(Ending::Signal(number as i32)),
                    // To a PID 1 that runs no program of the image's these are busybox's `halt` and `poweroff`.
                    USR1 | USR2 if self.is_init && self.entrypoint.is_none() => {
                        self.end(Ending::Signal(number as i32));
                    }
                    HUP | USR1 | USR2 | WINCH if self.is_init => self.forward_signal(number as i32),
                    _ => {}
                }
            }
        }
        self.reap();
    }

    /// Passes a signal that was meant for the machine's programs on: to the image's own where it runs, else to the jobs.
    fn forward_signal(&mut self, number: i32) {
        if self.signal_entrypoint(number) {
            return;
        }
        let Some(signal) = Signal::new(number) else { return };
        for job in self.jobs.values() {
            job.signal(signal);
        }
    }

    fn end(&mut self, ending: Ending) {
        if self.ending.is_none() {
            self.ending = Some((ending, Clock::Boottime.now_ns().saturating_add(LAST_WORDS_NS)));
        }
    }

    /// Takes the exit status of every child that has ended. There is no other place that waits for children, so
    /// orphans and jobs cannot be taken for one another.
    fn reap(&mut self) {
        loop {
            match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let pid = pid.as_raw_nonzero().get();
                    self.wait_for.take_if(|child| *child == pid);
                    self.note_entrypoint_end(pid, status);
                    self.child_ended(pid, status);
                }
                Ok(None) | Err(Errno::CHILD) => return,
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Allows this process as many descriptors as it may have: each client takes one, and each job some. Gives the limit that
/// was there before.
fn raise_open_files() -> Rlimit {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    before
}

/// Runs the agent as an ordinary process until SIGTERM or SIGINT; gives the exit code.
pub fn run_as_process(options: &AgentOptions) -> i32 {
    let (image, problem) = Image::load();
    let mut boot = Boot::left();
    boot.stamp("agent_start");
    if let Some(problem) = problem {
        boot.warn(format_args!("{problem}"));
    }
    crate::init::open_standard_descriptors();
    kernel::close_on_exec_from(3);
    // What jobs leave behind is reaped here, too, however slow the machine's init is.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    match listen_as_process(options, image, boot) {
        Ok(mut agent) => {
            agent.boot().stamp("agent_listening");
            agent.serve();
            0
        }
        Err(problem) => {
            say(format_args!("{problem}"));
            1
        }
    }
}

/// Becomes the user that `spec` names. The ways in are open by then: the virtio-serial port is root's.
fn become_user(spec: &str) -> Result<(), String> {
    let user = crate::users::resolve(
        spec,
        &crate::file::text("/etc/passwd"),
        &crate::file::text("/etc/group"),
    )?;
    kernel::become_user(user.uid, user.gid, &user.groups)
        .map_err(|error| alloc::format!("cannot become user {spec}: {}", errno::describe(error)))
}

fn listen_as_process(options: &AgentOptions, image: Image, boot: Boot) -> Result<Agent, String> {
    let said = |what: &str, error| alloc::format!("{what}: {}", errno::describe(error));
    let mut agent = Agent::new(false, image, boot).map_err(|error| said("cannot start", error))?;
    if let Some(seconds) = options.closing_s {
        agent.closing_ns = u64::from(seconds).saturating_mul(1_000_000_000);
    }
    if let Some(address) = &options.tcp {
        let address = agent.listen_tcp(address)?;
        say(format_args!("listening on tcp {address}"));
    }
    if let Some(path) = &options.serial {
        agent.open_serial(path).map_err(|error| said(path, error))?;
        say(format_args!("listening on {path}"));
    }
    if options.everywhere {
        let ways = crate::init::listen(&mut agent, &Cmdline::of_this_machine());
        if ways == 0 && options.tcp.is_none() && options.serial.is_none() && !options.names_vsock() {
            // Whoever supervises us tries again: a device may come late.
            return Err("nowhere to listen".into());
        }
    }
    let chosen = options.everywhere || options.tcp.is_some() || options.serial.is_some();
    let by_default = |port| (!chosen && !options.names_vsock()).then_some(port);
    let ports = [
        (options.vsock_port.or(by_default(AGENT_PORT)), Service::Rpc),
        (options.job_port.or(by_default(JOB_PORT)), Service::Jobs),
    ];
    for (port, service) in ports {
        let Some(port) = port else { continue };
        match agent.listen_vsock(port, service) {
            Ok(()) => {}
            // Jobs alone are of use, too: beside an agent that answers there already, or for who may not have a port below 1024.
            Err(error @ (Errno::ADDRINUSE | Errno::ACCESS))
                if service == Service::Rpc && options.job_port.is_some() =>
            {
                let why = errno::describe(error);
                agent
                    .boot()
                    .warn(format_args!("vsock port {port}: {why}; jobs alone are served"));
                continue;
            }
            Err(error) => return Err(said(&alloc::format!("vsock port {port}"), error)),
        }
        say(format_args!("listening on vsock port {port}"));
    }
    if let Some(user) = &options.user {
        become_user(user)?;
    }
    Ok(agent)
}
