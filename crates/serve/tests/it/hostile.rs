//! Clients that break the protocol, vanish, or never read: others go on.

use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use firebrick_serve::{Ending, Event, Options, Refusal, Violation};

use crate::client::{Client, DISC, FLUSH, READ, WRITE};
use crate::disks::TestDisk;
use crate::harness::{ended, serve, serve_and_watch, until};

const SIZE: u64 = 64 << 20;

#[test]
fn who_breaks_the_protocol_is_hung_up_on_and_nobody_else() {
    let disk = TestDisk::new(SIZE);
    serve_and_watch(&disk, Options::default(), |socket, events| {
        let mut witness = Client::rich(socket);
        let mut next = 2;
        let mut violation = |begin: fn(&std::path::Path) -> Client, bytes: &[u8]| {
            let mut client = begin(socket);
            client.send(bytes);
            client.rest();
            let (_, ending) = ended(events, next);
            next += 1;
            match ending {
                Ending::Broke(violation) => violation,
                other => panic!("{other:?}"),
            }
        };
        use Violation::{HandshakeFlags, OptionMagic, OptionTooLong, PayloadTooLong, RequestMagic};
        let found = violation(Client::connect, b"\xff\xff\xff\xff");
        assert_eq!(found, HandshakeFlags { flags: u32::MAX });
        let found = violation(Client::connect, b"\0\0\0\x03whatever");
        assert!(matches!(found, OptionMagic { .. }), "{found:?}");
        let found = violation(Client::connect, b"\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff");
        assert!(matches!(found, OptionTooLong { .. }), "{found:?}");
        let found = violation(Client::connect, b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x02no");
        assert!(matches!(found, Violation::UnknownExport { .. }), "{found:?}");
        let found = violation(Client::rich, &[0; 28]);
        assert_eq!(found, RequestMagic { magic: 0 });
        let write = [b"\x25\x60\x95\x13\0\0\0\x01", &[0; 16][..], &[0xff; 4]].concat();
        let found = violation(Client::plain, &write);
        assert!(matches!(found, PayloadTooLong { .. }), "{found:?}");
        let (bytes, _) = witness.read(0, 0, 100).unwrap();
        assert_eq!(bytes, TestDisk::bytes(0, 100));
    });
}

#[test]
fn a_violation_does_not_wait_for_the_disk() {
    let mut disk = TestDisk::new(SIZE);
    disk.held = 0..1;
    serve_and_watch(&disk, Options::default(), |socket, events| {
        let mut client = Client::plain(socket);
        for cookie in 0..12 {
            client.ask(READ, 0, cookie, 0, 100);
        }
        disk.wait_for_reads(8);
        client.send(&[0; 28]);
        client
            .stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let ended_with = client.stream.read(&mut [0]);
        disk.open();
        assert_eq!(ended_with.unwrap(), 0);
        let (_, ending) = ended(events, 1);
        assert!(matches!(ending, Ending::Broke(_)), "{ending:?}");
    });
    // What waited was not read any more.
    assert_eq!(disk.reads.load(Ordering::SeqCst), 8);
}

#[test]
fn disconnects_in_the_middle_are_no_trouble() {
    let mut disk = TestDisk::new(SIZE);
    disk.held = 0..1;
    serve_and_watch(&disk, Options::default(), |socket, events| {
        let mut witness = Client::rich(socket);
        // In the greeting, in an option, in a request, in a payload.
        drop(Client::connect(socket));
        Client::connect(socket).send(b"\0\0\0\x03IHAVE");
        Client::plain(socket).send(b"\x25\x60\x95\x13\0\0");
        let mut writing = Client::plain(socket);
        writing.ask(WRITE, 0, 1, 0, 4096);
        writing.send(&[1; 100]);
        drop(writing);
        // In the middle of a large answer.
        let mut reading = Client::plain(socket);
        reading.ask(READ, 0, 1, 4096, 16 << 20);
        reading.receive(100_000);
        drop(reading);
        for number in 2..=6 {
            assert!(matches!(ended(events, number).1, Ending::HungUp), "{number}");
        }
        assert!(witness.read(0, 4096, 100).is_ok());
        // While the disk is at it: what waits is not read any more.
        let before = disk.reads.load(Ordering::SeqCst);
        let mut waiting = Client::plain(socket);
        for cookie in 0..12 {
            waiting.ask(READ, 0, cookie, 0, 100);
        }
        disk.wait_for_reads(before + 8);
        drop(waiting);
        std::thread::sleep(Duration::from_millis(100));
        disk.open();
        let (counts, ending) = ended(events, 7);
        assert!(matches!(ending, Ending::HungUp));
        assert_eq!(counts.requests, 12);
        assert_eq!(disk.reads.load(Ordering::SeqCst), before + 8);
    });
}

#[test]
fn half_a_farewell_leaves_the_answers() {
    let disk = TestDisk::new(SIZE);
    serve(&disk, Options::default(), |socket| {
        let mut client = Client::plain(socket);
        for cookie in 0..20 {
            client.ask(READ, 0, cookie, cookie, 1000);
        }
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut cookies: Vec<u64> = (0..20)
            .map(|_| {
                let (error, cookie) = client.simple();
                assert_eq!(error, 0);
                assert_eq!(client.receive(1000), TestDisk::bytes(cookie, 1000));
                cookie
            })
            .collect();
        cookies.sort_unstable();
        assert_eq!(cookies, (0..20).collect::<Vec<_>>());
        assert_eq!(client.rest(), b"");
    });
}

#[test]
fn a_client_that_never_reads_keeps_nobody_waiting() {
    let disk = TestDisk::new(SIZE);
    serve(&disk, Options::default(), |socket| {
        let mut greedy = Client::plain(socket);
        // As much as it can: the server must stop taking it.
        greedy
            .stream
            .set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let request = [
            b"\x25\x60\x95\x13\0\0\0\0",
            &[0; 16][..],
            &(4_u32 << 20).to_be_bytes(),
        ]
        .concat();
        let many = request.repeat(1000);
        let mut blocked = false;
        for _ in 0..1000 {
            blocked = greedy.stream.write_all(&many).is_err();
            if blocked {
                break;
            }
        }
        assert!(
            blocked,
            "28 MB of requests were taken without one answer being read"
        );
        // Eight in work and as many waiting, if the memory for the answers allowed: 32 MiB are eight of these.
        assert!(disk.reads.load(Ordering::SeqCst) <= 8);
        let start = Instant::now();
        let mut other = Client::rich(socket);
        for offset in 0..50 {
            let (bytes, _) = other.read(0, offset, 5000).unwrap();
            assert!(bytes == TestDisk::bytes(offset, 5000));
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
}

#[test]
fn a_handshake_has_its_time() {
    let disk = TestDisk::new(SIZE);
    let mut options = Options::default();
    options.handshake_limit = Duration::from_millis(300);
    serve_and_watch(&disk, options, |socket, events| {
        let mut quick = Client::rich(socket);
        let start = Instant::now();
        let mut slow = Client::connect(socket);
        slow.receive(18);
        slow.send(b"\0\0\0\x03");
        // A byte now and then does not help.
        while slow.stream.write_all(b"I").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        let (_, ending) = ended(events, 2);
        let expected = Violation::HandshakeTooSlow { limit_s: 0 };
        assert!(
            matches!(&ending, Ending::Broke(found) if *found == expected || matches!(found, Violation::OptionMagic { .. }))
        );
        // Behind the handshake there is all the time in the world.
        std::thread::sleep(Duration::from_millis(400));
        assert!(quick.read(0, 0, 10).is_ok());
    });
}

#[test]
fn the_number_of_connections_is_bounded() {
    let disk = TestDisk::new(SIZE);
    let mut options = Options::default();
    options.connections = 2;
    serve_and_watch(&disk, options, |socket, events| {
        let mut first = Client::rich(socket);
        let mut second = Client::plain(socket);
        assert_eq!(Client::connect(socket).rest(), b"");
        let refused = || {
            let events = events.lock().unwrap();
            events.iter().any(|event| {
                matches!(
                    event,
                    Event::Refused {
                        reason: Refusal::TooMany { limit: 2 }
                    }
                )
            })
        };
        until("the third is refused", refused);
        second.ask(DISC, 0, 0, 0, 0);
        ended(events, 2);
        let mut fourth = Client::rich(socket);
        assert!(fourth.read(0, 0, 10).is_ok());
        assert!(first.read(0, 0, 10).is_ok());
    });
}

#[test]
fn a_disk_that_panics_leaves_nobody_waiting() {
    // The panic is the test's; that it goes through to whoever serves is right.
    let outcome = std::panic::catch_unwind(|| {
        let disk = TestDisk::new(SIZE);
        serve(&disk, Options::default(), |socket| {
            let mut client = Client::rich(socket);
            client.ask(FLUSH, 0, 0, 0, 0);
            client.chunk();
            disk.break_down();
            client.ask(READ, 0, 0, 0, 10);
            assert_eq!(client.rest(), b"");
        });
    });
    assert!(outcome.is_err());
}
