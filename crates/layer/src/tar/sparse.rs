//! Sparse files: which parts of the file the archive holds, and how they fall onto 4096-byte blocks.
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

use super::header::{TAR_BLOCK, number, readable};
use crate::error::TarError;

/// Most parts of one sparse file. A map of that many takes 32 MiB in memory.
const PARTS_MAX: usize = 1 << 21;

/// One part of a sparse file that the archive holds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Part {
    /// The first offset after it. Checked not to overflow by [`check`].
    pub(crate) fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// The parts in one GNU header or extension block: pairs of 12-byte numbers, the unused ones empty.
pub(crate) fn gnu_parts(entries: &[u8], parts: &mut Vec<Part>) -> Result<(), TarError> {
    for entry in entries.chunks_exact(24) {
        let (offset, len) = entry.split_at_checked(12).unwrap_or_default();
        if offset.first().is_none_or(|&byte| byte == 0) {
            continue;
        }
        push(
            parts,
            number("sparse offset", offset)?,
            number("sparse length", len)?,
        )?;
    }
    Ok(())
}

/// The parts in a GNU extension block, and whether another one follows.
pub(crate) fn gnu_extension(block: &[u8; TAR_BLOCK], parts: &mut Vec<Part>) -> Result<bool, TarError> {
    gnu_parts(block.get(..504).unwrap_or_default(), parts)?;
    Ok(block.get(504).is_some_and(|&byte| byte != 0))
}

/// The parts of a PAX map: offset, length, offset, length…
pub(crate) fn pax_parts(path: &[u8], numbers: &[u64]) -> Result<Vec<Part>, TarError> {
    if !numbers.len().is_multiple_of(2) {
        return Err(TarError::Sparse {
            path: readable(path),
            why: "an offset has no length",
        });
    }
    let mut parts = Vec::new();
    for pair in numbers.chunks_exact(2) {
        let [offset, len] = pair else { continue };
        let (offset, len) = (
            i64::try_from(*offset).unwrap_or(-1),
            i64::try_from(*len).unwrap_or(-1),
        );
        push(&mut parts, offset, len)?;
    }
    Ok(parts)
}

fn push(parts: &mut Vec<Part>, offset: i64, len: i64) -> Result<(), TarError> {
    let field = |value: i64| {
        u64::try_from(value).map_err(|_| TarError::Number {
            field: "sparse map",
            value: value.to_string(),
        })
    };
    if parts.len() >= PARTS_MAX {
        return Err(TarError::TooLong {
            what: "sparse map",
            len: u64::MAX,
            limit: 1 << 21,
        });
    }
    parts.push(Part {
        offset: field(offset)?,
        len: field(len)?,
    });
    Ok(())
}

/// A PAX 1.0 map being read: lines of decimal numbers in front of the data, padded to a full block.
#[derive(Default, Debug)]
pub(crate) struct MapReader {
    digits: Vec<u8>,
    numbers: Vec<u64>,
}

impl MapReader {
    /// Takes one block of the map; gives the numbers behind the count once they are all there.
    pub(crate) fn take(
        &mut self,
        path: &[u8],
        block: &[u8; TAR_BLOCK],
    ) -> Result<Option<Vec<u64>>, TarError> {
        let error = |why| TarError::Sparse {
            path: readable(path),
            why,
        };
        for &byte in block {
            match byte {
                b'0'..=b'9' if self.digits.len() < 20 => self.digits.push(byte),
                b'\n' => {
                    let text =
                        std::str::from_utf8(&self.digits).map_err(|_| error("a number is not text"))?;
                    let value = text
                        .parse::<u64>()
                        .map_err(|_| error("a number is missing or too large"))?;
                    self.numbers.push(value);
                    self.digits.clear();
                }
                _ => return Err(error("a number holds something else than digits")),
            }
            if let Some((&count, parts)) = self.numbers.split_first() {
                let wanted = usize::try_from(count).ok().filter(|&count| count <= PARTS_MAX);
                let wanted = wanted.ok_or_else(|| error("it promises too many parts"))?;
                if parts.len() == wanted.saturating_mul(2) {
                    return Ok(Some(parts.to_vec()));
                }
            }
        }
        Ok(None)
    }
}

/// Checks that the parts rise, stay within the file, and add up to what the archive holds.
pub(crate) fn check(path: &[u8], parts: &[Part], real_size: u64, stored: u64) -> Result<(), TarError> {
    let error = |why| TarError::Sparse {
        path: readable(path),
        why,
    };
    let (mut end, mut sum) = (0_u64, 0_u64);
    for part in parts {
        if part.offset < end {
            return Err(error("parts overlap or run backwards"));
        }
        end = part
            .offset
            .checked_add(part.len)
            .ok_or_else(|| error("a part ends beyond all numbers"))?;
        sum = sum
            .checked_add(part.len)
            .ok_or_else(|| error("parts are longer than all numbers"))?;
    }
    if end > real_size {
        return Err(error("a part ends after the file"));
    }
    if sum != stored {
        return Err(error("the parts do not add up to the bytes in the archive"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_refuses_maps_that_lie() {
        let parts = |list: &[(u64, u64)]| -> Vec<Part> {
            list.iter().map(|&(offset, len)| Part { offset, len }).collect()
        };
        assert!(check(b"f", &parts(&[(0, 5), (100, 5), (200, 0)]), 200, 10).is_ok());
        for (list, size, stored) in [
            (&[(0, 5), (4, 5)][..], 100, 10),
            (&[(50, 5), (0, 5)], 100, 10),
            (&[(0, 5)], 4, 5),
            (&[(0, 5)], 100, 6),
            (&[(u64::MAX, 5)], u64::MAX, 5),
        ] {
            assert!(
                matches!(
                    check(b"f", &parts(list), size, stored),
                    Err(TarError::Sparse { .. })
                ),
                "{list:?}"
            );
        }
    }

    #[test]
    fn pax_map_may_span_blocks() {
        let text: Vec<u8> = (0..200)
            .map(|n| format!("{n}\n"))
            .collect::<String>()
            .into_bytes();
        let map = [b"100\n", &text[..]].concat();
        let mut reader = MapReader::default();
        let mut found = None;
        for chunk in map.chunks(TAR_BLOCK) {
            let mut block = [0; TAR_BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            found = reader.take(b"f", &block).unwrap();
        }
        assert_eq!(found.unwrap(), (0..200).collect::<Vec<u64>>());
        let mut block = [0; TAR_BLOCK];
        block[..5].copy_from_slice(b"1\nx\n2");
        assert!(MapReader::default().take(b"f", &block).is_err());
    }
}
