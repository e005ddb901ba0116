//! From the host into an image: files and folders, by the rules that `docker cp` has.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use firebrick_ext4::edit::Node;
use firebrick_ext4::read::{FileType, LastSymlink};
use firebrick_tree::{DeviceKind, Metadata, Timestamp, Xattrs};
use rustix::io::Errno;

use crate::edited::{Edited, Refusal, join};

/// Puts things of the host into an image.
pub(crate) struct Putter<'a> {
    edited: &'a mut Edited,
    owner: (u32, u32),
    /// Files with several names: where the first of them went.
    first: HashMap<(u64, u64), Vec<u8>>,
}

/// The namespace of attributes that mean what users want.
pub(crate) const USER_XATTRS: &[u8] = b"user.";
/// What a program may do that its user may not. As with set-id bits, who has one on the host meant it so.
const CAPABILITY: &[u8] = b"security.capability";
/// Longest list of names, and longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 1 << 16;

/// The attributes that mean the same in an image. Labels and access control lists are about the host.
fn xattrs_of(host: &Path, metadata: &fs::Metadata) -> anyhow::Result<Xattrs> {
    let mut xattrs = Xattrs::new();
    if !metadata.is_file() && !metadata.is_dir() {
        return Ok(xattrs);
    }
    let reading = || format!("cannot read the extended attributes of {host:?}");
    let mut buffer = vec![0; XATTR_MAX];
    let len = match rustix::fs::listxattr(host, buffer.as_mut_slice()) {
        Ok(len) => len,
        Err(Errno::NOTSUP) => return Ok(xattrs),
        Err(error) => return Err(error).with_context(reading),
    };
    let names = buffer[..len].to_vec();
    let wanted = |name: &&[u8]| name.starts_with(USER_XATTRS) || *name == CAPABILITY;
    for name in names.split(|byte| *byte == 0).filter(wanted) {
        match rustix::fs::getxattr(host, name, buffer.as_mut_slice()) {
            Ok(len) => _ = xattrs.insert(name.into(), buffer[..len].into()),
            Err(Errno::NODATA) => {} // gone since it was listed
            Err(error) => return Err(error).with_context(reading),
        }
    }
    Ok(xattrs)
}

impl<'a> Putter<'a> {
    /// What is put belongs to root unless `owner` says otherwise.
    pub(crate) fn new(edited: &'a mut Edited, owner: Option<(u32, u32)>) -> Putter<'a> {
        Putter {
            edited,
            owner: owner.unwrap_or_default(),
            first: HashMap::new(),
        }
    }

    /// Puts `host` at `path`, or into the folder there. `host/.` means what is in a folder.
    pub(crate) fn put(&mut self, host: &Path, path: &[u8]) -> anyhow::Result<()> {
        // What is named itself is meant, also behind a symbolic link; below it, links stay links.
        let metadata = fs::metadata(host).with_context(|| format!("cannot read {host:?}"))?;
        let there = self.edited.editor.find(path, LastSymlink::Follow)?;
        let there = there.map(|inode| inode.stat().file_type);
        let named = String::from_utf8_lossy(path).into_owned();
        let contents_only = host.as_os_str().as_bytes().ends_with(b"/.");
        let target = match there {
            Some(FileType::Directory) if metadata.is_dir() && contents_only => path.to_vec(),
            Some(FileType::Directory) => {
                let name = fs::canonicalize(host)
                    .ok()
                    .filter(|_| host.file_name().is_none())
                    .unwrap_or_else(|| host.to_owned());
                let Some(name) = name.file_name() else {
                    bail!("{host:?} has no name");
                };
                join(path, name.as_bytes())
            }
            Some(_) if metadata.is_dir() => return Err(Refusal::FolderOverFile { path: named }.into()),
            None if path.ends_with(b"/") && !metadata.is_dir() => {
                return Err(Refusal::NoFolderInImage { path: named }.into());
            }
            _ => path.to_vec(),
        };
        self.put_one(host, &metadata, &target)
    }

    fn put_one(&mut self, host: &Path, metadata: &fs::Metadata, path: &[u8]) -> anyhow::Result<()> {
        let meta = Metadata {
            mode: (metadata.mode() & 0o7777) as u16,
            uid: self.owner.0,
            gid: self.owner.1,
            mtime: Timestamp {
                seconds: metadata.mtime(),
                nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
            },
            xattrs: xattrs_of(host, metadata)?,
        };
        let file_type = metadata.file_type();
        if file_type.is_dir() {
            return self.put_folder(host, &meta, path);
        }
        let key = (metadata.dev(), metadata.ino());
        if metadata.nlink() > 1 {
            if let Some(first) = self.first.get(&key) {
                return Ok(self.edited.editor.make_hardlink(first, path)?);
            }
            self.first.insert(key, path.to_vec());
        }
        let editor = &mut self.edited.editor;
        if file_type.is_symlink() {
            let target = fs::read_link(host).with_context(|| format!("cannot read the link {host:?}"))?;
            return Ok(editor.make_symlink(path, target.as_os_str().as_bytes(), &meta)?);
        }
        if file_type.is_file() {
            let mut file = File::open(host).with_context(|| format!("cannot open {host:?}"))?;
            // A file that grows or shrinks meanwhile: as long as it was, or an error.
            return Ok(editor.write_file(path, &meta, metadata.len(), &mut file)?);
        }
        let device = |kind| Node::Device {
            kind,
            major: rustix::fs::major(metadata.rdev()),
            minor: rustix::fs::minor(metadata.rdev()),
        };
        let node = if file_type.is_fifo() {
            Node::Fifo
        } else if file_type.is_char_device() {
            device(DeviceKind::Char)
        } else if file_type.is_block_device() {
            device(DeviceKind::Block)
        } else {
            Node::Socket
        };
        Ok(editor.make_node(path, node, &meta)?)
    }

    /// A folder and all that is in it. One that is there already keeps its mode, owner and other names.
    fn put_folder(&mut self, host: &Path, meta: &Metadata, path: &[u8]) -> anyhow::Result<()> {
        let there = self.edited.editor.find(path, LastSymlink::Follow)?;
        match there.map(|inode| inode.stat().file_type) {
            Some(FileType::Directory) => {}
            Some(_) => {
                return Err(Refusal::FolderOverFile {
                    path: String::from_utf8_lossy(path).into_owned(),
                }
                .into());
            }
            None => {
                let path = path.strip_suffix(b"/").unwrap_or(path);
                self.edited.editor.make_directory(path, meta)?;
            }
        }
        let reading = || format!("cannot read the folder {host:?}");
        let entries = fs::read_dir(host).with_context(reading)?;
        let mut names = entries
            .map(|entry| Ok(entry?.file_name()))
            .collect::<std::io::Result<Vec<_>>>()
            .with_context(reading)?;
        // The same folder, the same image: in whatever order the host keeps its names.
        names.sort();
        for name in names {
            let host = host.join(&name);
            let metadata = fs::symlink_metadata(&host).with_context(|| format!("cannot read {host:?}"))?;
            self.put_one(&host, &metadata, &join(path, name.as_bytes()))?;
        }
        Ok(())
    }
}
