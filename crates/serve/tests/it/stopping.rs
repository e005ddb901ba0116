//! The end of a server.

use std::time::{Duration, Instant};

use firebrick_serve::{Ending, Event, Options, ServeError, Server};

use crate::client::{Client, READ};
use crate::disks::TestDisk;
use crate::harness::serve;

#[test]
fn answers_that_are_under_way_arrive_and_idle_clients_end() {
    let mut disk = TestDisk::new(1 << 20);
    disk.held = 0..1;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = Server::bind(&path, Options::default()).unwrap();
    let events = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve(&disk, &|event| events.lock().unwrap().push(event)));
        let mut idle = Client::rich(&path);
        let mut busy = Client::plain(&path);
        let mut greeting = Client::connect(&path);
        greeting.receive(18);
        busy.ask(READ, 0, 5, 0, 100);
        disk.wait_for_reads(1);
        server.stopper().stop();
        assert_eq!(idle.rest(), b"");
        assert_eq!(greeting.rest(), b"");
        assert!(!serving.is_finished());
        disk.open();
        assert_eq!(busy.simple(), (0, 5));
        assert_eq!(busy.receive(100), TestDisk::bytes(0, 100));
        assert_eq!(busy.rest(), b"");
        serving.join().unwrap().unwrap();
    });
    let events = events.into_inner().unwrap();
    let stopped = |event: &&Event| {
        matches!(
            event,
            Event::Ended {
                ending: Ending::Stopped,
                ..
            }
        )
    };
    assert_eq!(events.iter().filter(stopped).count(), 3, "{events:?}");
    // It stays stopped.
    server.serve(&disk, &|event| panic!("{event:?}")).unwrap();
}

#[test]
fn a_client_that_does_not_take_its_answer_delays_the_end_by_a_moment() {
    let disk = TestDisk::new(32 << 20);
    let mut start = Instant::now();
    let mut kept = None;
    serve(&disk, Options::default(), |socket| {
        let mut client = Client::plain(socket);
        client.ask(READ, 0, 5, 0, 32 << 20);
        disk.wait_for_reads(1);
        kept = Some(client);
        start = Instant::now();
    });
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let answered = kept.unwrap().rest();
    assert!(!answered.is_empty() && answered.len() < 32 << 20);
}

#[test]
fn one_path_has_one_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let first = Server::bind(&path, Options::default()).unwrap();
    let second = Server::bind(&path, Options::default()).unwrap_err();
    assert!(matches!(second, ServeError::Taken { .. }), "{second}");
    drop(first);
    let third = Server::bind(&path, Options::default()).unwrap();
    drop(third);
    assert!(!path.exists());
    let mut options = Options::default();
    options.export_name = "x".repeat(4097);
    assert!(matches!(
        Server::bind(&path, options),
        Err(ServeError::NameTooLong {
            len: 4097,
            limit: 4096
        })
    ));
}
