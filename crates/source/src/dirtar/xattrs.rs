//! The extended attributes of an entry, without those that are the host's own.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use firebrick_tree::Xattrs;
use rustix::io::Errno;

/// Extended attributes that belong to the host or its mounts, not to the tree.
const HOST_XATTRS: [&[u8]; 5] = [
    b"security.selinux",
    b"security.apparmor",
    b"security.ima",
    b"security.evm",
    b"system.nfs4_acl",
];

/// Where extended attributes are read.
pub(super) enum Place<'a> {
    Opened(BorrowedFd<'a>),
    Named(&'a OwnedFd, &'a CStr),
}

/// Why they are not known.
pub(super) enum XattrsError {
    Read(Errno),
    /// Records of a tar cannot hold such a name.
    Name,
}

pub(super) fn read(place: &Place<'_>) -> Result<Xattrs, XattrsError> {
    let list = match grow(|buffer| place.list(buffer)) {
        Ok(list) => list,
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        Err(error) => return Err(XattrsError::Read(error)),
    };
    let mut xattrs = Xattrs::new();
    for key in list.split(|&byte| byte == 0).filter(|key| !key.is_empty()) {
        let of_overlay = key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.");
        if of_overlay || HOST_XATTRS.contains(&key) {
            continue;
        }
        if key.contains(&b'=') {
            return Err(XattrsError::Name);
        }
        let c_key = CString::new(key).expect("the list was split at NULs");
        let value = match grow(|buffer| place.get(&c_key, buffer)) {
            Ok(value) => value,
            // Listed, but taken away since, or not for us to see.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(XattrsError::Read(error)),
        };
        xattrs.insert(key.into(), value.into());
    }
    Ok(xattrs)
}

impl Place<'_> {
    fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Place::Opened(fd) => rustix::fs::flistxattr(fd, buffer),
            Place::Named(parent, name) => rustix::fs::llistxattr(proc_path(parent, name), buffer),
        }
    }

    fn get(&self, key: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Place::Opened(fd) => rustix::fs::fgetxattr(fd, key, buffer),
            Place::Named(parent, name) => rustix::fs::lgetxattr(proc_path(parent, name), key, buffer),
        }
    }
}

/// There is no `lgetxattrat` before Linux 6.13; this names the entry by its folder's descriptor all the same.
fn proc_path(parent: &OwnedFd, name: &CStr) -> PathBuf {
    let folder = format!("/proc/self/fd/{}", parent.as_raw_fd());
    Path::new(&folder).join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

/// Calls `read` with larger buffers until the value fits. (rustix answers 0 to an empty buffer, so there is no asking
/// for the length first.)
fn grow(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 1024];
    loop {
        match read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            // Linux's limit is 64 KiB for a value and for a list.
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}
