//! A folder of the host as a [`Listing`]: what the kernel says, by `lstat`, `readlink`, `listxattr` and reading.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use firebrick_digest::{Digest, Hasher};

use crate::listing::{Kind, Listing, Record, Time};

/// Walks everything below `root`, which becomes `/`.
///
/// # Errors
/// If anything there cannot be read; nothing is left out.
pub fn walk(root: &Path) -> anyhow::Result<Listing> {
    let mut listing = Listing::new();
    let mut first_of: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let host = on_host(root, &path);
        let context = || format!("walking {}", host.display());
        let metadata = std::fs::symlink_metadata(&host).with_context(context)?;
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&host).with_context(context)? {
                let name = entry.with_context(context)?.file_name();
                pending.push([path.as_slice(), b"/", name.as_bytes()].concat());
            }
        }
        let record = record(&host, &metadata).with_context(context)?;
        let path = if path.is_empty() { b"/".to_vec() } else { path };
        let first = first_of.entry(metadata.ino()).or_insert_with(|| path.clone());
        if path < *first {
            first.clone_from(&path);
        }
        inodes.insert(path.clone(), metadata.ino());
        listing.insert(path, record);
    }
    for (path, record) in &mut listing {
        record.same_as.clone_from(&first_of[&inodes[path]]);
    }
    Ok(listing)
}

/// Checks that each path's access, change and creation time is its modification time, which is what an image of ours says
/// (`docs/merge.md`, Metadata). The mount must be read-only, or walking it changes them.
///
/// # Errors
/// The first path of which that is not true, with its times.
pub fn same_times(root: &Path, listing: &Listing) -> anyhow::Result<()> {
    for (path, record) in listing {
        let host = on_host(root, path);
        let metadata = std::fs::symlink_metadata(&host)?;
        let btime = rustix::fs::statx(
            rustix::fs::CWD,
            &host,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            rustix::fs::StatxFlags::BTIME,
        )?
        .stx_btime;
        let times = [
            (metadata.atime(), metadata.atime_nsec().try_into()?),
            (metadata.ctime(), metadata.ctime_nsec().try_into()?),
            (btime.tv_sec, btime.tv_nsec),
        ];
        record.check_times(path, times.map(|(secs, nanos)| Time { secs, nanos }))?;
    }
    Ok(())
}

fn on_host(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

fn record(host: &Path, metadata: &std::fs::Metadata) -> anyhow::Result<Record> {
    let file_type = metadata.file_type();
    let rdev = metadata.rdev();
    let device = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let kind = if file_type.is_dir() {
        Kind::Dir
    } else if file_type.is_file() {
        let (len, digest) = content(host)?;
        anyhow::ensure!(
            len == metadata.len(),
            "stat says {} bytes, reading gives {len}",
            metadata.len()
        );
        Kind::File { len, digest }
    } else if file_type.is_symlink() {
        Kind::Symlink(std::fs::read_link(host)?.as_os_str().as_bytes().to_vec())
    } else if file_type.is_char_device() {
        Kind::Char(device.0, device.1)
    } else if file_type.is_block_device() {
        Kind::Block(device.0, device.1)
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else {
        Kind::Socket
    };
    Ok(Record {
        kind,
        mode: (metadata.mode() & 0o7777).try_into()?,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: Time {
            secs: metadata.mtime(),
            nanos: metadata.mtime_nsec().try_into()?,
        },
        nlink: metadata.nlink(),
        same_as: Vec::new(),
        xattrs: xattrs(host)?,
    })
}

fn content(host: &Path) -> anyhow::Result<(u64, Digest)> {
    let mut file = File::open(host)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 17];
    let mut len = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((len, hasher.finish()));
        }
        hasher.update(&buffer[..count]);
        len += count as u64;
    }
}

/// Every extended attribute that the kernel lists for `host`, not following a symbolic link.
pub(crate) fn xattrs(host: &Path) -> anyhow::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 1 << 16];
    let len = match rustix::fs::llistxattr(host, &mut names[..]) {
        Ok(len) => len,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = BTreeMap::new();
    for name in names[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(host, name, &mut value[..])
            .with_context(|| format!("reading xattr {}", String::from_utf8_lossy(name)))?;
        value.truncate(len);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walk_says_what_stat_says() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/b"), "hi").unwrap();
        std::fs::hard_link(dir.path().join("d/b"), dir.path().join("a")).unwrap();
        std::os::unix::fs::symlink("d/b", dir.path().join("l")).unwrap();
        let listing = walk(dir.path()).unwrap();
        assert_eq!(
            listing
                .keys()
                .map(|path| String::from_utf8_lossy(path))
                .collect::<Vec<_>>(),
            ["/", "/a", "/d", "/d/b", "/l"]
        );
        let file = &listing[b"/d/b".as_slice()];
        assert_eq!(
            file.kind,
            Kind::File {
                len: 2,
                digest: Digest::of(b"hi")
            }
        );
        assert_eq!((file.nlink, file.same_as.as_slice()), (2, b"/a".as_slice()));
        assert_eq!(listing[b"/l".as_slice()].kind, Kind::Symlink(b"d/b".to_vec()));
    }
}
