//! What waits for a client, in order. Long texts lie here as they are and become JSON as they go out: as JSON a byte may
//! take six, and a file that is read for a client need not be held at all.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use firebrick_protocol::Queue;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// So much of a text is made JSON at a time.
const PIECE_BYTES: usize = 4 * 1024;

/// What a file that is still to be read counts for.
const FILE_BYTES: usize = PIECE_BYTES;

/// Bytes, texts and files that wait to be sent.
#[derive(Default)]
pub(super) struct Outbox {
    ready: Queue,
    parts: VecDeque<Part>,
    /// All that is held.
    held_bytes: usize,
    sent_bytes: u64,
}

enum Part {
    Bytes(Vec<u8>),
    Text { bytes: Vec<u8>, done: usize },
    File { file: OwnedFd, done: u64, end: u64 },
}

impl Outbox {
    /// How many bytes are held, which is not how many will be sent.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.parts.is_empty()
    }

    /// Bytes as they are.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        self.held_bytes = self.held_bytes.saturating_add(bytes.len());
        match self.parts.back_mut() {
            None => self.ready.push_owned(bytes),
            Some(Part::Bytes(last)) => last.extend_from_slice(&bytes),
            Some(_) => self.parts.push_back(Part::Bytes(bytes)),
        }
    }

    /// The inside of a JSON string. What is not UTF-8 becomes U+FFFD.
    pub(super) fn push_text(&mut self, bytes: Vec<u8>) {
        self.held_bytes = self.held_bytes.saturating_add(bytes.len());
        self.parts.push_back(Part::Text { bytes, done: 0 });
    }

    /// The same of a file's first `end` bytes, as they are when their turn comes.
    pub(super) fn push_file(&mut self, file: OwnedFd, end: u64) {
        self.held_bytes = self.held_bytes.saturating_add(FILE_BYTES);
        self.parts.push_back(Part::File { file, done: 0, end });
    }

    /// The bytes that go next; none when there are none.
    pub(super) fn front(&mut self) -> &[u8] {
        while self.ready.is_empty() && !self.parts.is_empty() {
            self.make_ready();
        }
        self.ready.front()
    }

    /// Drops the first bytes of [`Outbox::front`], which have been sent.
    pub(super) fn consume(&mut self, count: usize) {
        self.ready.consume(count);
        self.held_bytes = self.held_bytes.saturating_sub(count);
        self.sent_bytes = self.sent_bytes.saturating_add(count as u64);
    }

    /// How many bytes have gone.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Makes the next piece of the first part ready to go.
    fn make_ready(&mut self) {
        let mut piece = Vec::new();
        let (is_over, freed) = match self.parts.front_mut() {
            None => return,
            Some(Part::Bytes(bytes)) => {
                self.ready.push_owned(core::mem::take(bytes));
                self.parts.pop_front();
                return;
            }
            Some(Part::Text { bytes, done }) => {
                let left = bytes.get(*done..).unwrap_or_default();
                *done = done.saturating_add(escape(left, true, &mut piece));
                (*done >= bytes.len(), bytes.len())
            }
            Some(Part::File { file, done, end }) => {
                let mut buffer = [0; PIECE_BYTES];
                let left = usize::try_from(end.saturating_sub(*done)).unwrap_or(PIECE_BYTES);
                let count = read_at(
                    file,
                    buffer.get_mut(..left.min(PIECE_BYTES)).unwrap_or_default(),
                    *done,
                );
                let read = buffer.get(..count).unwrap_or_default();
                // A file that became shorter ends early.
                let is_last = count == 0 || done.saturating_add(count as u64) >= *end;
                let taken = escape(read, is_last, &mut piece);
                *done = done.saturating_add(taken as u64);
                (is_last && taken >= count || taken == 0, FILE_BYTES)
            }
        };
        self.held_bytes = self.held_bytes.saturating_add(piece.len());
        self.ready.push_owned(piece);
        if is_over {
            self.parts.pop_front();
            self.held_bytes = self.held_bytes.saturating_sub(freed);
        }
    }
}

fn read_at(file: &OwnedFd, buffer: &mut [u8], at: u64) -> usize {
    loop {
        match rustix::io::pread(file, &mut *buffer, at) {
            Err(Errno::INTR) => {}
            other => return other.unwrap_or(0),
        }
    }
}

