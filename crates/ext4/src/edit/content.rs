//! Contents of files: written as they are read, zeros left out.

use std::io::{ErrorKind, Read};

use super::map::Part;
use super::paths::shown;
use super::{EditError, Editor, Target, narrow, wide};
use crate::read::Place;

/// Bytes that are read and placed at a time; a multiple of every block size. So many zeros become a hole.
const PIECE: usize = 1 << 18;

/// What holes read as; compared at the speed of memory, since files of many gigabytes may be nearly all holes.
static ZEROS: [u8; PIECE] = [0; PIECE];

impl<T: Target> Editor<T> {
    /// Stores `len` bytes. Gives where they lie.
    pub(super) fn store(
        &mut self,
        path: &[u8],
        len: u64,
        content: &mut dyn Read,
    ) -> Result<Vec<Part>, EditError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut buffer = vec![0; PIECE];
        let block_bytes = self.form.block_bytes();
        let mut done = 0_u64;
        while done < len {
            let left = len.saturating_sub(done);
            let count = narrow(left.min(wide(PIECE)));
            let blocks = wide(count).div_ceil(block_bytes);
            let whole = narrow(blocks.saturating_mul(block_bytes));
            // What the last block has behind the content is zeros.
            buffer.get_mut(count..whole).unwrap_or_default().fill(0);
            let read = read_full(content, buffer.get_mut(..count).unwrap_or_default());
            let read = read.map_err(|source| EditError::Content {
                path: shown(path),
                source,
            })?;
            if read < count {
                return Err(EditError::Length {
                    path: shown(path),
                    expected: len,
                    actual: done.saturating_add(wide(read)),
                });
            }
            let at = done.checked_div(block_bytes).unwrap_or(0);
            done = done.saturating_add(wide(count));
            let mut bytes = buffer.get(..whole).unwrap_or_default();
            if ZEROS.starts_with(bytes) {
                continue;
            }
            let goal = parts.last().map(|(_, first, count)| first.saturating_add(*count));
            let runs = self.take_blocks(blocks, goal, left.div_ceil(block_bytes))?;
            let mut logical = at;
            for (first, count) in runs {
                let (now, later) = bytes.split_at(narrow(count.saturating_mul(block_bytes)).min(bytes.len()));
                self.put_blocks(now, first, Place::Superblock)?;
                bytes = later;
                push_part(&mut parts, (logical, first, count));
                logical = logical.saturating_add(count);
            }
        }
        self.changes.written_bytes = self.changes.written_bytes.saturating_add(len);
        Ok(parts)
    }
}

fn push_part(parts: &mut Vec<Part>, part: Part) {
    if let Some((at, first, count)) = parts.last_mut()
        && at.saturating_add(*count) == part.0
        && first.saturating_add(*count) == part.1
    {
        *count = count.saturating_add(part.2);
        return;
    }
    parts.push(part);
}

/// Reads until the buffer is full or nothing more comes.
fn read_full(content: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0_usize;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match content.read(rest) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
