//! Reads a stream in a thread of its own, some way ahead of whoever wants it.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Bytes of one piece: small enough to stay in a core's cache between decompressing, hashing and copying.
pub(crate) const PIECE_LEN: usize = 256 << 10;

/// Buffers that came back, so that each is touched for the first time only once.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_else(|| vec![0; PIECE_LEN])
    }

    /// Takes a buffer back, unless somebody else still reads it.
    fn give_back(&self, piece: Arc<Piece>) {
        if let Some(piece) = Arc::into_inner(piece) {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(piece.bytes);
        }
    }
}

/// Some bytes of a stream.
pub(crate) struct Piece {
    bytes: Vec<u8>,
    len: usize,
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

type Item = io::Result<Arc<Piece>>;

/// Starts a thread that reads `stream` to its end, into one queue for each of `queue_lens`: every queue gets every
/// piece, and an error last if there is one. Nobody reads further ahead than the shortest queue has room.
pub(crate) fn read_ahead(
    name: &'static str,
    pool: &Pool,
    queue_lens: &[usize],
    open: impl FnOnce() -> io::Result<Box<dyn Read + Send>> + Send + 'static,
) -> io::Result<(Vec<AheadReader>, JoinHandle<()>)> {
    let (senders, readers): (Vec<SyncSender<Item>>, Vec<AheadReader>) = queue_lens
        .iter()
        .map(|&len| {
            let (sender, queue) = sync_channel(len);
            (
                sender,
                AheadReader {
                    queue,
                    pool: pool.clone(),
                    current: None,
                    ended: false,
                },
            )
        })
        .unzip();
    let pool = pool.clone();
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        if let Err(error) = open().and_then(|stream| pump(stream, &pool, &senders)) {
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

fn pump(mut stream: Box<dyn Read + Send>, pool: &Pool, senders: &[SyncSender<Item>]) -> io::Result<()> {
    loop {
        let mut bytes = pool.take();
        let mut len = 0;
        let mut ended = false;
        while len < bytes.len() && !ended {
            match stream.read(&mut bytes[len..]) {
                Ok(0) => ended = true,
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let piece = Arc::new(Piece { bytes, len });
        let wanted = len > 0
            && senders
                .iter()
                .all(|sender| sender.send(Ok(piece.clone())).is_ok());
        pool.give_back(piece);
        // Whoever stopped listening has a reason, and says it elsewhere.
        if ended || !wanted {
            return Ok(());
        }
    }
}

/// One reader's queue.
pub(crate) struct AheadReader {
    queue: Receiver<Item>,
    pool: Pool,
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

    pub(crate) fn give_back(&self, piece: Arc<Piece>) {
        self.pool.give_back(piece);
    }
}

impl BufRead for AheadReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self
            .current
            .as_ref()
            .is_some_and(|(piece, read)| *read == piece.len)
        {
            let (piece, _) = self.current.take().expect("it was just looked at");
            self.pool.give_back(piece);
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
        let open = move || Ok(Box::new(io::Cursor::new(source)) as Box<dyn Read + Send>);
        let (readers, thread) = read_ahead("test", &Pool::default(), &[1, 8], open).unwrap();
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
        let open = || Ok(Box::new(Failing(PIECE_LEN + 5)) as Box<dyn Read + Send>);
        let (mut readers, thread) = read_ahead("test", &Pool::default(), &[4], open).unwrap();
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
    fn a_reader_that_goes_away_ends_the_thread() {
        let open = || Ok(Box::new(io::repeat(1)) as Box<dyn Read + Send>);
        let (readers, thread) = read_ahead("test", &Pool::default(), &[1], open).unwrap();
        drop(readers);
        thread.join().unwrap();
    }
}
