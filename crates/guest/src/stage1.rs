//! Init of firebrick's initramfs: from a kernel with nothing to the image's root.
//!
//! The initramfs holds this program as `/init`, modules, and [`MODULE_LIST`], which names them in load order. The kernel
//! command line says the rest (`docs/guest.md`): which device, how it is mounted, and what makes it writable.
//!
//! ```text
//! /root     the image, read-only          → /rom     in the new root
//! /overlay  tmpfs or a disk: root/, work/ → /overlay in the new root
//! /new      overlay of the two            → /
//! ```

use alloc::ffi::CString;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

use crate::boot::Boot;
use crate::cmdline::Cmdline;
use crate::errno::describe;
use crate::init::modules;
use crate::kernel::{self, StringList};
use crate::overlay::{self, Places, mount_point};
use crate::{PROGRAM, file, init};

/// The file that lists the modules to load, a path a line. Its presence in a root that is memory tells that this is the initramfs.
pub const MODULE_LIST: &str = "/lib/firebrick/modules";

/// What is mounted already and moves along.
const MOVED: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Whether the root is firebrick's initramfs. An image may have a file of the list's name, too, but is no memory.
pub fn is_in_initramfs() -> bool {
    root_is_memory() && file::exists(MODULE_LIST)
}

/// Whether the root is the file system that kernels unpack an initramfs into.
fn root_is_memory() -> bool {
    const RAMFS_MAGIC: u32 = 0x8584_58f6;
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    rustix::fs::statfs("/").is_ok_and(|found| matches!(found.f_type as u32, RAMFS_MAGIC | TMPFS_MAGIC))
}

/// Runs as the initramfs's init; goes on as the image's.
pub fn run(environment: &[&CStr]) -> ! {
    let _ = environment; // the kernel's: nothing for us
    if !root_is_memory() {
        // What is in it is deleted below.
        crate::die(format_args!(
            "--stage1 is for the init of an initramfs, and the root is none"
        ));
    }
    let mut boot = Boot::default();
    boot.stamp("stage1_start");
    mount_early(&mut boot);
    init::open_standard_descriptors();
    let cmdline = Cmdline::of_this_machine();
    load_modules(&mut boot);
    boot.stamp("modules_loaded");
    let prepared = mount_root(&cmdline).and_then(|()| make_writable(&cmdline, &mut boot));
    let root = match prepared {
        Ok(root) => root,
        Err(problem) => crate::die(format_args!("{problem}")),
    };
    boot.stamp("root_mounted");
    if let Err(problem) = switch_to(root) {
        crate::die(format_args!("{problem}"));
    }
    // The image may say which init it was made for.
    start_init(&Cmdline::of_this_machine(), boot)
}

fn mount_early(boot: &mut Boot) {
    for (target, kind) in MOVED.into_iter().zip([c"devtmpfs", c"proc", c"sysfs"]) {
        let _ = file::make_dirs(target, 0o755);
        match mount(kind, target, kind, MountFlags::NOSUID, c"") {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => boot.warn(format_args!("cannot mount {target}: {}", describe(error))),
        }
    }
}

fn load_modules(boot: &mut Boot) {
    let list = file::text(MODULE_LIST);
    for path in list
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Err(error) = modules::load(path) {
            boot.warn(format_args!("cannot load module {path}: {}", describe(error)));
        }
    }
}

/// Whether the root itself is to be writable, without an overlay.
fn is_plain_writable(cmdline: &Cmdline) -> bool {
    cmdline.flag_unless("rw", "ro") && cmdline.value("firebrick.overlay") == Some("off")
}

/// Mounts `root=` at `/root`.
fn mount_root(cmdline: &Cmdline) -> Result<(), String> {
    let device = cmdline
        .value("root")
        .filter(|device| !device.is_empty())
        .ok_or("the kernel command line has no root=, the device of the image")?;
    let device = if device.starts_with('/') {
        device.to_string()
    } else {
        alloc::format!("/dev/{device}")
    };
    let wait_s = overlay::wait_s(cmdline);
    if !overlay::wait_for(&device, wait_s) {
        return Err(alloc::format!(
            "root={device} did not appear within {wait_s} s; block devices: {}; attach the image as a drive, or name another \
             with root=",
            overlay::disks()
        ));
    }
    let flags = if is_plain_writable(cmdline) {
        MountFlags::empty()
    } else {
        MountFlags::RDONLY
    };
    mount_device(
        &device,
        "/root",
        cmdline.value("rootfstype"),
        cmdline.value("rootflags").unwrap_or(""),
        flags,
    )
}

