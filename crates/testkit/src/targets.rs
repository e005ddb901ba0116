//! What is fuzzed: one function a parser of outside bytes, each with more to say than "it did not panic".
//!
//! `fuzz/` runs them under libFuzzer; the test `mutations.rs` runs them, on any toolchain, over [`mutate`]d seeds.

mod agent;
mod ext4;
mod inventory;
pub mod mutate;
mod nbd;
mod source;
mod squashfs;
mod store;
mod trust;

use std::io;

use firebrick_layer::{Limits, RegionSink, ScanSummary, scan};
use firebrick_protocol::line::LineSplitter;
use firebrick_protocol::mux::{Endpoint, Event, MAX_STREAMS, Nonce, Read};
use firebrick_protocol::rpc::{Incoming, Request};
use firebrick_tree::{EntryKind, MergeOptions, RegionIndex, Timestamp, Tree};

pub use agent::{jobs, replies, requests};
pub use ext4::{ext4, ext4_check, to_records};
pub use inventory::inventory;
pub use nbd::nbd;
pub use source::{archives, manifests};
pub use squashfs::squashfs;
pub use store::{store_archives, store_documents, store_seeds, store_tables};
pub use trust::{trust, trust_seeds};

/// A region whose bytes only count.
#[derive(Default)]
struct Counter(u64);

impl RegionSink for Counter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0 += bytes.len() as u64;
        Ok(())
    }

    fn append_zeros(&mut self, len: usize) -> io::Result<()> {
        assert!(len < 4096, "{len} zeros are a hole's work");
        self.0 += len as u64;
        Ok(())
    }
}

/// Scans `bytes` as a layer, compressed or not, and merges it with itself. Whether it is one.
///
/// # Panics
/// If the scan's promises do not hold.
pub fn tar(bytes: &[u8]) -> bool {
    let limits = Limits {
        entries: 10_000,
        unpacked_bytes: 64 << 20,
        metadata_bytes: 4 << 20,
        ..Limits::default()
    };
    let compression = firebrick_layer::Compression::detect(bytes);
    let Ok(reader) = firebrick_layer::decompress(compression, bytes) else {
        return false;
    };
    let bounded = io::Read::take(reader, 256 << 20);
    let mut region = Counter::default();
    let Ok((index, summary)) = scan(
        io::BufReader::new(bounded),
        RegionIndex(0),
        &mut region,
        &limits,
        ScanSummary::default(),
    ) else {
        return false;
    };
    assert_eq!(index.region_len, region.0, "the region is as long as it says");
    assert_eq!(region.0 % 4096, 0, "a region is whole blocks");
    assert!(summary.file_bytes <= limits.unpacked_bytes);
    let mut next = 0;
    for entry in &index.entries {
        let EntryKind::File(file) = &entry.kind else {
            continue;
        };
        let mut end = 0;
        for segment in &file.segments {
            assert!(
                segment.file_offset >= end && segment.len > 0,
                "segments rise: {file:?}"
            );
            assert_eq!((segment.file_offset % 4096, segment.region_offset % 4096), (0, 0));
            assert!(
                segment.region_offset >= next,
                "the region is in tar order: {file:?}"
            );
            end = segment.file_offset + segment.len;
            next = segment.region_offset + segment.len;
            assert!(
                next <= region.0 && end <= file.size,
                "segments lie inside: {file:?}"
            );
        }
    }
    let created = Timestamp::default();
    if let Ok(tree) = Tree::merge([index.clone(), index], &MergeOptions::at(created)) {
        for (path, id) in tree.walk() {
            assert_eq!(tree.lookup(&path), Some(id), "a walk's path leads back");
        }
    }
    true
}

/// Feeds `bytes` to both ends of the protocol: as lines, and as a wire. Whether there are any.
///
/// # Panics
/// If a bound does not hold.
pub fn protocol(bytes: &[u8]) -> bool {
    let Some((&first, bytes)) = bytes.split_first() else {
        return false;
    };
    let chunk = usize::from(first) + 1;
    let mut lines = LineSplitter::new(1000);
    for piece in bytes.chunks(chunk) {
        lines.push(piece);
        while let Some(line) = lines.next_line() {
            let Ok(line) = line else { continue };
            assert!(line.len() <= 1000 && !line.contains(&b'\n'));
            if let Ok(request) = Request::parse(line) {
                drop(request.params::<firebrick_protocol::agent::Exec>());
            }
            if let Err(error) = Incoming::parse(line) {
                assert!(!error.to_string().is_empty());
            }
        }
        assert!(
            lines.pending_bytes() <= 1000 + chunk,
            "a line's memory is bounded"
        );
    }
    for mut end in [Endpoint::guest(), Endpoint::host(Nonce::new(7))] {
        for piece in bytes.chunks(chunk) {
            end.receive(piece);
            answer(&mut end);
        }
    }
    talk(bytes, chunk);
    true
}

/// A host and a guest in session, with `bytes` slipped into the wire.
fn talk(bytes: &[u8], chunk: usize) {
    let (mut host, mut guest) = (Endpoint::host(Nonce::new(7)), Endpoint::guest());
    let mut pieces = bytes.chunks(chunk);
    for round in 0..40 {
        deliver(&mut host, &mut guest);
        deliver(&mut guest, &mut host);
        if let Ok(stream) = host.open(52) {
            host.write(stream, b"hello");
        }
        if round % 2 == 1 {
            let Some(piece) = pieces.next() else { break };
            if round % 4 == 1 { &mut guest } else { &mut host }.receive(piece);
        }
        answer(&mut host);
        answer(&mut guest);
    }
}

fn deliver(from: &mut Endpoint, to: &mut Endpoint) {
    for _ in 0..64 {
        let bytes = from.transmit().to_vec();
        if bytes.is_empty() {
            break;
        }
        to.receive(&bytes);
        from.transmitted(bytes.len());
    }
}

/// Does what a user would: accepts, reads, echoes, closes.
fn answer(end: &mut Endpoint) {
    let mut buffer = [0; 512];
    let mut count = 0_u32;
    while let Some(event) = end.next_event() {
        count += 1;
        assert!(count < 1 << 20, "events end");
        match event {
            Event::Incoming { stream, port } if port % 2 == 0 => end.accept(stream),
            Event::Incoming { stream, .. } => {
                end.refuse(stream, firebrick_protocol::mux::Refusal::NoListener);
            }
            Event::Readable(stream) => match end.read(stream, &mut buffer) {
                Read::Data(len) => drop(end.write(stream, &buffer[..len])),
                Read::End => end.finish(stream),
                Read::Gone => end.close(stream),
                Read::Pending => {}
            },
            _ => {}
        }
    }
    assert!(end.stream_count() <= MAX_STREAMS);
}
