//! What every name of the copy is like at one moment.

use std::collections::BTreeMap;

use firebrick_tree::Timestamp;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};

use super::{Doing as _, Failure, shown};

/// Longest path that a layer can name, in bytes.
const PATH_MAX: usize = 4095;

/// A name and what stands there, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) ino: u64,
    /// When a folder was made, where the filesystem says so: a number may be given again, to another folder.
    pub(crate) born: Timestamp,
    /// Kind and permissions.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) links: u64,
    pub(crate) device: (u32, u32),
    pub(crate) mtime: Timestamp,
    /// Nobody can set this one: whatever happens to an inode, it becomes the time of that.
    pub(crate) ctime: Timestamp,
}

impl Node {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind() == FileType::Directory
    }
}

/// Every name by its path, the root by an empty one. Parents come before what they hold.
pub(crate) type Record = BTreeMap<Box<[u8]>, Node>;

/// Opens a path of the copy, whose last component may be anything but a symbolic link. None of the others may be one.
pub(crate) fn open(root: &OwnedFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let mut flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // What is only named is not waited for.
    if !flags.contains(OFlags::PATH) {
        flags |= OFlags::NONBLOCK | OFlags::NOCTTY;
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Looks at everything.
pub(crate) fn record(root: &OwnedFd) -> Result<Record, Failure> {
    let mut record = Record::new();
    let stat = rustix::fs::fstat(root).doing(|| "look at /".into())?;
    record.insert(Box::default(), node(&stat));
    let mut folders: Vec<Box<[u8]>> = vec![Box::default()];
    while let Some(path) = folders.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let folder = open(root, &path, flags).doing(|| format!("open {}", shown(&path)))?;
        let entries = rustix::fs::Dir::read_from(&folder).doing(|| format!("list {}", shown(&path)))?;
        for entry in entries {
            let entry = entry.doing(|| format!("list {}", shown(&path)))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend(name.to_bytes());
            if child.len() > PATH_MAX {
                return Err(Failure(format!(
                    "the path {}… is too long for a layer",
                    shown(&child)
                )));
            }
            let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
                .doing(|| format!("look at {}", shown(&child)))?;
            let child: Box<[u8]> = child.into();
            let mut node = node(&stat);
            if node.is_folder() {
                node.born = born(&folder, name);
                folders.push(child.clone());
            }
            record.insert(child, node);
        }
    }
    Ok(record)
}

fn born(folder: &OwnedFd, name: &std::ffi::CStr) -> Timestamp {
    let mask = rustix::fs::StatxFlags::BTIME;
    let found = rustix::fs::statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, mask);
    found.map_or(Timestamp::default(), |found| Timestamp {
        seconds: found.stx_btime.tv_sec,
        nanoseconds: found.stx_btime.tv_nsec,
    })
}

#[expect(
    clippy::unnecessary_cast,
    reason = "the fields of struct stat have other types on other processors"
)]
fn node(stat: &rustix::fs::Stat) -> Node {
    let time = |seconds: i64, nanoseconds: u64| Timestamp {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
    };
    Node {
        born: Timestamp::default(),
        ino: stat.st_ino as u64,
        mode: stat.st_mode as u32,
        uid: stat.st_uid as u32,
        gid: stat.st_gid as u32,
        size: stat.st_size as u64,
        links: stat.st_nlink as u64,
        device: (
            rustix::fs::major(stat.st_rdev as _),
            rustix::fs::minor(stat.st_rdev as _),
        ),
        mtime: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        ctime: time(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
    }
}
