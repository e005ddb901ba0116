//! The guest's serial console, joined to stdin and stdout.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use firebrick_protocol::agent::{Exec, Shutdown, ShutdownMode};
use firebrick_vmm::client::Client;
use firebrick_vmm::interrupts::Interrupts;
use firebrick_vmm::{Exit, Machine, Port};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::escape::{Command, Escapes, HELP};
use super::terminal::{Size, Terminal};
use crate::talk::Talk;

/// How long the end of the console may take to be read where somebody wants to leave; otherwise it has as long as it takes.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long a guest may take to end in order.
const GRACE: Duration = Duration::from_secs(5);
/// How long an attempt to reach the agent may take, and the wait for its answer.
const ATTEMPT: Duration = Duration::from_millis(300);

/// How long a guest that takes in no key is waited for.
const DEAF_AFTER: Duration = Duration::from_secs(1);

/// Why the console is left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This signal came.
    Interrupted { signal: i32 },
    /// The escape key was pressed.
    Escaped,
    /// Nobody reads what the console prints any more.
    Unread,
    /// The machine has ended.
    Machine(Exit),
}

/// Joins the console to stdin and stdout until the machine ends, a signal or the escape key comes, or nobody reads any more. Who
/// interrupts it gives the guest a moment to end in order, of which it is told how; doing so twice ends it at once. `more` is said
/// to who begins.
pub(super) fn attach(
    machine: &dyn Machine,
    interrupts: &Interrupts,
    talk: &Talk,
    more: Option<&str>,
    how: ShutdownMode,
) -> anyhow::Result<End> {
    let console = machine.attach_console().context("cannot attach to the console")?;
    let typed = console.try_clone().context("cannot attach to the console")?;
    let mut terminal = Terminal::raw()?;
    match &terminal {
        Some(_) => talk.say("Ctrl-A x ends the VM, Ctrl-A h tells more\r"),
        None => talk.say("Ctrl-C ends the VM"),
    }
    if let Some(more) = more {
        talk.say(&format!("{more}{}", if terminal.is_some() { "\r" } else { "" }));
    }
    let commands = type_in(typed, terminal.is_some())?;
    let unread = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&unread);
    let shown = std::thread::Builder::new()
        .name("console output".into())
        .spawn(move || tell.store(show(File::from(console)).is_err(), Ordering::Relaxed))
        .context("cannot start a thread")?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if let Some(sizes) = terminal.as_mut().and_then(Terminal::sizes) {
            let over = &over;
            scope.spawn(move || pass_sizes(machine, &sizes, over));
        }
        let watch = Watch {
            machine,
            interrupts,
            commands,
            how,
        };
        let end = watch.until_the_end(&unread);
        watch.until_it_is_read(matches!(end, Ok(End::Machine(_))), &|| shown.is_finished());
        drop(terminal.take());
        over.store(true, Ordering::Relaxed);
        end
    })
}

struct Watch<'a> {
    machine: &'a dyn Machine,
    interrupts: &'a Interrupts,
    commands: Receiver<Command>,
    how: ShutdownMode,
}

