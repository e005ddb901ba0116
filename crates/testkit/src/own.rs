//! An image through our own readers, [`firebrick_ext4::read`] and [`firebrick_squashfs::read`].

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use firebrick_digest::Hasher;
use firebrick_reader::{DeviceNumber, Directories, FileType};
use firebrick_tree::Timestamp;
use {firebrick_ext4 as ext4, firebrick_squashfs as squashfs};

use crate::listing::{Kind, Listing, Record, Time, without_lost_and_found};

/// Walks the ext4 image at `path`, without its empty `/lost+found`.
///
/// # Errors
/// If the reader refuses the image or anything in it, or a path has several times.
pub fn listing(path: &Path) -> anyhow::Result<Listing> {
    let filesystem = ext4::read::Filesystem::open(File::open(path)?)?;
    let listing = walk(&filesystem, |path, inode| {
        let stat = inode.stat();
        let kind = match stat.file_type {
            FileType::Regular => {
                let mut reader = filesystem.open_file(inode)?;
                file(|buffer| reader.read_some(buffer))?
            }
            FileType::Symlink => Kind::Symlink(filesystem.read_link(inode)?),
            other => kind(other, stat.device)?,
        };
        let record = Record {
            kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            mtime: time(stat.mtime),
            nlink: stat.links.into(),
            same_as: Vec::new(),
            xattrs: owned(filesystem.xattrs(inode)?),
        };
        let created = stat.created.context("no time of creation")?;
        record.check_times(path, [stat.atime, stat.ctime, created].map(time))?;
        Ok(record)
    })?;
    Ok(without_lost_and_found(listing))
}

/// Walks the squashfs image at `path`.
///
/// # Errors
/// If the reader refuses the image or anything in it.
pub fn squashfs_listing(path: &Path) -> anyhow::Result<Listing> {
    let filesystem = squashfs::read::Filesystem::open(File::open(path)?)?;
    walk(&filesystem, |_, inode| {
        let stat = inode.stat();
        let kind = match stat.file_type {
            FileType::Regular => {
                let mut reader = filesystem.open_file(inode)?;
                file(|buffer| reader.read_some(buffer))?
            }
            FileType::Symlink => Kind::Symlink(filesystem.read_link(inode)?),
            other => kind(other, stat.device)?,
        };
        Ok(Record {
            kind,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            mtime: time(stat.mtime),
            nlink: stat.links.into(),
            same_as: Vec::new(),
            xattrs: owned(filesystem.xattrs(inode)?),
        })
    })
}

/// What `record` makes of everything in a filesystem, and which paths are one inode.
fn walk<F>(
    filesystem: &F,
    mut record: impl FnMut(&[u8], &F::Inode) -> anyhow::Result<Record>,
) -> anyhow::Result<Listing>
where
    F: Directories<Error: Error + Send + Sync + 'static>,
{
    let mut walk = firebrick_reader::Walk::new(filesystem, filesystem.root_inode()?);
    let mut listing = Listing::new();
    let mut first_of: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    while let Some(visit) = walk.advance()? {
        let path = [b"/", visit.path].concat();
        let record = record(&path, &visit.inode)
            .with_context(|| format!("our own reader: {}", String::from_utf8_lossy(&path)))?;
        listing.insert(path.clone(), record);
        let number = F::number(&visit.inode);
        let first = first_of.entry(number).or_insert_with(|| path.clone());
        if path < *first {
            first.clone_from(&path);
        }
        numbers.insert(path, number);
    }
    for (path, record) in &mut listing {
        record.same_as.clone_from(&first_of[&numbers[path]]);
    }
    Ok(listing)
}

/// What a file holds that `read` gives piece by piece.
fn file<E>(mut read: impl FnMut(&mut [u8]) -> Result<usize, E>) -> Result<Kind, E> {
    let (mut hasher, mut len, mut buffer) = (Hasher::new(), 0, vec![0; 1 << 17]);
    loop {
        let count = read(&mut buffer)?;
        if count == 0 {
            let digest = hasher.finish();
            return Ok(Kind::File { len, digest });
        }
        hasher.update(&buffer[..count]);
        len += count as u64;
    }
}

/// What has neither bytes nor a target.
fn kind(file_type: FileType, device: Option<DeviceNumber>) -> anyhow::Result<Kind> {
    let device = || device.context("a device node without a number");
    Ok(match file_type {
        FileType::Directory => Kind::Dir,
        FileType::CharDevice => device().map(|device| Kind::Char(device.major, device.minor))?,
        FileType::BlockDevice => device().map(|device| Kind::Block(device.major, device.minor))?,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Regular | FileType::Symlink => unreachable!("they have contents"),
    })
}

fn time(time: Timestamp) -> Time {
    Time {
        secs: time.seconds,
        nanos: time.nanoseconds,
    }
}

fn owned<N: Into<Vec<u8>>, V: Into<Vec<u8>>>(
    xattrs: impl IntoIterator<Item = (N, V)>,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let owned = |(name, value): (N, V)| (name.into(), value.into());
    xattrs.into_iter().map(owned).collect()
}
