//! The squashfs reader, on images that anyone may have made.

use firebrick_squashfs::read::{FileType, Filesystem, LastSymlink, ReadError};

/// How much is read of all files together, in bytes, and how many paths are visited: the reader bounds both by the image's
/// length, but small blocks decompress to a lot.
const CONTENT_MAX: u64 = 4 << 20;
const PATHS_MAX: usize = 10_000;

/// Reads everything in an image. Whether that goes to its end.
///
/// # Panics
/// If the reader's promises do not hold.
pub fn squashfs(image: &[u8]) -> bool {
    let result = read(image);
    if let Err(error) = &result {
        assert!(
            !matches!(error, ReadError::Host { .. }),
            "memory cannot fail, and what lies outside is never asked for: {error}"
        );
        assert!(!error.to_string().is_empty());
    }
    result.is_ok()
}

fn read(image: &[u8]) -> Result<(), ReadError> {
    let filesystem = Filesystem::open(image)?;
    let mut walk = filesystem.walk(filesystem.root()?);
    let mut left = CONTENT_MAX;
    let mut paths = 0;
    while let Some(visit) = walk.advance()? {
        paths += 1;
        if paths > PATHS_MAX {
            return Ok(());
        }
        let inode = visit.inode;
        for name in visit
            .path
            .split(|&byte| byte == b'/')
            .filter(|_| !visit.path.is_empty())
        {
            assert!(!matches!(name, b"" | b"." | b".."), "{:?}", visit.path);
        }
        filesystem.xattrs(&inode)?;
        match inode.stat().file_type {
            FileType::Regular => {
                let mut file = filesystem.open_file(&inode)?;
                let (mut buffer, mut len) = ([0; 8192], 0);
                while left > 0 {
                    let count = file.read_some(&mut buffer)? as u64;
                    if count == 0 {
                        assert_eq!(len, inode.stat().size, "the whole file");
                        break;
                    }
                    len += count;
                    left = left.saturating_sub(count);
                }
                assert!(len <= inode.stat().size, "no more than the file");
            }
            FileType::Symlink => {
                let target = filesystem.read_link(&inode)?;
                if let Err(error @ ReadError::Host { .. }) = filesystem.lookup(&target, LastSymlink::Follow) {
                    return Err(error);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
