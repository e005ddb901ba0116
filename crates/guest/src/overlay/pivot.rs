//! Laying the writable layer under a running PID 1, where no stage 1 did: the root is the image itself.

use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

use super::{Places, cannot_run, is_folder, lay, mount_point, plain_environment};
use crate::boot::Boot;
use crate::cmdline::Cmdline;
use crate::errno::describe;
use crate::init::mounts::is_mount_point;
use crate::kernel::{self, StringList};
use crate::{file, init};

/// What may be mounted already, and moves along.
const MOVED: [&str; 5] = ["/dev", "/proc", "/sys", "/run", "/tmp"];

/// Folders that nearly every image has: one of them is hidden for a moment by what we mount to work in.
const SCRATCH: [&str; 5] = ["/run", "/tmp", "/mnt", "/var", "/opt"];

/// Whether the root is an overlay already: stage 1, or somebody else's, has laid it.
fn is_laid() -> bool {
    const OVERLAYFS_MAGIC: i64 = 0x794c_7630;
    rustix::fs::statfs("/").is_ok_and(|found| found.f_type == OVERLAYFS_MAGIC)
}

fn is_read_only() -> bool {
    rustix::fs::statvfs("/").is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Lays the layer under PID 1 if its root cannot be written or `overlay_root=` asks for it, unless
/// `firebrick.overlay=off` forbids it.
///
/// A layer that was asked for and cannot be had is the end of the machine; one that was only needed is a warning.
pub fn lay_in_place(boot: &mut Boot) {
    mount_what_is_needed(boot);
    let cmdline = Cmdline::of_this_machine();
    let asked = cmdline.value("overlay_root").is_some();
    let is_off = cmdline.value("firebrick.overlay") == Some("off");
    if is_off || is_laid() || !(asked || is_read_only()) {
        return;
    }
    match lay_and_pivot(&cmdline, boot) {
        Ok(()) => boot.stamp("overlay_laid"),
        Err(problem) if asked => crate::die(format_args!("{problem}")),
        Err(problem) => boot.warn(format_args!("the root stays read-only: {problem}")),
    }
}

/// Runs as `overlay-init`: lays the layer, then becomes the image's `/sbin/init` with the same arguments.
pub fn run_before_init(arguments: &[&CStr], environment: &[&CStr]) -> ! {
    let mut boot = Boot::from_environment(environment);
    init::open_standard_descriptors();
    mount_what_is_needed(&mut boot);
    if !is_laid() {
        if let Err(problem) = lay_and_pivot(&Cmdline::of_this_machine(), &mut boot) {
            crate::die(format_args!("{problem}"));
        }
        boot.stamp("overlay_laid");
    }
    let init = c"/sbin/init";
    let argv: Vec<CString> = [init]
        .into_iter()
        .chain(arguments.iter().skip(1).copied())
        .filter(|word| *word != c"--overlay")
        .map(CString::from)
        .collect();
    let mut env: Vec<CString> = environment
        .iter()
        .map(|variable| CString::from(*variable))
        .collect();
    env.extend(plain_environment().into_iter().filter(|ours| {
        let name = ours.to_bytes().split(|byte| *byte == b'=').next();
        !environment
            .iter()
            .any(|theirs| theirs.to_bytes().split(|byte| *byte == b'=').next() == name)
    }));
    boot.leave();
    let error = kernel::exec(init, &StringList::new(argv), &StringList::new(env));
    if error != Errno::NOENT || rustix::fs::statat(CWD, init, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        crate::die(format_args!("{}", cannot_run("/sbin/init", error)));
    }
    boot.warn(format_args!(
        "the image has no /sbin/init: firebrick's takes its place"
    ));
    init::run_after(boot)
}

/// `/proc` for the command line, `/dev` for the disk.
fn mount_what_is_needed(boot: &mut Boot) {
    for (target, kind) in [("/proc", c"proc"), ("/dev", c"devtmpfs")] {
        if is_mount_point(target) {
            continue;
        }
        if let Err(error) = mount(kind, target, kind, MountFlags::NOSUID, c"") {
            boot.warn(format_args!(
                "cannot mount {target}: {}; the image needs a folder of that name",
                describe(error)
            ));
        }
    }
}

fn lay_and_pivot(cmdline: &Cmdline, boot: &mut Boot) -> Result<(), String> {
    let Some(scratch) = SCRATCH.into_iter().find(|path| is_folder(path)) else {
        return Err(alloc::format!(
            "the image has none of the folders {}, of which the overlay needs one",
            SCRATCH.join(" ")
        ));
    };
    let said = |what: &str, error| alloc::format!("{what}: {}", describe(error));
    mount(
        c"tmpfs",
        scratch,
        c"tmpfs",
        MountFlags::NOSUID,
        c"mode=0755,size=64k",
    )
    .map_err(|error| said(scratch, error))?;
    let layer = alloc::format!("{scratch}/overlay");
    let merged = alloc::format!("{scratch}/new");
    let places = Places {
        lower: "/",
        layer: &layer,
        merged: &merged,
    };
    let laid = lay(cmdline, &places, boot).and_then(|()| {
        let rom = alloc::format!("{merged}/rom");
        mount_point(&rom).map_err(|error| said("/rom", error))?;
        rustix::process::pivot_root(merged.as_str(), rom.as_str())
            .map_err(|error| said("cannot make the overlay the root", error))
    });
    if laid.is_err() {
        let _ = unmount(scratch, UnmountFlags::DETACH);
        return laid;
    }
    rustix::process::chdir("/").map_err(|error| said("/", error))?;
    mount_point("/overlay").map_err(|error| said("/overlay", error))?;
    mount_move(alloc::format!("/rom{layer}").as_str(), "/overlay")
        .map_err(|error| said("/overlay", error))?;
    let _ = unmount(alloc::format!("/rom{scratch}").as_str(), UnmountFlags::DETACH);
    for folder in MOVED {
        let from = alloc::format!("/rom{folder}");
        if file::exists(&from) && is_mount_point(&from) && mount_point(folder).is_ok() {
            let _ = mount_move(from.as_str(), folder);
        }
    }
    Ok(())
}
