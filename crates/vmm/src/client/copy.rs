//! Copying between this host's disk and the guest's, as `cp -r` would.
//!
//! Only files, folders and links are copied; who owns them is this process or root, and no bits but the nine permissions are
//! kept. What comes from the guest is not trusted (see `received`).

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firebrick_protocol::files::{FileKind, Get, Place, Put, StatParams, Transferred};

use super::received::{self, Received};
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
    /// Something that no file may take the place of.
    #[error("cannot copy to {}: there is {found}, which is not replaced", path.display())]
    Taken {
        /// Where the file was to go.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
}

impl CopyError {
    /// Whether the connection may still serve for the next file.
    pub(crate) fn is_about_one_file(&self) -> bool {
        match self {
            CopyError::Guest { source, .. } => source.guest_errno().is_some(),
            _ => true,
        }
    }
}

/// What was copied.
#[derive(Debug)]
pub struct Copied {
    /// What went over.
    pub transferred: Transferred,
    /// What did not.
    pub left_out: LeftOut,
}

/// Names of devices, pipes and sockets, which are not copied. Of many only the first are kept.
#[derive(Debug, Default)]
pub struct LeftOut {
    names: Vec<String>,
    count: u64,
}

/// So many names are kept: the guest could send any number.
const NAMES_MAX: usize = 8;

impl LeftOut {
    pub(super) fn add(&mut self, name: String) {
        self.count = self.count.saturating_add(1);
        if self.names.len() < NAMES_MAX {
            self.names.push(name);
        }
    }

    /// Whether everything was copied.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "left out, being devices, pipes or sockets: ")?;
        for (number, name) in self.names.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{name:?}")?;
        }
        let more = self
            .count
            .saturating_sub(u64::try_from(self.names.len()).unwrap_or(u64::MAX));
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        Ok(())
    }
}

/// Where [`Client::copy_out`] would put something.
fn place_of(from: &str, to: &Path) -> PathBuf {
    let name = from.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match name {
        "" | "." | ".." => to.to_owned(),
        name if to.is_dir() => to.join(name),
        _ => to.to_owned(),
    }
}

/// Refuses a place on this host that [`Client::copy_out`] would refuse, without a guest.
///
/// # Errors
/// [`CopyError::Taken`].
pub fn check_place(from: &str, to: &Path) -> Result<(), CopyError> {
    received::check(&place_of(from, to))
}

pub(super) fn host(path: &Path) -> impl Fn(io::Error) -> CopyError + '_ {
    move |source| CopyError::Host {
        path: path.to_owned(),
        source,
    }
}

impl Client {
    /// Copies a file or folder of this host to `to` in the guest; into it, if that is a folder there. Folders above are made, and
    /// root owns what was copied. Devices, pipes and sockets in a folder stay here. `stall` is as in [`Client::put`].
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn copy_in(&mut self, from: &Path, to: &str, stall: Duration) -> Result<Copied, CopyError> {
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
        let mut left_out = LeftOut::default();
        let mut upload = self.put(put, stall);
        let sent = match &mut source {
            Some(file) => io::copy(file, &mut upload).map(drop),
            None => pack(&mut upload, from, &mut left_out),
        };
        match (sent, upload.finish()) {
            // That the guest wants no more is told better by itself.
            (Err(error), Ok(_)) => Err(host(from)(error)),
            (Err(error), Err(_)) if error.kind() != io::ErrorKind::BrokenPipe => Err(host(from)(error)),
            (_, finished) => Ok(Copied {
                transferred: finished.map_err(guest)?,
                left_out,
            }),
        }
    }

    /// Copies a file or folder of the guest to `to` on this host; into it, if that is a folder here. What is at its place is
    /// replaced when all of it has come, or, if it is a folder, filled; devices, pipes and sockets are not replaced, and those
    /// in a folder of the guest stay there. `stall` is as in [`Client::put`].
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn copy_out(&mut self, from: &str, to: &Path, stall: Duration) -> Result<Copied, CopyError> {
        let target = place_of(from, to);
        received::check(&target)?;
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
        let mode = stat.mode & 0o777;
        let received = match is_tree {
            true => Received::tree(&mut download, &target, mode),
            false => Received::file(&mut download, &target, mode),
        };
        match (received, download.finish()) {
            (Ok(received), finished) => Ok(Copied {
                transferred: finished.map_err(guest)?,
                left_out: received.place(&target)?,
            }),
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

/// Packs a folder. What is in it comes by name, so that the same folder makes the same tar.
fn pack(to: &mut impl io::Write, folder: &Path, left_out: &mut LeftOut) -> io::Result<()> {
    let mut tar = tar::Builder::new(to);
    tar.follow_symlinks(false);
    let mut waiting = vec![(folder.to_owned(), PathBuf::from("."))];
    while let Some((path, name)) = waiting.pop() {
        let kind = fs::symlink_metadata(&path)?.file_type();
        let is_root = name == Path::new(".");
        if is_root || kind.is_dir() {
            tar.append_dir(&name, &path)?;
            let mut inside = Vec::new();
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                inside.push((entry.path(), name.join(entry.file_name())));
            }
            inside.sort_unstable_by(|a, b| b.cmp(a)); // the first is on top
            waiting.append(&mut inside);
        } else if kind.is_file() || kind.is_symlink() {
            tar.append_path_with_name(&path, &name)?;
        } else {
            left_out.add(path.to_string_lossy().into_owned());
        }
    }
    tar.finish()
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
