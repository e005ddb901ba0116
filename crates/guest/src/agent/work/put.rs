//! Taking files and trees. This runs in a copy of the agent: standard input brings the bytes, and may block.
//!
//! A file is written beside its place under a name of its own, and renamed when all of it has come: nobody ever sees half
//! of it, and a client that vanishes leaves nothing. Links and devices come to their places in the same way, so that what
//! had the name stays where its successor cannot be made. A device, pipe or socket is not replaced by a file or link.

use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use firebrick_protocol::files::{Put, Transferred};
use firebrick_protocol::rpc::RpcError;
use firebrick_protocol::tar::{self, Header, Kind, Step};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::owner::{NOBODY, Owner};
use super::place::{self, Spot, failed};
use crate::kernel;

const BUFFER_BYTES: usize = 64 * 1024;

/// The signal by which the agent says that the client has sent all of a file, so that the end of standard input is no
/// accident. It is blocked, and only looked at.
pub(in super::super) const COMPLETE: i32 = 10;

/// So much at most is remembered of folders that get their modes and times after everything is in them.
const MAX_LATE_BYTES: usize = 4 << 20;

/// What remembering a folder costs besides its path.
const LATE_BYTES: usize = 64;

pub(in super::super) fn run(params: &Put) -> Result<Transferred, RpcError> {
    let owner = Owner::named(params.owner.as_deref())?;
    if let Some(mode) = params.mode.filter(|mode| *mode > 0o7777) {
        return Err(RpcError::invalid_params(alloc::format!(
            "{mode} is no mode of a file"
        )));
    }
    let path = &params.place.path;
    if !params.tree && path.ends_with('/') {
        return Err(failed("write", path, Errno::ISDIR));
    }
    let spot = place::find(&params.place, params.parents)?;
    if params.tree {
        let root =
            open_root(&spot, params.mode, owner).map_err(|error| failed("make the folder", path, error))?;
        return Tree::new(root, owner).take();
    }
    let bytes = file(&spot, params.mode, owner).map_err(|error| not_put("write", path, error))?;
    Ok(Transferred {
        bytes,
        entries: 1,
        ..Transferred::default()
    })
}

/// As [`failed`]; says what is meant where something is in the way.
fn not_put(what: &str, path: &str, error: Errno) -> RpcError {
    let mut failed = failed(what, path, error);
    if error == Errno::EXIST {
        failed.message += ", and is a device, pipe or socket, which is not replaced";
    }
    failed
}

/// Whether a spot has what nobody makes by mistake.
fn is_special(spot: &Spot) -> bool {
    rustix::fs::statat(&spot.folder, &*spot.name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
        !matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::RegularFile | FileType::Directory | FileType::Symlink
        )
    })
}

/// A name beside its place, for something that is not whole yet. Dropping it removes what has the name.
struct Beside<'a> {
    folder: BorrowedFd<'a>,
    name: CString,
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(self.folder, &*self.name, AtFlags::empty());
    }
}

impl<'a> Beside<'a> {
    /// One process makes one thing at a time, so its number makes the name its own.
    fn new(folder: BorrowedFd<'a>) -> Beside<'a> {
        let name = alloc::format!(".firebrick-put-{}", rustix::process::getpid());
        let name = CString::new(name).unwrap_or_default();
        // What a process of that number left when the machine's plug was pulled.
        let _ = rustix::fs::unlinkat(folder, &*name, AtFlags::empty());
        Beside { folder, name }
    }

    /// Gives it its own name. Where that is one of the same file already, the kernel leaves both, and dropping removes the
    /// one beside; else dropping finds nothing of that name any more.
    fn place(self, name: &CStr) -> Result<(), Errno> {
        rustix::fs::renameat(self.folder, &*self.name, self.folder, name)
    }
}

/// A file that has no place yet.
struct Unfinished<'a> {
    file: OwnedFd,
    beside: Beside<'a>,
}

