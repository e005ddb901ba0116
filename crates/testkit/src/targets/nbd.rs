//! What a server of disks reads from its clients.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::net::UnixStream;

use firebrick_serve::{Content, Disk, Extent, Options, nbd};

/// How large the disk is: any answer is small.
const SIZE_BYTES: u64 = 65_536 + 7;
/// How long its stretches of data and of holes are.
const STRIPE: u64 = 8192;

/// A disk of which every other stripe is a hole, and the last bytes cannot be read.
struct Stripes;

impl Stripes {
    fn inside(range: &Range<u64>) {
        assert!(
            range.start < range.end && range.end <= SIZE_BYTES,
            "{range:?} lies inside the disk"
        );
    }
}

impl Disk for Stripes {
    fn size_bytes(&self) -> u64 {
        SIZE_BYTES
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = offset..offset + buffer.len() as u64;
        Stripes::inside(&range);
        if range.end == SIZE_BYTES {
            return Err(io::Error::other("the last byte is lost"));
        }
        buffer.fill(1);
        Ok(())
    }

    fn extent(&self, range: Range<u64>) -> io::Result<Extent> {
        Stripes::inside(&range);
        let number = range.start / STRIPE;
        let content = [Content::Data, Content::Hole][usize::from(number % 2 == 1)];
        let end = (number + 1) * STRIPE;
        Ok(Extent { content, end })
    }

    fn prefetch(&self, range: Range<u64>) {
        Stripes::inside(&range);
    }
}

/// Serves a disk to a client that sends `bytes`. Whether it came past the handshake.
///
/// # Panics
/// If the disk is asked for what it does not have, or the replies do not add up.
pub fn nbd(bytes: &[u8]) -> bool {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let (counts, said) = std::thread::scope(|scope| {
        let server = scope.spawn(move || {
            let (counts, ending) = nbd::serve_stream(&ours, &Stripes, &Options::default(), &|_, _| ());
            assert!(!ending.to_string().is_empty());
            counts
        });
        let mut writer = &theirs;
        scope.spawn(move || {
            // Whoever is hung up on cannot send the rest.
            let _ = writer.write_all(bytes);
            let _ = writer.shutdown(Shutdown::Write);
        });
        let mut said = Vec::new();
        // What was sent to a server that had hung up makes the end a rude one; all that it said has come by then.
        let _ = (&theirs).read_to_end(&mut said);
        (server.join().expect("no server panics"), said)
    });
    assert!(counts.failed + counts.reads <= counts.requests);
    assert!(counts.hole_bytes <= counts.read_bytes && counts.read_bytes <= counts.reads * SIZE_BYTES);
    replies(&said)
}

/// Takes a server's words apart. Whether a handshake ended well in them.
fn replies(said: &[u8]) -> bool {
    assert!(said.starts_with(b"NBDMAGICIHAVEOPT"), "it greets");
    let mut rest = &said[18..];
    let (mut structured, mut transmits) = (false, false);
    while let Some(reply) = rest.strip_prefix(b"\x00\x03\xe8\x89\x04\x55\x65\xa9".as_slice()) {
        let [option, kind, len] = [0, 4, 8].map(|at| number(&reply[at..]));
        structured |= (option, kind) == (8, 1);
        transmits |= (option, kind) == (7, 1);
        rest = &reply[12 + len as usize..];
    }
    if transmits && structured {
        while let Some(chunk) = rest.strip_prefix(b"\x66\x8e\x33\xef".as_slice()) {
            let len = number(&chunk[12..]) as usize;
            assert!(len as u64 <= SIZE_BYTES + 8);
            rest = &chunk[16 + len..];
        }
        assert!(
            rest.is_empty(),
            "replies are whole, and stand one behind the other"
        );
    }
    // The other two ways have replies whose length does not stand in them.
    transmits || rest.len() >= 10
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}