impl Watch<'_> {
    fn until_the_end(&self, unread: &AtomicBool) -> anyhow::Result<End> {
        loop {
            if let Some(end) = self.interrupted() {
                self.end_in_order();
                return Ok(end);
            }
            let waited = self.machine.wait(Duration::from_millis(50));
            if let Some(exit) = waited.context("cannot wait for the machine")? {
                return Ok(End::Machine(exit));
            }
            if unread.load(Ordering::Relaxed) {
                return Ok(End::Unread);
            }
        }
    }

    /// Waits for who reads what an ended machine has printed: he may be slow, and may give up.
    fn until_it_is_read(&self, to_the_end: bool, is_read: &dyn Fn() -> bool) {
        let started = Instant::now();
        let has_ended = || matches!(self.machine.wait(Duration::ZERO), Ok(Some(_)));
        while has_ended() && !is_read() && (to_the_end || started.elapsed() < LAST_LINES) {
            if self.interrupted().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn interrupted(&self) -> Option<End> {
        if let Some(signal) = self.interrupts.take() {
            return Some(End::Interrupted { signal });
        }
        match self.commands.try_recv() {
            Ok(Command::End) => Some(End::Escaped),
            Ok(Command::Help) => {
                let _ = write!(io::stderr(), "\r\n{}\r\n", HELP.replace('\n', "\r\n"));
                None
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// Asks the guest to end, and waits a moment for it: what it has written to drives should be whole.
    fn end_in_order(&self) {
        let ask = Shutdown {
            mode: Some(self.how),
            grace_ms: Some(2000),
        };
        let asked = self
            .machine
            .dial(Port::AGENT, ATTEMPT)
            .ok()
            .and_then(|stream| Client::new(stream).ok())
            .is_some_and(|mut client| client.shutdown(ask.clone(), ATTEMPT).is_ok());
        // Where no agent listens the keyboard may be heeded; only Firecracker's machines have one that we can press.
        if !asked && self.machine.press_ctrl_alt_del().is_err() {
            return;
        }
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && self.interrupted().is_none() {
            if !matches!(self.machine.wait(Duration::from_millis(20)), Ok(None)) {
                return;
            }
        }
    }
}

/// Passes on what is typed. The thread ends with the process: nothing can interrupt a read of stdin.
fn type_in(console: OwnedFd, has_escapes: bool) -> anyhow::Result<Receiver<Command>> {
    let (sender, commands) = mpsc::channel();
    std::thread::Builder::new()
        .name("console input".into())
        .spawn(move || match has_escapes {
            true => type_with_escapes(console, &sender),
            false => drop(io::copy(&mut io::stdin().lock(), &mut File::from(console))),
        })
        .context("cannot start a thread")?;
    Ok(commands)
}

fn type_with_escapes(console: OwnedFd, commands: &Sender<Command>) {
    let mut escapes = Escapes::default();
    let mut typing = Typing {
        console,
        patience: DEAF_AFTER,
        is_deaf: false,
    };
    let mut buffer = [0; 1024];
    while let Ok(len @ 1..) = io::stdin().lock().read(&mut buffer) {
        let (through, found) = escapes.take(&buffer[..len]);
        for command in found {
            let _ = commands.send(command);
        }
        if typing.pass_on(&through).is_err() {
            return;
        }
    }
}

/// What is typed, on its way to the guest.
struct Typing {
    /// A socket.
    console: OwnedFd,
    /// How long a guest may take in nothing until it counts as deaf.
    patience: Duration,
    is_deaf: bool,
}

impl Typing {
    /// Passes it on; what a deaf guest has no room for is lost to it, because the escape key must be heeded all the same.
    fn pass_on(&mut self, mut typed: &[u8]) -> io::Result<()> {
        while !typed.is_empty() {
            match send(&self.console, typed, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => {
                    self.is_deaf = false;
                    typed = typed.get(len..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.is_deaf || !self.has_room_in_time()? => {
                    self.is_deaf = true;
                    return Ok(());
                }
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn has_room_in_time(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.console, PollFlags::OUT)];
        let limit = Timespec::try_from(self.patience).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => Ok(false),
            Ok(_) | Err(Errno::INTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Shows the console to its end; an error is that nobody reads it.
fn show(mut console: File) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let mut buffer = [0; 8192];
    while let Ok(len @ 1..) = console.read(&mut buffer) {
        stdout.write_all(&buffer[..len])?;
        stdout.flush()?;
    }
    Ok(())
}

/// A serial line does not carry the window's size, so the agent is asked to set it, where there is one and the image has `stty`.
fn pass_sizes(machine: &dyn Machine, sizes: &Receiver<Size>, over: &AtomicBool) {
    let mut client: Option<Client> = None;
    let mut wanted = None;
    while !over.load(Ordering::Relaxed) {
        // While one is not yet set the next may come; only the last counts.
        let patience = if wanted.is_none() { ATTEMPT } else { Duration::ZERO };
        match sizes.recv_timeout(patience) {
            Ok(size) => wanted = Some(size),
            Err(RecvTimeoutError::Timeout) if wanted.is_none() => continue,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if client.is_none() {
            client = machine
                .dial(Port::AGENT, ATTEMPT)
                .ok()
                .and_then(|stream| Client::new(stream).ok());
        }
        let Some((agent, (rows, columns))) = client.as_mut().zip(wanted) else {
            continue;
        };
        let command = format!("stty -F /dev/console rows {rows} columns {columns}");
        let exec = Exec {
            cmd: Some(command),
            ..Exec::default()
        };
        match agent.exec(exec, Duration::from_secs(5)) {
            Ok(_) => wanted = None,
            Err(firebrick_vmm::client::CallError::Refused { .. }) => wanted = None,
            Err(_) => client = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_guest_that_takes_in_nothing_does_not_hold_the_keys_up() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let mut typing = Typing {
            console: ours.into(),
            patience: Duration::from_millis(200),
            is_deaf: false,
        };
        let keys = vec![b'k'; 4 << 20];
        // It is waited for once.
        let started = Instant::now();
        for part in keys.chunks(1024) {
            typing.pass_on(part).unwrap();
        }
        assert!(typing.is_deaf && started.elapsed() < Duration::from_secs(60));
        // What was taken in comes, and so does what is typed once there is room again.
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            guest.read_to_end(&mut read).map(|_| read)
        });
        while typing.is_deaf {
            typing.pass_on(b".").unwrap();
        }
        typing.patience = Duration::from_secs(60);
        typing.pass_on(&keys).unwrap();
        drop(typing);
        let read = reader.join().unwrap().unwrap();
        assert!(read.len() > keys.len() && read.ends_with(&keys));
    }
}
