//! Whether an image can run on a machine at all: its processor, and what its programs ask of the kernel. `run` and `boot`
//! refuse what cannot; `doctor` tells the same before.

mod node;

use std::ffi::OsStr;

use firebrick_build::Merged;
use firebrick_customise::real_file;
use firebrick_tree::{Kind, LayerPath};
use firebrick_vmm::Arch;
use firebrick_vmm::kernel::Kernel;

use crate::elf::{self, Elf};
use crate::error::CliError;
use crate::image_file::ImageFile;

pub(crate) use node::Node;

/// Programs that tell an image's processor, the most telling first.
const PROGRAMS: &[&str] = &[
    "/sbin/init",
    "/usr/lib/firebrick/firebrick-guest",
    "/bin/sh",
    "/bin/busybox",
];

/// Programs and loaders that images bring themselves; which processor they are for is what the image is for.
const OWN_PROGRAMS: &[&str] = &[
    "/bin/sh",
    "/bin/busybox",
    "/usr/bin/env",
    "/bin/ls",
    "/bin/bash",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
];

/// No program that is looked at while an image is made is longer.
const PROGRAM_LEN: u64 = 16 << 20;

/// The path of the first of the programs that an image brings itself, before it is an image, and its `e_machine`.
pub(crate) fn own_machine(merged: &Merged<'_>) -> std::io::Result<Option<(&'static str, u16)>> {
    for path in OWN_PROGRAMS {
        let real = real_file(merged.tree, path.as_bytes()).and_then(|real| LayerPath::parse(&real).ok());
        let Some(inode) = real.and_then(|real| merged.lookup(&real)) else {
            continue;
        };
        if let Kind::File(data) = &merged.inode(inode).kind
            && data.size <= PROGRAM_LEN
            && let Some(elf) = Elf::parse(&merged.read(data)?)
        {
            return Ok(Some((path, elf.machine)));
        }
    }
    Ok(None)
}

/// Whether a processor runs programs for this `e_machine`: its own, and those of its 32-bit ancestor.
pub(crate) fn runs(arch: Arch, machine: u16) -> bool {
    const EM_386: u16 = 3;
    const EM_ARM: u16 = 40;
    let ancestor = match arch {
        Arch::X86_64 => EM_386,
        Arch::Aarch64 => EM_ARM,
    };
    machine == arch.elf_machine() || machine == ancestor
}

/// Node.js from here on needs [`NODE_KERNEL`].
pub(crate) const NODE_MAJOR: u32 = 18;

/// The oldest kernel that Node.js 18 and later run on without known failures.
pub(crate) const NODE_KERNEL: (u32, u32) = (5, 10);

/// A program of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Where it was looked for.
    pub(crate) path: String,
    /// What it is.
    pub(crate) elf: Elf,
}

impl Program {
    /// The program at a path of the image; of a script, the one that it names in its first line.
    pub(crate) fn of(image: &ImageFile, path: &str) -> anyhow::Result<Option<Program>> {
        let Some(head) = image.start_of(OsStr::new(path), elf::HEAD_LEN)? else {
            return Ok(None);
        };
        let elf = match interpreter(&head) {
            Some(interpreter) => image
                .start_of(OsStr::new(&interpreter), elf::HEAD_LEN)?
                .and_then(|head| Elf::parse(&head)),
            None => Elf::parse(&head),
        };
        let path = path.to_owned();
        Ok(elf.map(|elf| Program { path, elf }))
    }

    /// The first program of the image that tells its processor.
    pub(crate) fn first_of(image: &ImageFile, init: Option<&str>) -> anyhow::Result<Option<Program>> {
        for path in init.iter().chain(PROGRAMS) {
            if let Some(program) = Program::of(image, path)? {
                return Ok(Some(program));
            }
        }
        Ok(None)
    }
}

impl Program {
    /// The first of the image's own programs, whatever firebrick has put in: what it runs on decides.
    pub(crate) fn own_of(image: &ImageFile) -> anyhow::Result<Option<Program>> {
        let guest = format!("/{}", firebrick_customise::GUEST_PATH);
        let guest = image.start_of(OsStr::new(&guest), elf::HEAD_LEN)?;
        for path in OWN_PROGRAMS {
            let is_guest = guest.is_some() && image.start_of(OsStr::new(path), elf::HEAD_LEN)? == guest;
            if !is_guest && let Some(program) = Program::of(image, path)? {
                return Ok(Some(program));
            }
        }
        Ok(None)
    }

    /// A program that a machine of this processor cannot start, and that it would have to.
    pub(crate) fn misfit(
        image: &ImageFile,
        init: Option<&str>,
        arch: Arch,
    ) -> anyhow::Result<Option<Program>> {
        let first = Program::first_of(image, init)?;
        let own = Program::own_of(image)?;
        Ok([first, own]
            .into_iter()
            .flatten()
            .find(|program| !runs(arch, program.elf.machine)))
    }
}

/// The program in the first line of a script: `#!/bin/sh -e`.
pub(crate) fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.split_whitespace().next().map(str::to_owned)
}

/// Refuses an image for another processor than the machine's.
pub(crate) fn processor(image: &ImageFile, init: Option<&str>, arch: Arch) -> anyhow::Result<()> {
    match Program::misfit(image, init, arch)? {
        Some(program) => Err(CliError::OtherProcessor {
            image: image.path.clone(),
            program: program.path,
            machine: program.elf.machine,
            arch,
        }
        .into()),
        None => Ok(()),
    }
}

/// Refuses an image whose programs need a newer kernel.
pub(crate) fn kernel(image: &ImageFile, kernel: &Kernel) -> anyhow::Result<()> {
    let Some(version) = kernel.version() else {
        return Ok(());
    };
    if version >= NODE_KERNEL {
        return Ok(());
    }
    match Node::of(image)? {
        Some(Node {
            version: Some(node), ..
        }) if node.0 >= NODE_MAJOR => Err(CliError::NodeNeedsKernel {
            image: image.path.clone(),
            node: node.1,
            kernel: crate::host::name_of(kernel),
        }
        .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::interpreter;

    #[test]
    fn scripts_name_their_program() {
        assert_eq!(interpreter(b"#!/bin/sh -e\necho"), Some("/bin/sh".to_owned()));
        assert_eq!(
            interpreter(b"#! /usr/bin/env bash"),
            Some("/usr/bin/env".to_owned())
        );
        assert_eq!(interpreter(b"#!\n/bin/sh"), None);
        assert_eq!(interpreter(b"\x7fELF"), None);
    }
}
