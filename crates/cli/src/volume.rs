//! The filesystem in an image, whichever of those that firebrick makes: one way to ask both.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;

use anyhow::Context as _;
use firebrick_ext4::read as ext4;
use firebrick_reader::ReadAt;
use firebrick_squashfs::read as squashfs;
use firebrick_tree::{Timestamp, Xattrs};

use crate::error::CliError;

pub(crate) use firebrick_reader::{FileType, LastSymlink};

/// The first bytes of every squashfs.
const SQUASHFS: &[u8] = b"hsqs";

/// Zeros that are worth a hole, in bytes.
const HOLE: u64 = 1 << 16;

/// The first bytes of an image, in which its magic number is.
const START_LEN: usize = 2048;

/// Holes end where blocks do.
const BLOCK: usize = 4096;

/// `s_magic` of ext4, and where it stands.
const EXT4: (usize, &[u8]) = (1024 + 0x38, &[0x53, 0xef]);

/// The bytes of an image, wherever they are.
pub(crate) type Bytes = Box<dyn ReadAt + Send + Sync>;

/// What an image says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Squashfs,
}

impl Kind {
    /// By the magic number; `None` for any other.
    pub(crate) fn of<R: ReadAt>(bytes: &R) -> io::Result<Option<Kind>> {
        let len = usize::try_from(bytes.size_bytes()?).map_or(START_LEN, |len| len.min(START_LEN));
        let mut start = vec![0; len];
        bytes.read_exact_at(&mut start, 0)?;
        let (place, magic) = EXT4;
        let is_ext4 = || start.get(place..).is_some_and(|rest| rest.starts_with(magic));
        Ok(match start.starts_with(SQUASHFS) {
            true => Some(Kind::Squashfs),
            false => is_ext4().then_some(Kind::Ext4),
        })
    }
}

/// An opened filesystem.
pub(crate) enum Volume {
    Ext4(ext4::Filesystem<Bytes>),
    Squashfs(squashfs::Filesystem<Bytes>),
}

/// An inode of a [`Volume`].
pub(crate) struct Inode {
    pub(crate) stat: Stat,
    found: Found,
}

enum Found {
    Ext4(Box<ext4::Inode>),
    Squashfs(Box<squashfs::Inode>),
}

/// What both filesystems say of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) inode: u32,
    pub(crate) file_type: FileType,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) links: u32,
    pub(crate) mtime: Timestamp,
    /// Major and minor number of a device node.
    pub(crate) device: Option<(u32, u32)>,
}

/// What a regular file holds, from its first byte to its last.
pub(crate) enum Content<'a> {
    Ext4(ext4::FileReader<'a, Bytes>),
    Squashfs(squashfs::FileReader<'a, Bytes>),
}

impl Content<'_> {
    /// Goes on so many bytes further; where the filesystem knows its holes, at no cost.
    pub(crate) fn skip(&mut self, count: u64) -> io::Result<()> {
        match self {
            Content::Ext4(reader) => reader.skip(count),
            Content::Squashfs(reader) => _ = io::copy(&mut reader.take(count), &mut io::sink())?,
        }
        Ok(())
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Content::Ext4(reader) => reader.read(buffer),
            Content::Squashfs(reader) => reader.read(buffer),
        }
    }
}

impl Volume {
    /// Opens what is in an image, by its magic number.
    pub(crate) fn open(bytes: Bytes) -> anyhow::Result<Volume> {
        match Kind::of(&bytes)? {
            Some(Kind::Squashfs) => Ok(Volume::Squashfs(squashfs::Filesystem::open(bytes)?)),
            Some(Kind::Ext4) => Ok(Volume::Ext4(ext4::Filesystem::open(bytes)?)),
            None => Err(CliError::NoFilesystem.into()),
        }
    }