/// Mounts a device, trying the given types (parted by commas) or those that images have.
fn mount_device(
    device: &str,
    target: &str,
    kinds: Option<&str>,
    options: &str,
    flags: MountFlags,
) -> Result<(), String> {
    file::make_dirs(target, 0o755)
        .map_err(|error| alloc::format!("cannot make {target}: {}", describe(error)))?;
    let options = CString::new(options).map_err(|_| "rootflags= holds a zero byte".to_string())?;
    let mut tried = Vec::new();
    for kind in kinds.unwrap_or("ext4,squashfs,erofs").split(',') {
        let mounted = mount(device, target, kind, flags, options.as_c_str());
        match mounted {
            Ok(()) => return Ok(()),
            Err(error) => tried.push(alloc::format!("{kind}: {}", describe(error))),
        }
    }
    Err(alloc::format!(
        "cannot mount {device} ({}); root= names the image's device, and rootfstype= what may be on it",
        tried.join("; ")
    ))
}

/// Lays a writable layer over `/root`, unless it is not wanted, and gives the folder of the new root.
fn make_writable(cmdline: &Cmdline, boot: &mut Boot) -> Result<&'static str, String> {
    if cmdline.value("firebrick.overlay") == Some("off") {
        return Ok("/root");
    }
    let places = Places {
        lower: "/root",
        layer: "/overlay",
        merged: "/new",
    };
    overlay::lay(cmdline, &places, boot)?;
    for (from, to) in [("/root", "/new/rom"), ("/overlay", "/new/overlay")] {
        let said = |error| alloc::format!("{to}: {}", describe(error));
        mount_point(to).map_err(said)?;
        mount_move(from, to).map_err(said)?;
    }
    Ok("/new")
}

/// Makes `root` the root, and frees what the initramfs held.
fn switch_to(root: &str) -> Result<(), String> {
    let said =
        |what: &str, error| alloc::format!("cannot switch to the image's root: {what}: {}", describe(error));
    for folder in MOVED {
        let target = alloc::format!("{root}{folder}");
        let _ = mount_point(&target);
        if mount_move(folder, target.as_str()).is_err() {
            // A read-only image without the folder. Whoever is init there must do without, too.
            let _ = unmount(folder, UnmountFlags::DETACH);
        }
    }
    let old = rustix::fs::open(
        "/",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| said("/", error))?;
    let device = rustix::fs::fstat(&old).map_err(|error| said("/", error))?.st_dev;
    rustix::process::chdir(root).map_err(|error| said(root, error))?;
    empty_folder(&old, device);
    mount_move(".", "/").map_err(|error| said("move", error))?;
    rustix::process::chroot(".").map_err(|error| said("chroot", error))?;
    rustix::process::chdir("/").map_err(|error| said("chdir", error))
}

/// Deletes everything below a folder that lies on this device: the initramfs is memory, and nobody will see it again.
fn empty_folder(folder: &rustix::fd::OwnedFd, device: u64) {
    let mut buffer = [core::mem::MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(folder, &mut buffer);
    let mut names = Vec::new();
    while let Some(Ok(entry)) = entries.next() {
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(CString::from(entry.file_name()));
        }
    }
    for name in names {
        let is_here = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_dev == device);
        if !is_here {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(folder, &name, flags, Mode::empty()) {
            Ok(below) => {
                empty_folder(&below, device);
                let _ = rustix::fs::unlinkat(folder, &name, AtFlags::REMOVEDIR);
            }
            Err(_) => {
                let _ = rustix::fs::unlinkat(folder, &name, AtFlags::empty());
            }
        }
    }
}

/// Becomes the image's init: what `init=` names, else this program as the image has it, else this very process.
fn start_init(cmdline: &Cmdline, mut boot: Boot) -> ! {
    let chosen = cmdline.value("init");
    let path = chosen.unwrap_or(PROGRAM);
    let mut env = overlay::plain_environment();
    if chosen.is_none_or(|chosen| chosen == PROGRAM) {
        env.extend(boot.to_environment());
    } else {
        // A kernel that reads `ip=` does so before any init; an init of the image's own expects that it did.
        init::network::set_up(cmdline, &mut boot);
        boot.leave();
    }
    if let Ok(program) = CString::new(path) {
        let error = kernel::exec(
            &program,
            &StringList::new([program.clone()].into()),
            &StringList::new(env),
        );
        if chosen.is_some() {
            crate::die(format_args!("init=: {}", overlay::cannot_run(path, error)));
        }
        if error != Errno::NOENT
            || rustix::fs::accessat(CWD, path, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
        {
            boot.warn(format_args!(
                "cannot run {path}: {}; going on with the one of the initramfs",
                describe(error)
            ));
        }
    }
    init::run_after(boot)
}
