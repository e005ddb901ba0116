//! The kernel's file systems, at their places.

use alloc::string::String;

use rustix::mount::{MountFlags, mount};

use crate::boot::Boot;
use crate::errno::describe;
use crate::file;

/// A file system that every Linux root needs.
pub(super) struct KernelMount {
    pub(super) target: &'static str,
    pub(super) kind: &'static core::ffi::CStr,
    pub(super) flags: MountFlags,
    pub(super) options: &'static core::ffi::CStr,
    /// Programs run without it; a kernel may lack it.
    pub(super) optional: bool,
}

pub(super) const STRICT: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

const MOUNTS: [KernelMount; 8] = [
    KernelMount {
        target: "/proc",
        kind: c"proc",
        flags: STRICT,
        options: c"",
        optional: false,
    },
    KernelMount {
        target: "/sys",
        kind: c"sysfs",
        flags: STRICT,
        options: c"",
        optional: false,
    },
    KernelMount {
        target: "/dev",
        kind: c"devtmpfs",
        flags: MountFlags::NOSUID,
        options: c"mode=0755",
        optional: false,
    },
    KernelMount {
        target: "/dev/pts",
        kind: c"devpts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: c"gid=5,mode=0620,ptmxmode=0666",
        optional: false,
    },
    KernelMount {
        target: "/dev/shm",
        kind: c"tmpfs",
        flags: NO_DEVICES,
        options: c"mode=1777",
        optional: false,
    },
    KernelMount {
        target: "/dev/mqueue",
        kind: c"mqueue",
        flags: STRICT,
        options: c"",
        optional: true,
    },
    KernelMount {
        target: "/run",
        kind: c"tmpfs",
        flags: NO_DEVICES,
        options: c"mode=0755",
        optional: false,
    },
    KernelMount {
        target: "/tmp",
        kind: c"tmpfs",
        flags: NO_DEVICES,
        options: c"mode=1777",
        optional: false,
    },
];

/// Names in `/dev` that programs expect and devtmpfs does not make.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts all that are not mounted yet, but for the control groups.
pub fn mount_all(boot: &mut Boot) {
    for wanted in MOUNTS {
        wanted.mount(boot);
    }
    for (to, name) in LINKS {
        let _ = rustix::fs::symlink(to, name);
    }
}

impl KernelMount {
    pub(super) fn mount(&self, boot: &mut Boot) {
        let target = self.target;
        if is_mount_point(target) {
            return;
        }
        let made = file::make_dirs(target, 0o755);
        if let Err(error) = made
            && !self.optional
        {
            return boot.warn(format_args!(
                "{target} is missing and cannot be made: {}",
                describe(error)
            ));
        }
        let mounted = mount(self.kind, target, self.kind, self.flags, self.options)
            // Options come and go between kernels; the file system matters more.
            .or_else(|_| mount(self.kind, target, self.kind, self.flags, c""));
        if let Err(error) = mounted
            && !self.optional
        {
            boot.warn(format_args!(
                "cannot mount {} on {target}: {}",
                self.kind.to_string_lossy(),
                describe(error)
            ));
        }
    }
}

/// Whether something is mounted on exactly this folder.
pub fn is_mount_point(path: &str) -> bool {
    let above = alloc::format!("{path}/..");
    match (rustix::fs::stat(path), rustix::fs::stat(above.as_str())) {
        (Ok(here), Ok(above)) => here.st_dev != above.st_dev,
        _ => false,
    }
}

/// The mount points of this machine, in the order they were mounted, each with its device and type.
pub(crate) fn mounted() -> alloc::vec::Vec<(String, String, String)> {
    file::text("/proc/self/mounts")
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (device, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
            Some((device.into(), unescape(target), kind.into()))
        })
        .collect()
}

/// The kernel writes white space and backslashes in paths as three octal digits.
fn unescape(path: &str) -> String {
    let mut plain = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = after.get(3..).unwrap_or("");
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points() {
        assert!(is_mount_point("/proc"));
        assert!(!is_mount_point("/proc/self"));
        assert!(!is_mount_point("/no/such/folder"));
        assert!(
            mounted()
                .iter()
                .any(|(_, target, kind)| target == "/proc" && kind == "proc")
        );
    }

    #[test]
    fn octal_escapes() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
        assert_eq!(unescape("/a\\9\\"), "/a\\9\\");
    }
}