    /// Its name, as the kernel has it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Volume::Ext4(_) => "ext4",
            Volume::Squashfs(_) => "squashfs",
        }
    }

    /// How a squashfs is compressed, as `mksquashfs -comp` calls it.
    pub(crate) fn compression(&self) -> Option<&'static str> {
        match self {
            Volume::Ext4(_) => None,
            Volume::Squashfs(filesystem) => Some(filesystem.summary().compression.name()),
        }
    }

    /// What stands at a path.
    pub(crate) fn lookup(&self, path: &OsStr, last: LastSymlink) -> anyhow::Result<Inode> {
        let path = path.as_bytes();
        Ok(match self {
            Volume::Ext4(filesystem) => filesystem.lookup(path, last)?.into(),
            Volume::Squashfs(filesystem) => filesystem.lookup(path, last)?.into(),
        })
    }

    /// As [`Volume::lookup`], following symbolic links; `None` where there is nothing.
    pub(crate) fn find(&self, path: &OsStr) -> anyhow::Result<Option<Inode>> {
        match self.lookup(path, LastSymlink::Follow) {
            Ok(inode) => Ok(Some(inode)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a folder holds, in the order of the names' bytes.
    pub(crate) fn list(&self, folder: &Inode) -> anyhow::Result<Vec<(Vec<u8>, Inode)>> {
        Ok(match (self, &folder.found) {
            (Volume::Ext4(filesystem), Found::Ext4(inode)) => filesystem
                .list(inode)?
                .into_iter()
                .map(|(entry, inode)| (entry.name.into_vec(), inode.into()))
                .collect(),
            (Volume::Squashfs(filesystem), Found::Squashfs(inode)) => filesystem
                .list(inode)?
                .into_iter()
                .map(|(entry, inode)| (entry.name.into_vec(), inode.into()))
                .collect(),
            _ => unreachable!("inodes are asked of the filesystem that they are of"),
        })
    }

    /// Where a symbolic link leads.
    pub(crate) fn read_link(&self, link: &Inode) -> anyhow::Result<Vec<u8>> {
        Ok(match (self, &link.found) {
            (Volume::Ext4(filesystem), Found::Ext4(inode)) => filesystem.read_link(inode)?,
            (Volume::Squashfs(filesystem), Found::Squashfs(inode)) => filesystem.read_link(inode)?,
            _ => unreachable!("inodes are asked of the filesystem that they are of"),
        })
    }

    /// The content of a regular file.
    pub(crate) fn open_file<'a>(&'a self, file: &'a Inode) -> anyhow::Result<Content<'a>> {
        Ok(match (self, &file.found) {
            (Volume::Ext4(filesystem), Found::Ext4(inode)) => Content::Ext4(filesystem.open_file(inode)?),
            (Volume::Squashfs(filesystem), Found::Squashfs(inode)) => {
                Content::Squashfs(filesystem.open_file(inode)?)
            }
            _ => unreachable!("inodes are asked of the filesystem that they are of"),
        })
    }

    /// Visits everything, parents before their children; paths have no leading slash, the root's is empty.
    pub(crate) fn walk(
        &self,
        each: &mut dyn FnMut(&[u8], Inode) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Volume::Ext4(filesystem) => {
                let mut walk = filesystem.walk(filesystem.inode(ext4::InodeNumber::ROOT)?);
                while let Some(visit) = walk.advance()? {
                    each(visit.path, visit.inode.into())?;
                }
            }
            Volume::Squashfs(filesystem) => {
                let mut walk = filesystem.walk(filesystem.root()?);
                while let Some(visit) = walk.advance()? {
                    each(visit.path, visit.inode.into())?;
                }
            }
        }
        Ok(())
    }

    /// Extended attributes, as `getxattr(2)` would give them.
    pub(crate) fn xattrs(&self, inode: &Inode) -> anyhow::Result<Xattrs> {
        Ok(match (self, &inode.found) {
            (Volume::Ext4(filesystem), Found::Ext4(inode)) => filesystem.xattrs(inode)?,
            (Volume::Squashfs(filesystem), Found::Squashfs(inode)) => filesystem.xattrs(inode)?,
            _ => unreachable!("inodes are asked of the filesystem that they are of"),
        })
    }

    /// The parts of a file that are not holes: they rise and do not touch. In a squashfs a hole is zeros that are long enough.
    pub(crate) fn parts(&self, file: &Inode) -> anyhow::Result<Vec<Range<u64>>> {
        let size = file.stat.size;
        let mut parts: Vec<Range<u64>> = Vec::new();
        let mut add = |start: u64, end: u64, gap: u64| {
            let (start, end) = (start.min(size), end.min(size));
            match parts.last_mut() {
                Some(last) if start - last.end <= gap => last.end = end,
                _ if start < end => parts.push(start..end),
                _ => {}
            }
        };
        match (self, &file.found) {
            (Volume::Ext4(filesystem), Found::Ext4(inode)) => {
                let block = u64::from(filesystem.summary().block_size);
                for run in filesystem.runs(inode)? {
                    let run = run?;
                    if run.physical.is_some() {
                        let start = run.logical.saturating_mul(block);
                        let end = start.saturating_add(run.blocks.saturating_mul(block));
                        add(start, end, 0);
                    }
                }
            }
            _ if size < HOLE => add(0, size, 0),
            _ => {
                let mut content = self.open_file(file)?;
                let (mut at, mut piece) = (0, Vec::new());
                while at < size {
                    piece.clear();
                    let len = content.by_ref().take(HOLE).read_to_end(&mut piece)?;
                    anyhow::ensure!(len > 0, "it ends before its length of {size} bytes");
                    for block in piece.chunks(BLOCK) {
                        let end = at + block.len() as u64;
                        if block.iter().any(|byte| *byte != 0) {
                            add(at, end, HOLE);
                        }
                        at = end;
                    }
                }
            }
        }
        Ok(parts)
    }

    /// When the filesystem was made; 1970 where that is not known.
    pub(crate) fn created(&self) -> Timestamp {
        match self {
            Volume::Ext4(filesystem) => filesystem.summary().created.unwrap_or_default(),
            Volume::Squashfs(filesystem) => Timestamp {
                seconds: filesystem.summary().made_unix.into(),
                nanoseconds: 0,
            },
        }
    }

    /// The first bytes of a file, at most `len_max`, symbolic links followed; `None` where there is no regular file.
    pub(crate) fn start_of(&self, path: &OsStr, len_max: u64) -> anyhow::Result<Option<Vec<u8>>> {
        let found = self
            .find(path)
            .with_context(|| format!("cannot look up {path:?}"))?;
        let Some(inode) = found.filter(|inode| inode.stat.file_type == FileType::Regular) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        self.open_file(&inode)?.take(len_max).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    let of_ext4 = error.downcast_ref::<ext4::ReadError>();
    let of_squashfs = error.downcast_ref::<squashfs::ReadError>();
    matches!(
        of_ext4,
        Some(ext4::ReadError::NotFound { .. } | ext4::ReadError::NotDirectory { .. })
    ) || matches!(
        of_squashfs,
        Some(squashfs::ReadError::NotFound { .. } | squashfs::ReadError::NotDirectory { .. })
    )
}

impl From<ext4::Inode> for Inode {
    fn from(inode: ext4::Inode) -> Inode {
        let stat = inode.stat();
        Inode {
            stat: Stat {
                inode: stat.inode.get(),
                file_type: stat.file_type,
                mode: stat.mode,
                uid: stat.uid,
                gid: stat.gid,
                size: stat.size,
                links: stat.links.into(),
                mtime: stat.mtime,
                device: stat.device.map(|device| (device.major, device.minor)),
            },
            found: Found::Ext4(Box::new(inode)),
        }
    }
}

impl From<squashfs::Inode> for Inode {
    fn from(inode: squashfs::Inode) -> Inode {
        let stat = inode.stat();
        Inode {
            stat: Stat {
                inode: stat.inode,
                file_type: stat.file_type,
                mode: stat.mode,
                uid: stat.uid,
                gid: stat.gid,
                size: stat.size,
                links: stat.links,
                mtime: stat.mtime,
                device: stat.device.map(|device| (device.major, device.minor)),
            },
            found: Found::Squashfs(Box::new(inode)),
        }
    }
}

impl Stat {
    /// Type and permissions as `ls -l` writes them: `drwxr-xr-x`.
    pub(crate) fn mode_text(&self) -> String {
        firebrick_reader::mode_text(self.file_type, self.mode)
    }
}