/// Writes the beginning of a text as the inside of a JSON string, and tells how much of it was taken: at least something of
/// any text that `is_last`, that is behind which nothing comes.
fn escape(text: &[u8], is_last: bool, into: &mut Vec<u8>) -> usize {
    let piece = text.get(..PIECE_BYTES).unwrap_or(text);
    let is_last = is_last && piece.len() == text.len();
    let (good, skipped) = match core::str::from_utf8(piece) {
        Ok(good) => (good, 0),
        Err(error) => {
            let good = piece.get(..error.valid_up_to()).unwrap_or_default();
            let skipped = match error.error_len() {
                Some(bad) => bad,
                // A letter that the next piece completes, if there is one.
                None if is_last => piece.len().saturating_sub(good.len()),
                None => 0,
            };
            (core::str::from_utf8(good).unwrap_or_default(), skipped)
        }
    };
    let quoted = serde_json::to_vec(good).unwrap_or_default();
    into.extend_from_slice(quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default());
    if skipped > 0 {
        into.extend_from_slice("\u{fffd}".as_bytes());
    }
    good.len().saturating_add(skipped)
}

/// How long a text is as the inside of a JSON string.
pub(super) fn escaped_len(text: &[u8]) -> usize {
    let (mut done, mut len) = (0usize, 0usize);
    let mut piece = Vec::new();
    while let Some(left) = text.get(done..).filter(|left| !left.is_empty()) {
        piece.clear();
        done = done.saturating_add(escape(left, true, &mut piece));
        len = len.saturating_add(piece.len());
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    fn sent(outbox: &mut Outbox) -> Vec<u8> {
        let mut all = Vec::new();
        while !outbox.front().is_empty() {
            let count = outbox.front().len().min(1000);
            all.extend_from_slice(&outbox.front()[..count]);
            outbox.consume(count);
        }
        assert!(outbox.is_empty());
        assert_eq!(outbox.held_bytes(), 0);
        all
    }

    #[test]
    fn texts_become_the_json_that_serde_makes() {
        let mut texts: Vec<Vec<u8>> = [
            &b""[..],
            b"a\"\\\n\0",
            b"\xff",
            b"a\xc3",
            b"\xe2\x82",
            b"\xf0\x9f\x98\x80",
        ]
        .map(Vec::from)
        .into();
        for shift in 0..4 {
            let mut long = alloc::vec![b'x'; PIECE_BYTES - shift];
            for _ in 0..2000 {
                long.extend_from_slice("é\u{1f600}\u{1}".as_bytes());
            }
            texts.push(long.clone());
            long.insert(PIECE_BYTES + 1, 0xe2);
            texts.push(long.clone());
            long.push(0xf0);
            texts.push(long);
        }
        for text in texts {
            let expected = serde_json::to_vec(&String::from_utf8_lossy(&text)).expect("JSON");
            let inside = &expected[1..expected.len() - 1];
            assert_eq!(escaped_len(&text), inside.len());
            let mut outbox = Outbox::default();
            outbox.push(b"before\"".to_vec());
            outbox.push_text(text);
            outbox.push(b"\"beh".to_vec());
            outbox.push(b"ind".to_vec());
            assert_eq!(sent(&mut outbox), [b"before\"", inside, b"\"behind"].concat());
        }
    }

    #[test]
    fn files_become_json_too() {
        let text = "zwölf\n".repeat(5000);
        let path = std::env::temp_dir().join(alloc::format!("firebrick-outbox-{}", std::process::id()));
        std::fs::write(&path, &text).expect("a file");
        for (end, expected) in [
            (text.len(), &*text),
            (text.len() + 10, &*text),
            (0, ""),
            (7, "zwölf\n"),
        ] {
            let file = std::fs::File::open(&path).expect("it is there");
            let mut outbox = Outbox::default();
            outbox.push_file(file.into(), end as u64);
            let expected = serde_json::to_vec(expected).expect("JSON");
            assert_eq!(sent(&mut outbox), expected[1..expected.len() - 1]);
        }
        std::fs::remove_file(&path).expect("it is there");
    }
}
