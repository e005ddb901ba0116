//! Places: where a path leads, and that below a root it leads nowhere else.

use alloc::ffi::CString;
use alloc::string::String;
use core::ffi::CStr;

use firebrick_protocol::files::Place;
use firebrick_protocol::rpc::RpcError;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::errno;

/// A folder, and a name in it. The name `.` stands for the folder itself.
#[derive(Debug)]
pub(in super::super) struct Spot {
    pub(in super::super) folder: OwnedFd,
    pub(in super::super) name: CString,
}

impl Spot {
    /// Whether it is the folder itself: `/`, or a root.
    pub(in super::super) fn is_folder_itself(&self) -> bool {
        &*self.name == c"."
    }
}

/// What the kernel did not want to do, in words.
pub(in super::super) fn failed(what: &str, path: &str, error: Errno) -> RpcError {
    RpcError::internal(
        alloc::format!("cannot {what} {path:?}: {}", errno::describe(error)),
        Some(error.raw_os_error()),
    )
}

/// Finds a place; with `make_parents`, makes the folders on the way.
///
/// # Errors
/// What is wrong with the path, or the kernel's reason.
pub(in super::super) fn find(place: &Place, make_parents: bool) -> Result<Spot, RpcError> {
    let path = place.path.as_str();
    if path.contains('\0') {
        return Err(RpcError::invalid_params("`path` holds a zero byte"));
    }
    match &place.root {
        Some(root) => below(root, path, make_parents),
        None => plain(path, make_parents),
    }
}

fn plain(path: &str, make_parents: bool) -> Result<Spot, RpcError> {
    if !path.starts_with('/') {
        return Err(RpcError::invalid_params(alloc::format!(
            "{path:?} is no absolute path"
        )));
    }
    let trimmed = path.trim_end_matches('/');
    let (above, name) = trimmed.rsplit_once('/').unwrap_or(("", "."));
    if name == ".." {
        return Err(RpcError::invalid_params(alloc::format!(
            "{path:?} ends with \"..\""
        )));
    }
    let above = if above.is_empty() { "/" } else { above };
    if make_parents {
        crate::file::make_dirs(above, 0o755).map_err(|error| failed("make the folder", above, error))?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder =
        rustix::fs::open(above, flags, Mode::empty()).map_err(|error| failed("reach", path, error))?;
    Ok(Spot {
        folder,
        name: c_name(name),
    })
}

fn below(root: &str, path: &str, make_parents: bool) -> Result<Spot, RpcError> {
    if !root.starts_with('/') || root.contains('\0') {
        return Err(RpcError::invalid_params(alloc::format!(
            "{root:?} is no absolute path"
        )));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| failed("reach", root, error))?;
    walk(root, path.as_bytes(), make_parents).map_err(|error| match error {
        Errno::XDEV => RpcError::invalid_params(alloc::format!("{path:?} leads out of the root")),
        error => failed("reach", path, error),
    })
}

/// The names in a path.
pub(super) fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

/// Walks down from `folder` by plain names; no symlink on the way is followed.
///
/// # Errors
/// [`Errno::XDEV`] when the path has a `..`; [`Errno::NOTDIR`] when a symlink or file is on the way.
pub(in super::super) fn walk(folder: OwnedFd, path: &[u8], make_parents: bool) -> Result<Spot, Errno> {
    let mut names = parts(path).peekable();
    let mut folder = folder;
    while let Some(name) = names.next() {
        if name == b".." {
            return Err(Errno::XDEV);
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        if names.peek().is_none() {
            return Ok(Spot { folder, name });
        }
        folder = step(folder.as_fd(), &name, make_parents)?;
    }
    Ok(Spot {
        folder,
        name: c".".into(),
    })
}

fn step(folder: BorrowedFd<'_>, name: &CStr, make: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) if make => {
            match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            rustix::fs::openat(folder, name, flags, Mode::empty())
        }
        other => other,
    }
}

/// A name without zero bytes, as has been made sure of.
fn c_name(name: &str) -> CString {
    CString::new(String::from(name)).unwrap_or_default()
}
