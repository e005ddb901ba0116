//! Files that a user puts into an image, and files of the image that are edited.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use firebrick_tree::{Metadata, Xattrs};

use super::accounts::Accounts;
use super::{SettingError, setting};
use crate::image::Image;
use crate::lower::{LowerKind, Resolved, resolve};
use crate::plan::{CustomiseError, Entry, EntryKind, Planner};

/// A file, folder or symbolic link to put into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Where, without a leading slash; `.` and `..` are not in it.
    pub path: String,
    /// What.
    pub content: Content,
    /// Permission bits; 0644 for a file, 0755 for a folder where nothing is said.
    pub mode: Option<u16>,
    /// Whose it is; root's where nothing is said.
    pub owner: Option<Owner>,
}

/// What a [`NewFile`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A regular file of these bytes.
    File(Vec<u8>),
    /// A folder: made where it is missing. Where it is there, it keeps what it has, and gets the owner and mode that are named.
    Dir,
    /// A symbolic link to this target.
    Link(String),
}

/// A user and maybe a group, by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: String,
    /// The group; the user's own where nothing is said.
    pub group: Option<String>,
}

pub(super) fn path_of(path: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec([b"/", path].concat()))
}

pub(super) fn add<'a>(
    planner: &mut Planner<'a, '_>,
    files: &'a [NewFile],
    image: &Image<'_>,
    accounts: &Accounts,
) -> Result<(), CustomiseError> {
    for file in files {
        let what = || format!("the file {:?}", format!("/{}", file.path));
        let owner = match &file.owner {
            Some(owner) => setting(what(), accounts.numbers(owner))?,
            None => (0, 0),
        };
        let found = match resolve(image, file.path.as_bytes()) {
            Resolved::Found(path, LowerKind::Dir) => Some(path),
            _ => None,
        };
        let other = |found, wanted| SettingError::OtherKind {
            path: path_of(file.path.as_bytes()),
            found,
            wanted,
        };
        let is_folder = image.kind_of(&file.path) == Some(LowerKind::Dir);
        match &file.content {
            Content::Dir => match found {
                Some(path) => keep_folder(planner, image, path, file, owner),
                None if image.kind_of(&file.path).is_some() => {
                    setting(what(), Err(other("no folder", "a folder")))?;
                }
                None => {
                    let mode = file.mode.unwrap_or(0o755);
                    planner.add_owned(&file.path, mode, EntryKind::Dir, owner, Xattrs::new())?;
                }
            },
            _ if is_folder => setting(what(), Err(other("a folder", "something else")))?,
            Content::File(bytes) => {
                let kind = EntryKind::File(bytes.as_slice().into());
                let mode = file.mode.unwrap_or(0o644);
                planner.add_owned(&file.path, mode, kind, owner, Xattrs::new())?;
            }
            Content::Link(target) => {
                let kind = EntryKind::Symlink(target.clone().into_bytes());
                planner.add_owned(&file.path, 0o777, kind, owner, Xattrs::new())?;
            }
        }
    }
    Ok(())
}

/// A folder of the image gets the mode and owner that are named, and keeps what is not.
fn keep_folder(
    planner: &mut Planner<'_, '_>,
    image: &Image<'_>,
    path: Vec<u8>,
    file: &NewFile,
    owner: (u32, u32),
) {
    if (file.mode.is_none() && file.owner.is_none()) || path.is_empty() {
        return;
    }
    let Some(id) = image.inode(&path) else { return };
    let meta = &image.tree.inode(id).meta;
    planner.push_entry(Entry {
        path,
        mode: file.mode.unwrap_or(meta.mode),
        owner: match file.owner {
            Some(_) => owner,
            None => (meta.uid, meta.gid),
        },
        xattrs: meta.xattrs.clone(),
        kind: EntryKind::Dir,
    });
}

impl Image<'_> {
    /// What stands at a path of the user's, its folders' links followed and its own not.
    fn kind_of(&self, path: &str) -> Option<LowerKind> {
        use crate::lower::{Lower as _, join};
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        match resolve(self, parent.as_bytes()) {
            Resolved::Found(folder, LowerKind::Dir) => self.kind(&join(&folder, name.as_bytes())),
            _ => None,
        }
    }
}

/// Owner, mode and attributes of a file that is edited, and what it holds.
pub(super) type Found = (Option<Metadata>, Vec<u8>);

/// A file to edit: its real path, and what is there, in this layer or the image; links are followed inside the image only.
pub(super) fn existing(
    planner: &Planner<'_, '_>,
    image: &Image<'_>,
    path: &str,
) -> Result<(Vec<u8>, Option<Found>), SettingError> {
    let no_file = || SettingError::NoFile {
        path: path_of(path.as_bytes()),
    };
    if let Some(Entry {
        kind: EntryKind::File(bytes),
        mode,
        owner,
        ..
    }) = planner.made(path.as_bytes())
    {
        let meta = Metadata {
            mode: *mode,
            uid: owner.0,
            gid: owner.1,
            ..Metadata::default()
        };
        return Ok((path.as_bytes().to_vec(), Some((Some(meta), bytes.to_vec()))));
    }
    match resolve(image, path.as_bytes()) {
        Resolved::Missing(real) => Ok((real, None)),
        Resolved::Found(real, LowerKind::Other) => {
            let found = image.file(&real).map_err(|error| SettingError::Unreadable {
                path: path_of(path.as_bytes()),
                why: error.to_string(),
            })?;
            let (meta, bytes) = found.ok_or_else(no_file)?;
            Ok((real, Some((Some(meta.clone()), bytes))))
        }
        _ => Err(no_file()),
    }
}

/// Puts an edited file in: at its real path, with the owner, mode and attributes that it had.
pub(super) fn edited(
    planner: &mut Planner<'_, '_>,
    real: Vec<u8>,
    meta: Option<Metadata>,
    bytes: Vec<u8>,
) -> Result<(), CustomiseError> {
    let meta = meta.unwrap_or(Metadata {
        mode: 0o644,
        ..Metadata::default()
    });
    let path = String::from_utf8(real).map_err(|error| CustomiseError::Blocked {
        path: path_of(error.as_bytes()),
        blocked: path_of(error.as_bytes()),
    })?;
    let kind = EntryKind::File(bytes.into());
    planner.add_owned(&path, meta.mode, kind, (meta.uid, meta.gid), meta.xattrs)
}
