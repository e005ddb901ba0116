//! Tables: what lies where in an image, and in the store.
//!
//! An *entry* is a hole or a chunk, and says where the chunk lies: a range of a *bundle*, which is a blob. Entries in the order
//! of the image are cut into *segments*, by what their chunks are, so that a change of the image changes few segments; a
//! segment is stored as a chunk itself. The *root* lists the segments, and is a blob of its own.
//!
//! ```text
//! root     "FBROOT1\n"  u64 image length  blobs  u32 count  segment…
//! segment  u64 length in the image  locator
//! blobs    u32 count  digest (32 bytes)…
//! segment's bytes   blobs  u32 count  entry…
//! entry    0 u64 length | 1 locator
//! locator  u32 blob (index into blobs)  u32 offset  u32 stored length  u32 length  id (32 bytes)
//! ```
//!
//! Numbers are little-endian.

use std::collections::HashMap;

use firebrick_digest::Digest;

use crate::id::Id;
use crate::seal::stored_max;

const MAGIC: &[u8; 8] = b"FBROOT1\n";
/// A bundle has at most so many bytes; offsets fit 32 bits with room to spare.
pub(crate) const BUNDLE_MAX: u64 = 64 << 20;
/// A chunk has at most so many bytes, whoever cut it.
pub(crate) const CHUNK_MAX: usize = 1 << 20;
/// A root has at most so many bytes before compression: tables of 10 TiB fit.
pub(crate) const ROOT_MAX: usize = 32 << 20;
/// Entries of a segment: at least, on the average beyond that, at most.
const SEGMENT_MIN: usize = 64;
const SEGMENT_ONE_IN: u32 = 256;
const SEGMENT_MAX: usize = 1024;

/// Where a chunk lies in the store, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locator {
    /// The bundle.
    pub blob: Digest,
    /// First byte in it.
    pub offset: u32,
    /// Bytes that it takes there.
    pub stored: u32,
    /// Bytes that it has in the image.
    pub len: u32,
    /// What it is: see [`Seal`](crate::Seal).
    pub id: Id,
}

/// A part of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// So many bytes of zeros.
    Hole(u64),
    /// A chunk.
    Chunk(Locator),
}

impl Entry {
    /// Its length in the image, in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Entry::Hole(len) => *len,
            Entry::Chunk(locator) => u64::from(locator.len),
        }
    }

    /// Whether it is nothing at all; no entry of a table is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the root says of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Bytes of the image that it covers.
    pub len: u64,
    /// Where its own bytes lie.
    pub at: Locator,
}

/// The first thing to read of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Length of the image, in bytes.
    pub image_len: u64,
    /// In the order of the image.
    pub segments: Vec<Segment>,
}

/// Cuts entries into segments, by what they are.
pub(crate) fn segments(entries: &[Entry]) -> Vec<&[Entry]> {
    let mut cut = Vec::new();
    let mut start = 0;
    for (index, entry) in entries.iter().enumerate() {
        let count = index + 1 - start;
        let wanted = match entry {
            Entry::Chunk(locator) => chance(&locator.id) < u32::MAX / SEGMENT_ONE_IN,
            Entry::Hole(_) => false,
        };
        if count >= SEGMENT_MAX || (count >= SEGMENT_MIN && wanted) {
            cut.extend(entries.get(start..=index));
            start = index + 1;
        }
    }
    cut.extend(entries.get(start..).filter(|rest| !rest.is_empty()));
    cut
}

