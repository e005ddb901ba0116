//! Finds what stands at a path. `..` and symbolic links are followed inside the image, never out of it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::Filesystem;
use super::error::ReadError;
use super::inode::{FileType, Inode};
use super::source::ReadAt;

/// Symbolic links followed in one path, at most. The kernel's limit.
const SYMLINKS: u32 = 40;

/// What to do where the last part of a path is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastSymlink {
    /// Go where it points, as `stat(2)` does.
    Follow,
    /// Give the link itself, as `lstat(2)` does.
    Keep,
}

impl<R: ReadAt> Filesystem<R> {
    /// Finds what stands at a path, which begins at the root whether or not it begins with a slash.
    ///
    /// # Errors
    /// [`ReadError::NotFound`], [`ReadError::NotDirectory`] and [`ReadError::TooManySymlinks`] by the path; corrupt
    /// where something on the way is.
    pub fn lookup(&self, path: &[u8], last: LastSymlink) -> Result<Inode, ReadError> {
        let mut todo: VecDeque<Vec<u8>> = parts(path).collect();
        let must_be_directory = path.ends_with(b"/") || path.ends_with(b"/.");
        let keep = last == LastSymlink::Keep && !must_be_directory;
        let mut symlinks = 0_u32;
        // The directories from the root to where the walk is, each with the name that led there.
        let mut above: Vec<(Inode, Vec<u8>)> = Vec::new();
        let mut here = (self.root()?, Vec::new());
        while let Some(part) = todo.pop_front() {
            if here.0.stat.file_type != FileType::Directory {
                return Err(ReadError::NotDirectory {
                    path: joined(&above, &here.1),
                });
            }
            if part == b".." {
                here = above.pop().unwrap_or(here);
                continue;
            }
            let entries = self.read_dir(&here.0)?;
            let Ok(place) = entries.binary_search_by(|entry| (*entry.name).cmp(&part[..])) else {
                above.push(here);
                return Err(ReadError::NotFound {
                    path: joined(&above, &part),
                });
            };
            let reference = entries.get(place).map_or(u64::MAX, |entry| entry.reference);
            let found = self.inode(reference)?;
            if found.stat.file_type != FileType::Symlink || (keep && todo.is_empty()) {
                above.push(std::mem::replace(&mut here, (found, part)));
                continue;
            }
            symlinks = symlinks.saturating_add(1);
            if symlinks > SYMLINKS {
                return Err(ReadError::TooManySymlinks {
                    path: PathBuf::from(OsStr::from_bytes(path)),
                    limit: SYMLINKS,
                });
            }
            let target = self.read_link(&found)?;
            if target.starts_with(b"/")
                && let Some(root) = above.drain(..).next()
            {
                here = root;
            }
            for part in parts(&target).rev() {
                todo.push_front(part);
            }
        }
        if must_be_directory && here.0.stat.file_type != FileType::Directory {
            return Err(ReadError::NotDirectory {
                path: joined(&above, &here.1),
            });
        }
        Ok(here.0)
    }
}

/// The names in a path. A `.` between them stands for nothing.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
}

/// The path of `name` in the last of the directories `above`.
fn joined(above: &[(Inode, Vec<u8>)], name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from("/");
    path.extend(above.iter().map(|(_, name)| OsStr::from_bytes(name)));
    path.push(OsStr::from_bytes(name));
    path
}
