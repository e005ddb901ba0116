//! Giving files and trees. This runs in a copy of the agent: standard output takes the bytes, and may block.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ffi::CStr;

use firebrick_protocol::files::{Get, Transferred};
use firebrick_protocol::rpc::RpcError;
use firebrick_protocol::tar::{self, Header, Kind};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::names::Pieces;
use super::place::{self, Spot, failed};
use crate::kernel;

const BUFFER_BYTES: usize = 64 * 1024;

/// So much at most is remembered of files with several names; of others each name brings the contents.
const MAX_HARDLINKS_BYTES: usize = 4 << 20;

/// What remembering a file costs besides its path.
const HARDLINK_BYTES: usize = 64;

/// Of a folder's names so much at most is held at a time.
const MAX_PIECE_BYTES: usize = 4 << 20;

/// Of all folders' names on the way down so much at most is held, and a piece.
const MAX_NAMES_BYTES: usize = 4 << 20;

/// So deep a tree may be: a descriptor is open for each folder on the way.
const MAX_DEPTH: usize = 900;

pub(in super::super) fn run(params: &Get) -> Result<Transferred, RpcError> {
    let spot = place::find(&params.place, false)?;
    let path = &params.place.path;
    let follows = params.place.root.is_none();
    let mut sender = Sender::default();
    let sent = if params.tree {
        sender.tree(&spot)
    } else {
        sender.file(&spot, follows)
    };
    sent.and_then(|()| sender.flush())
        .map_err(|error| failed("read", path, error))?;
    Ok(sender.done)
}

#[derive(Default)]
struct Sender {
    /// Headers and padding, that wait to go out with what follows.
    waiting: Vec<u8>,
    buffer: Vec<u8>,
    done: Transferred,
    /// The first names of files that have several.
    seen: BTreeMap<(u64, u64), Vec<u8>>,
    seen_bytes: usize,
}

/// A folder on the way down.
struct Level {
    folder: OwnedFd,
    names: Pieces,
    /// How much of the path leads to it.
    path_len: usize,
}

impl Level {
    fn new(folder: OwnedFd, path_len: usize) -> Level {
        Level {
            folder,
            names: Pieces::new(MAX_PIECE_BYTES),
            path_len,
        }
    }
}

/// Makes room for one more folder's names, from the top, where they are needed last.
fn forget_some(way: &mut [Level]) {
    let mut held: usize = way.iter().map(|level| level.names.held_bytes()).sum();
    for level in way {
        if held <= MAX_NAMES_BYTES {
            return;
        }
        held = held.saturating_sub(level.names.held_bytes());
        level.names.forget();
    }
}

fn write_out(bytes: &[u8]) -> Result<(), Errno> {
    crate::file::write_all(kernel::standard(1), bytes)
}

fn open_file(folder: BorrowedFd<'_>, name: &CStr, follow: bool) -> Result<OwnedFd, Errno> {
    // Without NONBLOCK, opening a FIFO waits for its other end.
    let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !follow);
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

