//! A file as a disk: what is kept as a file on this host needs nothing else.

use std::fs::File;
use std::io::{self, Seek as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::Errno;

use crate::{Content, Disk, Extent};

/// A file, with its holes where the filesystem below knows them.
///
/// Its size is looked at once. If the file becomes shorter afterwards, reads of what is gone fail.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    size_bytes: u64,
}

impl FileDisk {
    /// Opens the file or block device at `path`.
    ///
    /// # Errors
    /// If it cannot be opened, or has no size.
    pub fn open(path: &Path) -> io::Result<FileDisk> {
        let mut file = File::open(path)?;
        // The size of a block device is not in its metadata.
        let size_bytes = file.seek(io::SeekFrom::End(0))?;
        Ok(FileDisk { file, size_bytes })
    }
}

impl Disk for FileDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn extent(&self, range: Range<u64>) -> io::Result<Extent> {
        // Where the file's position ends up does not matter: nobody reads there.
        let whole = |content| Extent {
            content,
            end: range.end,
        };
        match seek(&self.file, SeekFrom::Data(range.start)) {
            Ok(data) if data > range.start => Ok(Extent {
                content: Content::Hole,
                end: data,
            }),
            Ok(_) => match seek(&self.file, SeekFrom::Hole(range.start)) {
                Ok(end) if end > range.start => Ok(Extent {
                    content: Content::Data,
                    end,
                }),
                _ => Ok(whole(Content::Data)),
            },
            // There is no data up to the end.
            Err(Errno::NXIO) => Ok(whole(Content::Hole)),
            // Block devices, and filesystems that do not know.
            Err(_) => Ok(whole(Content::Data)),
        }
    }

    fn prefetch(&self, range: Range<u64>) {
        let len = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
        // A hint: what comes of it is not for the client to know.
        let _ = fadvise(&self.file, range.start, len, Advice::WillNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_of_a_file_are_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&[7; 4096], 1 << 20).unwrap();
        file.as_file().set_len(3 << 20).unwrap();
        let disk = FileDisk::open(file.path()).unwrap();
        assert_eq!(disk.size_bytes(), 3 << 20);
        let extent = |start| disk.extent(start..3 << 20).unwrap();
        let hole = extent(0);
        assert_eq!(hole.content, Content::Hole);
        assert!(hole.end <= 1 << 20, "{hole:?}");
        let data = extent(1 << 20);
        assert_eq!(data.content, Content::Data);
        assert!(data.end >= (1 << 20) + 4096, "{data:?}");
        assert_eq!(
            extent(2 << 20),
            Extent {
                content: Content::Hole,
                end: 3 << 20
            }
        );
        let mut bytes = [1; 8];
        disk.read_at((1 << 20) - 4, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, 0, 0, 7, 7, 7, 7]);
        disk.prefetch(0..4096);
    }

    #[test]
    fn a_file_that_became_shorter_fails_to_be_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(100).unwrap();
        let disk = FileDisk::open(file.path()).unwrap();
        file.as_file().set_len(10).unwrap();
        let error = disk.read_at(0, &mut [0; 50]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
