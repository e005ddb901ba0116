//! Kernel modules.

use alloc::string::String;
use alloc::vec::Vec;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::boot::Boot;
use crate::errno::describe;
use crate::file;

/// Loads the module file. One that is loaded already is fine.
pub fn load(path: &str) -> Result<(), Errno> {
    /// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks it.
    const COMPRESSED: i32 = 4;
    let file = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )?;
    let flags = if path.ends_with(".ko") { 0 } else { COMPRESSED };
    match rustix::system::finit_module(&file, c"", flags) {
        Err(Errno::EXIST) => Ok(()),
        outcome => outcome,
    }
}

/// Loads what `/etc/modules-load.d` names, if the image has modules for this kernel.
pub(super) fn load_configured(boot: &mut Boot) {
    const FOLDER: &str = "/etc/modules-load.d";
    let mut wanted = Vec::new();
    for name in file::names(FOLDER).iter().filter(|name| name.ends_with(".conf")) {
        let text = file::text(&alloc::format!("{FOLDER}/{name}"));
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
        wanted.extend(lines.map(canonical));
    }
    if wanted.is_empty() {
        return;
    }
    let folder = alloc::format!(
        "/lib/modules/{}",
        rustix::system::uname().release().to_string_lossy()
    );
    let index = file::text(&alloc::format!("{folder}/modules.dep"));
    for name in wanted {
        if file::exists(&alloc::format!("/sys/module/{name}")) {
            continue; // built in, or loaded
        }
        let Some(paths) = paths_of(&name, &index) else {
            boot.warn(format_args!("module {name} is not in {folder}/modules.dep"));
            continue;
        };
        for path in paths {
            if let Err(error) = load(&alloc::format!("{folder}/{path}")) {
                boot.warn(format_args!("cannot load module {path}: {}", describe(error)));
            }
        }
    }
}

/// A module's name as the kernel shows it: file names may have `-` where it has `_`.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The files to load for a module, in order, from the text of `modules.dep`.
fn paths_of(name: &str, index: &str) -> Option<Vec<String>> {
    index.lines().find_map(|line| {
        let (path, needs) = line.split_once(':')?;
        let file = path.rsplit('/').next()?;
        let stem = file.split_once(".ko").map(|(stem, _)| stem)?;
        if canonical(stem) != name {
            return None;
        }
        // Each stands before what it needs.
        let mut paths: Vec<String> = needs.split_whitespace().rev().map(String::from).collect();
        paths.push(path.into());
        Some(paths)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first() {
        let index = "kernel/a/vsock.ko:\nkernel/a/virtio-vsock.ko.xz: kernel/a/common.ko kernel/a/vsock.ko\nnonsense\n";
        let paths = paths_of("virtio_vsock", index);
        assert_eq!(
            paths,
            Some(
                [
                    "kernel/a/vsock.ko",
                    "kernel/a/common.ko",
                    "kernel/a/virtio-vsock.ko.xz"
                ]
                .map(String::from)
                .into()
            )
        );
        assert_eq!(
            paths_of("vsock", index),
            Some(["kernel/a/vsock.ko".into()].into())
        );
        assert_eq!(paths_of("common", index), None);
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert_eq!(load("/no/such/module.ko"), Err(Errno::NOENT));
        assert!(load("/dev/null").is_err());
    }
}
