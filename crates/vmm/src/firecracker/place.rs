//! Where one Firecracker lives: a folder of its own, or the root that the jailer locks it into.
//!
//! In both it is started in that folder, and the names that it is given for its own files are relative. So the paths of its sockets
//! are short, and a snapshot, which remembers them, can be restored many times at once. We reach the same files through an open
//! descriptor of the folder.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Firecracker, Jail};
use crate::folder::{Folder, Reach};
use crate::machine::{LaunchError, open_disk};

/// The files of Firecracker's own.
pub(super) const API_SOCKET: &str = "api.sock";
pub(super) const VSOCK_SOCKET: &str = "v.sock";
pub(super) const LOG: &str = "log";

/// The folder of one Firecracker.
#[derive(Debug)]
pub(super) struct Place {
    // In this order they are closed and removed.
    reach: Reach,
    root: PathBuf,
    jail: Option<Jail>,
    folder: Folder,
}

impl Place {
    /// Makes the folder.
    pub(super) fn make(vmm: &Firecracker) -> io::Result<Place> {
        let Some(jail) = &vmm.jail else {
            let folder = Folder::create(&vmm.run)?;
            let root = folder.path().to_owned();
            return Ok(Place {
                reach: Reach::open(&root)?,
                root,
                jail: None,
                folder,
            });
        };
        // The jailer takes this very folder, and would make it if it were not there.
        let program = fs::canonicalize(&vmm.program.path)?;
        let name = program.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let folder = Folder::create(&jail.base.join(name))?;
        let root = folder.path().join("root");
        fs::create_dir(&root)?;
        Ok(Place {
            reach: Reach::open(&root)?,
            root,
            jail: Some(jail.clone()),
            folder,
        })
    }

    /// The command that starts Firecracker here.
    pub(super) fn command(&self, program: &Path) -> Command {
        let id = self.folder.path().file_name().unwrap_or_default();
        let Some(jail) = &self.jail else {
            let mut command = Command::new(program);
            command.arg("--id").arg(id).args(["--api-sock", API_SOCKET]);
            command.current_dir(&self.root);
            return command;
        };
        let mut command = Command::new(&jail.jailer);
        command.arg("--id").arg(id).arg("--exec-file").arg(program);
        command.args(["--uid", &jail.uid.to_string(), "--gid", &jail.gid.to_string()]);
        command.arg("--chroot-base-dir").arg(&jail.base);
        command.args(["--", "--api-sock", API_SOCKET]);
        command
    }

    /// How we reach a file of this folder.
    pub(super) fn reach(&self, name: &str) -> PathBuf {
        self.reach.path(name)
    }

    /// Makes a file that Firecracker may read and write, and gives its name as Firecracker knows it.
    pub(super) fn own_file(&self, name: &str, bytes: &[u8]) -> io::Result<String> {
        let path = self.root.join(name);
        File::create_new(&path)?.write_all(bytes)?;
        self.give(&path)?;
        Ok(name.to_owned())
    }

    /// Lets Firecracker open what we have made for it. In a jail it may have put a link in its place by now, which is not followed.
    pub(super) fn give(&self, path: &Path) -> io::Result<()> {
        match &self.jail {
            Some(jail) => std::os::unix::fs::lchown(path, Some(jail.uid), Some(jail.gid)),
            None => Ok(()),
        }
    }

    /// Makes a file of the host reachable, and gives its path as Firecracker knows it; in a jail that is `name`.
    ///
    /// In a jail it is a hard link, and where that cannot be, a copy; but nobody would see what is written to a copy.
    pub(super) fn bring(&self, path: &Path, name: &str, read_only: bool) -> Result<String, LaunchError> {
        let links = self.jail.as_ref().is_none_or(|jail| !jail.copies);
        self.bring_in(path, name, read_only, links)
    }

    /// The same for a file of a snapshot. It is ours, so nobody has noted how it looks, and it is linked even where others are not: it
    /// is as large as a guest's memory.
    pub(super) fn bring_snapshot(&self, path: &Path, name: &str) -> Result<String, LaunchError> {
        self.bring_in(path, name, true, true)
    }

