//! What came from the guest, beside its place until all of it is here.
//!
//! The guest is not trusted: nothing is made outside of the folder that it goes to, and nothing on this host is replaced but
//! files and links. Folders are closed last, since nothing can be put into a closed one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::copy::{CopyError, LeftOut, host};
use super::entries::Entries;

/// What a folder has besides its own mode while it is filled.
const OPEN: u32 = 0o700;

/// A file or tree that has no place yet.
pub(super) enum Received {
    File(tempfile::NamedTempFile),
    Tree {
        /// Where it lies; `None` where its place was a folder before, into which it went.
        beside: Option<tempfile::TempDir>,
        /// The modes of its folders.
        late: BTreeMap<PathBuf, u32>,
        left_out: LeftOut,
    },
}

/// Refuses a place that a file or tree of the guest must not take: a device, pipe or socket, and a link that leads to no folder.
pub(super) fn check(target: &Path) -> Result<(), CopyError> {
    let Ok(meta) = fs::symlink_metadata(target) else {
        return Ok(()); // nothing is there, or making something there says why not
    };
    let kind = meta.file_type();
    let found = match () {
        () if kind.is_symlink() && !target.is_dir() => "a link",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => return Ok(()),
    };
    Err(CopyError::Taken {
        path: target.to_owned(),
        found,
    })
}

fn parent(target: &Path) -> &Path {
    target
        .parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."))
}

impl Received {
    pub(super) fn file(from: &mut impl io::Read, target: &Path, mode: u32) -> Result<Received, CopyError> {
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(mode))
            .tempfile_in(parent(target))
            .map_err(host(target))?;
        io::copy(from, &mut file).map_err(host(target))?;
        Ok(Received::File(file))
    }

    pub(super) fn tree(from: &mut impl io::Read, target: &Path, mode: u32) -> Result<Received, CopyError> {
        let failed = host(target);
        let is_there = target.is_dir();
        if !is_there && target.exists() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        let beside = match is_there {
            true => None,
            false => {
                let above = parent(target);
                fs::create_dir_all(above).map_err(host(above))?;
                let prefix = ".firebrick-get-";
                Some(
                    tempfile::Builder::new()
                        .prefix(prefix)
                        .tempdir_in(above)
                        .map_err(&failed)?,
                )
            }
        };
        let folder = beside.as_ref().map_or(target, |beside| beside.path());
        let mut left_out = LeftOut::default();
        let mut late = unpack(from, folder, &mut left_out)?;
        if beside.is_some() {
            late.insert(PathBuf::new(), mode);
        }
        Ok(Received::Tree {
            beside,
            late,
            left_out,
        })
    }

    /// Gives it its place, and says what is not in it.
    pub(super) fn place(self, target: &Path) -> Result<LeftOut, CopyError> {
        match self {
            Received::File(file) => {
                file.persist(target).map_err(|error| host(target)(error.error))?;
                Ok(LeftOut::default())
            }
            Received::Tree {
                beside,
                late,
                left_out,
            } => {
                if let Some(beside) = beside {
                    fs::rename(beside.path(), target).map_err(host(target))?;
                    let _ = beside.keep(); // there is nothing to remove any more
                }
                // The deepest first: those above could be closed then.
                let mut late: Vec<(PathBuf, u32)> = late.into_iter().collect();
                late.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
                for (path, mode) in late {
                    let path = target.join(path);
                    let is_folder = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
                    if is_folder {
                        let mode = fs::Permissions::from_mode(mode);
                        fs::set_permissions(&path, mode).map_err(host(&path))?;
                    }
                }
                Ok(left_out)
            }
        }
    }
}

/// The path of an entry below its folder; `None` if it would leave it.
fn below(path: &Path) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => below.push(name),
            Component::ParentDir => return None,
            _ => {}
        }
    }
    Some(below)
}

/// Unpacks a tar; returns the modes that its folders are to have.
fn unpack(
    from: &mut impl io::Read,
    folder: &Path,
    left_out: &mut LeftOut,
) -> Result<BTreeMap<PathBuf, u32>, CopyError> {
    let mut archive = tar::Archive::new(Entries::of(from));
    archive.set_preserve_permissions(false);
    archive.set_preserve_ownerships(false);
    archive.set_unpack_xattrs(false);
    let mut late = BTreeMap::new(); // a folder may come again and again
    for entry in archive.entries().map_err(host(folder))? {
        let mut entry = entry.map_err(host(folder))?;
        let kind = entry.header().entry_type();
        if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
            left_out.add(String::from_utf8_lossy(&entry.path_bytes()).into_owned());
            continue;
        }
        let refused = |path: &[u8]| CopyError::Refused {
            path: String::from_utf8_lossy(path).into_owned(),
            folder: folder.to_owned(),
        };
        let is_plain = kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link();
        let path = entry.path().map_err(host(folder))?.into_owned();
        let Some(path) = below(&path).filter(|_| is_plain) else {
            return Err(refused(&entry.path_bytes()));
        };
        let target = folder.join(&path);
        if fs::symlink_metadata(&target).is_ok_and(|meta| !meta.is_symlink()) {
            check(&target)?;
        }
        if !entry.unpack_in(folder).map_err(host(folder))? {
            return Err(refused(&entry.path_bytes()));
        }
        if kind.is_dir() && path != Path::new("") {
            let mode = entry.header().mode().map_err(host(&target))? & 0o777;
            if mode & OPEN != OPEN {
                let open = fs::Permissions::from_mode(mode | OPEN);
                fs::set_permissions(&target, open).map_err(host(&target))?;
                late.insert(path, mode);
            }
        }
    }
    Ok(late)
}
