//! Whether an image can run on a machine at all: its processor, and what its programs ask of the kernel. `run` and `boot`
//! refuse what cannot; `doctor` tells the same before.

mod node;

use std::ffi::OsStr;

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

/// The program in the first line of a script: `#!/bin/sh -e`.
pub(crate) fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    line.split_whitespace().next().map(str::to_owned)
}

/// Refuses an image for another processor than the machine's.
pub(crate) fn processor(image: &ImageFile, init: Option<&str>, arch: Arch) -> anyhow::Result<()> {
    match Program::first_of(image, init)? {
        Some(program) if program.elf.machine != arch.elf_machine() => Err(CliError::OtherProcessor {
            image: image.path.clone(),
            program: program.path,
            machine: program.elf.machine,
            arch,
        }
        .into()),
        _ => Ok(()),
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