impl<'a> Unfinished<'a> {
    fn new(folder: BorrowedFd<'a>) -> Result<Unfinished<'a>, Errno> {
        let beside = Beside::new(folder);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, &*beside.name, flags, Mode::from_raw_mode(0o600))?;
        Ok(Unfinished { file, beside })
    }

    fn place(self, name: &CStr, mode: u32, owner: Option<Owner>) -> Result<(), Errno> {
        if let Some(owner) = owner {
            let (uid, gid) = owner.ids();
            rustix::fs::fchown(&self.file, uid, gid)?;
        }
        // After the owner: a change of that clears the set-user-ID bit.
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))?;
        self.beside.place(name)
    }
}

fn file(spot: &Spot, mode: Option<u32>, owner: Option<Owner>) -> Result<u64, Errno> {
    let before = match rustix::fs::statat(&spot.folder, &*spot.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Err(Errno::ISDIR),
            FileType::RegularFile => Some((
                stat.st_mode & 0o7777,
                Owner {
                    uid: stat.st_uid,
                    gid: stat.st_gid,
                },
            )),
            FileType::Symlink => None,
            _ => return Err(Errno::EXIST),
        },
        Err(Errno::NOENT) => None,
        Err(error) => return Err(error),
    };
    let unfinished = Unfinished::new(spot.folder.as_fd())?;
    let mut buffer = alloc::vec![0; BUFFER_BYTES];
    let mut bytes = 0u64;
    loop {
        let count = read(&mut buffer)?;
        if count == 0 {
            break;
        }
        crate::file::write_all(unfinished.file.as_fd(), buffer.get(..count).unwrap_or_default())?;
        bytes = bytes.saturating_add(count as u64);
    }
    if !kernel::is_pending(COMPLETE) {
        return Err(Errno::CANCELED);
    }
    let mode = mode.or(before.map(|(mode, _)| mode)).unwrap_or(0o644);
    // Only root can give a file away; another agent's replacement is its own.
    let kept = before.map(|(_, owner)| owner).filter(|_| is_root());
    unfinished.place(&spot.name, mode, owner.or(kept))?;
    Ok(bytes)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Reads standard input; 0 at its end.
