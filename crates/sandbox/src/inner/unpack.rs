//! Unpacks a flat tar into the copy.
//!
//! A scan gives a file's bytes before its entry. They go to a file beside the copy, which gets its owner, mode and attributes and then
//! its name, by rename. What an unprivileged user namespace cannot make (device nodes, some attributes, owners beyond its ids) is
//! kept as an [`Origin`] and stands in the layer again if the step changes the file.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use firebrick_layer::RegionSink;
use firebrick_tree::{DeviceKind, Entry, EntryKind, FileData, Metadata, Timestamp, Xattrs};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};

use super::compare::split;
use super::record::open;
use super::{Doing as _, Failure, shown};

/// Where a file's bytes go until it has a name.
const PENDING: &str = "/pending";

/// What stands in for a device node, which no unprivileged user namespace can make.
pub(crate) const DEVICE: &[u8] = b"firebrick: a device node of the image stands here\n";

/// User and group, as the base says.
type Owner = (u32, u32);

/// What the base says of a path, where the copy cannot show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Its owner, if it has another one in the copy.
    pub(crate) owner: Option<Owner>,
    /// Attributes that the copy does not take.
    pub(crate) xattrs: Xattrs,
}

/// What the copy cannot show.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    pub(crate) paths: BTreeMap<Box<[u8]>, Origin>,
    /// Stand-ins for device nodes, by inode.
    pub(crate) devices: HashMap<u64, (DeviceKind, u32, u32)>,
}

/// Takes the entries of a scan.
pub(crate) struct Sink<'a> {
    root: &'a OwnedFd,
    ids: u32,
    pub(crate) origins: Origins,
    pending: Option<File>,
    /// Bytes appended since the last entry.
    pending_len: u64,
    /// Bytes of the region before those.
    region_len: u64,
    /// The last parent, still open.
    parent: Option<(Box<[u8]>, OwnedFd)>,
    folders: Vec<(Box<[u8]>, Timestamp)>,
    /// What went wrong, in words: the scan passes on only what kind it was.
    pub(crate) failure: Option<Failure>,
}

impl RegionSink for Sink<'_> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.pending.is_none() {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(true);
            self.pending = Some(options.open(PENDING)?);
        }
        if let Some(file) = &self.pending {
            file.write_all_at(bytes, self.pending_len)?;
        }
        self.pending_len += bytes.len() as u64;
        Ok(())
    }

    fn append_zeros(&mut self, len: usize) -> io::Result<()> {
        self.pending_len += len as u64;
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let made = self.make(entry);
        self.region_len += self.pending_len;
        self.pending_len = 0;
        made.map_err(|failure| {
            let error = io::Error::other(failure.0.clone());
            self.failure = Some(failure);
            error
        })
    }
}

