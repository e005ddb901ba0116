//! What a step sees beside the copy: its own `/proc`, a minimal `/dev`, an empty `/sys`, a resolver.

use std::io;
use std::os::fd::AsFd;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::setup::{COPY, HOST_DEV};
use super::{Doing as _, Failure};

/// Device nodes that a step gets, of the host's by bind mounts.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Parts of `/proc` that speak of the whole machine: read-only. A root that is root outside too might write to them.
const READ_ONLY: [&str; 6] = ["bus", "fs", "irq", "sys", "sysrq-trigger", "acpi"];
/// Parts that tell of it.
const HIDDEN: [&str; 6] = [
    "kcore",
    "keys",
    "timer_list",
    "sched_debug",
    "latency_stats",
    "kmsg",
];

/// Where a script lies, in the step's `/dev`: no part of the copy.
pub(crate) const SCRIPT: &str = "/dev/firebrick-step";

/// Where apt is told, if there is one id only, not to become another user for its downloads.
pub(crate) const APT_CONFIG: &str = "/dev/firebrick-apt.conf";

/// Folders that the sandbox mounts on, and makes where the image lacks them.
pub(crate) const MOUNT_POINTS: [&str; 3] = ["proc", "sys", "dev"];

/// What a step asks of its view.
pub(crate) struct View<'a> {
    pub(crate) script: Option<&'a [u8]>,
    /// The resolver is put over the copy's file.
    pub(crate) resolver: bool,
    pub(crate) single: bool,
}

/// Mounts everything and makes the copy the root. Called in the step's own mount namespace.
pub(crate) fn make(copy: &OwnedFd, view: &View<'_>) -> Result<(), Failure> {
    rustix::mount::mount_bind(COPY, COPY).doing(|| "mount the copy".into())?;
    let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let nodev = MountAttrFlags::MOUNT_ATTR_NODEV;
    let noexec = MountAttrFlags::MOUNT_ATTR_NOEXEC;
    // The one at which the copy was opened is below the mount that was just made.
    _ = copy;
    let root = rustix::fs::openat(
        CWD,
        COPY,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .doing(|| "open the copy".into())?;
    let dev = filesystem(
        "tmpfs",
        &[("mode", "0755"), ("size", "32m"), ("nr_inodes", "4096")],
        nosuid,
    )?;
    place(&dev, &root, "dev")?;
    fill_dev(&dev, view)?;
    let sys = filesystem(
        "tmpfs",
        &[("mode", "0755"), ("nr_inodes", "1")],
        nosuid | nodev | noexec | MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?;
    place(&sys, &root, "sys")?;
    let proc = filesystem("proc", &[], nosuid | nodev | noexec);
    // A container that hides parts of /proc may not have a whole new one; an empty one is better than the outer.
    let has_proc = match proc {
        Ok(proc) => place(&proc, &root, "proc").map(|()| true)?,
        Err(_) => {
            let empty = filesystem(
                "tmpfs",
                &[("mode", "0555"), ("nr_inodes", "1")],
                nosuid | nodev | noexec,
            )?;
            place(&empty, &root, "proc").map(|()| false)?
        }
    };
    if view.resolver {
        let tree = clone(CWD, "/resolv.conf")?;
        place(&tree, &root, "etc/resolv.conf")?;
    }
    rustix::process::chdir(COPY).doing(|| "enter the copy".into())?;
    rustix::process::pivot_root(".", ".").doing(|| "make the copy the root".into())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing(|| "let go of the outer root".into())?;
    rustix::process::chdir("/").doing(|| "enter the root".into())?;
    if has_proc { close_proc() } else { Ok(()) }
}

/// A new filesystem, mounted nowhere yet.
fn filesystem(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Failure> {
    let what = || format!("make a {kind}");
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).doing(what)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value).doing(what)?;
    }
    rustix::mount::fsconfig_create(&context).doing(what)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).doing(what)
}

fn clone(folder: impl AsFd, path: &str) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(folder, path, flags).doing(|| format!("take {path}"))
}

/// Mounts a tree at a path below a folder, none of whose components may be a symbolic link.
fn place(tree: &OwnedFd, folder: &OwnedFd, path: &str) -> Result<(), Failure> {
    let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
    let target = rustix::fs::openat2(
        folder,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
    .doing(|| format!("find /{path} in the image"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", &target, "", flags).doing(|| format!("mount /{path}"))
}

fn fill_dev(dev: &OwnedFd, view: &View<'_>) -> Result<(), Failure> {
    let file = |name: &str, mode: u32| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(mode)).doing(|| format!("make /dev/{name}"))
    };
    for name in NODES {
        let path = format!("{HOST_DEV}/{name}");
        // A container may have no terminal; a step has none either.
        if rustix::fs::stat(&path).is_err() && name == "tty" {
            continue;
        }
        drop(file(name, 0o666)?);
        place(&clone(CWD, &path)?, dev, name)?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name).doing(|| format!("make /dev/{name}"))?;
    }
    for name in ["pts", "shm"] {
        rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755)).doing(|| format!("make /dev/{name}"))?;
    }
    let plain = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let shm = filesystem("tmpfs", &[("mode", "1777"), ("size", "64m")], plain)?;
    place(&shm, dev, "shm")?;
    // Group 5 is "tty" in every distribution.
    let group: &[(&str, &str)] = if view.single { &[] } else { &[("gid", "5")] };
    let options = [&[("ptmxmode", "0666"), ("mode", "0620")], group].concat();
    let noexec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    place(&filesystem("devpts", &options, noexec)?, dev, "pts")?;
    if view.single {
        let file = std::fs::File::from(file(APT_CONFIG.trim_start_matches("/dev/"), 0o644)?);
        io::Write::write_all(&mut &file, b"APT::Sandbox::User \"root\";\n")
            .doing(|| "write apt's options".into())?;
    }
    if let Some(script) = view.script {
        let name = SCRIPT.trim_start_matches("/dev/");
        let file = std::fs::File::from(file(name, 0o755)?);
        io::Write::write_all(&mut &file, script).doing(|| "write the script".into())?;
    }
    Ok(())
}

/// Takes the machine's parts out of our new `/proc`. It is ours: no path in it can be anybody's.
fn close_proc() -> Result<(), Failure> {
    let nothing =
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for name in READ_ONLY {
        let path = format!("/proc/{name}");
        if rustix::fs::stat(&path).is_ok() {
            rustix::mount::mount_bind(&path, &path).doing(|| format!("mount {path}"))?;
            rustix::mount::mount_remount(&path, nothing, "").doing(|| format!("make {path} read-only"))?;
        }
    }
    for name in HIDDEN {
        let path = format!("/proc/{name}");
        if rustix::fs::stat(&path).is_ok() {
            rustix::mount::mount_bind("/dev/null", &path).doing(|| format!("hide {path}"))?;
        }
    }
    Ok(())
}
