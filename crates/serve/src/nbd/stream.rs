//! The socket of one client: reading with a deadline, and sending whole messages.

use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use crate::Ending;

/// The most pieces that the kernel takes in one call.
const SLICES_MAX: usize = 1024;

/// A socket that neither reads nor writes beyond a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed<'a> {
    stream: &'a UnixStream,
    deadline: Option<Instant>,
}

impl<'a> Timed<'a> {
    /// Until `deadline`; without one where the clock does not reach that far.
    pub(super) fn new(stream: &'a UnixStream, deadline: Option<Instant>) -> Timed<'a> {
        Timed { stream, deadline }
    }

    /// From now on there is no haste.
    pub(super) fn lift(&mut self) -> io::Result<()> {
        self.deadline = None;
        self.stream.set_read_timeout(None)?;
        self.stream.set_write_timeout(None)
    }

    /// Does something once that may take until the deadline, after `limit` has told the socket how long that is.
    fn once(
        &self,
        limit: impl Fn(Option<std::time::Duration>) -> io::Result<()>,
        mut act: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            if let Some(deadline) = self.deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                limit(Some(left))?;
            }
            match act() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The time given was short by what the kernel rounds: the clock decides.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.deadline.is_some() => {}
                outcome => return outcome,
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        self.once(|left| self.stream.set_read_timeout(left), || stream.read(buffer))
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.once(
            |left| self.stream.set_write_timeout(left),
            || Ok(send(self.stream, bytes, SendFlags::NOSIGNAL)?),
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends all pieces, one behind the other, however long the client takes to read them. Nobody else may send meanwhile.
pub(super) fn send_all(stream: &UnixStream, pieces: &[Vec<u8>]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = &mut slices[..];
    // Pieces without bytes would look like a message of none.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let first = rest.get(..SLICES_MAX).unwrap_or(rest);
        match sendmsg(
            stream,
            first,
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        ) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => IoSlice::advance_slices(&mut rest, len),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// What it means for a connection that reading or writing failed.
pub(super) fn ending(error: io::Error) -> Ending {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            Ending::HungUp
        }
        _ => Ending::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn many_pieces_arrive_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let pieces: Vec<Vec<u8>> = (0..3000_u32)
            .map(|n| vec![(n % 251) as u8; (n % 700) as usize])
            .collect();
        let expected = pieces.concat();
        let sender = std::thread::spawn(move || send_all(&ours, &pieces));
        let mut arrived = Vec::new();
        theirs.read_to_end(&mut arrived).unwrap();
        sender.join().unwrap().unwrap();
        assert!(arrived == expected);
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(
            send_all(&ours, &[vec![1]]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        assert!(send_all(&ours, &[vec![], vec![]]).is_ok());
    }

    #[test]
    fn a_deadline_holds_for_reading_and_writing_and_is_lifted() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let deadline = Instant::now().checked_add(Duration::from_millis(50));
        let mut timed = Timed::new(&ours, deadline);
        assert_eq!(
            timed.read(&mut [0; 4]).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        assert_eq!(timed.write(b"x").unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut full = Timed::new(&ours, Instant::now().checked_add(Duration::from_millis(50)));
        let error = full.write_all(&vec![0; 16 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        timed.lift().unwrap();
        (&theirs).write_all(b"abcd").unwrap();
        timed.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(ours.read_timeout().unwrap(), None);
    }
}
