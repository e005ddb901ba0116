//! `dir:PATH`: a folder as one canonical tar stream.
//!
//! The same tree gives the same bytes: names sorted by bytes within each folder, a folder before what it holds, no
//! owner names, hard links found by device and inode; headers are those of [`firebrick_layer::tar::Writer`]. Symbolic
//! links are never followed; every name is opened relative to the folder that holds it. Holes of sparse files stay
//! holes (module `holes`).
//!
//! ```text
//! [x header, records]  header  content, zeros up to 512   …   two blocks of zeros
//! ```

mod xattrs;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use firebrick_layer::tar::{Writer, WriterEntry};
use firebrick_tree::{DeviceKind, LayerPath, Metadata, Timestamp, Xattrs};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::SourceError;
use crate::holes::{self, HolesError};
use crate::image::file_error;
use xattrs::{Place, XattrsError};

const IN_MEMORY: &str = "writing to memory cannot fail";

pub(crate) fn open(path: &Path) -> Result<DirTar, SourceError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| file_error("open", path, error.into()))?;
    let mut tar = DirTar {
        root: path.to_owned(),
        stack: Vec::new(),
        links: HashMap::new(),
        pending: Vec::new(),
        pending_at: 0,
        body: None,
        finished: false,
    };
    let stat = rustix::fs::fstat(&fd).map_err(|error| file_error("examine", path, error.into()))?;
    let xattrs = tar.xattrs(&Place::Opened(fd.as_fd()), b"")?;
    tar.put(
        &LayerPath::root(),
        &metadata(&stat, xattrs),
        WriterEntry::Directory,
    );
    tar.enter(fd, Vec::new())?;
    Ok(tar)
}

/// The stream; see the module's front page.
pub(crate) struct DirTar {
    root: PathBuf,
    /// Folders being walked, the root first.
    stack: Vec<Level>,
    /// The first name of every inode that has several.
    links: HashMap<(u64, u64), LayerPath>,
    pending: Vec<u8>,
    pending_at: usize,
    body: Option<Body>,
    finished: bool,
}

struct Level {
    fd: OwnedFd,
    /// The folder's name with a slash at its end; empty for the root.
    prefix: Vec<u8>,
    /// Names still to come, the next one last.
    names: Vec<CString>,
}

struct Body {
    file: File,
    name: Vec<u8>,
    before: Stat,
    /// What is still to come, the next range last.
    parts: Vec<Range<u64>>,
    /// Length of all parts.
    len: u64,
}

