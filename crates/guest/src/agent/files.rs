//! The methods on files that are done at once: text in one message, and what concerns one name.

use alloc::string::String;
use alloc::vec::Vec;

use firebrick_protocol::agent::NoParams;
use firebrick_protocol::files::{
    ClockSync, ClockSynced, FileKind, FileStatus, ListEntry, Listing, MAX_LIST_ENTRIES, MAX_READ_BYTES,
    MakeDir, PathParams, Place, Remove, Reseed, StatParams, WriteFile, Written,
};
use firebrick_protocol::rpc;
use firebrick_protocol::rpc::{Id, RpcError};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::outbox::Outbox;
use super::work::names::names;
use super::work::owner::Owner;
use super::work::place::{self, failed};
use crate::kernel::Clock;

/// A path as the kernel takes it.
fn checked(path: &str) -> Result<&str, RpcError> {
    if path.is_empty() || path.contains('\0') {
        return Err(RpcError::invalid_params("`path` is empty or holds a zero byte"));
    }
    Ok(path)
}

/// Puts the response to `read_file` behind what waits. The file is looked through now and read when it is sent.
pub(super) fn read_file(params: &PathParams, id: &Id, out: &mut Outbox) -> Result<(), RpcError> {
    let path = checked(&params.path)?;
    let looked = open_regular(path).and_then(|file| Ok((text_bytes(&file)?, file)));
    let (bytes, file) = looked.map_err(|error| match error {
        Errno::ILSEQ => RpcError::internal(
            alloc::format!("cannot read {path:?}: it is not UTF-8; `get` gives any bytes"),
            Some(Errno::ILSEQ.raw_os_error()),
        ),
        Errno::FBIG => RpcError::internal(
            alloc::format!(
                "cannot read {path:?}: it has more than {MAX_READ_BYTES} bytes; `get` gives any number"
            ),
            Some(Errno::FBIG.raw_os_error()),
        ),
        error => failed("read", path, error),
    })?;
    // A response whose content is empty, cut in two where the content goes.
    let empty = firebrick_protocol::files::FileContent {
        content: String::new(),
    };
    let mut line = rpc::result_line(id, empty);
    let end = line.split_off(line.len().saturating_sub("\"}}\n".len()));
    out.push(line);
    out.push_file(file, bytes);
    out.push(end);
    Ok(())
}

fn open_regular(path: &str) -> Result<OwnedFd, Errno> {
    // Without NONBLOCK, opening a FIFO waits for its other end.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_size > MAX_READ_BYTES as i64 => Err(Errno::FBIG),
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::INVAL),
    }
}

/// How long a file is, which must be UTF-8.
fn text_bytes(file: &OwnedFd) -> Result<u64, Errno> {
    let mut piece = [0u8; 16 * 1024];
    let (mut kept, mut total) = (0usize, 0u64);
    loop {
        let count = match rustix::io::read(file, piece.get_mut(kept..).unwrap_or_default()) {
            Ok(0) if kept == 0 => return Ok(total),
            Ok(0) => return Err(Errno::ILSEQ),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        total = total.saturating_add(count as u64);
        if total > MAX_READ_BYTES {
            return Err(Errno::FBIG);
        }
        let filled = kept.saturating_add(count);
        let whole = match core::str::from_utf8(piece.get(..filled).unwrap_or_default()) {
            Ok(_) => filled,
            // A letter that the next piece will complete.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(Errno::ILSEQ),
        };
        piece.copy_within(whole..filled, 0);
        kept = filled.saturating_sub(whole);
    }
}

pub(super) fn write_file(params: &WriteFile) -> Result<Written, RpcError> {
    let path = checked(&params.path)?;
    if let Some((above, _)) = path.rsplit_once('/').filter(|(above, _)| !above.is_empty()) {
        crate::file::make_dirs(above, 0o755).map_err(|error| failed("make the folder", above, error))?;
    }
    crate::file::write(path, params.content.as_bytes()).map_err(|error| failed("write", path, error))?;
    Ok(Written { success: true })
}

/// Puts the response to `list_dir` behind what waits, entry by entry.
pub(super) fn list_dir(params: &PathParams, id: &Id, out: &mut Outbox) -> Result<(), RpcError> {
    let path = checked(&params.path)?;
    let opened = || -> Result<_, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())?;
        let names = names(&folder, MAX_LIST_ENTRIES)?;
        Ok((folder, names))
    };
    let (folder, names) = opened().map_err(|error| failed("list", path, error))?;
    let nothing = Listing { entries: Vec::new() };
    let mut line = rpc::result_line(id, nothing);
    let end = line.split_off(line.len().saturating_sub("]}}\n".len()));
    let mut is_first = true;
    for name in names {
        let Ok(stat) = rustix::fs::statat(&folder, &*name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let entry = ListEntry {
            name: name.to_string_lossy().into_owned(),
            is_dir: kind == FileType::Directory,
            size: if kind == FileType::RegularFile {
                u64::try_from(stat.st_size).unwrap_or(0)
            } else {
                0
            },
        };
        if !core::mem::take(&mut is_first) {
            line.push(b',');
        }
        line.extend_from_slice(&serde_json::to_vec(&entry).unwrap_or_default());
    }
    line.extend_from_slice(&end);
    out.push(line);
    Ok(())
}

