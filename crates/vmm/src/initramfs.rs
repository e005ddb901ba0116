//! The initramfs: a `cpio` archive in the kernel's "newc" form, made by us so that it is the same bytes every time.
//!
//! ```text
//! /init                          the guest binary, which is stage 1 when the kernel starts it from here
//! /lib/firebrick/modules         names of module files, one a line, in load order
//! /lib/firebrick/modules.d/*.ko  the modules, neither compressed nor signed
//! /dev/console                   so that stage 1 can say what is wrong before it has mounted anything
//! ```
//!
//! Per entry: `070701`, 13 numbers of 8 hex digits, the name with its NUL padded to 4, the bytes padded to 4. Entries are
//! sorted by name, owned by root and dated 0; inode numbers count from 1.
//!
//! The archive is padded with zeros to whole pages: QEMU lays the ACPI tables right behind it, and one whose last page
//! is nearly full would reach into them (facts in `docs/boot.md`). It is not compressed: under software emulation the
//! guest would need longer to decompress it than QEMU needs to copy it, and with KVM both are noise.
//! Format: <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::kernel::modules::{ModInfo, lean, select};
use crate::kernel::{Kernel, KernelError, Module};

/// What the archive's length is a multiple of.
pub const PAGE_BYTES: usize = 4096;

/// Where stage 1 looks for the list of modules.
pub const MODULE_LIST: &str = "lib/firebrick/modules";

/// One file, folder or device of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Dir,
    File { mode: u32, bytes: Vec<u8> },
    CharDevice { major: u32, minor: u32 },
}

/// A `cpio` archive in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Starts without entries.
    pub fn new() -> Archive {
        Archive::default()
    }

    /// Adds a file, with the folders above it. `path` is relative.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        self.insert(
            path,
            Entry::File {
                mode,
                bytes: bytes.into(),
            },
        );
    }

    /// Adds a character device.
    pub fn char_device(&mut self, path: &str, major: u32, minor: u32) {
        self.insert(path, Entry::CharDevice { major, minor });
    }

    /// Adds a folder.
    pub fn dir(&mut self, path: &str) {
        self.insert(path, Entry::Dir);
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        for (slash, _) in path.match_indices('/') {
            self.entries.entry(path[..slash].to_owned()).or_insert(Entry::Dir);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// The archive's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (name, entry)) in self.entries.iter().enumerate() {
            let (mode, links, device, bytes): (u32, _, _, &[u8]) = match entry {
                Entry::Dir => (0o040_755, 2, (0, 0), &[]),
                Entry::File { mode, bytes } => (0o100_000 | mode, 1, (0, 0), bytes),
                Entry::CharDevice { major, minor } => (0o020_600, 1, (*major, *minor), &[]),
            };
            push_entry(
                &mut out,
                index + 1,
                name,
                [mode, links, device.0, device.1],
                bytes,
            );
        }
        push_entry(&mut out, 0, "TRAILER!!!", [0, 1, 0, 0], &[]);
        out.resize(out.len().next_multiple_of(PAGE_BYTES), 0);
        out
    }
}

fn push_entry(
    out: &mut Vec<u8>,
    inode: usize,
    name: &str,
    [mode, links, major, minor]: [u32; 4],
    bytes: &[u8],
) {
    let mut header = String::from("070701");
    let inode = u32::try_from(inode).expect("an initramfs has few files");
    let size = u32::try_from(bytes.len()).expect("modules and the guest binary are small");
    let name_size = u32::try_from(name.len() + 1).expect("names are short");
    for number in [
        inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0,
    ] {
        write!(header, "{number:08X}").expect("writing to a String cannot fail");
    }
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The archive for `kernel` with `guest`, the bytes of the guest binary, and all modules that were set up.
///
/// # Errors
/// [`KernelError::Host`] if a module cannot be read.
pub fn assemble(kernel: &Kernel, guest: &[u8]) -> Result<Vec<u8>, KernelError> {
    Ok(archive(guest, &modules_of(kernel)?))
}

/// As [`assemble`], with no modules but `wanted` and what they depend on: each costs an emulated guest some milliseconds.
///
/// A wanted module that was not set up is built into the kernel, or missing, which setting up has told.
///
/// # Errors
/// As [`assemble`].
pub fn assemble_with(kernel: &Kernel, guest: &[u8], wanted: &[&str]) -> Result<Vec<u8>, KernelError> {
    let mut modules = modules_of(kernel)?;
    let infos = modules
        .iter()
        .map(|(name, bytes)| (name.clone(), ModInfo::parse(bytes).unwrap_or_default()))
        .collect();
    let needed = select(wanted.iter().copied(), &infos, &BTreeSet::new()).order;
    modules.retain(|(name, _)| needed.contains(name));
    Ok(archive(guest, &modules))
}

/// Names and bytes, in load order.
fn modules_of(kernel: &Kernel) -> Result<Vec<(String, Vec<u8>)>, KernelError> {
    let read = |module: &Module| {
        let path = kernel.module_path(module);
        let bytes = std::fs::read(&path).map_err(KernelError::host("read", &path))?;
        Ok((module.name.clone(), lean(bytes)))
    };
    kernel.manifest().modules.iter().map(read).collect()
}

fn archive(guest: &[u8], modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::new();
    archive.file("init", 0o755, guest);
    archive.char_device("dev/console", 5, 1);
    let mut list = String::new();
    for (name, bytes) in modules {
        let name = format!("lib/firebrick/modules.d/{name}.ko");
        list.push_str(&format!("/{name}\n"));
        archive.file(&name, 0o644, bytes.as_slice());
    }
    archive.file(MODULE_LIST, 0o644, list);
    archive.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_laid_out_as_the_kernel_documents() {
        let mut archive = Archive::new();
        archive.file("a/b", 0o755, *b"hello");
        let bytes = archive.to_bytes();
        let zeros = |count: usize| "0".repeat(8 * count);
        let folder = format!(
            "070701{:08X}000041ED{}00000002{}00000002{}a\0",
            1,
            zeros(2),
            zeros(6),
            zeros(1)
        );
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        assert_eq!(folder.len() % 4, 0);
        assert_eq!(std::str::from_utf8(&bytes[..folder.len()]).unwrap(), folder);
        let file = &bytes[folder.len()..];
        assert_eq!(&file[..6], b"070701");
        assert_eq!(&file[6 + 8..6 + 16], b"000081ED");
        assert_eq!(&file[6 + 6 * 8..6 + 7 * 8], b"00000005");
        assert_eq!(&file[110..114], b"a/b\0");
        assert_eq!(&file[116..124], b"hello\0\0\0");
        assert_eq!(&file[124..130], b"070701");
    }

    #[test]
    fn the_length_is_whole_pages_whatever_the_contents() {
        for len in [0, 1, 3000, 3300, 3900, 4096, 70_000] {
            let mut archive = Archive::new();
            archive.file("x", 0o644, vec![7; len]);
            let bytes = archive.to_bytes();
            assert_eq!(bytes.len() % PAGE_BYTES, 0);
            assert!(bytes.len() - len < 2 * PAGE_BYTES);
        }
    }

    #[test]
    fn order_of_adding_changes_nothing() {
        let (mut one, mut two) = (Archive::new(), Archive::new());
        one.file("b", 0o644, *b"1");
        one.dir("a");
        one.char_device("dev/console", 5, 1);
        two.char_device("dev/console", 5, 1);
        two.dir("a");
        two.file("b", 0o644, *b"1");
        assert_eq!(one.to_bytes(), two.to_bytes());
    }
}
