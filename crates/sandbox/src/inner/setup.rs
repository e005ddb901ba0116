//! The keeper's own namespaces, and a root that holds the work folder and nothing else of the host's disks.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{Doing as _, Failure};
use crate::sys;

/// Where the copy is in the keeper's root.
pub(crate) const COPY: &str = "/copy";
/// Where the host's `/dev` is, until a step has taken what it needs.
pub(crate) const HOST_DEV: &str = "/dev";

/// A user namespace that maps nothing yet. The work folder becomes the working directory.
pub(crate) fn own_user_namespace(folder: &OwnedFd) -> Result<(), Failure> {
    // Not in the terminal's group: who interrupts firebrick does not interrupt whoever cleans up behind it.
    _ = rustix::process::setsid();
    sys::ignore_interrupts();
    sys::close_from(3).doing(|| "close what was inherited".into())?;
    rustix::process::fchdir(folder).doing(|| "enter the work folder".into())?;
    rustix::process::umask(Mode::empty());
    sys::unshare(libc::CLONE_NEWUSER).doing(|| "make a user namespace".into())
}

/// What holds the work folder, to remove it from when all is over.
pub(crate) fn outer() -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("..", flags, Mode::empty()).ok()
}

/// Root of the user namespace, in a mount namespace whose root is the work folder.
pub(crate) fn own_root(ids: u32) -> Result<(), Failure> {
    let (root_uid, root_gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    if ids > 1 {
        set_thread_groups(&[]).doing(|| "leave the caller's groups".into())?;
    }
    set_thread_res_gid(root_gid, root_gid, root_gid).doing(|| "become group 0".into())?;
    set_thread_res_uid(root_uid, root_uid, root_uid).doing(|| "become user 0".into())?;
    sys::unshare(libc::CLONE_NEWNS).doing(|| "make a mount namespace".into())?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).doing(|| "keep mounts to itself".into())?;
    // By descriptor and working directory alone: the sandbox's root need not be able to walk to the folder.
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree =
        rustix::mount::open_tree(CWD, ".", clone).doing(|| "clone the mount of the work folder".into())?;
    rustix::mount::move_mount(&tree, "", CWD, ".", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .doing(|| "mount the work folder".into())?;
    rustix::process::fchdir(&tree).doing(|| "enter the work folder's mount".into())?;
    for (from, to) in [("/proc", "proc"), ("/dev", "dev")] {
        match rustix::fs::mkdir(to, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno).doing(|| format!("make the folder {to}")),
        }
        rustix::mount::mount_bind_recursive(from, to).doing(|| format!("take {from} along"))?;
    }
    rustix::process::pivot_root(".", ".").doing(|| "make the work folder the root".into())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing(|| "let go of the host's root".into())?;
    rustix::process::chdir("/").doing(|| "enter the new root".into())
}
