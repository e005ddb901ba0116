//! Where clients come in: TCP and vsock.

use alloc::string::String;
use core::net::SocketAddr;

use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::conn::{Conn, Speech, Transport};
use super::poll::{Token, Watched};
use super::{Agent, MAX_CONNECTIONS};
use crate::errno;

const BACKLOG: i32 = 128;
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
        self.poller
            .watch(&socket, Token::Listener(index), EventFlags::IN)?;
        self.listeners.push((socket, service));
        Ok(())
    }

    pub(super) fn accept(&mut self, index: u32) {
        // Not all at once: others wait, too.
        for _ in 0..16 {
            let Some((listener, service)) = self.listeners.get(index as usize) else {
                return;
            };
            let Ok(socket) = rustix::net::accept_with(listener, FLAGS) else {
                return;
            };
            if self.conns.len() >= MAX_CONNECTIONS {
                continue; // dropping it tells the client
            }
            // Answers are whole lines: waiting for more to send gains nothing. Not for vsock, where it fails.
            let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
            let speech = service.speech();
            let number = self.new_number();
            let socket = Watched::new(socket, Token::Conn(number));
            self.settle(number, Conn::new(Transport::Socket(socket), speech));
        }
    }
}
