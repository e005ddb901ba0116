//! A socket, one disk behind it, and any number of clients.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::nbd::{NAME_LEN_MAX, serve_stream};
use crate::socket::Socket;
use crate::{ConnectionId, Disk, Ending, Event, Refusal, ServeError};

/// How long a stopped server lets clients take their last replies.
const GRACE: Duration = Duration::from_secs(2);
/// How long to wait before trying again where the host lacks something that others may give back.
const RETRY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// What a server offers, and how much it takes upon itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The export's name, at most 4096 bytes. The empty name always leads to the same disk.
    pub export_name: String,
    /// The most connections at a time.
    pub connections: usize,
    /// The most requests of one connection that are answered at a time; each takes a thread.
    pub requests: usize,
    /// How long a client may take until it asks for the disk.
    pub handshake_limit: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            export_name: String::new(),
            connections: 64,
            requests: 8,
            handshake_limit: Duration::from_secs(30),
        }
    }
}

/// A socket that a disk can be served at. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    socket: Socket,
    options: Options,
    stopper: Stopper,
}

/// Ends a server, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    /// Makes [`Server::serve`] end, also one that begins later.
    pub fn stop(&self) {
        // It fails only if it was told so 2^64 times.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    fn is_stopped(&self) -> bool {
        let mut asked = [PollFd::new(&*self.0, PollFlags::IN)];
        poll(
            &mut asked,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .is_ok_and(|ready| ready > 0)
    }
}

impl Server {
    /// Listens at `path`, with a socket that only this user may connect to. Clients wait until [`Server::serve`].
    ///
    /// # Errors
    /// If another program serves there, if there is something else of that name, or if the host refuses. A socket that was left
    /// behind is replaced.
    pub fn bind(path: &Path, options: Options) -> Result<Server, ServeError> {
        let len = options.export_name.len();
        if len > NAME_LEN_MAX {
            return Err(ServeError::NameTooLong {
                len,
                limit: NAME_LEN_MAX,
            });
        }
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let signal = signal.map_err(|errno| ServeError::Listen {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        let socket = Socket::bind(path)?;
        Ok(Server {
            socket,
            options,
            stopper: Stopper(Arc::new(signal)),
        })
    }

    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves `disk` until [`Stopper::stop`]; `report` hears what happens, from several threads.
    ///
    /// At the end clients have two seconds to take the replies to what they had asked for, and are hung up on then. It returns once
    /// no thread is in the disk any more: to be quick, make the disk's own waits end, too.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn serve(&self, disk: &dyn Disk, report: &(dyn Fn(Event) + Sync)) -> Result<(), ServeError> {
        let clients = Clients::default();
        std::thread::scope(|scope| {
            let outcome = self.accept_all(scope, disk, report, &clients);
            clients.end();
            outcome
        })
    }

    fn accept_all<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        disk: &'scope dyn Disk,
        report: &'scope (dyn Fn(Event) + Sync),
        clients: &'scope Clients,
    ) -> Result<(), ServeError> {
        let failed = |source| ServeError::Accept {
            path: self.socket.path().to_owned(),
            source,
        };
        let mut is_short = false;
        while self.wait(None).map_err(failed)? {
            let stream = match self.socket.listener().accept() {
                Ok((stream, _)) => stream,
                Err(error) if is_passing(&error) => continue,
                Err(source) if is_shortage(&source) => {
                    // Once, not ten times a second.
                    if !std::mem::replace(&mut is_short, true) {
                        report(Event::Refused {
                            reason: Refusal::Host { source },
                        });
                    }
                    if self.wait(Some(&RETRY)).map_err(failed)? {
                        continue;
                    }
                    break;
                }
                Err(source) => return Err(failed(source)),
            };
            is_short = false;
            if let Err(reason) = self.admit(scope, stream, disk, report, clients) {
                report(Event::Refused { reason });
            }
        }
        Ok(())
    }

    /// Waits for a client; with a limit, only for that long, whether there is one or not. Whether to go on.
    fn wait(&self, limit: Option<&Timespec>) -> io::Result<bool> {
        let wanted = if limit.is_some() {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        let mut asked = [
            PollFd::new(self.socket.listener(), wanted),
            PollFd::new(&*self.stopper.0, PollFlags::IN),
        ];
        match poll(&mut asked, limit) {
            Ok(_) | Err(Errno::INTR) => Ok(asked[1].revents().is_empty()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn admit<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        stream: UnixStream,
        disk: &'scope dyn Disk,
        report: &'scope (dyn Fn(Event) + Sync),
        clients: &'scope Clients,
    ) -> Result<(), Refusal> {
        let limit = self.options.connections;
        let client = clients.enter(stream, limit).ok_or(Refusal::TooMany { limit })?;
        let connection = client.id;
        let thread = Builder::new().name(format!("nbd {}", connection.0));
        let started = thread.spawn_scoped(scope, move || {
            report(Event::Connected { connection });
            let failed = |range, error| {
                report(Event::Failed {
                    connection,
                    range,
                    error,
                })
            };
            let (counts, mut ending) = serve_stream(&client.stream, disk, &self.options, &failed);
            if matches!(ending, Ending::HungUp) && self.stopper.is_stopped() {
                ending = Ending::Stopped;
            }
            // Its place is free before anyone hears of it.
            drop(client);
            report(Event::Ended {
                connection,
                counts,
                ending,
            });
        });
        started.map(drop).map_err(|source| Refusal::Host { source })
    }
}

/// Whether only the client failed that was to be accepted, or there was none.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}

/// Whether the host lacks descriptors or memory.
fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&errno))
}

/// The connections that there are.
#[derive(Default)]
struct Clients {
    state: Mutex<Streams>,
    changed: Condvar,
}

#[derive(Default)]
struct Streams {
    last: u64,
    streams: BTreeMap<u64, Arc<UnixStream>>,
}

/// A connection's place among them.
struct Client<'a> {
    id: ConnectionId,
    stream: Arc<UnixStream>,
    clients: &'a Clients,
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection its place, if there is one.
    fn enter(&self, stream: UnixStream, limit: usize) -> Option<Client<'_>> {
        let mut state = self.lock();
        if state.streams.len() >= limit {
            return None;
        }
        state.last = state.last.saturating_add(1);
        let id = ConnectionId(state.last);
        let stream = Arc::new(stream);
        state.streams.insert(id.0, Arc::clone(&stream));
        Some(Client {
            id,
            stream,
            clients: self,
        })
    }

    /// Takes no more requests from anyone, and hangs up on those who are still there after a while.
    fn end(&self) {
        let hang_up = |state: &Streams, how| {
            for stream in state.streams.values() {
                // Who is gone already need not be told.
                let _ = stream.shutdown(how);
            }
        };
        let state = self.lock();
        hang_up(&state, Shutdown::Read);
        let waited = self
            .changed
            .wait_timeout_while(state, GRACE, |state| !state.streams.is_empty());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        hang_up(&state, Shutdown::Both);
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        self.clients.lock().streams.remove(&self.id.0);
        self.clients.changed.notify_all();
    }
}
