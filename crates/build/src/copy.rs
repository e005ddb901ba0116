//! A copy of an image that is changed and then takes a name: the original is never touched.
//!
//! Where the filesystem can share blocks between files (reflinks: Btrfs, XFS, bcachefs, OCFS2) a copy costs next to
//! nothing. Elsewhere what the file has of data is copied, holes stay holes, and a second thread writes past the page
//! cache: so the `fsync` that makes the copy last finds little to do.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use firebrick_ext4::edit::Target;
use firebrick_ext4::read::ReadAt;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::place::Place;

/// Bytes that are read and written at a time.
const PIECE: usize = 1 << 20;
/// Alignment of what goes past the page cache.
const ALIGN: usize = 4096;
/// Pieces that are under way.
const PIECES: usize = 8;

/// A copy of an image without a name yet, or with a temporary one.
#[derive(Debug)]
pub struct ImageCopy {
    file: File,
    place: Place,
    /// The name of a file that could not be made without one.
    named: Option<PathBuf>,
    shared: bool,
}

impl ImageCopy {
    /// Copies `original`, to be named `output`. What killed runs left beside it is removed.
    ///
    /// # Errors
    /// What the host reports. Nothing is left then.
    pub fn of(original: &File, output: &Path) -> io::Result<ImageCopy> {
        let place = Place::of(output)?;
        place.remove_stale();
        let (file, named) = match place.open_unnamed_direct() {
            Some(file) => (file, None),
            None => place.open_named().map(|(file, path)| (file, Some(path)))?,
        };
        let mut copy = ImageCopy {
            file,
            place,
            named,
            shared: false,
        };
        copy.shared = rustix::fs::ioctl_ficlone(&copy.file, original).is_ok();
        if !copy.shared {
            copy_data(original, &copy.file)?;
        }
        // Changes are small and lie anywhere: they go through the page cache.
        let flags = rustix::fs::fcntl_getfl(&copy.file)?;
        rustix::fs::fcntl_setfl(&copy.file, flags - OFlags::DIRECT)?;
        Ok(copy)
    }

    /// Whether the copy shares its unchanged blocks with the original.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Makes the copy last, and gives it its name.
    ///
    /// # Errors
    /// What the host reports. What had the name before is still there then.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let temporary = match self.named.take() {
            Some(path) => path,
            None => self.place.link(&self.file)?,
        };
        self.place.rename(&temporary)
    }
}

/// A copy that gets no name is removed.
impl Drop for ImageCopy {
    fn drop(&mut self) {
        if let Some(path) = &self.named {
            _ = std::fs::remove_file(path);
        }
    }
}

impl ReadAt for ImageCopy {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.file, buffer, offset)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl Target for ImageCopy {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.file, bytes, offset)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Target::discard(&self.file, offset, len),
            other => Ok(other?),
        }
    }
}

/// One piece on its way: where it belongs, and its bytes within a buffer that is aligned.
struct Piece {
    offset: u64,
    len: usize,
    buffer: Vec<u8>,
}

impl Piece {
    fn new() -> Piece {
        Piece {
            offset: 0,
            len: 0,
            buffer: vec![0; PIECE + ALIGN],
        }
    }

    fn area(&mut self, len: usize) -> &mut [u8] {
        let start = self.buffer.as_ptr().align_offset(ALIGN);
        &mut self.buffer[start..start + len]
    }
}

/// Copies length and data; what is a hole there is one here.
fn copy_data(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let (full, filled) = channel::<Piece>();
    let (back, empty) = channel();
    for _ in 0..PIECES {
        _ = back.send(Piece::new()); // the receiver is here
    }
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new()
            .name("copy".into())
            .spawn_scoped(scope, move || write_pieces(to, &filled, &back))?;
        let read = read_pieces(from, size, &empty, full);
        let written = writer.join().expect("it only writes");
        written.and(read)
    })
}

fn read_pieces(from: &File, size: u64, empty: &Receiver<Piece>, full: Sender<Piece>) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let (start, end) = match next_data(from, at, size)? {
            Some(range) => range,
            None => break,
        };
        let mut offset = start;
        while offset < end {
            // The writer ended early only with an error of its own.
            let Ok(mut piece) = empty.recv() else {
                return Ok(());
            };
            let len = PIECE.min(usize::try_from(end - offset).unwrap_or(PIECE));
            FileExt::read_exact_at(from, piece.area(len), offset)?;
            (piece.offset, piece.len) = (offset, len);
            offset += len as u64;
            if full.send(piece).is_err() {
                return Ok(());
            }
        }
        at = end;
    }
    Ok(())
}

/// The next range of data from `at` on, widened to whole blocks.
fn next_data(from: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let align = ALIGN as u64;
    let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::NOTSUP) => return Ok(Some((at, size))),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
    let start = (start - start % align).max(at);
    Ok(Some((start, end.next_multiple_of(align).min(size))))
}

fn write_pieces(to: &File, filled: &Receiver<Piece>, back: &Sender<Piece>) -> io::Result<()> {
    let mut direct = true;
    while let Ok(mut piece) = filled.recv() {
        let (len, offset) = (piece.len, piece.offset);
        let mut write = || FileExt::write_all_at(to, piece.area(len), offset);
        // Not the end of a file that is no multiple of a block, and not where the filesystem wants it otherwise.
        let written = direct && len.is_multiple_of(ALIGN) && write().is_ok();
        if direct && !written {
            let flags = rustix::fs::fcntl_getfl(to)?;
            rustix::fs::fcntl_setfl(to, flags - OFlags::DIRECT)?;
            direct = false;
        }
        if !written {
            write()?;
        }
        _ = back.send(piece); // at the end nobody wants it any more
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn copies_are_the_same_and_keep_holes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        for len in [0, 1, 4096, 5_000_000, (64 << 20) + 77] {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&one)
                .unwrap();
            file.set_len(len).unwrap();
            if len > 0 {
                FileExt::write_all_at(&file, b"x", len - 1).unwrap();
                FileExt::write_all_at(&file, b"y", len / 2).unwrap();
            }
            let copy = ImageCopy::of(&file, &two).unwrap();
            assert!(!two.exists());
            copy.commit().unwrap();
            assert!(
                std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap(),
                "{len}"
            );
            let allocated = std::fs::metadata(&two).unwrap().blocks() * 512;
            assert!(allocated < 1 << 20, "{len}: {allocated}");
            std::fs::remove_file(&two).unwrap();
        }
        let names = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1);
    }

    #[test]
    fn a_copy_that_is_given_up_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let copy = ImageCopy::of(&File::open(&path).unwrap(), &path).unwrap();
        copy.write_all_at(b"changed", 0).unwrap();
        copy.discard(4096, 8192).unwrap();
        let mut bytes = [1; 2];
        copy.read_exact_at(&mut bytes, 5000).unwrap();
        assert_eq!(bytes, [0, 0]);
        drop(copy);
        assert!(std::fs::read(&path).unwrap() == vec![7; 100_000]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
