//! Which modules a guest needs, and in which order they are loaded.
//!
//! A *module* is one `.ko` file. Kernel packages carry no `modules.dep` (it is made on the machine that
//! installs them), so the dependencies are read from each module's own `.modinfo` section: NUL-terminated
//! `key=value` texts, of which `depends` (comma-separated) and `softdep` (`pre: a b post: c`) matter here.
//! Names are compared with `-` and `_` being the same, as the kernel does.
#![deny(clippy::as_conversions, clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet};

use super::elf::Elf;

/// What a guest cannot do without: its disk, its channel and its writable layer.
pub const REQUIRED: &[&str] = &["virtio_mmio", "virtio_blk", "virtio_console", "overlay"];

/// What a guest uses where the kernel has it.
pub const OPTIONAL: &[&str] = &[
    "virtio_net",
    "virtio_rng",
    "vsock",
    "vmw_vsock_virtio_transport",
    "squashfs",
    "erofs",
];

/// What a guest on x86 hears Ctrl-Alt-Del with: the controller and the keyboard.
pub const KEYBOARD: &[&str] = &["i8042", "atkbd"];

/// What a module says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Modules that must be loaded before, in normal form.
    pub depends: Vec<String>,
}

/// The name of a module in normal form: what `lsmod` prints.
///
/// Takes a path or a file name, with or without `.ko` and a compression's ending.
pub fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split_once(".ko").map_or(file, |(stem, _)| stem);
    stem.replace('-', "_")
}

impl ModInfo {
    /// Reads the `.modinfo` section of a decompressed module; `None` if the file has none.
    pub fn parse(module: &[u8]) -> Option<ModInfo> {
        let section = Elf::parse(module)?.section(".modinfo")?;
        let mut depends = Vec::new();
        for text in section.split(|&byte| byte == 0) {
            let Ok(text) = std::str::from_utf8(text) else {
                continue;
            };
            if let Some(list) = text.strip_prefix("depends=") {
                depends.extend(list.split(',').filter(|name| !name.is_empty()).map(module_name));
            } else if let Some(softdep) = text.strip_prefix("softdep=") {
                let words = softdep
                    .split_whitespace()
                    .skip_while(|&word| word != "pre:")
                    .skip(1);
                depends.extend(words.take_while(|&word| word != "post:").map(module_name));
            }
        }
        Some(ModInfo { depends })
    }
}

/// What stands at the end of a signed module, behind the signature and its 12-byte description, whose last 4 bytes are
/// the signature's length (`struct module_signature`, big-endian).
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// A module without what makes an emulated kernel slow to load it: its signature, whose check is a matter of large
/// numbers, and its type information (`.BTF`), which is read through at once and is for tracing only.
///
/// A kernel that insists on signatures (`module.sig_enforce`) will not have it; others note that it is unsigned.
pub fn lean(mut module: Vec<u8>) -> Vec<u8> {
    if let Some(len) = unsigned_len(&module) {
        module.truncate(len);
    }
    while let Some(header) = Elf::parse(&module).and_then(|elf| elf.section_header(".BTF")) {
        // `sh_name`, the offset of its name: 0 is the name of no section.
        let Some(name) = usize::try_from(header)
            .ok()
            .and_then(|at| module.get_mut(at..at.checked_add(4)?))
        else {
            break;
        };
        name.fill(0);
    }
    module
}

fn unsigned_len(module: &[u8]) -> Option<usize> {
    let signed = module.strip_suffix(SIGNATURE_MARK)?;
    let (rest, len) = signed.split_last_chunk::<4>()?;
    let signature = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    rest.len().checked_sub(8)?.checked_sub(signature)
}

/// The modules to load, and those that the kernel does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names in load order: whatever a module depends on stands before it.
    pub order: Vec<String>,
    /// Wanted names that are neither modules nor built in.
    pub missing: Vec<String>,
}

