//! Control groups: version 2 in one tree, or version 1 with a tree for each controller, as `firebrick.cgroup=` says.

use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::mount::{MountFlags, mount as mount_at};

use super::mounts::{KernelMount, STRICT, is_mount_point};
use crate::boot::Boot;
use crate::cmdline::Cmdline;
use crate::errno::describe;
use crate::{file, kernel};

const ROOT: &str = "/sys/fs/cgroup";

/// With several processors the kernel makes whoever mounts this wait for all of them, for some 10 ms.
const VERSION_2: KernelMount = KernelMount {
    target: ROOT,
    kind: c"cgroup2",
    flags: STRICT,
    options: c"nsdelegate,memory_recursiveprot",
    optional: true,
};

/// What is to be mounted.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Version2,
    /// These controllers, each in a folder of its name.
    Version1(Vec<String>),
}

impl Wanted {
    /// Reads `v2`, `v1` (all that the kernel has) or `v1:cpu,memory`; `kernels` is the text of `/proc/cgroups`. What is not to be
    /// had is told in words.
    fn parse(text: Option<&str>, kernels: &str) -> (Wanted, Vec<String>) {
        let enabled: Vec<&str> = kernels
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                let name = fields.next()?;
                (fields.next_back()? == "1").then_some(name)
            })
            .collect();
        let (version, named) = match text.unwrap_or("v2").split_once(':') {
            Some((version, named)) => (version, Some(named)),
            None => (text.unwrap_or("v2"), None),
        };
        let owned = |names: Vec<&str>| names.into_iter().map(String::from).collect();
        match (version, named) {
            ("v2", None) => (Wanted::Version2, Vec::new()),
            ("v1", None) => (Wanted::Version1(owned(enabled)), Vec::new()),
            ("v1", Some(named)) => {
                let named = named.split(',').filter(|name| !name.is_empty());
                let (found, missing): (Vec<&str>, Vec<&str>) = named.partition(|name| enabled.contains(name));
                let problems = missing
                    .into_iter()
                    .map(|name| alloc::format!("firebrick.cgroup=: this kernel has no controller {name}"))
                    .collect();
                (Wanted::Version1(owned(found)), problems)
            }
            _ => {
                let problem = alloc::format!(
                    "firebrick.cgroup={}: expected v2, v1 or v1:CONTROLLER,…",
                    text.unwrap_or("")
                );
                (Wanted::Version2, [problem].into())
            }
        }
    }

    fn of(cmdline: &Cmdline, boot: &mut Boot) -> Wanted {
        let (wanted, problems) =
            Wanted::parse(cmdline.value("firebrick.cgroup"), &file::text("/proc/cgroups"));
        for problem in problems {
            boot.warn(format_args!("{problem}"));
        }
        wanted
    }

    fn mount(&self, boot: &mut Boot) {
        let controllers = match self {
            Wanted::Version2 => return VERSION_2.mount(boot),
            Wanted::Version1(_) if is_mount_point(ROOT) => return,
            Wanted::Version1(controllers) => controllers,
        };
        if let Err(error) = mount_at(c"tmpfs", ROOT, c"tmpfs", STRICT, c"mode=0755") {
            return boot.warn(format_args!("cannot mount {ROOT}: {}", describe(error)));
        }
        for name in controllers {
            let folder = alloc::format!("{ROOT}/{name}");
            let Ok(option) = CString::new(name.as_str()) else {
                continue;
            };
            let mounted = file::make_dirs(&folder, 0o755)
                .and_then(|()| mount_at(c"cgroup", folder.as_str(), c"cgroup", STRICT, option.as_c_str()));
            if let Err(error) = mounted {
                boot.warn(format_args!("cannot mount {folder}: {}", describe(error)));
            }
        }
        let _ = rustix::mount::mount_remount(ROOT, STRICT | MountFlags::RDONLY, c"mode=0755");
    }
}

/// Mounts them.
pub(super) fn mount(cmdline: &Cmdline, boot: &mut Boot) {
    Wanted::of(cmdline, boot).mount(boot);
}

/// Mounts them in a child, whose process id is given: programs need them, but the agent does not.
pub(super) fn mount_in_child(cmdline: &Cmdline, boot: &mut Boot) -> Option<i32> {
    let wanted = Wanted::of(cmdline, boot);
    match kernel::fork() {
        Ok(Some(child)) => Some(child.as_raw_nonzero().get()),
        Ok(None) => {
            wanted.mount(boot);
            kernel::exit(0)
        }
        Err(_) => {
            wanted.mount(boot);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNELS: &str =
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t0\npids\t0\t1\t1\n";

    #[test]
    fn controllers_are_those_that_are_named_and_there() {
        let parse = |text| Wanted::parse(text, KERNELS);
        let version1 =
            |names: &[&str]| Wanted::Version1(names.iter().map(|name| String::from(*name)).collect());
        assert_eq!(parse(None), (Wanted::Version2, Vec::new()));
        assert_eq!(parse(Some("v2")), (Wanted::Version2, Vec::new()));
        assert_eq!(parse(Some("v1")), (version1(&["cpu", "pids"]), Vec::new()));
        assert_eq!(parse(Some("v1:pids")), (version1(&["pids"]), Vec::new()));
        let (wanted, problems) = parse(Some("v1:memory,cpu,nonsense"));
        assert_eq!(wanted, version1(&["cpu"]));
        assert_eq!(problems.len(), 2, "{problems:?}");
        for odd in ["", "v3", "v2:cpu", "cpu"] {
            let (wanted, problems) = parse(Some(odd));
            assert_eq!((wanted, problems.len()), (Wanted::Version2, 1), "{odd}");
        }
    }
}
