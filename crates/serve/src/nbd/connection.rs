//! One client, from the greeting to the end.
//!
//! The thread that serves it reads requests; what needs the disk waits in a [`Queue`] for workers, of which more are started as they
//! are needed. Each worker sends its reply in one piece. A client that does not read holds up its own workers and nobody else's.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope};
use std::time::Instant;

use super::answer::answer;
use super::handshake::{Offer, Terms, negotiate};
use super::queue::Queue;
use super::reply::Reply;
use super::request::{EIO, REQUEST_LEN, Request, Step, Task};
use super::stream::{Timed, ending, send_all};
use super::{PAYLOAD_BYTES_MAX, Violation};
use crate::{Counts, Disk, Ending, Options};

/// How many bytes of requests are read at once: enough for a hundred.
const READ_AHEAD: usize = 4096;

/// Serves a disk to the client behind `stream` until one of them ends it; what it did, and why it ended.
///
/// `failed` hears of what could not be read, from several threads. The client has been told.
pub fn serve_stream(
    stream: &UnixStream,
    disk: &dyn Disk,
    options: &Options,
    failed: &(dyn Fn(Range<u64>, io::Error) + Sync),
) -> (Counts, Ending) {
    let deadline = Instant::now().checked_add(options.handshake_limit);
    let mut reader = BufReader::with_capacity(READ_AHEAD, Timed::new(stream, deadline));
    let mut writer = Timed::new(stream, deadline);
    let offer = Offer {
        name: &options.export_name,
        size_bytes: disk.size_bytes(),
    };
    let terms = match negotiate(&mut reader, &mut writer, offer) {
        Ok(terms) => terms,
        Err(Ending::Failed(error)) if error.kind() == io::ErrorKind::TimedOut => {
            let limit_s = options.handshake_limit.as_secs();
            return (
                Counts::default(),
                Ending::Broke(Violation::HandshakeTooSlow { limit_s }),
            );
        }
        Err(ending) => return (Counts::default(), ending),
    };
    if let Err(error) = reader.get_mut().lift() {
        return (Counts::default(), Ending::Failed(error));
    }
    let session = Session {
        stream,
        disk,
        terms,
        size_bytes: offer.size_bytes,
        failed,
        queue: Queue::new(options.requests, u64::from(PAYLOAD_BYTES_MAX)),
        sending: Mutex::new(()),
        counts: Mutex::new(Counts::default()),
        is_over: AtomicBool::new(false),
    };
    let ending = std::thread::scope(|scope| {
        let ending = session.read_requests(scope, &mut reader);
        // Who only went quiet may still take what was asked for; if nobody is there, the first answer finds out.
        if matches!(ending, Ending::Broke(_) | Ending::Failed(_)) {
            session.hang_up();
        }
        session.queue.close();
        ending
    });
    let counts = *session.counts.lock().unwrap_or_else(PoisonError::into_inner);
    (counts, ending)
}

/// A client that is past the handshake.
struct Session<'a> {
    stream: &'a UnixStream,
    disk: &'a dyn Disk,
    terms: Terms,
    size_bytes: u64,
    failed: &'a (dyn Fn(Range<u64>, io::Error) + Sync),
    queue: Queue<(u64, Task)>,
    /// Held by whoever sends.
    sending: Mutex<()>,
    counts: Mutex<Counts>,
    /// Whether replies are of no use any more.
    is_over: AtomicBool,
}

impl Session<'_> {
    /// Reads requests until there are no more.
    fn read_requests<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        reader: &mut BufReader<Timed<'_>>,
    ) -> Ending {
        loop {
            match self.next(reader) {
                Ok((cookie, Step::Ask(task))) => {
                    let cost = task.cost();
                    if self.queue.push((cookie, task), cost)
                        && let Err(error) = self.start_worker(scope)
                    {
                        return Ending::Failed(error);
                    }
                }
                Ok((cookie, Step::Answer { verdict, skip })) => {
                    if let Err(error) = skip_payload(reader, skip) {
                        return ending(error);
                    }
                    self.send(&match verdict {
                        Ok(()) => Reply::done(cookie, self.terms.structured),
                        Err(denial) => {
                            self.count(|counts| counts.failed = counts.failed.saturating_add(1));
                            Reply::error(cookie, self.terms.structured, denial.error, &denial.text)
                        }
                    });
                }
                Ok((_, Step::Leave)) => return Ending::Disconnected,
                Err(ending) => return ending,
            }
        }
    }

    fn next(&self, reader: &mut BufReader<Timed<'_>>) -> Result<(u64, Step), Ending> {
        if reader.fill_buf().map_err(ending)?.is_empty() {
            return Err(Ending::HungUp);
        }
        let mut bytes = [0; REQUEST_LEN];
        reader.read_exact(&mut bytes).map_err(ending)?;
        let request = Request::parse(&bytes).map_err(Ending::Broke)?;
        self.count(|counts| counts.requests = counts.requests.saturating_add(1));
        let step = request.step(self.terms, self.size_bytes).map_err(Ending::Broke)?;
        Ok((request.cookie, step))
    }

    /// Starts one more worker. That there cannot be more is an error only where there is none.
    fn start_worker<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> io::Result<()> {
        let named = Builder::new().name("nbd worker".to_owned());
        match named.spawn_scoped(scope, || self.work()) {
            Err(error) if self.queue.not_started() == 0 => Err(error),
            _ => Ok(()),
        }
    }

    fn work(&self) {
        // A disk that panics leaves a request without an answer: better for the client to know than to wait.
        let _guard = HangUpOnPanic(self);
        while let Some(taken) = self.queue.take() {
            let (cookie, task) = &taken.request;
            if !self.is_over.load(Ordering::Relaxed) {
                self.answer(*cookie, task);
            }
        }
    }

    fn answer(&self, cookie: u64, task: &Task) {
        match answer(self.disk, cookie, task, self.terms) {
            Ok(answer) => {
                if let Task::Read { .. } = task {
                    self.count(|counts| {
                        counts.reads = counts.reads.saturating_add(1);
                        counts.read_bytes = counts.read_bytes.saturating_add(task.cost());
                        counts.hole_bytes = counts.hole_bytes.saturating_add(answer.hole_bytes);
                    });
                }
                self.send(&answer.reply);
            }
            Err(error) => {
                self.count(|counts| counts.failed = counts.failed.saturating_add(1));
                self.send(&Reply::error(
                    cookie,
                    self.terms.structured,
                    EIO,
                    &error.to_string(),
                ));
                (self.failed)(task.range(), error);
            }
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Sends a whole reply. If that fails the connection is over, which the reader finds by itself.
    fn send(&self, reply: &Reply) {
        let _one_at_a_time = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_over.load(Ordering::Relaxed) && send_all(self.stream, &reply.0).is_err() {
            self.hang_up();
        }
    }

    /// Ends it for both sides: nothing more is read, sent, or waited for.
    fn hang_up(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        // It fails only where the client was quicker.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Hangs up if it is dropped by a panic.
struct HangUpOnPanic<'a, 'b>(&'a Session<'b>);

impl Drop for HangUpOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.hang_up();
        }
    }
}

fn skip_payload(reader: &mut BufReader<Timed<'_>>, len: u32) -> io::Result<()> {
    let len = u64::from(len);
    let skipped = io::copy(&mut reader.take(len), &mut io::sink())?;
    if skipped == len {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