impl<'a> Sink<'a> {
    pub(crate) fn new(root: &'a OwnedFd, ids: u32) -> Sink<'a> {
        Sink {
            root,
            ids,
            origins: Origins::default(),
            pending: None,
            pending_len: 0,
            region_len: 0,
            parent: None,
            folders: Vec::new(),
            failure: None,
        }
    }

    fn make(&mut self, entry: &Entry) -> Result<(), Failure> {
        let path = entry.path.as_bytes();
        let what = || format!("unpack {}", shown(path));
        if let EntryKind::Directory = entry.kind {
            return self.folder(path, &entry.meta);
        }
        let (parent, name) = split(path);
        self.enter(parent)?;
        let folder = &self.parent.as_ref().expect("it was just entered").1;
        let plain = Mode::from_raw_mode(0o600);
        match &entry.kind {
            EntryKind::File(data) => {
                let file = self.content(data).doing(what)?;
                let origin = self.dress(&file, path, &entry.meta)?;
                drop(file);
                let folder = &self.parent.as_ref().expect("it was just entered").1;
                rustix::fs::renameat(CWD, PENDING, folder, name).doing(what)?;
                self.keep(path, origin);
                Ok(())
            }
            EntryKind::Hardlink(target) => {
                let (from, from_name) = split(target.as_bytes());
                let from = open(self.root, from, OFlags::PATH | OFlags::DIRECTORY).doing(what)?;
                rustix::fs::linkat(from, from_name, folder, name, AtFlags::empty()).doing(what)?;
                if let Some(origin) = self.origins.paths.get(target.as_bytes()).cloned() {
                    self.keep(path, origin);
                }
                Ok(())
            }
            EntryKind::Symlink(target) => {
                rustix::fs::symlinkat(&**target, folder, name).doing(what)?;
                self.dress_special(path, &entry.meta)
            }
            EntryKind::Fifo | EntryKind::Socket => {
                let kind = if entry.kind == EntryKind::Fifo {
                    FileType::Fifo
                } else {
                    FileType::Socket
                };
                rustix::fs::mknodat(folder, name, kind, plain, 0).doing(what)?;
                self.dress_special(path, &entry.meta)
            }
            EntryKind::Device { kind, major, minor } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::openat(folder, name, flags, plain).doing(what)?);
                io::Write::write_all(&mut &file, DEVICE).doing(what)?;
                let ino = rustix::fs::fstat(&file).doing(what)?.st_ino;
                self.origins.devices.insert(ino, (*kind, *major, *minor));
                let origin = self.dress(&file, path, &entry.meta)?;
                self.keep(path, origin);
                Ok(())
            }
            EntryKind::Directory | EntryKind::Whiteout | EntryKind::OpaqueWhiteout => {
                Err(Failure(format!("{}: a whiteout in a flat tar", what())))
            }
        }
    }

    fn folder(&mut self, path: &[u8], meta: &Metadata) -> Result<(), Failure> {
        let what = || format!("unpack {}", shown(path));
        if !path.is_empty() {
            let (parent, name) = split(path);
            self.enter(parent)?;
            let parent = &self.parent.as_ref().expect("it was just entered").1;
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)).doing(what)?;
        }
        let folder = open(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY).doing(what)?;
        let origin = self.dress(&folder, path, meta)?;
        self.keep(path, origin);
        // What is put into it sets its time again.
        self.folders.push((path.into(), meta.mtime));
        Ok(())
    }

    /// Sets folders' times, once everything is in them.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        while let Some((path, time)) = self.folders.pop() {
            let folder = open(self.root, &path, OFlags::RDONLY | OFlags::DIRECTORY)
                .doing(|| format!("open {}", shown(&path)))?;
            rustix::fs::futimens(&folder, &times(time))
                .doing(|| format!("set the time of {}", shown(&path)))?;
        }
        _ = rustix::fs::unlink(PENDING);
        Ok(())
    }

    /// Opens a parent, or takes the last one again.
    fn enter(&mut self, path: &[u8]) -> Result<(), Failure> {
        if self.parent.as_ref().is_none_or(|(last, _)| &**last != path) {
            let folder = open(self.root, path, OFlags::PATH | OFlags::DIRECTORY)
                .doing(|| format!("open {}", shown(path)))?;
            self.parent = Some((path.into(), folder));
        }
        Ok(())
    }

    /// The file at [`PENDING`] with its content as it shall be.
    fn content(&mut self, data: &FileData) -> io::Result<File> {
        let packed = self.pending.take();
        let in_place = match data.segments.as_slice() {
            [] => data.size == 0,
            [only] => only.file_offset == 0 && only.region_offset == self.region_len,
            _ => false,
        };
        if let Some(file) = &packed
            && in_place
        {
            file.set_len(data.size)?;
            return Ok(packed.expect("it is there"));
        }
        _ = rustix::fs::unlink(PENDING);
        let file = File::create_new(PENDING)?;
        if let Some(packed) = packed {
            let mut buffer = vec![0; 256 << 10];
            for segment in &data.segments {
                let from = segment.region_offset.saturating_sub(self.region_len);
                let mut done = 0;
                while done < segment.len {
                    let len = usize::try_from(segment.len - done)
                        .unwrap_or(usize::MAX)
                        .min(buffer.len());
                    packed.read_exact_at(&mut buffer[..len], from + done)?;
                    file.write_all_at(&buffer[..len], segment.file_offset + done)?;
                    done += len as u64;
                }
            }
        }
        file.set_len(data.size)?;
        Ok(file)
    }

    /// Owner, mode, attributes and time of something that is open.
    fn dress(&self, file: &impl AsFd, path: &[u8], meta: &Metadata) -> Result<Origin, Failure> {
        let (owner, ids) = self.owner(meta);
        if let Some((uid, gid)) = ids {
            rustix::fs::fchown(file, Some(uid), Some(gid))
                .doing(|| format!("change the owner of {}", shown(path)))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(meta.mode.into()))
            .doing(|| format!("change the mode of {}", shown(path)))?;
        let mut xattrs = Xattrs::new();
        for (name, value) in &meta.xattrs {
            if rustix::fs::fsetxattr(file, &**name, value, XattrFlags::empty()).is_err() {
                xattrs.insert(name.clone(), value.clone());
            }
        }
        rustix::fs::futimens(file, &times(meta.mtime))
            .doing(|| format!("set the time of {}", shown(path)))?;
        Ok(Origin { owner, xattrs })
    }

    /// The same for what cannot be opened.
    fn dress_special(&mut self, path: &[u8], meta: &Metadata) -> Result<(), Failure> {
        let (folder, name) = (
            &self.parent.as_ref().expect("it was just entered").1,
            split(path).1,
        );
        let (owner, ids) = self.owner(meta);
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        if let Some((uid, gid)) = ids {
            rustix::fs::chownat(folder, name, Some(uid), Some(gid), nofollow)
                .doing(|| format!("change the owner of {}", shown(path)))?;
        }
        let stat = rustix::fs::statat(folder, name, nofollow).doing(|| format!("look at {}", shown(path)))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            rustix::fs::chmodat(
                folder,
                name,
                Mode::from_raw_mode(meta.mode.into()),
                AtFlags::empty(),
            )
            .doing(|| format!("change the mode of {}", shown(path)))?;
        }
        rustix::fs::utimensat(folder, name, &times(meta.mtime), nofollow)
            .doing(|| format!("set the time of {}", shown(path)))?;
        let origin = Origin {
            owner,
            xattrs: meta.xattrs.clone(),
        };
        self.keep(path, origin);
        Ok(())
    }

    /// The owner that the copy cannot show, and the one to set.
    fn owner(&self, meta: &Metadata) -> (Option<Owner>, Option<(Uid, Gid)>) {
        let own = (meta.uid, meta.gid);
        if self.ids == 1 {
            return ((own != (0, 0)).then_some(own), None);
        }
        let here = |id: u32| if id < self.ids { id } else { 0 };
        let set = (here(meta.uid), here(meta.gid));
        let ids = (Uid::from_raw(set.0), Gid::from_raw(set.1));
        ((own != set).then_some(own), Some(ids))
    }

    fn keep(&mut self, path: &[u8], origin: Origin) {
        if origin != Origin::default() {
            self.origins.paths.insert(path.into(), origin);
        }
    }
}

fn times(time: Timestamp) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