fn read(buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match rustix::io::read(kernel::standard(0), &mut *buffer) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The folder that holds a tree, made if it is missing.
fn open_root(spot: &Spot, mode: Option<u32>, owner: Option<Owner>) -> Result<OwnedFd, Errno> {
    let made = match rustix::fs::mkdirat(&spot.folder, &*spot.name, Mode::from_raw_mode(0o755)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = rustix::fs::openat(&spot.folder, &*spot.name, flags, Mode::empty())?;
    if made && let Some(owner) = owner {
        let (uid, gid) = owner.ids();
        rustix::fs::fchown(&root, uid, gid)?;
    }
    if let Some(mode) = mode {
        rustix::fs::fchmod(&root, Mode::from_raw_mode(mode))?;
    }
    Ok(root)
}

/// A tree that is being taken.
struct Tree {
    root: OwnedFd,
    owner: Option<Owner>,
    buffer: Vec<u8>,
    done: Transferred,
    /// Folders whose modes and times are set last: before, they could be closed, and every entry changes their times.
    late: Vec<(Vec<u8>, u32, i64)>,
    late_bytes: usize,
}

fn broken(reason: impl core::fmt::Display) -> RpcError {
    RpcError::invalid_params(alloc::format!("{reason}"))
}

impl Tree {
    fn new(root: OwnedFd, owner: Option<Owner>) -> Tree {
        Tree {
            root,
            owner,
            buffer: alloc::vec![0; BUFFER_BYTES],
            done: Transferred::default(),
            late: Vec::new(),
            late_bytes: 0,
        }
    }

    fn take(mut self) -> Result<Transferred, RpcError> {
        let mut reader = tar::Reader::default();
        loop {
            let mut block = [0; tar::BLOCK_BYTES];
            read_whole(&mut block)?;
            match reader.block(&block).map_err(broken)? {
                Step::More => {}
                Step::End => break,
                Step::Entry(header) => {
                    let outcome = self.entry(&header);
                    outcome.map_err(|error| match error {
                        Failure::Kernel(Errno::XDEV) => broken(alloc::format!(
                            "the tar names {:?}, which is outside of the folder",
                            String::from_utf8_lossy(&header.path)
                        )),
                        Failure::Kernel(error) => {
                            not_put("put", &String::from_utf8_lossy(&header.path), error)
                        }
                        Failure::Stream(error) => error,
                    })?;
                    self.done.entries = self.done.entries.saturating_add(1);
                }
            }
        }
        // What fills the tar up to a whole record.
        while read(&mut self.buffer).is_ok_and(|count| count > 0) {}
        self.finish_folders(|_| true);
        Ok(self.done)
    }

    /// Gives those folders their modes and times, the last first: those above could be closed then.
    fn finish_folders(&mut self, is_due: impl Fn(&[u8]) -> bool) {
        let mut kept = Vec::new();
        self.late_bytes = 0;
        for (path, mode, mtime_s) in core::mem::take(&mut self.late).into_iter().rev() {
            if is_due(&path) {
                // A folder that a later entry has replaced is not there any more.
                let _ = self.finish_folder(&path, mode, mtime_s);
            } else {
                self.late_bytes = self.late_bytes.saturating_add(late_bytes(&path));
                kept.push((path, mode, mtime_s));
            }
        }
        kept.reverse();
        self.late = kept;
    }

    fn entry(&mut self, header: &Header) -> Result<(), Failure> {
        if header.path.starts_with(b"/") {
            return Err(Errno::XDEV.into());
        }
        let root = rustix::io::fcntl_dupfd_cloexec(&self.root, 3)?;
        let spot = place::walk(root, &header.path, true)?;
        if spot.is_folder_itself() && header.kind != Kind::Dir {
            return Err(Errno::ISDIR.into());
        }
        if self.owner.is_none() && [header.uid, header.gid].contains(&NOBODY) {
            return Err(Failure::Stream(broken(alloc::format!(
                "the tar gives {:?} to the owner or group {NOBODY}, which cannot own anything",
                String::from_utf8_lossy(&header.path)
            ))));
        }
        let is_node = matches!(header.kind, Kind::Char | Kind::Block | Kind::Fifo);
        if !is_node && is_special(&spot) {
            return Err(Errno::EXIST.into());
        }
        match header.kind {
            Kind::File => self.file(&spot, header)?,
            Kind::Dir => self.folder(&spot, header)?,
            Kind::Hardlink => {
                if header.link.starts_with(b"/") {
                    return Err(Errno::XDEV.into());
                }
                let root = rustix::io::fcntl_dupfd_cloexec(&self.root, 3)?;
                let target = place::walk(root, &header.link, false)?;
                let beside = Beside::new(spot.folder.as_fd());
                rustix::fs::linkat(
                    &target.folder,
                    &*target.name,
                    beside.folder,
                    &*beside.name,
                    AtFlags::empty(),
                )?;
                beside.place(&spot.name)?;
            }
            Kind::Symlink | Kind::Char | Kind::Block | Kind::Fifo => self.node(&spot, header)?,
        }
        Ok(())
    }

    fn owner_of(&self, header: &Header) -> Option<Owner> {
        let named = Owner {
            uid: header.uid,
            gid: header.gid,
        };
        self.owner.or(Some(named)).filter(|_| is_root())
    }

    fn file(&mut self, spot: &Spot, header: &Header) -> Result<(), Failure> {
        let unfinished = Unfinished::new(spot.folder.as_fd())?;
        let mut left = header.size;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            let piece = self.buffer.get_mut(..part).unwrap_or_default();
            let count = read(piece)?;
            if count == 0 {
                return Err(Failure::Stream(cut_short()));
            }
            crate::file::write_all(unfinished.file.as_fd(), piece.get(..count).unwrap_or_default())?;
            left = left.saturating_sub(count as u64);
        }
        let mut padding = [0; tar::BLOCK_BYTES];
        read_whole(padding.get_mut(..tar::padding(header.size)).unwrap_or_default())
            .map_err(Failure::Stream)?;
        rustix::fs::futimens(&unfinished.file, &times(header.mtime_s))?;
        unfinished.place(&spot.name, header.mode, self.owner_of(header))?;
        self.done.bytes = self.done.bytes.saturating_add(header.size);
        Ok(())
    }

    fn folder(&mut self, spot: &Spot, header: &Header) -> Result<(), Errno> {
        match rustix::fs::mkdirat(&spot.folder, &*spot.name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let opened = open_folder(spot)?;
        if let Some(owner) = self.owner_of(header) {
            let (uid, gid) = owner.ids();
            rustix::fs::fchown(&opened, uid, gid)?;
        }
        let bytes = late_bytes(&header.path);
        if self.late_bytes.saturating_add(bytes) > MAX_LATE_BYTES {
            // Tars go through folder after folder: what is not above this one has all that is in it.
            self.finish_folders(|late| !is_above(late, &header.path));
        }
        if self.late_bytes.saturating_add(bytes) <= MAX_LATE_BYTES {
            self.late_bytes = self.late_bytes.saturating_add(bytes);
            self.late.push((header.path.clone(), header.mode, header.mtime_s));
            return Ok(());
        }
        rustix::fs::fchmod(&opened, Mode::from_raw_mode(header.mode))
    }

    fn finish_folder(&self, path: &[u8], mode: u32, mtime_s: i64) -> Result<(), Errno> {
        let root = rustix::io::fcntl_dupfd_cloexec(&self.root, 3)?;
        let opened = open_folder(&place::walk(root, path, false)?)?;
        rustix::fs::fchmod(&opened, Mode::from_raw_mode(mode))?;
        rustix::fs::futimens(&opened, &times(mtime_s))
    }

    /// A symlink, device or named pipe.
    fn node(&self, spot: &Spot, header: &Header) -> Result<(), Errno> {
        let beside = Beside::new(spot.folder.as_fd());
        let (folder, name) = (beside.folder, &*beside.name);
        let kind = match header.kind {
            Kind::Symlink => None,
            Kind::Char => Some(FileType::CharacterDevice),
            Kind::Block => Some(FileType::BlockDevice),
            _ => Some(FileType::Fifo),
        };
        match kind {
            None => rustix::fs::symlinkat(header.link.as_slice(), folder, name)?,
            Some(kind) => {
                let device = rustix::fs::makedev(header.device.0, header.device.1);
                rustix::fs::mknodat(folder, name, kind, Mode::from_raw_mode(header.mode), device)?;
            }
        }
        if let Some(owner) = self.owner_of(header) {
            let (uid, gid) = owner.ids();
            rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        rustix::fs::utimensat(folder, name, &times(header.mtime_s), AtFlags::SYMLINK_NOFOLLOW)?;
        beside.place(&spot.name)
    }
}

fn late_bytes(path: &[u8]) -> usize {
    path.len().saturating_add(LATE_BYTES)
}

/// Whether one path leads through the other, or to the same place.
fn is_above(folder: &[u8], path: &[u8]) -> bool {
    let mut below = place::parts(path);
    place::parts(folder).all(|name| below.next() == Some(name))
}

fn open_folder(spot: &Spot) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&spot.folder, &*spot.name, flags, Mode::empty())
}

fn times(mtime_s: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime_s,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Fills the buffer.
fn read_whole(buffer: &mut [u8]) -> Result<(), RpcError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read(rest) {
            Ok(0) => return Err(cut_short()),
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) => return Err(failed("read", "standard input", error)),
        }
    }
    Ok(())
}

fn cut_short() -> RpcError {
    RpcError::invalid_params("the tar ends early")
}

/// Why an entry could not be put.
enum Failure {
    Kernel(Errno),
    /// The tar itself is at fault.
    Stream(RpcError),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Failure {
        Failure::Kernel(error)
    }
}
