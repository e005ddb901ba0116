//! Whether this host runs programs of another processor, as scripts of packages are: natively, or through a *handler* that is set
//! in the kernel (`binfmt_misc`), most often QEMU's.
//!
//! It is asked by running one, the smallest there is, here and in a root of its own. What stands in `/proc/sys/fs/binfmt_misc` would
//! say less: in a container there is nothing, and the handlers of its host work.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use firebrick_source::Platform;

use crate::debian::file_error;
use crate::error::{BootstrapError, NoHandler};

/// How often a program is started anew that somebody else, who just forked, still has open for writing.
const BUSY_TRIES: u32 = 100;

/// Checks that scripts for the platform can run here, in a root of their own.
pub(crate) fn check(platform: &Platform, temp_dir: &Path) -> Result<(), BootstrapError> {
    if platform.architecture == Platform::host().architecture {
        return Ok(());
    }
    let Some(program) = smallest(&platform.architecture) else {
        return Ok(()); // the tool will say
    };
    let folder = tempfile::Builder::new()
        .prefix("firebrick-create.")
        .tempdir_in(temp_dir)
        .map_err(file_error("make a folder in", temp_dir))?;
    let path = folder.path().join("program");
    fs::write(&path, program).map_err(file_error("write", &path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(file_error("write", &path))?;
    let refused = |problem| {
        Err(BootstrapError::Foreign {
            platform: Box::new(platform.clone()),
            problem,
        })
    };
    let no_handler = Some(8); // ENOEXEC
    match status(Command::new(&path)) {
        Ok(0) => {}
        // Something took it for a script of a shell, or failed at it.
        Ok(_) => return refused(NoHandler::None),
        Err(error) if error.raw_os_error() == no_handler => return refused(NoHandler::None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return refused(NoHandler::Gone),
        Err(_) => return Ok(()), // a folder from which nothing is run says nothing of the processor
    }
    // By its own namespace where that is allowed; else root needs none.
    for words in [
        &["unshare", "--user", "--map-root-user", "chroot"][..],
        &["chroot"],
    ] {
        let Some((first, rest)) = words.split_first() else {
            continue;
        };
        let mut command = Command::new(first);
        command.args(rest).arg(folder.path()).arg("/program");
        match status(command) {
            Ok(0) => return Ok(()),
            // What `chroot` says of a program that it finds and cannot start, or does not find.
            Ok(126 | 127) => return refused(NoHandler::NotFixed),
            _ => {}
        }
    }
    Ok(())
}

/// The exit code; 1 for a signal.
fn status(mut command: Command) -> io::Result<i32> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut tries = 0;
    loop {
        match command.status() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return Ok(result?.code().unwrap_or(1)),
        }
    }
}

/// How an ELF header is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Little32,
    Little64,
    Big64,
}

/// A program that ends with 0 and does nothing else, by what OCI calls its processor.
fn smallest(architecture: &str) -> Option<Vec<u8>> {
    use Layout::{Big64, Little32, Little64};
    // Machine, flags, and what `exit(0)` is.
    let (layout, machine, flags, code): (Layout, u16, u32, &[u8]) = match architecture {
        "amd64" | "x86_64" => (Little64, 62, 0, b"\x31\xff\xb8\x3c\0\0\0\x0f\x05"),
        "386" => (Little32, 3, 0, b"\x31\xdb\xb8\x01\0\0\0\xcd\x80"),
        "arm64" | "aarch64" => (Little64, 183, 0, b"\0\0\x80\xd2\xa8\x0b\x80\xd2\x01\0\0\xd4"),
        "arm" => (
            Little32,
            40,
            0x0500_0000,
            b"\0\0\xa0\xe3\x01\x70\xa0\xe3\0\0\0\xef",
        ),
        "ppc64le" => (Little64, 21, 2, b"\x01\0\0\x38\0\0\x60\x38\x02\0\0\x44"),
        "riscv64" => (Little64, 243, 0, b"\x13\x05\0\0\x93\x08\xd0\x05\x73\0\0\0"),
        "s390x" => (Big64, 22, 0, b"\xa7\x29\0\0\xa7\x19\0\x01\x0a\x01"),
        _ => return None,
    };
    Some(elf(layout, machine, flags, code))
}

