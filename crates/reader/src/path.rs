//! Finds what stands at a path. `..` and symbolic links are followed inside the image, never out of it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::{Directories, FileType};

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

/// Why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathError {
    /// Nothing stands at a path.
    NotFound {
        /// The path as far as it was followed.
        path: PathBuf,
    },
    /// A path goes through something that is not a directory.
    NotDirectory {
        /// The path as far as it was followed.
        path: PathBuf,
    },
    /// A path leads through too many symbolic links.
    TooManySymlinks {
        /// The path that was asked for.
        path: PathBuf,
        /// How many are followed.
        limit: u32,
    },
}

/// Finds what stands at a path, which begins at the root whether or not it begins with a slash.
///
/// # Errors
/// [`PathError`] by the path; the filesystem's own where something on the way cannot be read.
pub fn lookup<F: Directories>(filesystem: &F, path: &[u8], last: LastSymlink) -> Result<F::Inode, F::Error> {
    let is_directory = |inode: &F::Inode| F::file_type(inode) == FileType::Directory;
    let mut todo: VecDeque<Vec<u8>> = parts(path).collect();
    let must_be_directory = path.ends_with(b"/") || path.ends_with(b"/.");
    let keep = last == LastSymlink::Keep && !must_be_directory;
    let mut symlinks = 0_u32;
    // The directories from the root to where the walk is, each with the name that led there.
    let mut above: Vec<(F::Inode, Vec<u8>)> = Vec::new();
    let mut here = (filesystem.root_inode()?, Vec::new());
    while let Some(part) = todo.pop_front() {
        if !is_directory(&here.0) {
            let path = joined(&above, &here.1);
            return Err(PathError::NotDirectory { path }.into());
        }
        if part == b".." {
            here = above.pop().unwrap_or(here);
            continue;
        }
        let Some(found) = filesystem.find_inode(&here.0, &part)? else {
            above.push(here);
            let path = joined(&above, &part);
            return Err(PathError::NotFound { path }.into());
        };
        if F::file_type(&found) != FileType::Symlink || (keep && todo.is_empty()) {
            above.push(std::mem::replace(&mut here, (found, part)));
            continue;
        }
        symlinks = symlinks.saturating_add(1);
        if symlinks > SYMLINKS {
            let (path, limit) = (PathBuf::from(OsStr::from_bytes(path)), SYMLINKS);
            return Err(PathError::TooManySymlinks { path, limit }.into());
        }
        let target = filesystem.target(&found)?;
        if target.starts_with(b"/")
            && let Some(root) = above.drain(..).next()
        {
            here = root;
        }
        for part in parts(&target).rev() {
            todo.push_front(part);
        }
    }
    if must_be_directory && !is_directory(&here.0) {
        let path = joined(&above, &here.1);
        return Err(PathError::NotDirectory { path }.into());
    }
    Ok(here.0)
}

/// The names in a path. A `.` between them stands for nothing.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
}

/// The path of `name` in the last of the directories `above`.
fn joined<I>(above: &[(I, Vec<u8>)], name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from("/");
    path.extend(above.iter().map(|(_, name)| OsStr::from_bytes(name)));
    path.push(OsStr::from_bytes(name));
    path
}
