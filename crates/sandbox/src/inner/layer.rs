//! Writes changes as the tar of an OCI layer.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;

use firebrick_layer::tar::{Writer, WriterEntry};
use firebrick_tree::{DeviceKind, LayerPath, Metadata, Timestamp, Xattrs};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags, SeekFrom};

use super::compare::{Changes, split};
use super::record::{Node, Record, open};
use super::unpack::{DEVICE, Origins};
use super::{Doing as _, Failure, shown};

/// A stretch of zeros of at least so many bytes becomes a hole.
const HOLE_MIN: u64 = 1 << 20;
const COPY_LEN: usize = 64 << 10;

/// What a layer is made from.
pub(crate) struct Source<'a> {
    pub(crate) root: &'a OwnedFd,
    pub(crate) before: &'a Record,
    pub(crate) after: &'a Record,
    pub(crate) origins: &'a Origins,
    /// There is one owner, so the copy's say nothing.
    pub(crate) single: bool,
    /// No later time is written.
    pub(crate) created: Timestamp,
}

/// Writes the whole tar.
pub(crate) fn write(source: &Source<'_>, changes: &Changes<'_>, out: impl Write) -> Result<(), Failure> {
    let mut writer = Writer::new(out);
    let marker = Metadata {
        mode: 0,
        mtime: source.created,
        ..Metadata::default()
    };
    let beside = |path: &[u8], name: &[u8]| -> Result<LayerPath, Failure> {
        let path = if path.is_empty() {
            name.to_vec()
        } else {
            [path, b"/", name].concat()
        };
        layer_path(&path)
    };
    let whiteouts = changes.whiteouts.iter().map(|path| {
        let (parent, name) = split(path);
        beside(parent, &[b".wh.", name].concat())
    });
    let opaque = changes.opaque.iter().map(|path| beside(path, b".wh..wh..opq"));
    for path in whiteouts.chain(opaque) {
        writer
            .entry(&path?, &marker, WriterEntry::File(b""))
            .doing(|| "write the layer".into())?;
    }
    // Of an inode with several names the first that is written.
    let mut first_names: HashMap<u64, LayerPath> = HashMap::new();
    for path in &changes.entries {
        let node = &source.after[*path];
        if split(path).1.starts_with(b".wh.") {
            return Err(Failure(format!(
                "the step made {}, a name that layers cannot hold",
                shown(path)
            )));
        }
        let name = layer_path(path)?;
        if node.links > 1 && !node.is_folder() {
            if let Some(first) = first_names.get(&node.ino) {
                let link = WriterEntry::Hardlink(first);
                let meta = Metadata::default();
                writer
                    .entry(&name, &meta, link)
                    .doing(|| "write the layer".into())?;
                continue;
            }
            first_names.insert(node.ino, name.clone());
        }
        entry(source, &mut writer, path, &name, node)?;
    }
    let mut out = writer.finish().doing(|| "write the layer".into())?;
    out.flush().doing(|| "write the layer".into())
}

fn layer_path(path: &[u8]) -> Result<LayerPath, Failure> {
    LayerPath::parse(path).map_err(|error| Failure(format!("{} cannot be in a layer: {error}", shown(path))))
}

fn entry(
    source: &Source<'_>,
    writer: &mut Writer<impl Write>,
    path: &[u8],
    name: &LayerPath,
    node: &Node,
) -> Result<(), Failure> {
    let writing = || format!("write {} to the layer", shown(path));
    let kind = node.kind();
    let opened = match kind {
        FileType::RegularFile => Some(open(source.root, path, OFlags::RDONLY | OFlags::NOATIME)),
        FileType::Directory => Some(open(source.root, path, OFlags::RDONLY | OFlags::DIRECTORY)),
        _ => None,
    };
    let opened = opened.transpose().doing(writing)?;
    let meta = metadata(source, path, node, opened.as_ref()).doing(writing)?;
    let what = match kind {
        FileType::RegularFile => {
            let mut file = File::from(opened.expect("regular files are opened"));
            if let Some(device) = device(source, node, &mut file).doing(writing)? {
                return writer.entry(name, &meta, device).doing(writing);
            }
            return content(writer, name, &meta, node.size, &mut file).doing(writing);
        }
        FileType::Directory => WriterEntry::Directory,
        FileType::Symlink => {
            let (parent, last) = split(path);
            let folder = open(source.root, parent, OFlags::PATH | OFlags::DIRECTORY).doing(writing)?;
            let target = rustix::fs::readlinkat(folder, last, Vec::new()).doing(writing)?;
            return writer
                .entry(name, &meta, WriterEntry::Symlink(target.as_bytes()))
                .doing(writing);
        }
        FileType::Fifo => WriterEntry::Fifo,
        FileType::Socket => WriterEntry::Socket,
        FileType::CharacterDevice | FileType::BlockDevice => WriterEntry::Device {
            kind: match kind {
                FileType::BlockDevice => DeviceKind::Block,
                _ => DeviceKind::Char,
            },
            major: node.device.0,
            minor: node.device.1,
        },
        FileType::Unknown => return Err(Failure(format!("{} is of no known kind", shown(path)))),
    };
    writer.entry(name, &meta, what).doing(writing)
}

