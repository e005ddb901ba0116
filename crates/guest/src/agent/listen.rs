//! Where clients come in: TCP and vsock.

use alloc::string::String;
use core::net::SocketAddr;
use core::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::conn::{Conn, Speech, Transport};
use super::poll::{Token, Watched};
use super::{Agent, MAX_CONNECTIONS};
use crate::errno;
use crate::kernel::Clock;

const BACKLOG: i32 = 128;

/// How long nobody is let in after there was no descriptor for a client. Descriptors come free here, when clients and jobs
/// end, and anywhere else; a listener that is watched meanwhile would wake the loop without end.
const REST_NS: u64 = 50_000_000;

/// A client that says nothing for so long, and for whom nothing runs, makes place for another when there are too many.
const SILENT_NS: u64 = 2_000_000_000;

/// A TCP client that says nothing is asked after so long whether it is there, and then so often.
const KEEP_IDLE: Duration = Duration::from_secs(30);
const KEEP_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_COUNT: u32 = 3;

/// What clients that come in somewhere speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// JSON-RPC, a line each.
    Rpc,
    /// Framed jobs.
    Jobs,
    /// Either; the first byte tells.
    Both,
}

impl Service {
    pub(super) fn speech(self) -> Speech {
        match self {
            Service::Rpc => Speech::lines(),
            Service::Jobs => Speech::frame(),
            Service::Both => Speech::Either,
        }
    }
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

impl Agent {
    /// Listens for both services on `ADDRESS:PORT` and gives the address with the port that it became.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn listen_tcp(&mut self, address: &str) -> Result<SocketAddr, String> {
        let parsed: SocketAddr = address
            .parse()
            .map_err(|_| alloc::format!("{address:?} is no ADDRESS:PORT, such as 127.0.0.1:52"))?;
        let listen = || {
            let family = if parsed.is_ipv4() {
                AddressFamily::INET
            } else {
                AddressFamily::INET6
            };
            let socket = rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None)?;
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &parsed)?;
            rustix::net::listen(&socket, BACKLOG)?;
            let bound = rustix::net::getsockname(&socket)?;
            Ok((socket, SocketAddr::try_from(bound).unwrap_or(parsed)))
        };
        let (socket, bound) = listen().map_err(|error: Errno| {
            alloc::format!("cannot listen on {address}: {}", errno::describe(error))
        })?;
        self.add_listener(socket, Service::Both)
            .map_err(errno::describe)?;
        Ok(bound)
    }

    /// Listens on a vsock port, for any peer.
    ///
    /// # Errors
    /// The kernel's; [`Errno::AFNOSUPPORT`] where it has no vsock.
    pub fn listen_vsock(&mut self, port: u32, service: Service) -> Result<(), Errno> {
        let socket = rustix::net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, FLAGS, None)?;
        crate::kernel::bind_vsock(socket.as_fd(), port)?;
        rustix::net::listen(&socket, BACKLOG)?;
        self.add_listener(socket, service)
    }

    fn add_listener(&mut self, socket: OwnedFd, service: Service) -> Result<(), Errno> {
        let index = u32::try_from(self.listeners.len()).map_err(|_| Errno::MFILE)?;
        let mut socket = Watched::new(socket, Token::Listener(index));
        socket.set(&self.poller, EventFlags::IN);
        self.listeners.push((socket, service));
        Ok(())
    }

    pub(super) fn accept(&mut self, index: u32) {
        // Not all at once: others wait, too.
        for _ in 0..16 {
            // Before one is let in: until there is room they wait in the kernel.
            if !self.has_place() {
                return self.rest();
            }
            let Some((listener, service)) = self.listeners.get(index as usize) else {
                return;
            };
            let socket = match rustix::net::accept_with(&listener.fd, FLAGS) {
                Ok(socket) => socket,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return self.rest(),
                Err(_) => return,
            };
            // Answers are whole lines: waiting for more to send gains nothing. Not for vsock, where it fails.
            let is_tcp = rustix::net::sockopt::set_tcp_nodelay(&socket, true).is_ok();
            if is_tcp {
                let _ = notice_its_loss(&socket);
            }
            let speech = service.speech();
            let number = self.new_number();
            let socket = Watched::new(socket, Token::Conn(number));
            self.settle(number, Conn::new(Transport::Socket { socket, is_tcp }, speech));
            if self.conns.len() >= MAX_CONNECTIONS {
                return; // whether another waits is not known: nobody goes for him before epoll says so
            }
        }
    }

    /// Whether one more client can be let in; where there are too many, who has been silent longest and has no job goes for it.
    pub(super) fn has_place(&mut self) -> bool {
        if self.conns.len() < MAX_CONNECTIONS {
            return true;
        }
        let silent_since = Clock::Boottime.now_ns().saturating_sub(SILENT_NS);
        let silent = self.conns.iter().filter(|(_, conn)| conn.is_idle());
        let silent = silent.map(|(number, conn)| (conn.read_at_ns.max(conn.taken_at_ns), *number));
        match silent.min() {
            Some((since, number)) if since <= silent_since => {
                self.drop_conn(number);
                true
            }
            _ => false,
        }
    }

    /// Lets nobody in for a while.
    fn rest(&mut self) {
        self.listen_again_at_ns = Some(Clock::Boottime.now_ns().saturating_add(REST_NS));
        for (listener, _) in &mut self.listeners {
            listener.set(&self.poller, EventFlags::empty());
        }
    }

    /// Lets clients in again when the while is over.
    pub(super) fn listen_again(&mut self) {
        let now = || Clock::Boottime.now_ns();
        if self.listen_again_at_ns.take_if(|at_ns| *at_ns <= now()).is_some() {
            for (listener, _) in &mut self.listeners {
                listener.set(&self.poller, EventFlags::IN);
            }
        }
    }
}

/// Has the kernel find out when a client's machine is gone without a word. No TCP_USER_TIMEOUT: it would end clients, too,
/// that are there and do not read.
fn notice_its_loss(socket: &OwnedFd) -> Result<(), Errno> {
    use rustix::net::sockopt;
    sockopt::set_tcp_keepidle(socket, KEEP_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEP_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEP_COUNT)?;
    sockopt::set_socket_keepalive(socket, true)
}
