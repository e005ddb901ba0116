//! Many clients, with many requests each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use firebrick_serve::{Event, Options};

use crate::client::{Client, DISC, READ};
use crate::disks::TestDisk;
use crate::harness::{ended, serve, serve_and_watch};

const SIZE: u64 = 8 << 20;

#[test]
fn sixteen_clients_read_at_once() {
    let disk = TestDisk::new(SIZE);
    let expected = TestDisk::bytes(0, SIZE);
    let events = serve(&disk, Options::default(), |socket| {
        std::thread::scope(|scope| {
            for number in 0..16_u64 {
                let expected = &expected;
                scope.spawn(move || {
                    if number % 2 == 0 {
                        read_all_rich(&mut Client::rich(socket), number, expected);
                    } else {
                        read_all_plain(&mut Client::plain(socket), number, expected);
                    }
                });
            }
        });
    });
    let ends = events.iter().filter_map(|event| match event {
        Event::Ended { counts, .. } => Some(counts.read_bytes),
        _ => None,
    });
    let ends: Vec<_> = ends.collect();
    assert_eq!(ends, [SIZE; 16]);
}

/// Reads of different sizes, one at a time.
fn read_all_rich(client: &mut Client, number: u64, expected: &[u8]) {
    let mut at = 0;
    while at < expected.len() {
        let len = (10_000 + 30_011 * number as usize).min(expected.len() - at);
        let (bytes, _) = client.read(0, at as u64, len as u32).unwrap();
        assert!(bytes == expected[at..at + len]);
        at += len;
    }
    client.ask(DISC, 0, 0, 0, 0);
}

/// Reads of different sizes, all asked for before the first answer is taken.
fn read_all_plain(client: &mut Client, number: u64, expected: &[u8]) {
    let piece = 100_000 + 50_021 * number as usize;
    let mut open: BTreeMap<u64, usize> = BTreeMap::new();
    let mut asking = Client {
        stream: client.stream.try_clone().unwrap(),
    };
    for (cookie, bytes) in expected.chunks(piece).enumerate() {
        open.insert(cookie as u64, bytes.len());
    }
    std::thread::scope(|scope| {
        let wanted = open.clone();
        scope.spawn(move || {
            for (cookie, len) in wanted {
                asking.ask(READ, 0, cookie, cookie * piece as u64, len as u32);
            }
        });
        while !open.is_empty() {
            let (error, cookie) = client.simple();
            assert_eq!(error, 0);
            let len = open.remove(&cookie).unwrap();
            let at = cookie as usize * piece;
            assert!(client.receive(len) == expected[at..at + len]);
        }
    });
    client.ask(DISC, 0, 0, 0, 0);
}

#[test]
fn a_disk_that_keeps_one_waiting_keeps_no_other() {
    let mut disk = TestDisk::new(SIZE);
    disk.held = 0..1;
    serve_and_watch(&disk, Options::default(), |socket, events| {
        let mut waiting: Vec<Client> = (0..8)
            .map(|_| {
                let mut client = Client::plain(socket);
                for cookie in 0..8 {
                    client.ask(READ, 0, cookie, 0, 1000);
                }
                client
            })
            .collect();
        disk.wait_for_reads(64);
        let start = Instant::now();
        let mut quick = Client::rich(socket);
        for offset in 1..100 {
            assert!(quick.read(0, offset, 3000).is_ok());
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        disk.open();
        for client in &mut waiting {
            for _ in 0..8 {
                assert_eq!(client.simple().0, 0);
                assert_eq!(client.receive(1000), TestDisk::bytes(0, 1000));
            }
        }
        drop(waiting);
        for number in 1..=8 {
            assert_eq!(ended(events, number).0.reads, 8);
        }
    });
}
