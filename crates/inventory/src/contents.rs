//! The bytes of an image's files: whoever has the image gives them as [`Contents`].

use std::io;
use std::ops::ControlFlow;

use firebrick_digest::{Digest, Hasher};

/// Gives the bytes of regular files.
pub trait Contents {
    /// Gives the content of a regular file from an offset on, piece by piece, until `take` breaks or it ends.
    ///
    /// # Errors
    /// Where the image is damaged, and whatever the host reports.
    fn read(&self, inode: u32, offset: u64, take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>)
    -> io::Result<()>;
}

/// At most `limit` bytes of a file, from an offset on.
///
/// # Errors
/// As [`Contents::read`].
pub fn start_of(contents: &dyn Contents, inode: u32, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    contents.read(inode, offset, &mut |piece| {
        let rest = limit.saturating_sub(bytes.len());
        bytes.extend_from_slice(piece.get(..rest).unwrap_or(piece));
        match bytes.len() < limit {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    })?;
    Ok(bytes)
}

/// The digest of a file's content.
///
/// # Errors
/// As [`Contents::read`].
pub fn digest_of(contents: &dyn Contents, inode: u32) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    contents.read(inode, 0, &mut |piece| {
        hasher.update(piece);
        ControlFlow::Continue(())
    })?;
    Ok(hasher.finish())
}
