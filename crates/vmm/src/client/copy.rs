//! Copying between this host's disk and the guest's, as `cp -r` would.
//!
//! What comes from the guest is not trusted: nothing is made outside of the folder that it goes to, and nothing but files, folders
//! and links; who owns them is this process, and no bits but the nine permissions are kept.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firebrick_protocol::files::{FileKind, Get, Place, Put, StatParams, Transferred};

use super::{CallError, Client};

/// Who owns what is put: numbers of this host mean nothing in the guest.
const OWNER: &str = "0:0";
const ENOENT: i32 = 2;

/// Why something was not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The guest's side failed.
    #[error("cannot copy {from} to {to}")]
    Guest {
        /// What was to be copied.
        from: String,
        /// Where to.
        to: String,
        /// What the guest says.
        source: CallError,
    },
    /// This host's side failed.
    #[error("cannot copy: {}", path.display())]
    Host {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The guest's tar would leave its folder, or holds what is no file.
    #[error("the guest's {path:?} is not copied: it is no file, folder or link inside {}", folder.display())]
    Refused {
        /// The name in the tar.
        path: String,
        /// Where it was to go.
        folder: PathBuf,
    },
}

fn host(path: &Path) -> impl Fn(io::Error) -> CopyError + '_ {
    move |source| CopyError::Host {
        path: path.to_owned(),
        source,
    }
}

impl Client {
    /// Copies a file or folder of this host to `to` in the guest; into it, if that is a folder there. Folders above are made, and
    /// root owns what was copied. `stall` is as in [`Client::put`].
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn copy_in(&mut self, from: &Path, to: &str, stall: Duration) -> Result<Transferred, CopyError> {
        let meta = fs::metadata(from).map_err(host(from))?;
        let guest = |source| CopyError::Guest {
            from: from.display().to_string(),
            to: to.to_owned(),
            source,
        };
        let target = match self.kind_of(to, stall).map_err(guest)? {
            Some(FileKind::Dir) => match from.file_name() {
                Some(name) => format!("{}/{}", to.trim_end_matches('/'), name.to_string_lossy()),
                None => to.to_owned(),
            },
            _ => to.to_owned(),
        };
        let put = Put {
            place: Place::at(target),
            tree: meta.is_dir(),
            mode: Some(meta.permissions().mode() & 0o777),
            owner: Some(OWNER.to_owned()),
            parents: true,
        };
        let mut source = (!meta.is_dir())
            .then(|| File::open(from))
            .transpose()
            .map_err(host(from))?;
        let mut upload = self.put(put, stall);
        let sent = match &mut source {
            Some(file) => io::copy(file, &mut upload).map(drop),
            None => {
                let mut tar = tar::Builder::new(&mut upload);
                tar.follow_symlinks(false);
                tar.append_dir_all(".", from).and_then(|()| tar.finish())
            }
        };
        match (sent, upload.finish()) {
            // That the guest wants no more is told better by itself.
            (Err(error), Ok(_)) => Err(host(from)(error)),
            (Err(error), Err(_)) if error.kind() != io::ErrorKind::BrokenPipe => Err(host(from)(error)),
            (_, finished) => finished.map_err(guest),
        }
    }

    /// Copies a file or folder of the guest to `to` on this host; into it, if that is a folder here. `stall` is as in
    /// [`Client::put`].
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn copy_out(&mut self, from: &str, to: &Path, stall: Duration) -> Result<Transferred, CopyError> {
        let guest = |source| CopyError::Guest {
            from: from.to_owned(),
            to: to.display().to_string(),
            source,
        };
        let params = StatParams {
            place: Place::at(from),
            follow: true,
        };
        let stat = self.stat(params, stall).map_err(guest)?;
        let name = from.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let target = match name {
            "" | "." | ".." => to.to_owned(),
            name if to.is_dir() => to.join(name),
            _ => to.to_owned(),
        };
        let is_tree = stat.kind == FileKind::Dir;
        let get = Get {
            place: Place::at(if is_tree {
                format!("{}/.", from.trim_end_matches('/'))
            } else {
                from.to_owned()
            }),
            tree: is_tree,
            ..Get::default()
        };
        let mut download = self.get(get, stall);
        let received = if is_tree {
            unpack(&mut download, &target)
        } else {
            receive_file(&mut download, &target, stat.mode & 0o777)
        };
        match (received, download.finish()) {
            (Ok(()), finished) => finished.map_err(guest),
            (Err(CopyError::Host { source, .. }), Err(error)) if is_of_the_guest(&source) => {
                Err(guest(error))
            }
            (Err(error), _) => Err(error),
        }
    }

    fn kind_of(&mut self, path: &str, limit: Duration) -> Result<Option<FileKind>, CallError> {
        let params = StatParams {
            place: Place::at(path),
            follow: true,
        };
        match self.stat(params, limit) {
            Ok(stat) => Ok(Some(stat.kind)),
            Err(error) if error.guest_errno() == Some(ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether an error, which may be wrapped, says that the guest sends no more.
fn is_of_the_guest(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || error.to_string().contains("the guest sends no more")
}

/// Writes a file beside its place, which it takes when all of it has come.
fn receive_file(from: &mut impl io::Read, to: &Path, mode: u32) -> Result<(), CopyError> {
    let folder = to
        .parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(folder)
        .map_err(host(to))?;
    io::copy(from, &mut file).map_err(host(to))?;
    file.persist(to).map_err(|error| host(to)(error.error))?;
    Ok(())
}

fn unpack(from: &mut impl io::Read, folder: &Path) -> Result<(), CopyError> {
    fs::create_dir_all(folder).map_err(host(folder))?;
    let mut archive = tar::Archive::new(from);
    archive.set_preserve_permissions(false);
    archive.set_preserve_ownerships(false);
    archive.set_unpack_xattrs(false);
    for entry in archive.entries().map_err(host(folder))? {
        let mut entry = entry.map_err(host(folder))?;
        let kind = entry.header().entry_type();
        let is_plain = kind.is_file() || kind.is_dir() || kind.is_symlink() || kind.is_hard_link();
        if !is_plain || !entry.unpack_in(folder).map_err(host(folder))? {
            return Err(CopyError::Refused {
                path: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
                folder: folder.to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
