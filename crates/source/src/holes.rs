//! Which parts of a sparse file hold anything.
//!
//! Where the holes of a file lie is a matter of how it was written and of what the filesystem makes of that: the same
//! file may show more of them tomorrow. So a file that has holes at all is looked at closely: what counts are its
//! 4096-byte blocks that are not zero, which its content alone decides.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Holes are told in whole blocks, as filesystems have them.
const BLOCK_LEN: usize = 4096;
/// Shorter files are not worth a look.
const LEN_MIN: u64 = 64 << 10;
/// Most parts of one file; a map of that many takes 16 MiB in memory.
const PARTS_MAX: usize = 1 << 20;
const BUFFER_LEN: usize = 64 * BLOCK_LEN;

/// Why the parts are not known.
pub(crate) enum HolesError {
    Read(io::Error),
    /// The file ends before its length.
    Shorter,
    TooMany,
}

/// The ranges of bytes that are not holes, in rising order; `None` for a file without holes.
pub(crate) fn parts(file: &File, len: u64) -> Result<Option<Vec<Range<u64>>>, HolesError> {
    if len < LEN_MIN {
        return Ok(None);
    }
    match seek(file, SeekFrom::Hole(0)) {
        Ok(Some(hole)) if hole < len => {}
        // Filesystems without holes say that there is one at the end, or refuse.
        Ok(_) | Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
        Err(error) => return Err(HolesError::Read(error.into())),
    }
    let mut found = Vec::new();
    let mut position = 0;
    while position < len {
        let seek = |to| seek(file, to).map_err(|error| HolesError::Read(error.into()));
        let Some(start) = seek(SeekFrom::Data(position))?.filter(|&start| start < len) else {
            break;
        };
        let end = seek(SeekFrom::Hole(start))?.unwrap_or(len).min(len);
        // In between the file may have changed; it must not keep us here.
        let end = end.max(start.saturating_add(1));
        let first = start.max(position) / BLOCK_LEN as u64 * BLOCK_LEN as u64;
        position = end.next_multiple_of(BLOCK_LEN as u64);
        add_blocks(file, first.max(last_end(&found))..position.min(len), &mut found)?;
    }
    Ok(Some(found))
}

fn last_end(parts: &[Range<u64>]) -> u64 {
    parts.last().map_or(0, |part| part.end)
}

/// Adds the blocks of `range` that hold anything; it starts at a block.
fn add_blocks(file: &File, range: Range<u64>, parts: &mut Vec<Range<u64>>) -> Result<(), HolesError> {
    let mut buffer = vec![0; BUFFER_LEN];
    let mut position = range.start;
    while position < range.end {
        let want = usize::try_from(range.end - position).map_or(BUFFER_LEN, |left| left.min(BUFFER_LEN));
        file.read_exact_at(&mut buffer[..want], position)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => HolesError::Shorter,
                _ => HolesError::Read(error),
            })?;
        for block in buffer[..want].chunks(BLOCK_LEN) {
            let end = position + block.len() as u64;
            if *block != [0; BLOCK_LEN][..block.len()] {
                let count = parts.len();
                match parts.last_mut() {
                    Some(last) if last.end == position => last.end = end,
                    _ if count == PARTS_MAX => return Err(HolesError::TooMany),
                    _ => parts.push(position..end),
                }
            }
            position = end;
        }
    }
    Ok(())
}

/// `None` where nothing is left of that kind.
fn seek(file: &File, to: SeekFrom) -> Result<Option<u64>, Errno> {
    match rustix::fs::seek(file, to) {
        Ok(position) => Ok(Some(position)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &File) -> Option<Vec<Range<u64>>> {
        let len = file.metadata().unwrap().len();
        parts(file, len).unwrap_or_else(|_| panic!("no parts"))
    }

    #[test]
    fn content_decides_and_not_how_it_was_written() {
        let len = 1 << 20;
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        assert_eq!(found(&file), Some(Vec::new()));
        file.write_all_at(b"x", 100_000).unwrap();
        file.write_all_at(&[0; 300_000], 200_000).unwrap();
        file.write_all_at(b"y", len - 1).unwrap();
        let expected = vec![98_304..102_400, len - 4096..len];
        assert_eq!(found(&file), Some(expected.clone()));
        // The same content, written whole up to one hole.
        let mut content = vec![0; 1 << 20];
        rustix::io::pread(&file, &mut content[..], 0).unwrap();
        let other = tempfile::tempfile().unwrap();
        other.write_all_at(&content[600_000..], 600_000).unwrap();
        other.write_all_at(&content[..500_000], 0).unwrap();
        assert_eq!(found(&other), Some(expected));
        // Without any, and too short for any.
        other.write_all_at(&content, 0).unwrap();
        assert_eq!(found(&other), None);
        file.set_len(LEN_MIN - 1).unwrap();
        assert_eq!(found(&file), None);
    }

    #[test]
    fn the_end_need_not_be_that_of_a_block() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100_001).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        file.write_all_at(b"x", 100_000).unwrap();
        assert_eq!(found(&file), Some(vec![0..4096, 98_304..100_001]));
        assert!(matches!(parts(&file, 200_000), Err(HolesError::Shorter)));
    }
}
