//! Removing trees, however deep: a folder far down is moved up into the first one, so that few are open at a time.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use rustix::path::Arg;

/// Removes what has that name, with all that is in it, at most `left` entries. No symlink is followed.
///
/// # Errors
/// The kernel's; [`Errno::AGAIN`] when more entries are there.
pub(in super::super) fn tree_at(
    folder: BorrowedFd<'_>,
    name: impl Arg,
    left: &mut usize,
) -> Result<(), Errno> {
    name.into_with_c_str(|name| {
        match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {}
            other => return other,
        }
        below(folder, name, left)
    })
}

/// So many folders at most are open at a time. The agent itself removes small trees, among all that it has open for clients.
const MAX_OPEN: usize = 32;

/// A folder on the way down.
struct Level {
    /// By this it is removed from the one above.
    name: CString,
    folder: OwnedFd,
    /// Folders in it whose turn comes.
    inner: Vec<CString>,
}

fn below(folder: BorrowedFd<'_>, name: &CStr, left: &mut usize) -> Result<(), Errno> {
    let mut way: Vec<Level> = Vec::new();
    way.push(Level {
        name: name.into(),
        folder: open(folder, name)?,
        inner: Vec::new(),
    });
    let mut moved = 0;
    while let Some(level) = way.last_mut() {
        let Some(name) = level.inner.pop() else {
            if empty_out(level, left)? {
                continue;
            }
            let Some(mut level) = way.pop() else { break };
            let above = way.last().map_or(folder, |level| level.folder.as_fd());
            match rustix::fs::unlinkat(above, &*level.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => spend(left)?,
                // Something was made or moved here meanwhile.
                Err(error @ (Errno::NOTEMPTY | Errno::EXIST)) => {
                    rustix::fs::seek(&level.folder, SeekFrom::Start(0))?;
                    if !empty_out(&mut level, left)? {
                        return Err(error);
                    }
                    way.push(level);
                }
                Err(error) => return Err(error),
            }
            continue;
        };
        // Most folders at the ends of a tree need no look.
        if let Ok(()) | Err(Errno::NOENT) = rustix::fs::unlinkat(&level.folder, &*name, AtFlags::REMOVEDIR) {
            spend(left)?;
            continue;
        }
        if way.len() >= MAX_OPEN
            && let [top, .., inner] = &way[..]
            && move_up(&inner.folder, &name, &top.folder, &mut moved).is_ok()
        {
            spend(left)?;
            continue;
        }
        // Also where it cannot be moved, such as a lower layer's folder: that costs one more open folder.
        let above = way.last().map_or(folder, |level| level.folder.as_fd());
        let opened = open(above, &name)?;
        way.push(Level {
            name,
            folder: opened,
            inner: Vec::new(),
        });
    }
    Ok(())
}

/// Moves a folder into the first one on the way, where its turn comes.
fn move_up(inner: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved = moved.saturating_add(1);
        let fresh = alloc::format!(".firebrick-remove-{}-{moved}", rustix::process::getpid());
        match rustix::fs::renameat(inner, name, top, fresh.as_str()) {
            // Something has that name; an empty folder of it makes room by itself.
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
            other => return other,
        }
    }
}

fn open(folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

fn spend(left: &mut usize) -> Result<(), Errno> {
    *left = left.checked_sub(1).ok_or(Errno::AGAIN)?;
    Ok(())
}

/// Goes on through a folder: removes what is no folder, and remembers a piece of what is. Gives `false` at the end.
fn empty_out(level: &mut Level, left: &mut usize) -> Result<bool, Errno> {
    let mut buffer = [core::mem::MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(&level.folder, &mut buffer);
    let mut has_any = false;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            has_any = true;
            if entry.file_type() == FileType::Directory {
                level.inner.push(name.into());
            } else {
                spend(left)?;
                match rustix::fs::unlinkat(&level.folder, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    // Some filesystems do not tell what an entry is.
                    Err(Errno::ISDIR) => level.inner.push(name.into()),
                    Err(error) => return Err(error),
                }
            }
        }
        if entries.is_buffer_empty() && has_any {
            return Ok(true);
        }
    }
    Ok(false)
}
