//! Judged by `e2fsck` and `debugfs`, which share no code with us.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::string::String;
use std::vec::Vec;

use rustix::io::Errno;

use super::{Disk, GROUP_BLOCKS, Identity, Layout, MARK, fits, format};

const IDENTITY: Identity = Identity {
    uuid: *b"0123456789abcdef",
    hash_seed: *b"fedcba9876543210",
    time: 1_700_000_000,
};

/// A file as a disk, which may break after so many writes.
struct FileDisk {
    file: File,
    writes: usize,
}

impl Disk for FileDisk {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.writes = self.writes.checked_sub(1).ok_or(Errno::IO)?;
        self.file.write_all_at(bytes, offset).map_err(|_| Errno::IO)
    }

    fn sync(&mut self) -> Result<(), Errno> {
        Ok(())
    }
}

fn disk(path: &Path, bytes: u64) -> FileDisk {
    let file = File::create(path).unwrap();
    file.set_len(bytes).unwrap();
    FileDisk {
        file,
        writes: usize::MAX,
    }
}

/// What the tool says; `None` where tests were told to do without tools.
fn said(tool: &str, args: &[&str], path: &Path) -> Option<String> {
    if std::env::var_os("FIREBRICK_SKIP_ORACLES").is_some_and(|value| value == "1") {
        return None;
    }
    let path_var = std::format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(tool)
        .args(args)
        .arg(path)
        .env("PATH", path_var)
        .output()
        .unwrap_or_else(|error| panic!("{tool} (Debian package e2fsprogs): {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{tool}: {}\n{text}", output.status);
    Some(text)
}

#[test]
fn e2fsck_finds_any_size_clean() {
    const MIB: u64 = 1 << 20;
    let group = u64::from(GROUP_BLOCKS) * 4096;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let sizes = [
        MIB,
        MIB + 4095,
        2 * MIB,
        31 * MIB,
        32 * MIB,
        100 * MIB,
        group,
        group + 4096,
        group + 5 * MIB,
        group + 6 * MIB,
        4 * group,
        10 * group + 77 * MIB,
        50 * group,
        5000 * group + 12345,
    ];
    for bytes in sizes {
        let layout = Layout::new(bytes).unwrap();
        format(&mut disk(&path, bytes), bytes, &IDENTITY).unwrap();
        // Larger ones take too long to check; that they are laid out alike is seen from their headers.
        if bytes <= 60 * group {
            said("e2fsck", &["-f", "-n"], &path);
        }
        let Some(header) = said("dumpe2fs", &["-h"], &path) else {
            return;
        };
        let has = |what: &str| assert!(header.contains(what), "{bytes}: no {what} in\n{header}");
        has("Filesystem volume name:   overlay");
        has("Filesystem UUID:          30313233-3435-3637-3839-616263646566");
        has(&std::format!("Block count:              {}\n", layout.blocks));
        has("Filesystem state:         clean");
        // All of the disk, but for a last group too small to be of use.
        assert!(u64::from(layout.blocks) * 4096 + 6 * MIB > bytes);
        assert_eq!(header.contains("has_journal"), bytes >= 32 * MIB);
    }
}

#[test]
fn what_others_write_into_it_stays_clean() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    format(&mut disk(&path, 300 << 20), 300 << 20, &IDENTITY).unwrap();
    let big = dir.path().join("big");
    let bytes: Vec<u8> = (0..200u32 << 20).map(|at| (at >> 8) as u8).collect();
    std::fs::write(&big, &bytes).unwrap();
    let write = std::format!("write {} big", big.display());
    for request in ["mkdir root", "mkdir work", &write, "symlink link root"] {
        if said("debugfs", &["-w", "-R", request], &path).is_none() {
            return;
        }
    }
    said("e2fsck", &["-f", "-n"], &path);
    let back = dir.path().join("back");
    let dump = std::format!("dump big {}", back.display());
    said("debugfs", &["-R", &dump], &path);
    assert!(std::fs::read(back).unwrap() == bytes);
}

#[test]
fn a_format_that_is_cut_off_can_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    for writes in 0..100 {
        let mut disk = disk(&path, 64 << 20);
        disk.writes = writes;
        let formatted = format(&mut disk, 64 << 20, &IDENTITY);
        let mut start = [0; MARK.len()];
        File::open(&path).unwrap().read_exact_at(&mut start, 0).unwrap();
        match (writes, formatted) {
            (0, Err(_)) => assert_eq!(start, [0; MARK.len()]),
            (_, Err(_)) => assert_eq!(&start, MARK),
            (_, Ok(())) => {
                assert_eq!(start, [0; MARK.len()]);
                return;
            }
        }
    }
    panic!("a format takes more than 100 writes");
}

/// Only remembers where it was written.
struct Void(u64);

impl Disk for Void {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0 = self.0.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Errno> {
        Ok(())
    }
}

#[test]
fn the_largest_disks_are_used_as_far_as_block_numbers_go() {
    for bytes in [16 << 40, u64::MAX] {
        let mut disk = Void(0);
        format(&mut disk, bytes, &IDENTITY).unwrap();
        assert!(disk.0 < 16 << 40 && disk.0 > (16 << 40) - (1 << 28), "{}", disk.0);
    }
}

#[test]
fn disks_that_are_too_small_are_refused() {
    assert!(!fits(0) && !fits((1 << 20) - 1) && fits(1 << 20));
    let dir = tempfile::tempdir().unwrap();
    let mut disk = disk(&dir.path().join("disk"), 4096);
    assert_eq!(format(&mut disk, 4096, &IDENTITY), Err(Errno::NOSPC));
}
