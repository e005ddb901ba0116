//! The writable layer over a read-only root: `overlay_root=`, `overlay_size=`, `/overlay`, `/rom`.
//!
//! - The *lower* root is the image, never written; it ends at `/rom`.
//! - The *layer* is memory or a disk; it ends at `/overlay`, with `root/` and `work/` in it.
//! - The *merged* root is what programs see.
//!
//! Stage 1 lays it before the image's init starts. Without stage 1, PID 1 lays it itself when its root cannot be written,
//! and so does this program under the name `overlay-init`, which then becomes the image's `/sbin/init`. The contract is that
//! of firecracker-containerd's `overlay-init`, and `docs/init.md` has it.

mod disk;
pub mod mkfs;
mod pivot;

use alloc::ffi::CString;
use alloc::string::String;

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::boot::Boot;
use crate::cmdline::{Cmdline, parse_size};
use crate::errno::describe;
use crate::file;
use crate::init::modules;
use crate::kernel::{self, Clock};

pub use pivot::{lay_in_place, run_before_init};

/// How long a device may take to appear, where `firebrick.rootwait=` says nothing.
const WAIT_S: u64 = 30;

/// Where the parts are while they are put together.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The mounted image.
    pub lower: &'a str,
    /// Where to mount the layer.
    pub layer: &'a str,
    /// Where to mount the merged root.
    pub merged: &'a str,
}

/// Mounts the layer that the command line asks for, and the merged root.
///
/// # Errors
/// What cannot be done, and what to do about it, in words.
pub fn lay(cmdline: &Cmdline, places: &Places<'_>, boot: &mut Boot) -> Result<(), String> {
    let said = |what: &str, error| alloc::format!("{what}: {}", describe(error));
    for folder in [places.layer, places.merged] {
        file::make_dirs(folder, 0o755).map_err(|error| said(folder, error))?;
    }
    let size = match cmdline.value("overlay_size") {
        None => None,
        Some(text) => Some(
            parse_size(text)
                .filter(|bytes| *bytes > 0)
                .ok_or_else(|| alloc::format!("overlay_size={text} is no size, such as 512M"))?,
        ),
    };
    match cmdline.value("overlay_root").unwrap_or("ram") {
        "" | "ram" => mount_memory(places.layer, size)?,
        device => disk::mount_disk(device, places.layer, size, wait_s(cmdline), boot)?,
    }
    let upper = alloc::format!("{}/root", places.layer);
    let work = alloc::format!("{}/work", places.layer);
    for folder in [&upper, &work] {
        file::make_dirs(folder, 0o755).map_err(|error| said(folder, error))?;
        if !is_folder(folder) {
            let name = folder.rsplit('/').next().unwrap_or(folder);
            return Err(alloc::format!(
                "the layer's {name}/ is no folder: the disk that overlay_root= names was made by something else; attach another"
            ));
        }
    }
    let lower = places.lower;
    let options = CString::new(alloc::format!("lowerdir={lower},upperdir={upper},workdir={work}"))
        .map_err(|_| String::from("a path holds a zero byte"))?;
    let mount_merged = || {
        mount(
            c"overlay",
            places.merged,
            c"overlay",
            MountFlags::NOATIME,
            options.as_c_str(),
        )
    };
    let mut mounted = mount_merged();
    if mounted == Err(Errno::NODEV) && modules::load_named("overlay").is_ok() {
        mounted = mount_merged();
    }
    match mounted {
        Ok(()) => Ok(()),
        Err(Errno::NODEV) => Err(
            "this kernel has no overlay filesystem: boot with a kernel or an initramfs that has it, or with \
             firebrick.overlay=off"
                .into(),
        ),
        Err(error) => Err(said("cannot mount the overlay", error)),
    }
}

fn mount_memory(target: &str, size: Option<u64>) -> Result<(), String> {
    let options = match size {
        Some(bytes) => alloc::format!("mode=0755,size={bytes}"),
        None => "mode=0755".into(),
    };
    let options = CString::new(options).map_err(|_| String::from("overlay_size= holds a zero byte"))?;
    mount(
        c"tmpfs",
        target,
        c"tmpfs",
        MountFlags::NOATIME,
        options.as_c_str(),
    )
    .map_err(|error| alloc::format!("cannot mount a tmpfs for the overlay: {}", describe(error)))
}

/// How long to wait for devices.
pub(crate) fn wait_s(cmdline: &Cmdline) -> u64 {
    cmdline
        .value("firebrick.rootwait")
        .and_then(|text| text.parse().ok())
        .unwrap_or(WAIT_S)
}

/// Waits for a device file; gives up after so many seconds.
pub(crate) fn wait_for(device: &str, limit_s: u64) -> bool {
    let deadline = Clock::Boottime
        .now_ns()
        .saturating_add(limit_s.saturating_mul(1_000_000_000));
    let mut pause_ms = 1;
    while !file::exists(device) {
        if Clock::Boottime.now_ns() >= deadline {
            return false;
        }
        kernel::sleep_ms(pause_ms);
        pause_ms = 20.min(pause_ms + 1);
    }
    true
}

/// The disks that there are, for messages. `/sys` need not be mounted yet.
pub(crate) fn disks() -> String {
    let text = file::text("/proc/partitions");
    let names = text
        .lines()
        .skip(2)
        .filter_map(|line| line.split_whitespace().nth(3));
    names.collect::<alloc::vec::Vec<_>>().join(" ")
}

/// Whether it is a folder itself, and no link to one.
fn is_folder(path: &str) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

/// Makes a folder to mount on. What an image has there instead, a file or a link (which would lead through this root, not
/// the image's), is replaced: the writable layer hides it, and the image keeps it.
pub(crate) fn mount_point(path: &str) -> Result<(), Errno> {
    if is_folder(path) {
        return Ok(());
    }
    if rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        rustix::fs::unlink(path)?;
    }
    file::make_dirs(path, 0o755)
}

/// The environment of an init that is not ours.
pub(crate) fn plain_environment() -> alloc::vec::Vec<CString> {
    [
        c"HOME=/",
        c"TERM=linux",
        c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
    .map(CString::from)
    .into()
}

/// Why a program that is there cannot be run, as far as the error tells.
pub(crate) fn cannot_run(path: &str, error: Errno) -> String {
    let is_there = rustix::fs::stat(path).is_ok();
    let advice = match error {
        Errno::NOENT if is_there => {
            "the program that it asks for (its ELF loader, or what its #! line names) is missing in the image"
        }
        Errno::NOENT => "the image has no such program; without init= firebrick's own runs",
        Errno::ACCESS => "it is not executable",
        Errno::NOEXEC => "it is for another processor, or no program",
        _ => "try without init=",
    };
    alloc::format!("cannot run {path}: {}; {advice}", describe(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_fits_the_error() {
        let advice = |path: &str, error| cannot_run(path, error);
        assert!(advice("/no/such/init", Errno::NOENT).contains("no such program"));
        assert!(advice("/etc/passwd", Errno::NOENT).contains("ELF loader"));
        assert!(advice("/etc/passwd", Errno::ACCESS).contains("not executable"));
    }

    #[test]
    fn what_is_there_already_is_not_waited_for() {
        assert!(wait_for("/dev/null", 0));
        assert!(!wait_for("/dev/no-such-disk", 0));
    }
}
