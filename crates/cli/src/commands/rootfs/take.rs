//! From an image to the host: files and folders, by the rules that `docker cp` has. Images may be hostile: below the place
//! that was named, no symbolic link of the host is followed, and none that the image makes.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::Context as _;
use firebrick_tree::Timestamp;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::put::USER_XATTRS;
use crate::edited::Refusal;
use crate::image_file::{ImageFile, printable};
use crate::talk::Talk;
use crate::volume::{FileType, Inode};

/// Folders within folders at most; the host's own paths end long before.
const DEPTH_MAX: usize = 256;
/// Bytes that are read and written at a time.
const PIECE: usize = 1 << 18;
/// So many zeros become a hole.
const HOLE: usize = 1 << 16;
static ZEROS: [u8; HOLE] = [0; HOLE];

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
            self.xattrs(inode, &folder, name)?;
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

    /// A file: made without a name where that can be, and whole before it has one.
    fn file(&self, inode: &Inode, folder: &OwnedFd, name: &[u8]) -> anyhow::Result<()> {
        let writing = || format!("cannot write {:?}", printable(name));
        let mut file = NewFile::in_folder(folder, inode.stat.inode).with_context(writing)?;
        self.content(inode, &mut file.file, name)?;
        self.xattrs(inode, &file.file, name)?;
        let mode = Mode::from_raw_mode(u32::from(inode.stat.mode) & 0o777);
        rustix::fs::fchmod(&file.file, mode)
            .map_err(io::Error::from)
            .with_context(writing)?;
        _ = rustix::fs::futimens(&file.file, &times(inode.stat.mtime));
        file.give_name(name).with_context(writing)
    }

    /// Gives it the attributes that users give; others mean something to the image's own kernel.
    fn xattrs(&self, inode: &Inode, to: impl AsFd, name: &[u8]) -> anyhow::Result<()> {
        let reading = || format!("cannot read {:?} in {:?}", printable(name), self.image.path);
        let xattrs = self.image.filesystem.xattrs(inode).with_context(reading)?;
        for (key, value) in xattrs.iter().filter(|(key, _)| key.starts_with(USER_XATTRS)) {
            if let Err(error) = rustix::fs::fsetxattr(&to, &**key, value, XattrFlags::empty()) {
                let (key, name) = (printable(key), printable(name));
                self.talk.warn(&format!(
                    "left out the attribute {key} of {name}: {}",
                    io::Error::from(error)
                ));
            }
        }
        Ok(())
    }

    fn content(&self, inode: &Inode, to: &mut File, name: &[u8]) -> anyhow::Result<()> {
        let reading = || format!("cannot read {:?} in {:?}", printable(name), self.image.path);
        let writing = || format!("cannot write {:?}", printable(name));
        let filesystem = &self.image.filesystem;
        let parts = filesystem.parts(inode).with_context(reading)?;
        let mut from = filesystem.open_file(inode).with_context(reading)?;
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        for part in parts {
            from.skip(part.start.saturating_sub(at)).with_context(reading)?;
            at = part.start;
            to.seek(SeekFrom::Start(at)).with_context(writing)?;
            while at < part.end {
                let most = usize::try_from(part.end - at).unwrap_or(PIECE).min(PIECE);
                let len = from.read(&mut buffer[..most]).with_context(reading)?;
                if len == 0 {
                    break; // shorter than it says, which its length then shows as zeros
                }
                for piece in buffer[..len].chunks(HOLE) {
                    match piece.len() == HOLE && piece == ZEROS {
                        true => _ = to.seek(SeekFrom::Current(HOLE as i64)).with_context(writing)?,
                        false => to.write_all(piece).with_context(writing)?,
                    }
                }
                at += len as u64;
            }
        }
        to.set_len(inode.stat.size).with_context(writing)
    }
}

/// A file on its way: a run that ends early, however it ends, leaves nothing of it where files need no name.
struct NewFile<'a> {
    folder: &'a OwnedFd,
    file: File,
    /// What it is called before it is whole, where it must have a name.
    temporary: String,
    is_named: bool,
}

impl<'a> NewFile<'a> {
    fn in_folder(folder: &'a OwnedFd, number: u32) -> io::Result<NewFile<'a>> {
        let temporary = format!(".firebrick-{}-{number}", std::process::id());
        let mode = Mode::RUSR | Mode::WUSR;
        let unnamed = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        // It gets its name through /proc.
        let can_link = Path::new("/proc/self/fd").exists();
        let opened = rustix::fs::openat(folder, ".", unnamed, mode);
        let (file, is_named) = match opened.ok().filter(|_| can_link) {
            Some(file) => (file, false),
            None => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                (rustix::fs::openat(folder, temporary.as_str(), flags, mode)?, true)
            }
        };
        Ok(NewFile {
            folder,
            file: file.into(),
            temporary,
            is_named,
        })
    }

    /// Puts it where its name says, in place of any file that is there.
    fn give_name(mut self, name: &[u8]) -> io::Result<()> {
        if !self.is_named {
            match self.link(name) {
                Err(Errno::EXIST) => {}
                other => return Ok(other?),
            }
            // Only a name can take another's place.
            self.link(self.temporary.as_bytes())?;
            self.is_named = true;
        }
        rustix::fs::renameat(self.folder, self.temporary.as_str(), self.folder, name)?;
        self.is_named = false;
        Ok(())
    }

    fn link(&self, name: &[u8]) -> Result<(), Errno> {
        let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(rustix::fs::CWD, unnamed, self.folder, name, flags)
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if self.is_named {
            _ = rustix::fs::unlinkat(self.folder, self.temporary.as_str(), AtFlags::empty());
        }
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
