//! What the tests share: one kernel per target folder, and the programs that must be there.
#![expect(unreachable_pub, reason = "a module of several test programs")]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use firebrick_vmm::Arch;
use firebrick_vmm::kernel::{Kernel, SetupRequest, Source, setup};

/// The state folder that all tests of this target folder share. Its kernel is fetched by the first that needs it.
pub fn state() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("vmm-state")
}

/// Whether what needs programs of the host is to be left out.
pub fn skips_oracles() -> bool {
    std::env::var_os("FIREBRICK_SKIP_ORACLES").is_some_and(|value| value == "1")
}

/// Debian's cloud kernel, set up through the library itself. `None` only if the tests were told to skip; without apt, or if
/// it cannot be fetched, the test fails.
#[expect(clippy::print_stderr, reason = "a test that was left out should be seen")]
pub fn kernel() -> Option<Kernel> {
    static KERNEL: OnceLock<Kernel> = OnceLock::new();
    if skips_oracles() {
        eprintln!("skipped: FIREBRICK_SKIP_ORACLES=1, so no real kernel");
        return None;
    }
    let fetch = || {
        let request = SetupRequest {
            state: state(),
            source: Source::Apt {
                version: None,
                arch: Arch::HOST,
            },
            force: false,
        };
        setup(&request, &|_| {}).unwrap_or_else(|error| panic!("{}", chain(&error)))
    };
    Some(KERNEL.get_or_init(fetch).clone())
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!("\ncaused by: {error}"));
        cause = error.source();
    }
    text
}

/// Every path below `dir` with its inode, length and time.
pub fn listing(dir: &Path) -> BTreeMap<String, (u64, u64, i64)> {
    fn walk(dir: &Path, prefix: &str, into: &mut BTreeMap<String, (u64, u64, i64)>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let entry = entry.unwrap();
            let meta = std::fs::symlink_metadata(entry.path()).unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if meta.is_dir() {
                walk(&entry.path(), &format!("{name}/"), into);
            }
            let size = if meta.is_dir() { 0 } else { meta.len() };
            let time = if meta.is_dir() { 0 } else { meta.mtime() };
            into.insert(name, (meta.ino(), size, time));
        }
    }
    let mut into = BTreeMap::new();
    walk(dir, "", &mut into);
    into
}

/// The smallest ELF file that passes for a kernel: one note segment with a PVH entry, no code.
pub fn tiny_elf_kernel() -> Vec<u8> {
    let mut file = vec![0; 64 + 56];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(0x20, &64_u64.to_le_bytes());
    put(0x36, &56_u16.to_le_bytes());
    put(0x38, &1_u16.to_le_bytes());
    put(64, &4_u32.to_le_bytes());
    put(64 + 0x08, &120_u64.to_le_bytes());
    put(64 + 0x20, &20_u64.to_le_bytes());
    for word in [4_u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file
}
