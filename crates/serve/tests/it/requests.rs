//! Each request, and what it is answered with.

use std::sync::atomic::Ordering;

use firebrick_serve::{Ending, Event, Options};

use crate::client::{
    BLOCK_STATUS, CACHE, Client, DISC, EINVAL, EIO, EPERM, FLUSH, READ, TRIM, WRITE, WRITE_ZEROES, number32,
};
use crate::disks::{STRIPE, TestDisk};
use crate::harness::{ended, serve, serve_and_watch};

const SIZE: u64 = (1 << 20) + 77;

#[test]
fn an_old_client_reads() {
    let disk = TestDisk::new(SIZE);
    serve(&disk, Options::default(), |socket| {
        let mut client = Client::plain(socket);
        for (offset, len) in [(0, 1), (STRIPE - 3, 200_000), (SIZE - 1, 1), (0, SIZE), (SIZE, 0)] {
            client.ask(READ, 0, offset, offset, len as u32);
            assert_eq!(client.simple(), (0, offset));
            assert!(
                client.receive(len as usize) == TestDisk::bytes(offset, len),
                "{offset} {len}"
            );
        }
        client.ask(READ, 0, 5, SIZE - 1, 2);
        assert_eq!(client.simple(), (EINVAL, 5));
        client.ask(BLOCK_STATUS, 0, 6, 0, 512);
        assert_eq!(client.simple(), (EINVAL, 6));
        client.ask(FLUSH, 0, 7, 0, 0);
        assert_eq!(client.simple(), (0, 7));
    });
}

#[test]
fn a_new_client_reads_holes_without_their_bytes() {
    let disk = TestDisk::new(SIZE);
    serve_and_watch(&disk, Options::default(), |socket, events| {
        let mut client = Client::rich(socket);
        let (bytes, holes) = client.read(0, 0, SIZE as u32).unwrap();
        assert!(bytes == TestDisk::bytes(0, SIZE));
        assert_eq!(holes, 5 * STRIPE as u32);
        // In one piece, if asked for.
        let (bytes, holes) = client.read(4, 0, SIZE as u32).unwrap();
        assert!(bytes == TestDisk::bytes(0, SIZE));
        assert_eq!(holes, 0);
        let (bytes, holes) = client.read(0, 2 * STRIPE + 5, 10_000).unwrap();
        assert!(bytes == vec![0; 10_000]);
        assert_eq!(holes, 10_000);
        assert_eq!(client.read(0, 3, 0), Ok((Vec::new(), 0)));
        assert_eq!(client.read(0, SIZE, 1), Err(EINVAL));
        assert_eq!(client.read(0, 1, SIZE as u32), Err(EINVAL));
        client.ask(DISC, 0, 0, 0, 0);
        assert_eq!(client.rest(), b"");
        let (counts, _) = ended(events, 1);
        assert_eq!((counts.requests, counts.reads, counts.failed), (7, 3, 2));
        assert_eq!(counts.read_bytes, 2 * SIZE + 10_000);
        assert_eq!(counts.hole_bytes, 5 * STRIPE + 10_000);
    });
}

#[test]
fn extents_are_told_up_to_the_end() {
    let disk = TestDisk::new(SIZE);
    serve(&disk, Options::default(), |socket| {
        let mut client = Client::rich(socket);
        client.ask(BLOCK_STATUS, 0, 1, 0, SIZE as u32);
        let chunk = client.chunk();
        assert!(chunk.done);
        assert_eq!((chunk.kind, chunk.cookie), (5, 1));
        assert_eq!(number32(&chunk.payload), 1);
        let extents: Vec<(u32, u32)> = chunk.payload[4..]
            .chunks(8)
            .map(|extent| (number32(extent), number32(&extent[4..])))
            .collect();
        let stripe = STRIPE as u32;
        let mut expected = [(2 * stripe, 0), (stripe, 3)].repeat(5);
        // The last stripe and the rest are data.
        expected.push((stripe + 77, 0));
        assert_eq!(extents, expected);
        client.ask(BLOCK_STATUS, 8, 2, STRIPE, SIZE as u32 - stripe);
        assert_eq!(
            client.chunk().payload,
            [&[0, 0, 0, 1][..], &stripe.to_be_bytes(), &[0; 4]].concat()
        );
        client.ask(BLOCK_STATUS, 0, 3, SIZE - 1, 2);
        assert_eq!(number32(&client.chunk().payload), EINVAL);
    });
}

