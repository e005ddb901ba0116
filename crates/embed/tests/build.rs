//! The guest binary is what an image can carry: small, static, the same from wherever it was built.
#![expect(
    clippy::print_stderr,
    reason = "the size is worth seeing in the test's output"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_embed::{build_guest_at, build_guest_for};

/// The target this test runs on; both have the same name for the guest.
fn target() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "aarch64-unknown-linux-gnu"
    } else {
        "x86_64-unknown-linux-gnu"
    }
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

#[test]
fn the_guest_is_small_static_and_runs() {
    const PROMISED_BYTES: usize = 500 * 1024;
    let path = build_guest_for(target(), &scratch("guest-build")).expect("a guest");
    let bytes = fs::read(&path).expect("the binary");
    eprintln!("firebrick-guest is {} bytes", bytes.len());
    assert!(bytes.len() < PROMISED_BYTES, "{} bytes", bytes.len());
    assert_eq!(&bytes[..4], b"\x7fELF");
    assert_eq!(
        program_headers(&bytes)
            .filter(|kind| *kind == PT_INTERP || *kind == PT_DYNAMIC)
            .count(),
        0
    );
    let output = Command::new(&path).arg("--help").output().expect("it runs");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("usage: firebrick-guest"));
}

/// For images of the other processor. Runs where `rustup target add` has brought its standard library's place, though the
/// guest has no standard library.
#[test]
fn the_guest_builds_for_the_other_processor() {
    let (other, machine) = match target() {
        "x86_64-unknown-linux-gnu" => ("aarch64-unknown-linux-gnu", 183_u16), // EM_AARCH64
        _ => ("x86_64-unknown-linux-gnu", 62),                                // EM_X86_64
    };
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .expect("rustc");
    let sysroot = PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim());
    if !sysroot.join("lib/rustlib").join(other).exists() {
        eprintln!("the guest for {other} is left out: rustup target add {other}");
        return;
    }
    let bytes =
        fs::read(build_guest_for(other, &scratch("guest-build")).expect("a guest")).expect("the binary");
    assert_eq!(&bytes[..4], b"\x7fELF");
    assert_eq!(u16::from_le_bytes([bytes[18], bytes[19]]), machine);
    assert!(program_headers(&bytes).all(|kind| kind != PT_INTERP && kind != PT_DYNAMIC));
}

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;

/// The types of a 64-bit little-endian ELF file's program headers.
fn program_headers(elf: &[u8]) -> impl Iterator<Item = u32> {
    let word = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("8 bytes")) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
    let (start, size, count) = (word(0x20), half(0x36), half(0x38));
    (0..count).map(move |i| u32::from_le_bytes(elf[start + i * size..][..4].try_into().expect("4 bytes")))
}

#[test]
fn another_checkout_gives_the_same_bytes() {
    let here = build_guest_for(target(), &scratch("guest-build")).expect("a guest");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("a checkout elsewhere");
    fs::create_dir(&copy).expect("a folder");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the workspace");
    for name in ["Cargo.toml", "Cargo.lock", "crates", "xtask"] {
        copy_tree(&workspace.join(name), &copy.join(name));
    }
    let there = build_guest_at(&copy, target(), &folder.path().join("out")).expect("a guest");
    assert!(
        fs::read(here).expect("bytes") == fs::read(there).expect("bytes"),
        "the guests differ"
    );
}

fn copy_tree(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            if name != "target" {
                copy_tree(&from.join(&name), &to.join(&name));
            }
        }
    } else {
        fs::copy(from, to).expect("a copy");
    }
}