/// Selects `wanted` and everything they depend on.
///
/// What is neither in `available` nor in `built_in` is missing if it was wanted, and passed over if it was a
/// dependency: soft dependencies name what may not exist, and a hard one's absence shows at loading.
/// Dependencies that form a circle end it; the kernel's own build refuses them.
pub fn select<'a>(
    wanted: impl IntoIterator<Item = &'a str>,
    available: &BTreeMap<String, ModInfo>,
    built_in: &BTreeSet<String>,
) -> Selection {
    let mut selection = Selection::default();
    let mut seen = BTreeSet::new();
    for name in wanted {
        if built_in.contains(name) {
            continue;
        }
        if !available.contains_key(name) {
            selection.missing.push(name.to_owned());
            continue;
        }
        // Depth first with an own stack: each module is entered, then left once its dependencies are out.
        let mut stack = vec![(name, false)];
        while let Some((name, entered)) = stack.pop() {
            if entered {
                selection.order.push(name.to_owned());
                continue;
            }
            let Some(module) = available.get(name) else {
                continue;
            };
            if built_in.contains(name) || !seen.insert(name) {
                continue;
            }
            stack.push((name, true));
            stack.extend(
                module
                    .depends
                    .iter()
                    .rev()
                    .map(|depends| (depends.as_str(), false)),
            );
        }
    }
    selection
}

#[cfg(test)]
mod tests {
    use super::super::elf::tests::sample;
    use super::*;

    fn modules(text: &[(&str, &[&str])]) -> BTreeMap<String, ModInfo> {
        let info = |depends: &[&str]| ModInfo {
            depends: depends.iter().map(|&name| name.into()).collect(),
        };
        text.iter()
            .map(|(name, depends)| ((*name).to_owned(), info(depends)))
            .collect()
    }

    #[test]
    fn modinfo_has_hard_and_soft_dependencies() {
        let body = b"license=GPL\0depends=virtio,virtio-ring\0softdep=pre: crc32c x-y post: z\0name=a\0";
        let info = ModInfo::parse(&sample(".modinfo", body, 1)).unwrap();
        assert_eq!(info.depends, ["virtio", "virtio_ring", "crc32c", "x_y"]);
        assert_eq!(
            ModInfo::parse(&sample(".modinfo", b"depends=\0\xff\xfe\0", 1))
                .unwrap()
                .depends,
            [""; 0]
        );
        assert_eq!(ModInfo::parse(&sample(".text", b"", 1)), None);
        assert_eq!(ModInfo::parse(b"not ELF"), None);
    }

    #[test]
    fn lean_modules_have_neither_signature_nor_type_information() {
        let plain = sample(".BTF", b"types", 1);
        let mut signed = plain.clone();
        signed.extend_from_slice(b"SIGNATURE");
        signed.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        signed.extend_from_slice(SIGNATURE_MARK);
        let module = lean(signed);
        assert_eq!(module.len(), plain.len());
        assert_eq!(Elf::parse(&module).unwrap().section(".BTF"), None);
        assert_eq!(module, lean(module.clone()), "once is enough");
        let other = sample(".modinfo", b"a=b\0", 1);
        assert_eq!(lean(other.clone()), other);
        for odd in [
            &b""[..],
            SIGNATURE_MARK,
            b"\xff\xff\xff\xff~Module signature appended~\n",
        ] {
            assert_eq!(lean(odd.to_vec()), odd);
        }
    }

    #[test]
    fn names_have_one_form() {
        for text in [
            "virtio-rng",
            "kernel/a/virtio-rng.ko",
            "virtio_rng.ko.xz",
            "x/virtio-rng.ko.zst",
        ] {
            assert_eq!(module_name(text), "virtio_rng");
        }
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let available = modules(&[
            ("virtio_ring", &[]),
            ("virtio", &["virtio_ring"]),
            ("virtio_mmio", &["virtio", "virtio_ring"]),
            ("virtio_blk", &["virtio", "virtio_ring", "scsi"]),
            ("gone", &["not_there"]),
        ]);
        let built_in = BTreeSet::from(["ext4".to_owned(), "scsi".to_owned()]);
        let selection = select(
            ["virtio_blk", "ext4", "virtio_mmio", "erofs", "gone"],
            &available,
            &built_in,
        );
        assert_eq!(
            selection.order,
            ["virtio_ring", "virtio", "virtio_blk", "virtio_mmio", "gone"]
        );
        assert_eq!(selection.missing, ["erofs"]);
    }

    #[test]
    fn circles_end() {
        let available = modules(&[("a", &["b"]), ("b", &["c"]), ("c", &["a", "c"])]);
        assert_eq!(
            select(["a", "b"], &available, &BTreeSet::new()).order,
            ["c", "b", "a"]
        );
    }
}
