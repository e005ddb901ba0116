//! Reads a stream in a thread of its own, some way ahead of whoever wants it.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Bytes of one piece: small enough to stay in a core's cache between decompressing, hashing and copying.
pub(crate) const PIECE_LEN: usize = 256 << 10;

/// Buffers, never more than a number of them at once. Each is touched for the first time only once.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    buffers: Mutex<Buffers>,
    came_back: Condvar,
}

struct Buffers {
    free: Vec<Vec<u8>>,
    /// How many may still be made.
    to_make: usize,
}

impl Pool {
    /// A pool of `pieces` buffers.
    pub(crate) fn new(pieces: usize) -> Pool {
        Pool(Arc::new(Shared {
            buffers: Mutex::new(Buffers {
                free: Vec::new(),
                to_make: pieces,
            }),
            came_back: Condvar::new(),
        }))
    }

    /// A buffer of [`PIECE_LEN`] bytes of anything; waits until there is one.
    fn take(&self) -> Vec<u8> {
        let mut buffers = self.0.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(bytes) = buffers.free.pop() {
                return bytes;
            }
            if buffers.to_make > 0 {
                buffers.to_make -= 1;
                return vec![0; PIECE_LEN];
            }
            buffers = self
                .0
                .came_back
                .wait(buffers)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, bytes: Vec<u8>) {
        let mut buffers = self.0.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.free.push(bytes);
        drop(buffers);
        self.0.came_back.notify_one();
    }
}

/// Some bytes of a stream. Its buffer goes back to the pool when the last who reads it is done.
pub(crate) struct Piece {
    bytes: Vec<u8>,
    len: usize,
    pool: Pool,
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.bytes));
    }
}

type Item = io::Result<Arc<Piece>>;

/// A stream, and the buffers to read it into.
pub(crate) type Opened = (Box<dyn Read + Send>, Pool);

/// Starts a thread that reads a stream to its end, into one queue for each of `queue_lens`: every queue gets every
/// piece, and an error last if there is one. Nobody reads further ahead than the shortest queue has room, or than the
/// pool has buffers.
pub(crate) fn read_ahead(
    name: &'static str,
    queue_lens: &[usize],
    open: impl FnOnce() -> io::Result<Opened> + Send + 'static,
) -> io::Result<(Vec<AheadReader>, JoinHandle<()>)> {
    let (senders, readers): (Vec<SyncSender<Item>>, Vec<AheadReader>) = queue_lens
        .iter()
        .map(|&len| {
            let (sender, queue) = sync_channel(len);
            (
                sender,
                AheadReader {
                    queue,
                    current: None,
                    ended: false,
                },
            )
        })
        .unzip();
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        if let Err(error) = open().and_then(|opened| pump(opened, &senders)) {
            for sender in &senders {
                // An error cannot be cloned; what it says can.
                let copy = io::Error::new(error.kind(), Relayed(crate::error::chain(&error)));
                _ = sender.send(Err(copy));
            }
        }
    })?;
    Ok((readers, thread))
}

/// An error that happened in another thread, with its causes in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Relayed(String);

