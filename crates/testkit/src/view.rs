//! An image through the `ext4-view` crate: a reader that shares nothing with us or with the kernel.
//!
//! It shows no link counts, extended attributes or device numbers; compare with
//! [`Ignore::EXT4_VIEW`](crate::listing::Ignore::EXT4_VIEW).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use ext4_view::{Ext4, FileType, PathBuf};
use firebrick_digest::Hasher;

use crate::listing::{Kind, Listing, Record, Time};

/// Walks the image at `path`.
///
/// # Errors
/// If the crate refuses the image, or anything in it cannot be read.
pub fn view(path: &Path) -> anyhow::Result<Listing> {
    let filesystem =
        Ext4::load_from_path(path).with_context(|| format!("ext4-view: loading {}", path.display()))?;
    let mut listing = Listing::new();
    let mut pending = vec![PathBuf::new("/")];
    while let Some(path) = pending.pop() {
        let bytes: &[u8] = path.as_ref();
        let context = || format!("ext4-view: {}", String::from_utf8_lossy(bytes));
        let record = record(&filesystem, &path).with_context(context)?;
        if record.kind == Kind::Dir {
            for entry in filesystem.read_dir(&path).with_context(context)? {
                let entry = entry.with_context(context)?;
                if !matches!(entry.file_name().as_ref(), b"." | b"..") {
                    pending.push(entry.path());
                }
            }
        }
        listing.insert(bytes.to_vec(), record);
    }
    Ok(listing)
}

fn record(filesystem: &Ext4, path: &PathBuf) -> anyhow::Result<Record> {
    let metadata = filesystem.symlink_metadata(path)?;
    let kind = match metadata.file_type() {
        FileType::Directory => Kind::Dir,
        FileType::Regular => {
            let mut file = filesystem.open(path)?;
            let mut hasher = Hasher::new();
            let mut buffer = vec![0; 1 << 16];
            loop {
                let count = file.read_bytes(&mut buffer)?;
                if count == 0 {
                    break;
                }
                hasher.update(&buffer[..count]);
            }
            Kind::File {
                len: metadata.len(),
                digest: hasher.finish(),
            }
        }
        FileType::Symlink => {
            let target = filesystem.read_link(path)?;
            let bytes: &[u8] = target.as_ref();
            Kind::Symlink(bytes.to_vec())
        }
        FileType::CharacterDevice => Kind::Char(0, 0),
        FileType::BlockDevice => Kind::Block(0, 0),
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
    };
    let mtime = metadata.modified();
    let bytes: &[u8] = path.as_ref();
    Ok(Record {
        kind,
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: Time {
            secs: mtime.seconds(),
            nanos: mtime.nanoseconds(),
        },
        nlink: 0,
        same_as: bytes.to_vec(),
        xattrs: BTreeMap::new(),
    })
}

/// Whether version 1.0.0 of the crate can read such an image at all: it refuses times whose low 32 bits are negative
/// as a signed number, targets of 4095 bytes, and paths of over 1000 names. The kernel judges those alone.
pub fn can_show(listing: &Listing) -> bool {
    listing.iter().all(|(path, record)| {
        let long = matches!(&record.kind, Kind::Symlink(target) if target.len() >= 4095);
        let deep = path.iter().filter(|&&byte| byte == b'/').count() > 900;
        !long && !deep && record.mtime.secs & 0x8000_0000 == 0
    })
}
