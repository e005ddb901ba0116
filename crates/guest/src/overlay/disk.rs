//! The layer on a disk: one that holds an ext4 is used as it is, one that is empty is formatted, and nothing else is touched.
//!
//! *Empty* is what a new disk is: zeros in its first 4 MiB, its last MiB, and a thousand blocks between them.

use alloc::string::String;
use alloc::vec;
#[cfg(test)]
use alloc::vec::Vec;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::mkfs::{self, Disk, Identity};
use crate::boot::Boot;
use crate::errno::describe;
use crate::kernel::Clock;

/// File systems, volumes, RAIDs and swap spaces leave their marks here: at most 1 MiB behind the start, and 128 KiB before the end.
const HEAD_BYTES: u64 = 4 << 20;
const TAIL_BYTES: u64 = 1 << 20;
/// Between them so many blocks are looked at, evenly spread: data without any mark is somebody's, too.
const PROBES: u64 = 1024;
const PROBE_BYTES: u64 = 4096;
/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// What a disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Nothing, or a format of ours that was cut off.
    Nothing,
    /// An ext4, or one of its forebears.
    Ext,
    /// Something else.
    Foreign,
}

/// A block device.
struct Device(OwnedFd);

impl Device {
    fn open(path: &str) -> Result<Device, Errno> {
        // EXCL: not while it is mounted.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        match kind {
            FileType::BlockDevice => Ok(Device(file)),
            _ => Err(Errno::NOTBLK),
        }
    }

    fn len(&self) -> Result<u64, Errno> {
        rustix::fs::seek(&self.0, SeekFrom::End(0))
    }

    fn content(&self, bytes: u64) -> Result<Content, Errno> {
        let mut start = [0; 2048];
        let start_len = start.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        read_at(self.0.as_fd(), 0, &mut start[..start_len])?;
        if start.starts_with(mkfs::MARK) {
            return Ok(Content::Nothing);
        }
        if start.get(1024 + 0x38..1024 + 0x3a) == Some(&[0x53, 0xef]) {
            return Ok(Content::Ext);
        }
        for (offset, len) in looked_at(bytes) {
            if !self.is_zeros(offset, len)? {
                return Ok(Content::Foreign);
            }
        }
        Ok(Content::Nothing)
    }

    fn is_zeros(&self, mut offset: u64, mut len: u64) -> Result<bool, Errno> {
        let mut buffer = vec![0; READ_BYTES];
        while len > 0 {
            let count = len.min(READ_BYTES as u64);
            let piece = &mut buffer[..count as usize];
            read_at(self.0.as_fd(), offset, piece)?;
            if piece.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset = offset.saturating_add(count);
            len -= count;
        }
        Ok(true)
    }
}

/// The places, each an offset and a length, at which an empty disk of so many bytes must be zeros.
fn looked_at(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let head = HEAD_BYTES.min(bytes);
    let tail_at = bytes.saturating_sub(TAIL_BYTES).max(head);
    let step = ((tail_at - head) / PROBES).max(PROBE_BYTES) / PROBE_BYTES * PROBE_BYTES;
    let probes = (head..tail_at)
        .step_by(usize::try_from(step).unwrap_or(usize::MAX))
        .map(move |at| (at, PROBE_BYTES.min(tail_at - at)));
    [(0, head), (tail_at, bytes - tail_at)].into_iter().chain(probes)
}