fn read(file: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match rustix::io::read(file, &mut *buffer) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

impl Sender {
    fn flush(&mut self) -> Result<(), Errno> {
        write_out(&self.waiting)?;
        self.waiting.clear();
        Ok(())
    }

    fn file(&mut self, spot: &Spot, follow: bool) -> Result<(), Errno> {
        let file = open_file(spot.folder.as_fd(), &spot.name, follow)?;
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        self.buffer.resize(BUFFER_BYTES, 0);
        loop {
            let count = read(&file, &mut self.buffer)?;
            if count == 0 {
                break;
            }
            write_out(self.buffer.get(..count).unwrap_or_default())?;
            self.done.bytes = self.done.bytes.saturating_add(count as u64);
        }
        self.done.entries = 1;
        Ok(())
    }

    /// A tar of what is there: the thing itself is `.`, or a file under its own name.
    fn tree(&mut self, spot: &Spot) -> Result<(), Errno> {
        self.buffer.resize(BUFFER_BYTES, 0);
        let stat = rustix::fs::statat(&spot.folder, &*spot.name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.header(&stat, b"./".to_vec(), Kind::Dir, Vec::new())?;
            self.below(spot)?;
        } else {
            self.entry(
                spot.folder.as_fd(),
                &spot.name,
                spot.name.to_bytes().to_vec(),
                &stat,
            )?;
        }
        self.waiting.extend_from_slice(&[0; 2 * tar::BLOCK_BYTES]);
        self.flush()
    }

    /// What is in a folder, folder by folder, each in the order of its names.
    fn below(&mut self, spot: &Spot) -> Result<(), Errno> {
        let opened = open_folder(spot.folder.as_fd(), &spot.name)?;
        let mut path = b"./".to_vec();
        let mut way = Vec::new();
        way.push(Level::new(opened, path.len()));
        while let Some(level) = way.last_mut() {
            let Some(name) = level.names.next(&level.folder)? else {
                way.pop();
                continue;
            };
            let stat = match rustix::fs::statat(&level.folder, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue, // gone meanwhile
                Err(error) => return Err(error),
            };
            path.truncate(level.path_len);
            path.extend_from_slice(name.to_bytes());
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                self.entry(level.folder.as_fd(), &name, path.clone(), &stat)?;
                continue;
            }
            let deeper = match open_folder(level.folder.as_fd(), &name) {
                Ok(deeper) => deeper,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            path.push(b'/');
            if way.len() >= MAX_DEPTH {
                return Err(Errno::NAMETOOLONG);
            }
            self.header(&stat, path.clone(), Kind::Dir, Vec::new())?;
            forget_some(&mut way);
            way.push(Level::new(deeper, path.len()));
        }
        Ok(())
    }

    /// Anything but a folder.
    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        path: Vec<u8>,
        stat: &Stat,
    ) -> Result<(), Errno> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.contents(folder, name, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
                return self.header(stat, path, Kind::Symlink, target.into_bytes());
            }
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            _ => {
                self.done.skipped = self.done.skipped.saturating_add(1);
                return Ok(());
            }
        };
        self.header(stat, path, kind, Vec::new())
    }

    fn contents(&mut self, folder: BorrowedFd<'_>, name: &CStr, path: Vec<u8>) -> Result<(), Errno> {
        let file = match open_file(folder, name, false) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(()); // replaced meanwhile
        }
        if stat.st_nlink > 1 {
            let number = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.seen.get(&number) {
                let first = first.clone();
                return self.header(&stat, path, Kind::Hardlink, first);
            }
            let bytes = self
                .seen_bytes
                .saturating_add(path.len())
                .saturating_add(HARDLINK_BYTES);
            if bytes <= MAX_HARDLINKS_BYTES {
                self.seen_bytes = bytes;
                self.seen.insert(number, path.clone());
            }
        }
        self.header(&stat, path, Kind::File, Vec::new())?;
        self.flush()?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let (mut left, mut has_ended) = (size, false);
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            let piece = self.buffer.get_mut(..part).unwrap_or_default();
            let mut count = if has_ended { 0 } else { read(&file, piece)? };
            if count == 0 {
                // It became shorter: the header has gone out, so zeros stand for what is missing.
                has_ended = true;
                piece.fill(0);
                count = part;
            }
            write_out(piece.get(..count).unwrap_or_default())?;
            left = left.saturating_sub(count as u64);
        }
        // One more byte would show that it became longer.
        has_ended |= read(&file, self.buffer.get_mut(..1).unwrap_or_default())? > 0;
        self.done.changed = self.done.changed.saturating_add(u64::from(has_ended));
        self.done.bytes = self.done.bytes.saturating_add(size);
        self.waiting.extend(core::iter::repeat_n(0, tar::padding(size)));
        Ok(())
    }

    fn header(&mut self, stat: &Stat, path: Vec<u8>, kind: Kind, link: Vec<u8>) -> Result<(), Errno> {
        let device = match kind {
            Kind::Char | Kind::Block => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            _ => (0, 0),
        };
        let size = match kind {
            Kind::File => u64::try_from(stat.st_size).unwrap_or(0),
            _ => 0,
        };
        Header {
            kind,
            path,
            link,
            size,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime_s: stat.st_mtime,
            device,
        }
        .encode(&mut self.waiting);
        self.done.entries = self.done.entries.saturating_add(1);
        if self.waiting.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }
}

fn open_folder(folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}
