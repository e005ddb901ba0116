//! An image through our own reader, [`firebrick_ext4::read`].

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::Context as _;
use firebrick_digest::Hasher;
use firebrick_ext4::read::{FileType, Filesystem, Inode, InodeNumber};
use firebrick_tree::Timestamp;

use crate::listing::{Kind, Listing, Record, Time, without_lost_and_found};

/// Walks the image at `path`, without its empty `/lost+found`.
///
/// # Errors
/// If the reader refuses the image or anything in it, or a path has several times.
pub fn listing(path: &Path) -> anyhow::Result<Listing> {
    let filesystem = Filesystem::open(File::open(path)?)?;
    let mut walk = filesystem.walk(filesystem.inode(InodeNumber::ROOT)?);
    let mut listing = Listing::new();
    let mut first_of: BTreeMap<InodeNumber, Vec<u8>> = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    while let Some(visit) = walk.advance()? {
        let path = [b"/", visit.path].concat();
        let context = || format!("our own reader: {}", String::from_utf8_lossy(&path));
        let record = record(&filesystem, &visit.inode).with_context(context)?;
        let stat = visit.inode.stat();
        let created = stat.created.with_context(context)?;
        record.check_times(&path, [stat.atime, stat.ctime, created].map(time))?;
        listing.insert(path.clone(), record);
        let first = first_of
            .entry(visit.inode.number())
            .or_insert_with(|| path.clone());
        if path < *first {
            first.clone_from(&path);
        }
        numbers.insert(path, visit.inode.number());
    }
    for (path, record) in &mut listing {
        record.same_as.clone_from(&first_of[&numbers[path]]);
    }
    Ok(without_lost_and_found(listing))
}

fn time(time: Timestamp) -> Time {
    Time {
        secs: time.seconds,
        nanos: time.nanoseconds,
    }
}

fn record(filesystem: &Filesystem<File>, inode: &Inode) -> anyhow::Result<Record> {
    let stat = inode.stat();
    let device = || stat.device.context("a device node without a number");
    let kind = match stat.file_type {
        FileType::Regular => {
            let mut reader = filesystem.open_file(inode)?;
            let (mut hasher, mut len, mut buffer) = (Hasher::new(), 0, vec![0; 1 << 17]);
            loop {
                let count = reader.read_some(&mut buffer)?;
                if count == 0 {
                    break;
                }
                hasher.update(&buffer[..count]);
                len += count as u64;
            }
            Kind::File {
                len,
                digest: hasher.finish(),
            }
        }
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink(filesystem.read_link(inode)?),
        FileType::CharDevice => device().map(|device| Kind::Char(device.major, device.minor))?,
        FileType::BlockDevice => device().map(|device| Kind::Block(device.major, device.minor))?,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
    };
    let xattrs = filesystem.xattrs(inode)?;
    Ok(Record {
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: time(stat.mtime),
        nlink: stat.links.into(),
        same_as: Vec::new(),
        xattrs: xattrs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
    })
}
