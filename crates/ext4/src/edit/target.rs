//! Where changes go.

use std::fs::File;
use std::io;

use crate::read::ReadAt;

/// An image's bytes, to read and to write at any offset.
pub trait Target: ReadAt {
    /// Writes all bytes at `offset`, within the length that the image has.
    ///
    /// # Errors
    /// Whatever the host reports.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes bytes read as zeros, and gives their room back where that is possible.
    ///
    /// # Errors
    /// Whatever the host reports.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let (mut at, mut left) = (offset, len);
        while left > 0 {
            let count = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.write_all_at(ZEROS.get(..count).unwrap_or_default(), at)?;
            let count = u64::try_from(count).unwrap_or(left);
            at = at.saturating_add(count);
            left = left.saturating_sub(count);
        }
        Ok(())
    }
}

impl Target for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }
}

impl<T: Target + ?Sized> Target for &T {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_all_at(bytes, offset)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).discard(offset, len)
    }
}
