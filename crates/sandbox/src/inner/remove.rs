//! Removes everything in the keeper's root: any depth, any owner, whatever a step named it.

use std::ffi::CString;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::mount::UnmountFlags;

/// Empties the root. What cannot be removed stays; the next sandbox in the same folder tries again.
pub(crate) fn everything() {
    for mounted in ["/proc", "/dev"] {
        _ = rustix::mount::unmount(mounted, UnmountFlags::DETACH);
        _ = rustix::fs::rmdir(mounted);
    }
    // A folder is emptied of files, its folders move up to the root, and it goes. So no path is long and no descriptor is
    // kept, however deep a tree is.
    let mut moved: u64 = 0;
    loop {
        let entries = names("/");
        let mut progress = false;
        for (name, is_folder) in entries {
            let path = [b"/", name.as_bytes()].concat();
            if !is_folder {
                progress |= rustix::fs::unlink(path.as_slice()).is_ok();
                continue;
            }
            progress |= empty(&path, &mut moved);
            progress |= rustix::fs::rmdir(path.as_slice()).is_ok();
        }
        if !progress {
            return;
        }
    }
}

/// Removes a folder's files and moves its folders up. Gives whether anything went.
fn empty(path: &[u8], moved: &mut u64) -> bool {
    // An owner without rights is still a hindrance where capabilities do not reach, as on some network filesystems.
    _ = rustix::fs::chmod(path, Mode::from_raw_mode(0o700));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(path, flags, Mode::empty()) else {
        return false;
    };
    let mut progress = false;
    for (name, is_folder) in names(path) {
        if is_folder {
            if rustix::fs::unlinkat(&folder, &name, AtFlags::REMOVEDIR).is_ok() {
                progress = true;
                continue;
            }
            _ = rustix::fs::chmodat(&folder, &name, Mode::from_raw_mode(0o700), AtFlags::empty());
            let to = format!("/removed-{moved}");
            *moved += 1;
            progress |= rustix::fs::renameat(&folder, &name, CWD, to).is_ok();
        } else {
            progress |= rustix::fs::unlinkat(&folder, &name, AtFlags::empty()).is_ok();
        }
    }
    progress
}

/// The names in a folder, and whether each is one.
fn names(path: impl rustix::path::Arg) -> Vec<(CString, bool)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(path, flags, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(entries) = rustix::fs::Dir::read_from(&folder) else {
        return Vec::new();
    };
    let named = entries
        .flatten()
        .filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."));
    named
        .map(|entry| {
            let name = entry.file_name().to_owned();
            let is_folder = match entry.file_type() {
                FileType::Unknown => rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
                kind => kind == FileType::Directory,
            };
            (name, is_folder)
        })
        .collect()
}