#[test]
fn what_would_change_the_disk_is_not_permitted() {
    let disk = TestDisk::new(SIZE);
    serve(&disk, Options::default(), |socket| {
        for rich in [true, false] {
            let mut client = if rich {
                Client::rich(socket)
            } else {
                Client::plain(socket)
            };
            let error = |client: &mut Client, cookie| {
                if rich {
                    let chunk = client.chunk();
                    assert_eq!((chunk.kind, chunk.cookie), (0x8001, cookie));
                    number32(&chunk.payload)
                } else {
                    let (error, answered) = client.simple();
                    assert_eq!(answered, cookie);
                    error
                }
            };
            client.ask(WRITE, 0, 1, 0, 100_000);
            client.send(&[0x25; 100_000]);
            assert_eq!(error(&mut client, 1), EPERM);
            client.ask(TRIM, 0, 2, 0, 4096);
            assert_eq!(error(&mut client, 2), EPERM);
            client.ask(WRITE_ZEROES, 0, 3, 0, u32::MAX);
            assert_eq!(error(&mut client, 3), EPERM);
            client.ask(200, 0, 4, 0, 0);
            assert_eq!(error(&mut client, 4), EINVAL);
        }
    });
    assert_eq!(disk.reads.load(Ordering::SeqCst), 0);
}

#[test]
fn the_disk_hears_of_what_will_be_read() {
    let disk = TestDisk::new(SIZE);
    serve(&disk, Options::default(), |socket| {
        let mut client = Client::rich(socket);
        client.ask(CACHE, 0, 9, 4096, SIZE as u32 - 4096);
        let chunk = client.chunk();
        assert_eq!((chunk.done, chunk.kind, chunk.cookie), (true, 0, 9));
        client.ask(CACHE, 0, 10, SIZE - 5, 6);
        assert_eq!(number32(&client.chunk().payload), EINVAL);
    });
    let heard = disk.prefetched.into_inner().unwrap();
    assert_eq!(heard, std::slice::from_ref(&(4096..SIZE)));
}

#[test]
fn a_read_that_fails_is_one_error_and_no_end() {
    let mut disk = TestDisk::new(SIZE);
    disk.lost = 70_000..70_001;
    let events = serve(&disk, Options::default(), |socket| {
        let mut rich = Client::rich(socket);
        rich.ask(READ, 0, 1, 65_536, 10_000);
        let chunk = rich.chunk();
        assert_eq!((chunk.done, chunk.kind, chunk.cookie), (true, 0x8001, 1));
        assert_eq!(chunk.payload, b"\0\0\0\x05\0\x0fa chunk is lost");
        assert_eq!(rich.read(0, 0, SIZE as u32), Err(EIO));
        let (bytes, _) = rich.read(0, 70_001, 9000).unwrap();
        assert!(bytes == TestDisk::bytes(70_001, 9000));
        let mut plain = Client::plain(socket);
        plain.ask(READ, 0, 2, 70_000, 1);
        assert_eq!(plain.simple(), (EIO, 2));
        plain.ask(READ, 0, 3, 70_001, 1);
        assert_eq!(plain.simple(), (0, 3));
        assert_eq!(plain.receive(1), TestDisk::bytes(70_001, 1));
    });
    let failed: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            Event::Failed {
                connection,
                range,
                error,
            } => Some(format!("{} {range:?} {error}", connection.0)),
            _ => None,
        })
        .collect();
    let lost = "a chunk is lost";
    assert_eq!(
        failed,
        [
            format!("1 65536..75536 {lost}"),
            format!("1 0..{SIZE} {lost}"),
            format!("2 70000..70001 {lost}"),
        ]
    );
}

#[test]
fn answers_come_when_they_are_ready() {
    let mut disk = TestDisk::new(SIZE);
    disk.held = 0..10;
    serve_and_watch(&disk, Options::default(), |socket, events| {
        let mut client = Client::plain(socket);
        for cookie in 0..3 {
            client.ask(READ, 0, cookie, cookie, 100);
        }
        client.ask(READ, 0, 3, 100_000, 100);
        client.ask(FLUSH, 0, 4, 0, 0);
        let mut first = [client.simple().1, 0];
        // The flush is answered by another thread than the read: either may be quicker.
        if first[0] == 3 {
            client.receive(100);
        }
        first[1] = client.simple().1;
        if first[1] == 3 {
            client.receive(100);
        }
        first.sort_unstable();
        assert_eq!(first, [3, 4]);
        // What was asked for is answered even behind a farewell.
        client.ask(DISC, 0, 0, 0, 0);
        disk.open();
        let mut held = Vec::new();
        for _ in 0..3 {
            let (error, cookie) = client.simple();
            assert_eq!(error, 0);
            assert_eq!(client.receive(100), TestDisk::bytes(cookie, 100));
            held.push(cookie);
        }
        held.sort_unstable();
        assert_eq!(held, [0, 1, 2]);
        assert_eq!(client.rest(), b"");
        assert!(matches!(ended(events, 1).1, Ending::Disconnected));
    });
    assert!(disk.most_reading.load(Ordering::SeqCst) >= 3);
}
