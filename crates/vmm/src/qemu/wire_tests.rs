//! The host's end against the guest's state machine on a socket pair.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use firebrick_protocol::mux::Refusal;

use super::*;

const ECHO: u32 = 7;
const GREET: u32 = 8;
const SILENT: u32 = 9;

/// A guest that echoes on one port, says "hi" and hangs up on another, reads nothing on a third, and listens on a fourth
/// only when asked for the third time. Ends with the wire.
fn guest(mut socket: UnixStream, listens_late_on: Option<u32>) {
    let mut endpoint = Endpoint::guest();
    let mut echoing = BTreeSet::new();
    let mut asked = 0;
    let mut buffer = vec![0; 8192];
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => endpoint.receive(&buffer[..count]),
            Err(_) => {}
        }
        while let Some(event) = endpoint.next_event() {
            if let Event::Incoming { stream, port } = event {
                asked += u32::from(Some(port) == listens_late_on);
                match port {
                    ECHO => {
                        endpoint.accept(stream);
                        echoing.insert(stream);
                    }
                    GREET => {
                        endpoint.accept(stream);
                        endpoint.write(stream, b"hi");
                        endpoint.finish(stream);
                    }
                    SILENT => endpoint.accept(stream),
                    _ if Some(port) == listens_late_on && asked >= 3 => endpoint.accept(stream),
                    _ => endpoint.refuse(stream, Refusal::NoListener),
                }
            }
        }
        for &stream in &echoing.clone() {
            // What does not fit is lost: the tests send less than the window.
            match endpoint.read(stream, &mut buffer) {
                Read::Data(count) => assert_eq!(endpoint.write(stream, &buffer[..count]), Some(count)),
                Read::Pending => {}
                Read::End | Read::Gone => {
                    endpoint.finish(stream);
                    endpoint.close(stream);
                    echoing.remove(&stream);
                }
            }
        }
        while !endpoint.transmit().is_empty() {
            let bytes = endpoint.transmit().to_vec();
            if socket.write_all(&bytes).is_err() {
                return;
            }
            endpoint.transmitted(bytes.len());
        }
    }
}

fn wire(listens_late_on: Option<u32>) -> Wire {
    let (host, theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || guest(theirs, listens_late_on));
    Wire::start(host.into()).unwrap()
}

fn dial(wire: &Wire, port: u32) -> UnixStream {
    let stream: UnixStream = wire.dial(Port(port), Duration::from_secs(10)).unwrap().into();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

#[test]
fn many_streams_keep_apart() {
    let wire = wire(None);
    std::thread::scope(|scope| {
        for n in 0..20_u8 {
            let wire = &wire;
            scope.spawn(move || {
                let mut stream = dial(wire, ECHO);
                let sent = vec![n; 20_000];
                stream.write_all(&sent).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut back = Vec::new();
                stream.read_to_end(&mut back).unwrap();
                assert!(back == sent, "{n}: {} bytes came back", back.len());
            });
        }
    });
}

#[test]
fn the_guests_end_of_a_stream_is_seen() {
    let mut stream = dial(&wire(None), GREET);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hi");
}

#[test]
fn a_stream_that_is_not_read_holds_up_no_other() {
    let wire = wire(None);
    let mut silent = dial(&wire, SILENT);
    silent
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    // Far more than all windows and socket buffers hold.
    silent.write_all(&vec![0; 8 << 20]).unwrap_err();
    let mut echo = dial(&wire, ECHO);
    echo.write_all(b"still there").unwrap();
    let mut back = [0; 11];
    echo.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still there");
    drop(silent);
    assert!(wire.dial(Port(ECHO), Duration::from_secs(5)).is_ok());
}

#[test]
fn a_port_that_opens_late_is_found() {
    let wire = wire(Some(77));
    drop(dial(&wire, 77));
    let error = wire.dial(Port(78), Duration::from_millis(100)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("port 78"), "{error}");
}

#[test]
fn a_guest_that_never_answers_times_out_and_a_dead_one_aborts() {
    let (host, theirs) = UnixStream::pair().unwrap();
    let wire = Wire::start(host.into()).unwrap();
    let started = Instant::now();
    let error = wire.dial(Port(1), Duration::from_millis(100)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(3));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wire.dial(Port(1), Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(50));
        drop(theirs);
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    });
}

#[test]
fn the_hello_is_repeated_until_it_is_answered() {
    let (host, mut theirs) = UnixStream::pair().unwrap();
    let wire = Wire::start(host.into()).unwrap();
    // A wire that loses what comes before the guest listens.
    let mut lost = vec![0; 16_396 + 16];
    theirs.read_exact(&mut lost).unwrap();
    std::thread::spawn(move || guest(theirs, None));
    drop(dial(&wire, GREET));
}

#[test]
fn garbage_from_the_guest_starts_a_new_session() {
    let (host, mut theirs) = UnixStream::pair().unwrap();
    let wire = Wire::start(host.into()).unwrap();
    let mut hello = vec![0; 16_396 + 16];
    theirs.read_exact(&mut hello).unwrap();
    let mut answer = *b"FBMUX2G\n........";
    answer[8..].copy_from_slice(&hello[hello.len() - 8..]);
    theirs.write_all(&answer).unwrap();
    theirs.write_all(&[0xff; 1000]).unwrap();
    std::thread::spawn(move || guest(theirs, None));
    drop(dial(&wire, GREET));
}
