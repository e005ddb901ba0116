//! A server for the length of a test.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use firebrick_serve::{ConnectionId, Counts, Disk, Ending, Event, Options, Server, Stopper};

/// Serves the disk while `test` runs with the path of the socket; what happened.
pub(crate) fn serve(disk: &dyn Disk, options: Options, test: impl FnOnce(&Path)) -> Vec<Event> {
    serve_and_watch(disk, options, |socket, _| test(socket))
}

/// The same, where `test` looks at what has happened so far.
pub(crate) fn serve_and_watch(
    disk: &dyn Disk,
    options: Options,
    test: impl FnOnce(&Path, &Mutex<Vec<Event>>),
) -> Vec<Event> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = Server::bind(&path, options).unwrap();
    let events = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let stop = StopAtEnd(server.stopper());
        let serving = scope.spawn(|| server.serve(disk, &|event| events.lock().unwrap().push(event)));
        test(&path, &events);
        drop(stop);
        serving.join().unwrap().unwrap();
    });
    drop(server);
    assert!(!path.exists());
    events.into_inner().unwrap()
}

/// Also where the test panics: else nobody would hear of it.
struct StopAtEnd(Stopper);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a connection has ended, and takes its end out of the events.
pub(crate) fn ended(events: &Mutex<Vec<Event>>, number: u64) -> (Counts, Ending) {
    let mut found = None;
    until("the connection ends", || {
        let mut events = events.lock().unwrap();
        let at = events.iter().position(
            |event| matches!(event, Event::Ended { connection, .. } if *connection == ConnectionId(number)),
        );
        found = at.map(|at| events.swap_remove(at));
        found.is_some()
    });
    let Some(Event::Ended { counts, ending, .. }) = found else {
        unreachable!("it was looked for");
    };
    (counts, ending)
}
