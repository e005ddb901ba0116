//! What a file holds, without holding it: literal bytes, a seeded stream, or data between holes.

use std::io::{self, Write};

use firebrick_digest::{Digest, Hasher};

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// `len` incompressible bytes that depend on `seed` alone.
    Generated {
        /// Length in bytes.
        len: u64,
        /// Two seeds give two streams.
        seed: u64,
    },
    /// A sparse file: zeros, with data at these offsets (ascending, not overlapping).
    Sparse {
        /// Length in bytes, holes included.
        len: u64,
        /// How the tar says it.
        form: SparseForm,
        /// Offset and data.
        segments: Vec<(u64, Content)>,
    },
}

/// The ways in which a tar says that a file is sparse.
/// See <https://www.gnu.org/software/tar/manual/html_node/Sparse-Formats.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SparseForm {
    /// Type `S` and a map in the header.
    Gnu,
    /// `GNU.sparse.offset` and `GNU.sparse.numbytes`, repeated.
    Pax00,
    /// `GNU.sparse.map` in one record.
    Pax01,
    /// The map in front of the data.
    Pax10,
}

impl Content {
    /// Length in bytes, holes included.
    pub fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Generated { len, .. } | Content::Sparse { len, .. } => *len,
        }
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes every byte, holes as zeros.
    ///
    /// # Errors
    /// What `out` fails with.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Content::Bytes(bytes) => out.write_all(bytes),
            Content::Generated { len, seed } => generate(*len, *seed, out),
            Content::Sparse { len, segments, .. } => {
                let mut at = 0;
                for (offset, data) in segments {
                    zeros(offset - at, out)?;
                    data.write(out)?;
                    at = offset + data.len();
                }
                zeros(len - at, out)
            }
        }
    }

    /// The digest of every byte, holes as zeros.
    pub fn digest(&self) -> Digest {
        struct Sink(Hasher);
        impl Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.update(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = Sink(Hasher::new());
        self.write(&mut sink).expect("hashing cannot fail");
        sink.0.finish()
    }
}

fn zeros(mut len: u64, out: &mut dyn Write) -> io::Result<()> {
    let block = [0; 1 << 16];
    while len > 0 {
        let piece = len.min(block.len() as u64);
        out.write_all(&block[..piece as usize])?;
        len -= piece;
    }
    Ok(())
}

/// splitmix64 over a counter: any two seeds differ, and gzip finds nothing in it.
fn generate(len: u64, seed: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut left = len;
    let mut block = Vec::with_capacity(1 << 16);
    while left > 0 {
        block.clear();
        while block.len() < 1 << 16 {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            block.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
        let piece = left.min(1 << 16);
        out.write_all(&block[..piece as usize])?;
        left -= piece;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_content_reads_as_zeros_between_its_segments() {
        let sparse = Content::Sparse {
            len: 10,
            form: SparseForm::Pax10,
            segments: vec![
                (2, Content::Bytes(b"ab".to_vec())),
                (8, Content::Bytes(b"c".to_vec())),
            ],
        };
        let mut bytes = Vec::new();
        sparse.write(&mut bytes).unwrap();
        assert_eq!(bytes, b"\0\0ab\0\0\0\0c\0");
        assert_eq!(sparse.digest(), Digest::of(&bytes));
    }

    #[test]
    fn generated_content_is_a_function_of_length_and_seed() {
        let digest = |len, seed| Content::Generated { len, seed }.digest();
        assert_eq!(digest(100_000, 1), digest(100_000, 1));
        assert_ne!(digest(100_000, 1), digest(100_000, 2));
        assert_ne!(digest(100_000, 1), digest(99_999, 1));
    }
}