pub(super) fn stat(params: &StatParams) -> Result<FileStatus, RpcError> {
    if params.follow && params.place.root.is_some() {
        return Err(RpcError::invalid_params("`follow` and `root` exclude each other"));
    }
    let spot = place::find(&params.place, false)?;
    let flags = if params.follow {
        AtFlags::empty()
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    let stat = rustix::fs::statat(&spot.folder, &*spot.name, flags)
        .map_err(|error| failed("look at", &params.place.path, error))?;
    let kind = kind(&stat);
    let target = (kind == FileKind::Symlink)
        .then(|| rustix::fs::readlinkat(&spot.folder, &*spot.name, Vec::new()).ok())
        .flatten();
    Ok(FileStatus {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime_us: stat
            .st_mtime
            .saturating_mul(1_000_000)
            .saturating_add((stat.st_mtime_nsec / 1000) as i64),
        links: stat.st_nlink as u64,
        target: target.map(|target| target.to_string_lossy().into_owned()),
    })
}

fn kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => FileKind::Dir,
        FileType::Symlink => FileKind::Symlink,
        FileType::BlockDevice => FileKind::Block,
        FileType::CharacterDevice => FileKind::Char,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        _ => FileKind::File,
    }
}

/// Refuses to remove what everything else is in.
pub(super) fn check_removal(place: &Place) -> Result<(), RpcError> {
    if place::find(place, false)?.is_folder_itself() {
        return Err(RpcError::invalid_params(alloc::format!(
            "{:?} is the root itself",
            place.path
        )));
    }
    Ok(())
}

pub(super) fn remove(params: &Remove) -> Result<NoParams, RpcError> {
    let spot = place::find(&params.place, false)?;
    let removed = match rustix::fs::unlinkat(&spot.folder, &*spot.name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {
            rustix::fs::unlinkat(&spot.folder, &*spot.name, AtFlags::REMOVEDIR)
        }
        other => other,
    };
    removed.map_err(|error| failed("remove", &params.place.path, error))?;
    Ok(NoParams {})
}

pub(super) fn make_dir(params: &MakeDir) -> Result<NoParams, RpcError> {
    let owner = Owner::named(params.owner.as_deref())?;
    let mode = params.mode.unwrap_or(0o755);
    if mode > 0o7777 {
        return Err(RpcError::invalid_params(alloc::format!(
            "{mode} is no mode of a folder"
        )));
    }
    let spot = place::find(&params.place, params.parents)?;
    let make = || -> Result<(), Errno> {
        match rustix::fs::mkdirat(&spot.folder, &*spot.name, Mode::from_raw_mode(mode)) {
            Err(Errno::EXIST) if params.parents => {
                let stat = rustix::fs::statat(&spot.folder, &*spot.name, AtFlags::SYMLINK_NOFOLLOW)?;
                return match kind(&stat) {
                    FileKind::Dir => Ok(()),
                    _ => Err(Errno::EXIST),
                };
            }
            other => other?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&spot.folder, &*spot.name, flags, Mode::empty())?;
        if let Some(owner) = owner {
            let (uid, gid) = owner.ids();
            rustix::fs::fchown(&made, uid, gid)?;
        }
        // What the umask has taken away.
        rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))
    };
    make().map_err(|error| failed("make the folder", &params.place.path, error))?;
    Ok(NoParams {})
}

pub(super) fn reseed(params: &Reseed) -> Result<NoParams, RpcError> {
    let bytes = &params.data.0;
    if !(16..=crate::init::SEED_BYTES).contains(&bytes.len()) {
        return Err(RpcError::invalid_params("`data` has 16 to 64 bytes"));
    }
    crate::init::add_entropy(bytes)
        .and_then(|()| crate::init::reseed())
        .map_err(|error| {
            let reason = crate::errno::describe(error);
            RpcError::internal(
                alloc::format!("cannot reseed: {reason}"),
                Some(error.raw_os_error()),
            )
        })?;
    Ok(NoParams {})
}

pub(super) fn clock_sync(params: &ClockSync) -> Result<ClockSynced, RpcError> {
    let wanted_ns = params
        .unix_us
        .checked_mul(1000)
        .filter(|ns| i64::try_from(*ns).is_ok())
        .ok_or_else(|| RpcError::invalid_params("`unix_us` is too far in the future"))?;
    let before_us = Clock::Realtime.now_ns() / 1000;
    Clock::Realtime.set_ns(wanted_ns).map_err(|error| {
        let reason = crate::errno::describe(error);
        RpcError::internal(
            alloc::format!("cannot set the clock: {reason}"),
            Some(error.raw_os_error()),
        )
    })?;
    let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    Ok(ClockSynced {
        adjusted_us: signed(params.unix_us).saturating_sub(signed(before_us)),
    })
}