fn pump((mut stream, pool): Opened, senders: &[SyncSender<Item>]) -> io::Result<()> {
    loop {
        let mut piece = Piece {
            bytes: pool.take(),
            len: 0,
            pool: pool.clone(),
        };
        let mut ended = false;
        while piece.len < PIECE_LEN && !ended {
            match stream.read(&mut piece.bytes[piece.len..]) {
                Ok(0) => ended = true,
                Ok(count) => piece.len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let piece = Arc::new(piece);
        let wanted = piece.len > 0
            && senders
                .iter()
                .all(|sender| sender.send(Ok(piece.clone())).is_ok());
        // Whoever stopped listening has a reason, and says it elsewhere.
        if ended || !wanted {
            return Ok(());
        }
    }
}

/// One reader's queue.
pub(crate) struct AheadReader {
    queue: Receiver<Item>,
    current: Option<(Arc<Piece>, usize)>,
    ended: bool,
}

impl AheadReader {
    /// The next piece as a whole; `None` at the end.
    pub(crate) fn next_piece(&mut self) -> io::Result<Option<Arc<Piece>>> {
        if self.ended {
            return Ok(None);
        }
        match self.queue.recv() {
            Ok(Ok(piece)) => Ok(Some(piece)),
            Ok(Err(error)) => {
                self.ended = true;
                Err(error)
            }
            Err(_) => {
                self.ended = true;
                Ok(None)
            }
        }
    }
}

impl BufRead for AheadReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self
            .current
            .as_ref()
            .is_some_and(|(piece, read)| *read == piece.len)
        {
            self.current = None;
        }
        if self.current.is_none() {
            self.current = self.next_piece()?.map(|piece| (piece, 0));
        }
        Ok(self
            .current
            .as_ref()
            .map_or(&[], |(piece, read)| &piece.bytes()[*read..]))
    }

    fn consume(&mut self, count: usize) {
        if let Some((_, read)) = &mut self.current {
            *read += count;
        }
    }
}

impl Read for AheadReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let len = available.len().min(buffer.len());
        buffer[..len].copy_from_slice(&available[..len]);
        self.consume(len);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `len` bytes, then fails.
    struct Failing(usize);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.0.min(buffer.len()).min(1000);
            if len == 0 {
                return Err(io::Error::other("cable pulled"));
            }
            buffer[..len].fill(7);
            self.0 -= len;
            Ok(len)
        }
    }

    #[test]
    fn every_queue_gets_everything() {
        let bytes: Vec<u8> = (0..3 * PIECE_LEN + 17).map(|n| n as u8).collect();
        let source = bytes.clone();
        let open = move || Ok((Box::new(io::Cursor::new(source)) as _, Pool::new(16)));
        let (readers, thread) = read_ahead("test", &[1, 8], open).unwrap();
        let all: Vec<Vec<u8>> = readers
            .into_iter()
            .map(|mut reader| {
                std::thread::spawn(move || {
                    let mut out = Vec::new();
                    reader.read_to_end(&mut out).unwrap();
                    out
                })
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        thread.join().unwrap();
        assert!(all.iter().all(|out| *out == bytes));
    }

    #[test]
    fn an_error_reaches_the_reader_after_what_came_before_is_lost_or_read() {
        let open = || Ok((Box::new(Failing(PIECE_LEN + 5)) as _, Pool::new(16)));
        let (mut readers, thread) = read_ahead("test", &[4], open).unwrap();
        let mut out = Vec::new();
        let error = readers[0].read_to_end(&mut out).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), out.len()),
            ("cable pulled", PIECE_LEN)
        );
        assert_eq!(readers[0].read(&mut [0]).unwrap(), 0);
        thread.join().unwrap();
    }

    #[test]
    fn two_streams_share_a_pool_that_is_shorter_than_their_queues() {
        let pool = Pool::new(3);
        let len = 20 * PIECE_LEN + 1;
        let open = || {
            let pool = pool.clone();
            move || Ok((Box::new(io::repeat(1).take(len as u64)) as _, pool))
        };
        let (mut first, one) = read_ahead("test", &[2], open()).unwrap();
        let (mut second, two) = read_ahead("test", &[1], open()).unwrap();
        let mut out = Vec::new();
        first[0].read_to_end(&mut out).unwrap();
        second[0].read_to_end(&mut out).unwrap();
        assert_eq!(out.len(), 2 * len);
        one.join().unwrap();
        two.join().unwrap();
    }

    #[test]
    fn a_reader_that_goes_away_ends_the_thread() {
        let open = || Ok((Box::new(io::repeat(1)) as _, Pool::new(16)));
        let (readers, thread) = read_ahead("test", &[1], open).unwrap();
        drop(readers);
        thread.join().unwrap();
    }
}