/// A number that follows from an id alone.
pub(crate) fn chance(id: &Id) -> u32 {
    let [a, b, c, d, ..] = *id.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// The bytes of a segment.
pub(crate) fn encode_segment(entries: &[Entry]) -> Vec<u8> {
    let mut blobs = Blobs::default();
    let mut body = Vec::with_capacity(entries.len() * 50);
    for entry in entries {
        match entry {
            Entry::Hole(len) => {
                body.push(0);
                body.extend_from_slice(&len.to_le_bytes());
            }
            Entry::Chunk(locator) => {
                body.push(1);
                blobs.put(&mut body, locator);
            }
        }
    }
    let mut bytes = blobs.encode();
    bytes.extend_from_slice(&count(entries.len()));
    bytes.extend_from_slice(&body);
    bytes
}

/// The bytes of a root.
pub(crate) fn encode_root(root: &Root) -> Vec<u8> {
    let mut blobs = Blobs::default();
    let mut body = Vec::with_capacity(root.segments.len() * 56);
    for segment in &root.segments {
        body.extend_from_slice(&segment.len.to_le_bytes());
        blobs.put(&mut body, &segment.at);
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&root.image_len.to_le_bytes());
    bytes.extend_from_slice(&blobs.encode());
    bytes.extend_from_slice(&count(root.segments.len()));
    bytes.extend_from_slice(&body);
    bytes
}

fn count(len: usize) -> [u8; 4] {
    u32::try_from(len)
        .expect("tables are far shorter than 4 billion entries")
        .to_le_bytes()
}

/// The blobs that some locators name, in the order in which they first do.
#[derive(Default)]
struct Blobs {
    order: Vec<Digest>,
    numbers: HashMap<Digest, u32>,
}

impl Blobs {
    fn put(&mut self, bytes: &mut Vec<u8>, locator: &Locator) {
        let next = u32::from_le_bytes(count(self.order.len()));
        let number = *self.numbers.entry(locator.blob).or_insert_with(|| {
            self.order.push(locator.blob);
            next
        });
        for field in [number, locator.offset, locator.stored, locator.len] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(locator.id.as_bytes());
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = count(self.order.len()).to_vec();
        for blob in &self.order {
            bytes.extend_from_slice(blob.as_bytes());
        }
        bytes
    }
}

/// What is wrong with a table's bytes.
pub(crate) type Problem = String;

/// Reads a root. Its segments cover the image exactly; whether `blob_len` knows their blobs is checked.
pub(crate) fn decode_root(bytes: &[u8], blob_len: impl Fn(&Digest) -> Option<u64>) -> Result<Root, Problem> {
    let mut input = Input(bytes);
    if input.take(MAGIC.len())? != MAGIC {
        return Err("it does not begin as one".to_owned());
    }
    let image_len = input.u64()?;
    let blobs = input.blobs()?;
    let mut segments = Vec::new();
    let mut covered = 0_u64;
    for _ in 0..input.u32()? {
        let len = input.u64()?;
        let at = input.locator(&blobs, &blob_len)?;
        covered = covered
            .checked_add(len)
            .ok_or("its segments are longer than any image")?;
        segments.push(Segment { len, at });
    }
    input.end()?;
    if covered != image_len {
        return Err(format!(
            "its segments cover {covered} bytes of an image of {image_len}"
        ));
    }
    Ok(Root { image_len, segments })
}

/// Reads a segment that covers `len` bytes of the image.
pub(crate) fn decode_segment(
    bytes: &[u8],
    len: u64,
    blob_len: impl Fn(&Digest) -> Option<u64>,
) -> Result<Vec<Entry>, Problem> {
    let mut input = Input(bytes);
    let blobs = input.blobs()?;
    let mut entries = Vec::new();
    let mut covered = 0_u64;
    for _ in 0..input.u32()? {
        let entry = match input.take(1)? {
            [0] => Entry::Hole(input.u64()?),
            [1] => Entry::Chunk(input.locator(&blobs, &blob_len)?),
            _ => return Err("it has an entry of an unknown kind".to_owned()),
        };
        if entry.is_empty() {
            return Err("it has an entry without length".to_owned());
        }
        covered = covered
            .checked_add(entry.len())
            .ok_or("its entries are longer than any image")?;
        entries.push(entry);
    }
    input.end()?;
    if covered != len {
        return Err(format!("its entries cover {covered} bytes, not {len}"));
    }
    Ok(entries)
}

/// Bytes from outside, read from the front. No count in them makes room before the bytes are there.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("it ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }

    fn blobs(&mut self) -> Result<Vec<Digest>, Problem> {
        (0..self.u32()?)
            .map(|_| self.array().map(Digest::from_bytes))
            .collect()
    }

    fn locator(
        &mut self,
        blobs: &[Digest],
        blob_len: &impl Fn(&Digest) -> Option<u64>,
    ) -> Result<Locator, Problem> {
        let number = self.u32()?;
        let blob = usize::try_from(number).ok().and_then(|number| blobs.get(number));
        let blob = *blob.ok_or("it names a blob that it does not list")?;
        let (offset, stored, len) = (self.u32()?, self.u32()?, self.u32()?);
        let id = Id::from_bytes(self.array()?);
        let blob_len =
            blob_len(&blob).ok_or_else(|| format!("the manifest does not list its blob {blob}"))?;
        let end = u64::from(offset).saturating_add(u64::from(stored));
        if end > blob_len.min(BUNDLE_MAX) {
            return Err(format!(
                "chunk {id} ends at {end}, outside its blob of {blob_len} bytes"
            ));
        }
        let room = usize::try_from(len)
            .ok()
            .filter(|len| (1..=CHUNK_MAX).contains(len))
            .map(stored_max);
        if usize::try_from(stored).ok() > room || room.is_none() {
            return Err(format!(
                "chunk {id} has {len} bytes in {stored}, which no chunk has"
            ));
        }
        Ok(Locator {
            blob,
            offset,
            stored,
            len,
            id,
        })
    }

    fn end(&self) -> Result<(), Problem> {
        match self.0 {
            [] => Ok(()),
            rest => Err(format!("it has {} bytes behind its end", rest.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locator(number: u8) -> Locator {
        Locator {
            blob: Digest::of(&[number / 4]),
            offset: u32::from(number) * 100,
            stored: 100,
            len: 4096 * (1 + u32::from(number)),
            id: Id::of(&[number]),
        }
    }

    fn entries() -> Vec<Entry> {
        (0..200)
            .flat_map(|number| [Entry::Hole(4096), Entry::Chunk(locator(number))])
            .collect()
    }

    fn len(entries: &[Entry]) -> u64 {
        entries.iter().map(Entry::len).sum()
    }

    #[test]
    fn tables_come_back() {
        let entries = entries();
        let any = |_: &Digest| Some(1 << 20);
        let bytes = encode_segment(&entries);
        assert_eq!(decode_segment(&bytes, len(&entries), any).unwrap(), entries);
        let root = Root {
            image_len: 30,
            segments: vec![
                Segment {
                    len: 10,
                    at: locator(1),
                },
                Segment {
                    len: 20,
                    at: locator(9),
                },
            ],
        };
        let bytes = encode_root(&root);
        assert_eq!(decode_root(&bytes, any).unwrap(), root);
        // Every shorter table is refused, and none that has a byte more is taken.
        for cut in 0..bytes.len() {
            assert!(decode_root(&bytes[..cut], any).is_err(), "{cut}");
        }
        assert!(
            decode_root(&[&bytes[..], b"\0"].concat(), any)
                .unwrap_err()
                .contains("behind its end")
        );
    }

    #[test]
    fn tables_that_point_elsewhere_are_refused() {
        let one = [Entry::Chunk(Locator {
            offset: 1000,
            stored: 100,
            len: 4096,
            ..locator(0)
        })];
        let bytes = encode_segment(&one);
        let read = |len, blob_len| decode_segment(&bytes, len, |_| blob_len).unwrap_err();
        assert!(decode_segment(&bytes, 4096, |_| Some(1100)).is_ok());
        assert!(
            read(4096, Some(1099)).contains("outside its blob"),
            "{}",
            read(4096, Some(1099))
        );
        assert!(read(4096, None).contains("does not list its blob"));
        assert!(read(4095, Some(1100)).contains("cover 4096 bytes, not 4095"));
        let bomb = |stored, len| {
            let bytes = encode_segment(&[Entry::Chunk(Locator {
                stored,
                len,
                ..locator(0)
            })]);
            decode_segment(&bytes, u64::from(len), |_| Some(1 << 20)).is_err()
        };
        assert!(bomb(100, 2 << 20));
        assert!(bomb(5000, 4096));
        assert!(bomb(0, 0));
    }

    #[test]
    fn segments_are_cut_where_they_were() {
        let mut entries: Vec<Entry> = (0..5000_u32)
            .map(|number| {
                Entry::Chunk(Locator {
                    id: Id::of(&number.to_le_bytes()),
                    ..locator(0)
                })
            })
            .collect();
        let before: Vec<Vec<Entry>> = segments(&entries).into_iter().map(<[Entry]>::to_vec).collect();
        assert_eq!(before.concat(), entries);
        assert!(before.len() > 5 && before.iter().all(|segment| segment.len() <= SEGMENT_MAX));
        entries.insert(2500, Entry::Hole(4096));
        let same = segments(&entries)
            .into_iter()
            .filter(|segment| before.iter().any(|one| one == segment));
        assert!(same.count() >= before.len() - 2);
    }
}
