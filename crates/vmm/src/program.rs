//! Programs of the host.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The first executable file of this name in the folders of `search_path`, which is written as `PATH` is.
pub(crate) fn find(search_path: &OsStr, name: &str) -> Option<PathBuf> {
    let folders = search_path
        .as_bytes()
        .split(|&byte| byte == b':')
        .filter(|folder| !folder.is_empty());
    let executable =
        |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    folders
        .map(|folder| Path::new(OsStr::from_bytes(folder)).join(name))
        .find(executable)
}
