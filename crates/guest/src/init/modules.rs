//! Kernel modules.

use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::boot::Boot;
use crate::errno::describe;
use crate::file;

/// Loads the module file. One that is loaded already is fine.
pub fn load(path: &str) -> Result<(), Errno> {
    load_with(path, "")
}

/// As [`load`], with parameters as they stand behind a module's name: `debug=1 name="x y"`.
fn load_with(path: &str, parameters: &str) -> Result<(), Errno> {
    /// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks it.
    const COMPRESSED: i32 = 4;
    let file = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )?;
    let flags = if path.ends_with(".ko") { 0 } else { COMPRESSED };
    let parameters = CString::new(parameters).map_err(|_| Errno::INVAL)?;
    match rustix::system::finit_module(&file, &parameters, flags) {
        Err(Errno::EXIST) => Ok(()),
        outcome => outcome,
    }
}

/// Where lists of modules lie; a file hides those of its name in later folders, as in modules-load.d(5).
const FOLDERS: [&str; 4] = [
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
];

/// More modules than this are not named by a list that anybody wrote.
const MAX_NAMED: usize = 256;

/// Loads what `modules-load.d` names, if the image has modules for this kernel.
pub(super) fn load_configured(boot: &mut Boot) {
    let mut wanted = wanted(file::names, file::text);
    if wanted.is_empty() {
        return;
    }
    if let Some(problem) = cut(&mut wanted) {
        boot.warn(format_args!("{problem}"));
    }
    let modules = Modules::of_this_kernel();
    for (name, parameters) in wanted {
        if let Err(problem) = modules.load(&name, &parameters) {
            boot.warn(format_args!("{problem}"));
        }
    }
}

/// Leaves out what no start should wait for; says so.
fn cut(wanted: &mut Vec<(String, String)>) -> Option<String> {
    let named = wanted.len();
    wanted.truncate(MAX_NAMED);
    (named > MAX_NAMED)
        .then(|| alloc::format!("modules-load.d names {named} modules: the first {MAX_NAMED} are loaded"))
}

/// Loads a module of the image by its name, with what it needs.
pub(crate) fn load_named(name: &str) -> Result<(), String> {
    Modules::of_this_kernel().load(&canonical(name), "")
}

/// The names in the lists, in order, with parameters; the same list twice counts once.
fn wanted(names: impl Fn(&str) -> Vec<String>, text: impl Fn(&str) -> String) -> Vec<(String, String)> {
    let mut files = BTreeMap::new();
    for folder in FOLDERS {
        for name in names(folder).into_iter().filter(|name| name.ends_with(".conf")) {
            files.entry(name).or_insert(folder);
        }
    }
    let mut wanted = Vec::new();
    for (name, folder) in files {
        let text = text(&alloc::format!("{folder}/{name}"));
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            // Debian's /etc/modules, which is one of these lists by a symlink, may have parameters behind the name.
            let (name, parameters) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            wanted.push((canonical(name), parameters.trim().into()));
        }
    }
    wanted
}

/// The image's modules for this kernel.
struct Modules {
    folder: String,
    /// The text of `modules.dep`.
    index: String,
    /// The text of `modules.builtin`.
    builtin: String,
}

impl Modules {
    fn of_this_kernel() -> Modules {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let folder = alloc::format!("/lib/modules/{release}");
        let text = |name: &str| file::text(&alloc::format!("{folder}/{name}"));
        Modules {
            index: text("modules.dep"),
            builtin: text("modules.builtin"),
            folder,
        }
    }

    fn load(&self, name: &str, parameters: &str) -> Result<(), String> {
        if file::exists(&alloc::format!("/sys/module/{name}")) || self.is_builtin(name) {
            return Ok(());
        }
        let folder = &self.folder;
        let paths = paths_of(name, &self.index)
            .ok_or_else(|| alloc::format!("module {name} is not in {folder}/modules.dep"))?;
        let last = paths.len().saturating_sub(1);
        for (index, path) in paths.iter().enumerate() {
            let parameters = if index == last { parameters } else { "" };
            load_with(&alloc::format!("{folder}/{path}"), parameters)
                .map_err(|error| alloc::format!("cannot load module {path}: {}", describe(error)))?;
        }
        Ok(())
    }

    fn is_builtin(&self, name: &str) -> bool {
        self.builtin
            .lines()
            .any(|path| stem(path).as_deref() == Some(name))
    }
}

/// The name of the module in a file.
fn stem(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    file.split_once(".ko").map(|(stem, _)| canonical(stem))
}

/// A module's name as the kernel shows it: file names may have `-` where it has `_`.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The files to load for a module, in order, from the text of `modules.dep`.
fn paths_of(name: &str, index: &str) -> Option<Vec<String>> {
    index.lines().find_map(|line| {
        let (path, needs) = line.split_once(':')?;
        if stem(path)? != name {
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
    fn lists_are_read_as_documented() {
        let files = [
            (
                "/etc/modules-load.d",
                "b.conf",
                "# comment\n  ; another\n\nvmw_vsock-virtio  \n\tloop max_loop=8  x=\"a b\"\n",
            ),
            ("/etc/modules-load.d", "README", "not_a_list\n"),
            ("/usr/lib/modules-load.d", "b.conf", "hidden\n"),
            ("/usr/lib/modules-load.d", "a.conf", "first\n"),
        ];
        let names = |folder: &str| {
            files
                .iter()
                .filter(|(of, ..)| *of == folder)
                .map(|(_, name, _)| String::from(*name))
                .collect()
        };
        let text = |path: &str| {
            let found = files
                .iter()
                .find(|(folder, name, _)| alloc::format!("{folder}/{name}") == path);
            String::from(found.expect(path).2)
        };
        let expected = [
            ("first", ""),
            ("vmw_vsock_virtio", ""),
            ("loop", "max_loop=8  x=\"a b\""),
        ];
        assert_eq!(
            wanted(names, text),
            expected.map(|(name, parameters)| (String::from(name), String::from(parameters)))
        );
    }

    #[test]
    fn a_list_without_end_does_not_keep_the_machine_from_starting() {
        let text = |_: &str| {
            (0..MAX_NAMED + 1)
                .map(|number| alloc::format!("m{number}\n"))
                .collect()
        };
        let names = |folder: &str| match folder {
            "/etc/modules-load.d" => [String::from("a.conf")].into(),
            _ => Vec::new(),
        };
        let mut long = wanted(names, text);
        let told = cut(&mut long);
        assert!(told.is_some_and(|told| told.contains("names 257 modules")));
        assert_eq!(long.len(), MAX_NAMED);
        assert_eq!(long.last().map(|(name, _)| name.as_str()), Some("m255"));
        assert_eq!((cut(&mut long), long.len()), (None, MAX_NAMED));
    }

    #[test]
    fn built_in_modules_are_there() {
        let modules = Modules {
            folder: "/none".into(),
            index: String::new(),
            builtin: "kernel/net/unix/unix.ko\nkernel/drivers/a-b.ko\n".into(),
        };
        assert_eq!(modules.load("a_b", ""), Ok(()));
        assert!(modules.load("a_c", "").is_err());
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert_eq!(load("/no/such/module.ko"), Err(Errno::NOENT));
        assert!(load("/dev/null").is_err());
    }
}
