//! Small files, read and written whole.

use alloc::string::String;
use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// The file's bytes. A file longer than `limit` is an error, not cut; so is what is no regular file, since reading it
/// could wait for ever.
pub(crate) fn read(path: &str, limit: usize) -> Result<Vec<u8>, Errno> {
    // Without NONBLOCK, opening a FIFO waits for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match rustix::io::read(&file, &mut piece[..]) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if bytes.len() > limit {
            return Err(Errno::FBIG);
        }
    }
}

/// The file as text, with U+FFFD for what is none. Empty when it cannot be read.
pub(crate) fn text(path: &str) -> String {
    const LIMIT_BYTES: usize = 4 * 1024 * 1024;
    read(path, LIMIT_BYTES)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Writes the file's whole content, making it if need be. A FIFO that nobody reads is an error.
pub(crate) fn write(path: &str, bytes: &[u8]) -> Result<(), Errno> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?;
    write_all(file.as_fd(), bytes)
}

/// Writes all bytes to a descriptor that blocks.
pub(crate) fn write_all(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(file, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a folder, with those above it that are missing.
pub(crate) fn make_dirs(path: &str, mode: u32) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT) => {
            let above = path
                .trim_end_matches('/')
                .rsplit_once('/')
                .map_or("", |(above, _)| above);
            if above.is_empty() {
                return Err(Errno::NOENT);
            }
            make_dirs(above, 0o755)?;
            rustix::fs::mkdir(path, Mode::from_raw_mode(mode))
        }
        Err(error) => Err(error),
    }
}

/// Whether something has that name, symlinks followed.
pub(crate) fn exists(path: &str) -> bool {
    rustix::fs::stat(path).is_ok()
}

/// The names in a folder, without `.` and `..`, sorted. Empty when it cannot be read.
pub(crate) fn names(path: &str) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(path, flags, Mode::empty()) else {
        return Vec::new();
    };
    let mut buffer = [core::mem::MaybeUninit::uninit(); 2048];
    let mut entries = rustix::fs::RawDir::new(folder, &mut buffer);
    let mut names = Vec::new();
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_string_lossy();
        if name != "." && name != ".." {
            names.push(name.into_owned());
        }
    }
    names.sort();
    names
}
