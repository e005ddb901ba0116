//! Removing trees, however deep: a folder far down is moved up into the first one, so that few are open at a time.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
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

/// The folders on the way down, each with the name by which it is removed from the one above.
fn below(folder: BorrowedFd<'_>, name: &CStr, left: &mut usize) -> Result<(), Errno> {
    let mut way: Vec<(CString, OwnedFd)> = Vec::new();
    way.push((name.into(), open(folder, name)?));
    let mut moved = 0;
    while let Some((_, inner)) = way.last() {
        match empty_out(inner, left)? {
            Some(deeper) => {
                if way.len() >= MAX_OPEN
                    && let Some((_, top)) = way.first()
                    && move_up(inner, &deeper, top, &mut moved).is_ok()
                {
                    spend(left)?;
                    continue;
                }
                // Also where it cannot be moved, such as a lower layer's folder: that costs one more open folder.
                let opened = open(inner.as_fd(), &deeper)?;
                way.push((deeper, opened));
            }
            None => {
                let Some((name, _)) = way.pop() else { break };
                let above = way.last().map_or(folder, |(_, above)| above.as_fd());
                spend(left)?;
                rustix::fs::unlinkat(above, &*name, AtFlags::REMOVEDIR)?;
            }
        }
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

/// Removes all that is no folder; gives a folder that is in the way.
fn empty_out(folder: &OwnedFd, left: &mut usize) -> Result<Option<CString>, Errno> {
    rustix::fs::seek(folder, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = [core::mem::MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            return Ok(Some(name.into()));
        }
        spend(left)?;
        match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Some filesystems do not tell what an entry is.
            Err(Errno::ISDIR) => return Ok(Some(name.into())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