fn read_at(file: rustix::fd::BorrowedFd<'_>, mut offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    let mut rest = buffer;
    while !rest.is_empty() {
        match rustix::io::pread(file, &mut *rest, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                offset = offset.saturating_add(count as u64);
                rest = &mut rest[count..];
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Disk for Device {
    fn write_at(&mut self, mut offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::pwrite(&self.0, rest, offset) {
                Ok(count) => {
                    offset = offset.saturating_add(count as u64);
                    rest = rest.get(count..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Errno> {
        rustix::fs::fsync(&self.0)
    }
}

/// Mounts the disk that `overlay_root=` names, formatting it if it is empty, to `size` bytes at most.
pub(super) fn mount_disk(
    named: &str,
    target: &str,
    size: Option<u64>,
    wait_s: u64,
    boot: &mut Boot,
) -> Result<(), String> {
    let path = alloc::format!("/dev/{}", named.strip_prefix("/dev/").unwrap_or(named));
    if !super::wait_for(&path, wait_s) {
        return Err(alloc::format!(
            "overlay_root={named}: {path} did not appear within {wait_s} s; block devices: {}; attach the disk, or leave \
             overlay_root= out for a layer in memory",
            super::disks()
        ));
    }
    let said =
        |what: &str, error| alloc::format!("overlay_root={named}: cannot {what} {path}: {}", describe(error));
    // Some kernels tell at opening that a disk is read-only, others when it is written or mounted.
    let refused = |what: &str, error| match error {
        Errno::ROFS | Errno::ACCESS | Errno::PERM => {
            alloc::format!("overlay_root={named}: {path} is read-only: attach it writable")
        }
        error => said(what, error),
    };
    {
        let mut device = Device::open(&path).map_err(|error| match error {
            Errno::NOTBLK => alloc::format!("overlay_root={named}: {path} is no disk"),
            error => refused("open", error),
        })?;
        let bytes = device.len().map_err(|error| said("read", error))?;
        match device.content(bytes).map_err(|error| said("read", error))? {
            Content::Ext => warn_of_size(named, bytes, size, boot),
            Content::Nothing => {
                let bytes = size.map_or(bytes, |size| size.min(bytes));
                if !mkfs::fits(bytes) {
                    return Err(alloc::format!(
                        "overlay_root={named}: {bytes} bytes are too few for a filesystem, which takes 1 MiB at least: \
                         attach a larger disk, or give more with overlay_size="
                    ));
                }
                mkfs::format(&mut device, bytes, &identity()).map_err(|error| refused("format", error))?;
                boot.stamp("overlay_formatted");
            }
            Content::Foreign => {
                return Err(alloc::format!(
                    "overlay_root={named}: {path} holds something that is no ext4, and only an empty disk is formatted; if \
                     it is not needed, make it anew: truncate -s 0 FILE && truncate -s SIZE FILE"
                ));
            }
        }
    }
    mount(path.as_str(), target, c"ext4", MountFlags::NOATIME, c"").map_err(|error| match error {
        // What the kernel says of a filesystem that is damaged, or newer than it.
        Errno::INVAL | Errno::IO | Errno::ILSEQ | Errno::UCLEAN => alloc::format!(
            "{}; its ext4 is damaged, or made for another kernel: e2fsck -f FILE on the host tells, or attach an empty disk",
            said("mount", error)
        ),
        error => refused("mount", error),
    })
}

/// The size of what others made is theirs.
fn warn_of_size(named: &str, bytes: u64, size: Option<u64>, boot: &mut Boot) {
    if let Some(size) = size
        && bytes > size
    {
        boot.warn(format_args!(
            "overlay_size= does not cap overlay_root={named}, which was formatted before"
        ));
    }
}

fn identity() -> Identity {
    let mut random = [0u8; 32];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let read = rustix::fs::open("/dev/urandom", flags, Mode::empty())
        .and_then(|source| rustix::io::read(&source, &mut random[..]));
    if read.is_err() {
        random[..8].copy_from_slice(&Clock::Boottime.now_ns().to_le_bytes());
    }
    let mut identity = Identity {
        uuid: [0; 16],
        hash_seed: [0; 16],
        time: u32::try_from(Clock::Realtime.now_ns() / 1_000_000_000).unwrap_or(0),
    };
    identity.uuid.copy_from_slice(&random[..16]);
    identity.hash_seed.copy_from_slice(&random[16..]);
    // The version and variant bits of a random UUID.
    identity.uuid[6] = identity.uuid[6] & 0x0f | 0x40;
    identity.uuid[8] = identity.uuid[8] & 0x3f | 0x80;
    identity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_disk_is_looked_at_all_over() {
        for bytes in [0, 1, 4096, 1 << 20, 5 << 20, (5 << 20) + 4097, 64 << 20, 1 << 40] {
            let mut places: Vec<_> = looked_at(bytes).filter(|(_, len)| *len > 0).collect();
            places.sort_unstable();
            let mut end = 0;
            let mut longest_gap = 0;
            for (offset, len) in places {
                assert!(offset >= end, "{bytes}: {offset} again");
                longest_gap = longest_gap.max(offset - end);
                end = offset + len;
            }
            assert_eq!(end, bytes, "the end of {bytes}");
            assert!(longest_gap <= bytes / 1000, "{bytes}: {longest_gap} unseen");
        }
    }
}