impl DirTar {
    fn path(&self, name: &[u8]) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(name))
    }

    fn enter(&mut self, fd: OwnedFd, prefix: Vec<u8>) -> Result<(), SourceError> {
        let error = |error: Errno| file_error("list", &self.path(&prefix), error.into());
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd).map_err(error)? {
            let entry = entry.map_err(error)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
        self.stack.push(Level { fd, prefix, names });
        Ok(())
    }

    /// Puts the next entry's header into `pending` and its content into `body`.
    fn advance(&mut self) -> Result<(), SourceError> {
        self.pending.clear();
        self.pending_at = 0;
        loop {
            let Some(level) = self.stack.last_mut() else {
                Writer::new(&mut self.pending).finish().expect(IN_MEMORY);
                self.finished = true;
                return Ok(());
            };
            let Some(file_name) = level.names.pop() else {
                self.stack.pop();
                continue;
            };
            let name = [level.prefix.as_slice(), file_name.as_bytes()].concat();
            if file_name.as_bytes().starts_with(b".wh.") {
                return Err(SourceError::Unrepresentable {
                    path: self.path(&name),
                    problem: "names that start with \".wh.\" are whiteouts in layers",
                });
            }
            return self.add(&file_name, name);
        }
    }

    fn add(&mut self, file_name: &CStr, name: Vec<u8>) -> Result<(), SourceError> {
        let parent = &self.stack.last().expect("advance found a name in this level").fd;
        let path = self.path(&name);
        let examine = |error: Errno| file_error("examine", &path, error.into());
        let stat = rustix::fs::statat(parent, file_name, AtFlags::SYMLINK_NOFOLLOW).map_err(examine)?;
        let inode = (stat.st_dev, stat.st_ino);
        let file_type = FileType::from_raw_mode(stat.st_mode);
        if file_type == FileType::Directory {
            return self.add_folder(file_name, name);
        }
        let tar_path = self.tar_path(&name)?;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&inode).cloned() {
                let meta = metadata(&stat, Xattrs::new());
                self.put(&tar_path, &meta, WriterEntry::Hardlink(&first));
                return Ok(());
            }
            self.links.insert(inode, tar_path.clone());
        }
        if file_type == FileType::RegularFile {
            return self.add_file(file_name, name, inode);
        }
        let parent = &self.stack.last().expect("advance found a name in this level").fd;
        let target;
        let entry = match file_type {
            FileType::Symlink => {
                target = rustix::fs::readlinkat(parent, file_name, Vec::new()).map_err(examine)?;
                WriterEntry::Symlink(target.to_bytes())
            }
            FileType::CharacterDevice => device(DeviceKind::Char, &stat),
            FileType::BlockDevice => device(DeviceKind::Block, &stat),
            FileType::Fifo => WriterEntry::Fifo,
            FileType::Socket => WriterEntry::Socket,
            _ => {
                return Err(SourceError::Unrepresentable {
                    path,
                    problem: "its file type is unknown",
                });
            }
        };
        let xattrs = self.xattrs(&Place::Named(parent, file_name), &name)?;
        self.put(&tar_path, &metadata(&stat, xattrs), entry);
        Ok(())
    }

    /// Appends a header to `pending`.
    fn put(&mut self, path: &LayerPath, meta: &Metadata, entry: WriterEntry<'_>) {
        Writer::new(&mut self.pending)
            .entry(path, meta, entry)
            .expect(IN_MEMORY);
    }

    fn tar_path(&self, name: &[u8]) -> Result<LayerPath, SourceError> {
        LayerPath::parse(name).map_err(|_| SourceError::Unrepresentable {
            path: self.path(name),
            problem: "its path is longer than 4095 bytes, or a name in it longer than 255",
        })
    }

    fn xattrs(&self, place: &Place<'_>, name: &[u8]) -> Result<Xattrs, SourceError> {
        xattrs::read(place).map_err(|error| match error {
            XattrsError::Read(error) => {
                file_error("read the extended attributes of", &self.path(name), error.into())
            }
            XattrsError::Name => SourceError::Unrepresentable {
                path: self.path(name),
                problem: "the name of an extended attribute holds '='",
            },
        })
    }

    fn open_at(&self, file_name: &CStr, name: &[u8], more: OFlags) -> Result<(OwnedFd, Stat), SourceError> {
        let parent = &self.stack.last().expect("advance found a name in this level").fd;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
        let fd = rustix::fs::openat(parent, file_name, flags, Mode::empty())
            .map_err(|error| file_error("open", &self.path(name), error.into()))?;
        let stat =
            rustix::fs::fstat(&fd).map_err(|error| file_error("examine", &self.path(name), error.into()))?;
        Ok((fd, stat))
    }

    fn add_folder(&mut self, file_name: &CStr, mut name: Vec<u8>) -> Result<(), SourceError> {
        let (fd, stat) = self.open_at(file_name, &name, OFlags::DIRECTORY)?;
        let xattrs = self.xattrs(&Place::Opened(fd.as_fd()), &name)?;
        let tar_path = self.tar_path(&name)?;
        self.put(&tar_path, &metadata(&stat, xattrs), WriterEntry::Directory);
        name.push(b'/');
        self.enter(fd, name)
    }

    fn add_file(&mut self, file_name: &CStr, name: Vec<u8>, inode: (u64, u64)) -> Result<(), SourceError> {
        // Not blocking: the file may have become a FIFO since it was examined.
        let (fd, stat) = self.open_at(file_name, &name, OFlags::NONBLOCK)?;
        if (stat.st_dev, stat.st_ino) != inode {
            return Err(SourceError::Changed {
                path: self.path(&name),
                what: "it was replaced",
            });
        }
        let xattrs = self.xattrs(&Place::Opened(fd.as_fd()), &name)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let tar_path = self.tar_path(&name)?;
        let meta = metadata(&stat, xattrs);
        let file = File::from(fd);
        let found = holes::parts(&file, size).map_err(|error| self.holes_error(&name, error))?;
        let mut writer = Writer::new(&mut self.pending);
        let mut parts = match found {
            Some(parts) => {
                writer
                    .sparse_header(&tar_path, &meta, size, &parts)
                    .expect(IN_MEMORY);
                parts
            }
            None => {
                writer.file_header(&tar_path, &meta, size).expect(IN_MEMORY);
                Vec::from_iter((size > 0).then_some(0..size))
            }
        };
        parts.reverse();
        self.body = Some(Body {
            file,
            name,
            before: stat,
            len: parts.iter().map(|part| part.end - part.start).sum(),
            parts,
        });
        Ok(())
    }

    fn holes_error(&self, name: &[u8], error: HolesError) -> SourceError {
        let path = self.path(name);
        match error {
            HolesError::Read(source) => file_error("read", &path, source),
            HolesError::Shorter => SourceError::Changed {
                path,
                what: "it became shorter",
            },
            HolesError::TooMany => SourceError::Unrepresentable {
                path,
                problem: "it is sparse, with more than 1048576 separate parts",
            },
        }
    }

    fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let Some(body) = &mut self.body else {
            return Ok(0);
        };
        let changed = |what| SourceError::Changed {
            path: self.root.join(std::ffi::OsStr::from_bytes(&body.name)),
            what,
        };
        let failed = |source| {
            file_error(
                "read",
                &self.root.join(std::ffi::OsStr::from_bytes(&body.name)),
                source,
            )
        };
        if let Some(part) = body.parts.last_mut() {
            let left = part.end - part.start;
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let len = read_some(&body.file, &mut buffer[..want], part.start).map_err(failed)?;
            if len == 0 {
                return Err(changed("it became shorter"));
            }
            part.start += len as u64;
            if part.is_empty() {
                body.parts.pop();
            }
            return Ok(len);
        }
        let size = u64::try_from(body.before.st_size).unwrap_or(0);
        if read_some(&body.file, &mut [0], size).map_err(failed)? != 0 {
            return Err(changed("it became longer"));
        }
        let after = rustix::fs::fstat(&body.file).map_err(|error| failed(error.into()))?;
        let before = &body.before;
        if (after.st_size, after.st_mtime, after.st_mtime_nsec)
            != (before.st_size, before.st_mtime, before.st_mtime_nsec)
        {
            return Err(changed("its size or time of change differs"));
        }
        let len = body.len;
        self.pending.clear();
        self.pending_at = 0;
        Writer::new(&mut self.pending).pad(len).expect(IN_MEMORY);
        self.body = None;
        Ok(0)
    }
}

impl Read for DirTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let pending = &self.pending[self.pending_at..];
            if !pending.is_empty() {
                let len = pending.len().min(buffer.len());
                buffer[..len].copy_from_slice(&pending[..len]);
                self.pending_at += len;
                return Ok(len);
            }
            if self.body.is_some() {
                let len = self.read_body(buffer).map_err(SourceError::into_io)?;
                if len > 0 {
                    return Ok(len);
                }
                continue;
            }
            if self.finished {
                return Ok(0);
            }
            self.advance().map_err(SourceError::into_io)?;
        }
    }
}

fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn device(kind: DeviceKind, stat: &Stat) -> WriterEntry<'static> {
    WriterEntry::Device {
        kind,
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
    }
}

fn metadata(stat: &Stat, xattrs: Xattrs) -> Metadata {
    Metadata {
        mode: u16::try_from(stat.st_mode & 0o7777).expect("12 bits"),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Timestamp {
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
        xattrs,
    }
}