fn metadata(source: &Source<'_>, path: &[u8], node: &Node, file: Option<&OwnedFd>) -> io::Result<Metadata> {
    let old = source.before.get(path).filter(|old| old.kind() == node.kind());
    let origin = source.origins.paths.get(path);
    let kept = origin.and_then(|origin| origin.owner).filter(|_| {
        // A step that gave the file to somebody had its reasons.
        old.is_some_and(|old| source.single || (old.ino, old.uid, old.gid) == (node.ino, node.uid, node.gid))
    });
    let own = if source.single {
        (0, 0)
    } else {
        (node.uid, node.gid)
    };
    let (uid, gid) = kept.unwrap_or(own);
    let mut xattrs = match file {
        Some(file) => read_xattrs(file)?,
        None => Xattrs::new(),
    };
    if let Some(origin) = origin.filter(|_| old.is_some_and(|old| old.ino == node.ino)) {
        for (name, value) in &origin.xattrs {
            xattrs.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    let mode = match node.kind() {
        FileType::Symlink => 0o777,
        _ => u16::try_from(node.mode & 0o7777).expect("12 bits"),
    };
    Ok(Metadata {
        mode,
        uid,
        gid,
        mtime: node.mtime.min(source.created),
        xattrs,
    })
}

/// Attributes that mean something in an image: the host adds others (`security.selinux`).
fn read_xattrs(file: &OwnedFd) -> io::Result<Xattrs> {
    use rustix::io::Errno;
    let mut xattrs = Xattrs::new();
    let mut list = vec![0; 64 << 10];
    let len = match rustix::fs::flistxattr(file, list.as_mut_slice()) {
        Ok(len) => len,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(xattrs),
        Err(errno) => return Err(errno.into()),
    };
    for name in list[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        let wanted = name.starts_with(b"user.")
            || [
                b"security.capability".as_slice(),
                b"system.posix_acl_access",
                b"system.posix_acl_default",
            ]
            .contains(&name);
        if !wanted {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::fgetxattr(file, name, value.as_mut_slice())?;
        xattrs.insert(name.into(), value[..len].into());
    }
    Ok(xattrs)
}

/// The device node that a file stands in for.
fn device<'a>(source: &Source<'_>, node: &Node, file: &mut File) -> io::Result<Option<WriterEntry<'a>>> {
    let Some(&(kind, major, minor)) = source.origins.devices.get(&node.ino) else {
        return Ok(None);
    };
    // Where the step removed it, another file may have its inode.
    if node.size != DEVICE.len() as u64 {
        return Ok(None);
    }
    let mut held = vec![0; DEVICE.len()];
    file.read_exact(&mut held)?;
    rustix::fs::seek(&*file, SeekFrom::Start(0))?;
    Ok((held == DEVICE).then_some(WriterEntry::Device { kind, major, minor }))
}

fn content(
    writer: &mut Writer<impl Write>,
    name: &LayerPath,
    meta: &Metadata,
    size: u64,
    file: &mut File,
) -> io::Result<()> {
    let parts = if size >= HOLE_MIN {
        parts(file, size)?
    } else {
        std::iter::once(0..size).collect()
    };
    let is_whole = size == 0 || (parts.len() == 1 && parts[0] == (0..size));
    if is_whole {
        writer.file_header(name, meta, size)?;
    } else {
        writer.sparse_header(name, meta, size, &parts)?;
    }
    let mut written = 0;
    let mut buffer = vec![0; COPY_LEN];
    for part in &parts {
        rustix::fs::seek(&*file, SeekFrom::Start(part.start))?;
        let mut left = part.end - part.start;
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            file.read_exact(&mut buffer[..len])?;
            writer.get_mut().write_all(&buffer[..len])?;
            left -= len as u64;
        }
        written += part.end - part.start;
    }
    writer.pad(written)
}

/// Where a file has something else than long stretches of zeros. What its content is decides, and not where the disk has
/// holes: those differ from one filesystem to the next.
fn parts(file: &mut File, size: u64) -> io::Result<Vec<Range<u64>>> {
    let mut parts: Vec<Range<u64>> = Vec::new();
    let mut buffer = vec![0; COPY_LEN];
    let block = 4096;
    let mut at = 0;
    while at < size {
        // The disk's holes need not be read.
        at = match rustix::fs::seek(&*file, SeekFrom::Data(at)) {
            Ok(data) => data / block * block,
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => at,
        };
        rustix::fs::seek(&*file, SeekFrom::Start(at))?;
        let len = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact(&mut buffer[..len])?;
        for piece in buffer[..len].chunks(4096) {
            let end = at + piece.len() as u64;
            if piece.iter().any(|&byte| byte != 0) {
                match parts.last_mut() {
                    Some(last) if at - last.end < HOLE_MIN => last.end = end,
                    None if at < HOLE_MIN => parts.push(0..end),
                    _ => parts.push(at..end),
                }
            }
            at = end;
        }
    }
    if let Some(last) = parts.last_mut()
        && size - last.end < HOLE_MIN
    {
        last.end = size;
    }
    Ok(parts)
}
