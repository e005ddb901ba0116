//! From an image to the host: files and folders, by the rules that `docker cp` has. Images may be hostile: below the place
//! that was named, no symbolic link of the host is followed, and none that the image makes.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context as _;
use firebrick_tree::Timestamp;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::edited::Refusal;
use crate::image_file::{ImageFile, printable};
use crate::talk::Talk;
use crate::volume::{FileType, Inode};

/// Folders within folders at most; the host's own paths end long before.
const DEPTH_MAX: usize = 256;
/// So many zeros become a hole.
const HOLE: usize = 1 << 16;

/// Takes things out of an image.
pub(crate) struct Taker<'a> {
    image: &'a ImageFile,
    talk: &'a Talk,
}

impl<'a> Taker<'a> {
    pub(crate) fn new(image: &'a ImageFile, talk: &'a Talk) -> Taker<'a> {
        Taker { image, talk }
    }

    /// Puts what `inode` is at `host`, or into the folder there under `name`. `contents_only` means what is in a folder.
    pub(crate) fn take(
        &self,
        inode: &Inode,
        name: &[u8],
        contents_only: bool,
        host: &Path,
    ) -> anyhow::Result<()> {
        let is_folder = inode.stat.file_type == FileType::Directory;
        let there = std::fs::metadata(host).ok();
        let shown = host.display().to_string();
        let (folder, name) = match there {
            Some(there) if there.is_dir() && is_folder && contents_only => {
                let folder = open_folder(host)?;
                return self.folder_content(inode, &folder, 0);
            }
            Some(there) if there.is_dir() => (open_folder(host)?, name.to_vec()),
            Some(_) if is_folder => return Err(Refusal::FolderOverFile { path: shown }.into()),
            _ => {
                use std::os::unix::ffi::OsStrExt as _;
                if shown.ends_with('/') && !is_folder {
                    return Err(Refusal::NoFolderOnHost {
                        path: host.to_owned(),
                    }
                    .into());
                }
                let Some(name) = host.file_name() else {
                    return Err(Refusal::NoFolderOnHost {
                        path: host.to_owned(),
                    }
                    .into());
                };
                let above = host.parent().filter(|above| !above.as_os_str().is_empty());
                let folder = open_folder(above.unwrap_or(Path::new(".")))?;
                (folder, name.as_bytes().to_vec())
            }
        };
        if name.is_empty() {
            // The root itself has no name: into a folder that is there goes what is in it.
            return self.folder_content(inode, &folder, 0);
        }
        self.one(inode, &folder, &name, 0)
    }

    fn one(&self, inode: &Inode, folder: &OwnedFd, name: &[u8], depth: usize) -> anyhow::Result<()> {
        let writing = || format!("cannot write {:?}", printable(name));
        match inode.stat.file_type {
            FileType::Directory => self.folder(inode, folder, name, depth),
            FileType::Regular => self.file(inode, folder, name),
            FileType::Symlink => {
                let target = self.image.filesystem.read_link(inode)?;
                clear(folder, name).with_context(writing)?;
                rustix::fs::symlinkat(target.as_slice(), folder, name)
                    .map_err(io::Error::from)
                    .with_context(writing)?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                _ = rustix::fs::utimensat(folder, name, &times(inode.stat.mtime), flags);
                Ok(())
            }
            other => {
                self.talk
                    .warn(&format!("left out {}, which is a {other}", printable(name)));
                Ok(())
            }
        }
    }

    fn folder(&self, inode: &Inode, above: &OwnedFd, name: &[u8], depth: usize) -> anyhow::Result<()> {
        let making = || format!("cannot make the folder {:?}", printable(name));
        let mode = Mode::from_raw_mode(u32::from(inode.stat.mode) & 0o777);
        let made = match rustix::fs::mkdirat(above, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(io::Error::from(error)).with_context(making),
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(above, name, flags, Mode::empty())
            .map_err(io::Error::from)
            .with_context(making)?;
        self.folder_content(inode, &folder, depth + 1)?;
        if made {
            rustix::fs::fchmod(&folder, mode)
                .map_err(io::Error::from)
                .with_context(making)?;
            _ = rustix::fs::futimens(&folder, &times(inode.stat.mtime));
        }
        Ok(())
    }

    fn folder_content(&self, inode: &Inode, folder: &OwnedFd, depth: usize) -> anyhow::Result<()> {
        if depth > DEPTH_MAX {
            return Err(Refusal::TooDeep { limit: DEPTH_MAX }.into());
        }
        for (name, inode) in self.image.filesystem.list(inode)? {
            self.one(&inode, folder, &name, depth)?;
        }
        Ok(())
    }

    /// A file: new beside what has its name, and then in its place, so that it is there whole or as it was.
    fn file(&self, inode: &Inode, folder: &OwnedFd, name: &[u8]) -> anyhow::Result<()> {
        let writing = || format!("cannot write {:?}", printable(name));
        let temporary = format!(".firebrick-{}-{}", std::process::id(), inode.stat.inode);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(u32::from(inode.stat.mode) & 0o777);
        let opened = rustix::fs::openat(folder, temporary.as_str(), flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(opened.map_err(io::Error::from).with_context(writing)?);
        let written = self.content(inode, &mut file, name).and_then(|()| {
            rustix::fs::fchmod(&file, mode)
                .map_err(io::Error::from)
                .with_context(writing)?;
            _ = rustix::fs::futimens(&file, &times(inode.stat.mtime));
            rustix::fs::renameat(folder, temporary.as_str(), folder, name)
                .map_err(io::Error::from)
                .with_context(writing)
        });
        if written.is_err() {
            _ = rustix::fs::unlinkat(folder, temporary.as_str(), AtFlags::empty());
        }
        written
    }

    fn content(&self, inode: &Inode, to: &mut File, name: &[u8]) -> anyhow::Result<()> {
        let reading = || format!("cannot read {:?} in {:?}", printable(name), self.image.path);
        let writing = || format!("cannot write {:?}", printable(name));
        let mut from = self.image.filesystem.open_file(inode).with_context(reading)?;
        let mut buffer = vec![0; HOLE];
        loop {
            let len = from.read(&mut buffer).with_context(reading)?;
            let bytes = &buffer[..len];
            if bytes.is_empty() {
                break;
            }
            if len == HOLE && bytes.iter().all(|byte| *byte == 0) {
                to.seek(SeekFrom::Current(len as i64)).with_context(writing)?;
            } else {
                to.write_all(bytes).with_context(writing)?;
            }
        }
        to.set_len(inode.stat.size).with_context(writing)
    }
}

fn open_folder(path: &Path) -> anyhow::Result<OwnedFd> {
    let file = File::open(path).with_context(|| format!("cannot open the folder {path:?}"))?;
    Ok(file.into())
}

/// Removes what has this name, if it is no folder.
fn clear(folder: impl AsFd, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
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
