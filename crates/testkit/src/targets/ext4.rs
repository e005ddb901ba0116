//! The ext4 reader and the checker, on images that anyone may have made.

use std::cell::RefCell;
use std::io;

use firebrick_ext4::check::check;
use firebrick_ext4::edit::Target;
use firebrick_ext4::read::{FileType, Filesystem, Inode, InodeNumber, LastSymlink, ReadAt, ReadError};

/// Bytes of one record's content.
const RECORD: usize = 1024;
/// Length of every image: more than the smallest of ours.
const IMAGE_LEN: usize = 3 << 20;
/// How much is read of all files together, in bytes and in runs.
const CONTENT_MAX: u64 = 8 << 20;
const RUNS_MAX: usize = 1 << 16;

/// An image in a form that a fuzzer can grasp: a record for each 1024 bytes that are not all zeros, the 16-bit number
/// of those first.
///
/// # Panics
/// If the image is longer than 3 MiB.
pub fn to_records(image: &[u8]) -> Vec<u8> {
    assert!(image.len() <= IMAGE_LEN, "{} bytes", image.len());
    let mut records = Vec::new();
    for (number, bytes) in (0_u16..).zip(image.chunks(RECORD)) {
        if bytes.iter().any(|byte| *byte != 0) {
            records.extend(number.to_le_bytes());
            records.extend(bytes);
        }
    }
    records
}

fn from_records(bytes: &[u8]) -> Vec<u8> {
    let mut image = vec![0; IMAGE_LEN];
    for record in bytes.chunks(2 + RECORD) {
        let Some((number, content)) = record.split_first_chunk::<2>() else {
            break;
        };
        let at = usize::from(u16::from_le_bytes(*number)) * RECORD % IMAGE_LEN;
        image[at..at + content.len()].copy_from_slice(content);
    }
    image
}

/// Reads everything in the image whose records are `bytes`. Whether that goes to its end.
///
/// # Panics
/// If the reader's promises do not hold.
pub fn ext4(bytes: &[u8]) -> bool {
    let image = from_records(bytes);
    let result = read(&image);
    if let Err(error) = &result {
        assert!(
            !matches!(error, ReadError::Host { .. }),
            "memory cannot fail, and what lies outside is never asked for: {error}"
        );
        assert!(!error.to_string().is_empty());
    }
    result.is_ok()
}

/// Checks the image whose records are `bytes`, and repairs it where that can be done: then nothing is wrong any more. Whether
/// nothing was from the start.
///
/// # Panics
/// If the checker's promises do not hold.
pub fn ext4_check(bytes: &[u8]) -> bool {
    let mut image = from_records(bytes);
    match check(&image) {
        Ok(report) if report.is_clean() => true,
        Ok(report) if report.is_repairable() => {
            let target = Memory(RefCell::new(std::mem::take(&mut image)));
            report.repair(&target).expect("memory cannot fail");
            let again = check(&target).expect("it could be checked before");
            assert!(
                again.is_clean(),
                "{:?} after {:?}",
                again.findings,
                report.findings
            );
            false
        }
        Ok(report) => {
            assert!(
                report
                    .findings
                    .iter()
                    .all(|finding| !finding.to_string().is_empty())
            );
            false
        }
        Err(error) => {
            assert!(
                matches!(error, ReadError::Unsupported { .. } | ReadError::NeedsRecovery),
                "{error}"
            );
            false
        }
    }
}

/// An image in memory that is changed.
struct Memory(RefCell<Vec<u8>>);

impl ReadAt for Memory {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.borrow().read_exact_at(buffer, offset)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.0.borrow().size_bytes()
    }
}

impl Target for Memory {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut image = self.0.borrow_mut();
        let place = image.get_mut(start..start + bytes.len());
        place.expect("within the image").copy_from_slice(bytes);
        Ok(())
    }
}

fn read(image: &[u8]) -> Result<(), ReadError> {
    let filesystem = Filesystem::open(image)?;
    let blocks = filesystem.summary().blocks;
    let mut walk = filesystem.walk(filesystem.inode(InodeNumber::ROOT)?);
    let (mut content_left, mut runs_left) = (CONTENT_MAX, RUNS_MAX);
    while let Some(visit) = walk.advance()? {
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
                runs_left = check_runs(&filesystem, &inode, blocks, runs_left)?;
                content_left -= check_content(&filesystem, &inode, content_left)?;
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

/// Runs rise, do not overlap, and lie inside the filesystem.
fn check_runs(
    filesystem: &Filesystem<&[u8]>,
    inode: &Inode,
    blocks: u64,
    mut left: usize,
) -> Result<usize, ReadError> {
    let mut end = 0;
    for run in filesystem.runs(inode)?.take(left) {
        let run = run?;
        left -= 1;
        assert!(run.blocks > 0 && run.logical >= end, "{run:?} after {end}");
        end = run.logical + run.blocks;
        if let Some(start) = run.physical {
            assert!(start > 0 && start + run.blocks <= blocks, "{run:?} of {blocks}");
        }
    }
    Ok(left)
}

/// A file has exactly the length that its inode says.
fn check_content(filesystem: &Filesystem<&[u8]>, inode: &Inode, most: u64) -> Result<u64, ReadError> {
    let mut file = filesystem.open_file(inode)?;
    let mut buffer = [0; 8192];
    let mut read = 0;
    while read < most {
        let wanted = buffer
            .len()
            .min(usize::try_from(most - read).unwrap_or(usize::MAX));
        let count = file.read_some(&mut buffer[..wanted])? as u64;
        if count == 0 {
            assert_eq!(read, inode.stat().size, "the whole file");
            break;
        }
        read += count;
    }
    assert!(read <= inode.stat().size, "no more than the file");
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_the_whole_image() {
        let mut image = vec![0; IMAGE_LEN];
        image[1024..1030].copy_from_slice(b"second");
        image[IMAGE_LEN - 1] = 1;
        let records = to_records(&image);
        assert_eq!(records.len(), 2 * (2 + RECORD));
        assert_eq!(from_records(&records), image);
    }
}