    fn bring_in(&self, path: &Path, name: &str, read_only: bool, links: bool) -> Result<String, LaunchError> {
        let open = |source| LaunchError::Open {
            path: path.to_owned(),
            source,
        };
        // Firecracker opens these by name later, and says less about what is wrong with them.
        open_disk(path, !read_only).map_err(open)?;
        let Some(jail) = &self.jail else {
            return absolute(path);
        };
        let inside = self.root.join(name);
        // A link to a link would lead nowhere in there.
        let path = fs::canonicalize(path).map_err(open)?;
        let may = jail.may_open(&fs::metadata(&path).map_err(open)?, read_only);
        if may && (links || !read_only) && fs::hard_link(&path, &inside).is_ok() {
            return Ok(name.to_owned());
        }
        if !read_only {
            let reason = match may {
                true => format!(
                    "{} and {} are not on one filesystem",
                    path.display(),
                    inside.display()
                ),
                false => format!("user {} may not write {}", jail.uid, path.display()),
            };
            return Err(LaunchError::Unsupported {
                what: "writing to this drive in a jail",
                reason,
            });
        }
        let copy = fs::copy(&path, &inside)
            .and_then(|_| fs::set_permissions(&inside, fs::Permissions::from_mode(0o400)))
            .and_then(|()| self.give(&inside));
        copy.map_err(|source| LaunchError::Host {
            action: "copy a file into the jail",
            source,
        })?;
        Ok(name.to_owned())
    }

    /// Where a file that Firecracker shall write to `path` is to be called so; [`Place::fetch`] then brings it there.
    pub(super) fn outgoing(&self, path: &Path, name: &str) -> Result<String, LaunchError> {
        match &self.jail {
            Some(_) => Ok(name.to_owned()),
            None => absolute(path),
        }
    }

    /// Brings a file that Firecracker has written to its place.
    ///
    /// What a jail is for is a Firecracker that a guest has taken over. It may have put a link in the file's place, or keep a second
    /// name of it, and it must not write to what other machines will read: so only a plain file is taken, and it becomes ours.
    pub(super) fn fetch(&self, path: &Path, name: &str) -> io::Result<()> {
        let Some(jail) = &self.jail else {
            return Ok(());
        };
        let inside = self.root.join(name);
        if fs::rename(&inside, path).is_err() {
            let from = open_itself(&inside)?;
            plain(&from.metadata()?)?;
            io::copy(&mut &from, &mut File::create_new(path)?)?;
            fs::remove_file(&inside)?;
        }
        // No one else reaches it here.
        let taken = plain(&fs::symlink_metadata(path)?)
            .and_then(|()| {
                let us = rustix::process::geteuid().as_raw();
                std::os::unix::fs::lchown(path, Some(us), Some(jail.gid))
            })
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o440)));
        if taken.is_err() {
            let _ = fs::remove_file(path);
        }
        taken
    }

    /// The folder, which a jailed Firecracker has as its root.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether Firecracker sees nothing but this folder.
    pub(super) fn is_jail(&self) -> bool {
        self.jail.is_some()
    }
}

/// Opens a file of a place to read it. In a jail it is Firecracker's, which may have put something else there: a link is not
/// followed, and a pipe not waited for.
pub(super) fn open_itself(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// Refuses what is no plain file of one name.
fn plain(file: &fs::Metadata) -> io::Result<()> {
    match file.is_file() && file.nlink() == 1 {
        true => Ok(()),
        false => Err(io::Error::other(
            "what Firecracker has put there is no plain file",
        )),
    }
}

impl Jail {
    /// Whether the jailed user can open a file.
    fn may_open(&self, file: &fs::Metadata, read_only: bool) -> bool {
        let wanted = if read_only { 0o4 } else { 0o6 };
        let shift = if file.uid() == self.uid {
            6
        } else if file.gid() == self.gid {
            3
        } else {
            0
        };
        self.uid == 0 || (file.mode() >> shift) & wanted == wanted
    }
}

/// A path that is good in another folder, as text: the API is JSON.
pub(super) fn absolute(path: &Path) -> Result<String, LaunchError> {
    let absolute = std::path::absolute(path).map_err(|source| LaunchError::Open {
        path: path.to_owned(),
        source,
    })?;
    match absolute.to_str() {
        Some(path) => Ok(path.to_owned()),
        None => Err(LaunchError::Unsupported {
            what: "the path of a drive",
            reason: format!(
                "{} is not UTF-8, and Firecracker takes no other names",
                path.display()
            ),
        }),
    }
}
