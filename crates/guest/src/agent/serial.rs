//! The virtio-serial port: a wire for the mux, on which hosts come and go.

use alloc::collections::BTreeMap;
use alloc::string::String;

use firebrick_protocol::mux::{Endpoint, Event, Refusal, StreamId};
use firebrick_protocol::{AGENT_PORT, JOB_PORT, SERIAL_PORT_NAME};
use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Agent;
use super::conn::{Conn, Transport};
use super::listen::Service;
use super::poll::Token;

/// The port and what goes over it.
pub(super) struct Serial {
    port: OwnedFd,
    pub(super) endpoint: Endpoint,
    /// The connection that each stream carries.
    pub(super) streams: BTreeMap<StreamId, u32>,
    /// Reading or writing may do something. A port without host is always readable (its end) and would wake a loop
    /// that asks for levels for ever; so it is asked for changes, and these remember what is left to do.
    readable: bool,
    writable: bool,
}

impl Serial {
    /// Something has changed on the port.
    pub(super) fn woken(&mut self) {
        self.readable = true;
        self.writable = true;
    }
}

/// The device of our port, if the machine has one.
pub(crate) fn find_port() -> Option<String> {
    const CLASS: &str = "/sys/class/virtio-ports";
    let is_ours = |name: &String| {
        crate::file::text(&alloc::format!("{CLASS}/{name}/name")).trim_end() == SERIAL_PORT_NAME
    };
    crate::file::names(CLASS)
        .into_iter()
        .find(is_ours)
        .map(|name| alloc::format!("/dev/{name}"))
}

impl Agent {
    /// Serves the mux on a character device.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_serial(&mut self, path: &str) -> Result<(), Errno> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let port = rustix::fs::open(path, flags, Mode::empty())?;
        self.poller.watch(
            &port,
            Token::Serial,
            EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        )?;
        // PID 1 is the first on its wire; a service may have been started again.
        let endpoint = if self.is_init {
            Endpoint::guest()
        } else {
            Endpoint::guest_again()
        };
        self.serial = Some(Serial {
            port,
            endpoint,
            streams: BTreeMap::new(),
            readable: true,
            writable: true,
        });
        Ok(())
    }

    /// Moves what can be moved between the port and the mux.
    pub(super) fn drive_serial(&mut self) {
        let mut piece = [0u8; 16 * 1024];
        // The bound lets others have their turn; what is left is done after the next look at epoll, which `woken` and
        // the level of a full queue make immediate.
        for _ in 0..64 {
            let Some(serial) = &mut self.serial else { return };
            let mut has_moved = false;
            if serial.readable && serial.endpoint.wants_input() {
                match rustix::io::read(&serial.port, &mut piece[..]) {
                    Ok(0) | Err(Errno::AGAIN) => serial.readable = false,
                    Ok(count) => {
                        serial.endpoint.receive(&piece[..count]);
                        has_moved = true;
                    }
                    Err(Errno::INTR) => {}
                    Err(_) => serial.readable = false,
                }
            }
            self.take_mux_events();
            let Some(serial) = &mut self.serial else { return };
            while serial.writable && !serial.endpoint.transmit().is_empty() {
                match rustix::io::write(&serial.port, serial.endpoint.transmit()) {
                    Ok(0) | Err(Errno::AGAIN) => serial.writable = false,
                    Ok(count) => {
                        serial.endpoint.transmitted(count);
                        has_moved = true;
                    }
                    Err(Errno::INTR) => {}
                    Err(_) => serial.writable = false,
                }
            }
            // Sending made room: writers may go on.
            self.take_mux_events();
            if !has_moved {
                return;
            }
        }
        self.rearm_serial();
    }

    /// Makes epoll tell of the port's state again, as it does when interest is set anew.
    fn rearm_serial(&mut self) {
        if let Some(serial) = &self.serial {
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            let _ = self.poller.watch_again(&serial.port, Token::Serial, flags);
        }
    }

    fn take_mux_events(&mut self) {
        while let Some(event) = self
            .serial
            .as_mut()
            .and_then(|serial| serial.endpoint.next_event())
        {
            match event {
                Event::Session | Event::Lost => self.drop_streams(),
                Event::Incoming { stream, port } => self.incoming_stream(stream, port),
                Event::Readable(stream) => {
                    if let Some(number) = self.conn_of(stream) {
                        self.stream_ready(number);
                    }
                }
                Event::Writable(stream) => {
                    if let Some(number) = self.conn_of(stream) {
                        self.touch(number);
                    }
                }
                // The guest opens no streams.
                Event::Accepted(_) | Event::Refused { .. } => {}
            }
        }
    }

    fn conn_of(&self, stream: StreamId) -> Option<u32> {
        self.serial.as_ref()?.streams.get(&stream).copied()
    }

    fn incoming_stream(&mut self, stream: StreamId, port: u32) {
        let number = self.new_number();
        let Some(serial) = &mut self.serial else { return };
        let service = match port {
            AGENT_PORT => Some(Service::Rpc),
            JOB_PORT => Some(Service::Jobs),
            _ => None,
        };
        let Some(service) = service else {
            return serial.endpoint.refuse(stream, Refusal::NoListener);
        };
        let has_place = self.has_place();
        let Some(serial) = &mut self.serial else { return };
        if !has_place {
            serial.endpoint.refuse(stream, Refusal::TooManyStreams);
        } else {
            serial.endpoint.accept(stream);
            serial.streams.insert(stream, number);
            self.settle(number, Conn::new(Transport::Stream(stream), service.speech()));
        }
    }

    /// The host is gone, and all its streams with it.
    fn drop_streams(&mut self) {
        let Some(serial) = &mut self.serial else { return };
        for number in core::mem::take(&mut serial.streams).into_values() {
            self.drop_conn(number);
        }
    }
}