/// The code as a program of one segment that holds all of the file.
fn elf(layout: Layout, machine: u16, flags: u32, code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let is_64 = layout != Layout::Little32;
    let (header_len, segment_len): (u16, u16) = if is_64 { (64, 56) } else { (52, 32) };
    let start = u64::from(header_len) + u64::from(segment_len);
    let len = start + code.len() as u64;
    let mut bytes = b"\x7fELF".to_vec();
    bytes.extend([1 + u8::from(is_64), 1 + u8::from(layout == Layout::Big64), 1]);
    bytes.resize(16, 0);
    // `u64` is an address or a length, which 32-bit files have in 4 bytes.
    let mut put = |len: usize, value: u64| match layout {
        Layout::Big64 => bytes.extend(&value.to_be_bytes()[8 - len..]),
        _ => bytes.extend(&value.to_le_bytes()[..len]),
    };
    let word = if is_64 { 8 } else { 4 };
    put(2, 2); // an executable
    put(2, machine.into());
    put(4, 1);
    put(word, BASE + start);
    put(word, header_len.into());
    put(word, 0); // no sections
    put(4, flags.into());
    for value in [header_len, segment_len, 1, 0, 0, 0] {
        put(2, value.into());
    }
    put(4, 1); // to be loaded
    if is_64 {
        put(4, 5); // readable, executable
    }
    for value in [0, BASE, BASE, len, len] {
        put(word, value);
    }
    if !is_64 {
        put(4, 5);
    }
    put(word, 0x1_0000); // the largest page of any of them
    bytes.extend(code);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 7] = ["amd64", "386", "arm64", "arm", "ppc64le", "riscv64", "s390x"];

    /// As `file` and the kernels' own tables have them. That each ends with 0 was tried with QEMU's user mode.
    #[test]
    fn the_smallest_programs_are_what_they_should_be() {
        for (architecture, told) in ALL.into_iter().zip([
            "ELF64 Advanced Micro Devices X86-64",
            "ELF32 Intel 80386",
            "ELF64 AArch64",
            "ELF32 ARM",
            "ELF64 PowerPC64",
            "ELF64 RISC-V",
            "ELF64 IBM S/390",
        ]) {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), smallest(architecture).unwrap()).unwrap();
            let output = Command::new("readelf")
                .arg("-hl")
                .arg(file.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let value = |name: &str| {
                let line = said
                    .lines()
                    .find(|line| line.trim_start().starts_with(name))
                    .unwrap();
                line.split_once(':').unwrap().1.trim().to_owned()
            };
            assert_eq!(format!("{} {}", value("Class"), value("Machine")), told);
            assert_eq!(value("Type"), "EXEC (Executable file)");
            assert!(output.stderr.is_empty() && said.contains("  LOAD "), "{said}");
        }
    }

    #[test]
    fn this_processors_programs_run() {
        let folder = tempfile::tempdir().unwrap();
        let own = Platform::host();
        check(&own, folder.path()).unwrap();
        let path = folder.path().join("own");
        fs::write(&path, smallest(&own.architecture).unwrap()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(status(Command::new(&path)).unwrap(), 0);
    }

    #[test]
    fn programs_that_do_not_run_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let is_handled = |name: &str| {
            Path::new("/proc/sys/fs/binfmt_misc")
                .join(format!("qemu-{name}"))
                .exists()
        };
        for name in ["s390x", "ppc64le"] {
            let platform: Platform = format!("linux/{name}").parse().unwrap();
            let result = check(&platform, folder.path());
            match is_handled(name) || platform.architecture == Platform::host().architecture {
                true => result.unwrap(),
                false => assert!(matches!(
                    result,
                    Err(BootstrapError::Foreign {
                        problem: NoHandler::None,
                        ..
                    })
                )),
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
