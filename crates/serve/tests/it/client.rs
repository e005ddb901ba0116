//! A client made of bytes from the protocol's document, and of nothing of ours.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const CACHE: u16 = 5;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;

pub(crate) const EPERM: u32 = 1;
pub(crate) const EIO: u32 = 5;
pub(crate) const EINVAL: u32 = 22;

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
}

/// A chunk of a structured reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) done: bool,
    pub(crate) kind: u16,
    pub(crate) cookie: u64,
    pub(crate) payload: Vec<u8>,
}

impl Client {
    /// Connects, and sends nothing yet.
    pub(crate) fn connect(socket: &Path) -> Client {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }

    /// Begins the transmission as old clients do: simple replies.
    pub(crate) fn plain(socket: &Path) -> Client {
        let mut client = Client::connect(socket);
        client.send(b"\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\0");
        let said = client.receive(28);
        assert_eq!(said[..18], *b"NBDMAGICIHAVEOPT\0\x03");
        // Flags: has flags, read-only, flush, many connections, cache.
        assert_eq!(said[26..], *b"\x05\x07");
        client
    }

    /// Begins the transmission as new clients do: structured replies, and extents.
    pub(crate) fn rich(socket: &Path) -> Client {
        let mut client = Client::connect(socket);
        client.send(b"\0\0\0\x03IHAVEOPT\0\0\0\x08\0\0\0\0");
        client.send(b"IHAVEOPT\0\0\0\x0a\0\0\0\x1b\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation");
        client.send(b"IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0");
        // Greeting; ACK; context and its name, ACK; INFO of the export, ACK.
        let said = client.receive(18 + 20 + (20 + 19) + 20 + (20 + 12) + 20);
        assert_eq!(said[said.len() - 4..], [0; 4]);
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Sends a request without waiting for its answer.
    pub(crate) fn ask(&mut self, command: u16, flags: u16, cookie: u64, offset: u64, len: u32) {
        let request = [
            b"\x25\x60\x95\x13",
            &flags.to_be_bytes()[..],
            &command.to_be_bytes(),
            &cookie.to_be_bytes(),
            &offset.to_be_bytes(),
            &len.to_be_bytes(),
        ];
        self.send(&request.concat());
    }

    /// The header of a simple reply: its error, and its cookie.
    pub(crate) fn simple(&mut self) -> (u32, u64) {
        let header = self.receive(16);
        assert_eq!(header[..4], *b"\x67\x44\x66\x98");
        (number32(&header[4..]), number64(&header[8..]))
    }

    pub(crate) fn chunk(&mut self) -> Chunk {
        let header = self.receive(20);
        assert_eq!(header[..4], *b"\x66\x8e\x33\xef");
        let len = number32(&header[16..]) as usize;
        assert!(len <= (32 << 20) + 8, "{len}");
        Chunk {
            done: header[4..6] == [0, 1],
            kind: u16::from_be_bytes([header[6], header[7]]),
            cookie: number64(&header[8..]),
            payload: self.receive(len),
        }
    }

    /// Asks for bytes, and puts the pieces of the answer together: the bytes, and how many of them were holes. Or the error.
    pub(crate) fn read(&mut self, flags: u16, offset: u64, len: u32) -> Result<(Vec<u8>, u32), u32> {
        self.ask(READ, flags, 77, offset, len);
        self.pieces(offset, len)
    }

    /// The pieces of one read's answer, where nothing else is asked for.
    pub(crate) fn pieces(&mut self, offset: u64, len: u32) -> Result<(Vec<u8>, u32), u32> {
        let (mut bytes, mut holes) = (vec![0xee; len as usize], 0);
        let mut seen = BTreeMap::new();
        loop {
            let chunk = self.chunk();
            let place = chunk
                .payload
                .get(..8)
                .map_or(0, |at| number64(at).wrapping_sub(offset)) as usize;
            match chunk.kind {
                0 => assert!(chunk.done && chunk.payload.is_empty()),
                1 => {
                    let data = &chunk.payload[8..];
                    bytes[place..place + data.len()].copy_from_slice(data);
                    assert!(seen.insert(place, data.len()).is_none());
                }
                2 => {
                    let hole = number32(&chunk.payload[8..]) as usize;
                    bytes[place..place + hole].fill(0);
                    assert!(seen.insert(place, hole).is_none());
                    holes += hole as u32;
                }
                0x8001 => {
                    assert!(chunk.done);
                    return Err(number32(&chunk.payload));
                }
                other => panic!("chunk of type {other}"),
            }
            if chunk.done {
                break;
            }
        }
        // Every byte once.
        let end = seen.into_iter().fold(0, |end, (place, len)| {
            assert_eq!(place, end);
            end + len
        });
        assert_eq!(end, len as usize);
        Ok((bytes, holes))
    }

    /// What the server sends until it hangs up.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            // What we sent and nobody read makes the end a rude one.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
        rest
    }
}

pub(crate) fn number32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

pub(crate) fn number64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}
