//! Decides the entries of the firebrick layer.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use crate::config::ImageJson;
use crate::init::{ImageInit, Init};
use crate::lower::{Lower, LowerKind, Resolved, join, resolve};
use crate::{GUEST_PATH, IMAGE_JSON_PATH};

/// What the layer shall hold.
#[derive(Debug)]
pub struct Request<'a> {
    /// The guest's bytes: a static Linux program for the image's architecture. `None` puts no guest in.
    pub guest: Option<&'a [u8]>,
    /// The content of `/etc/firebrick/image.json`.
    pub image_json: &'a ImageJson,
    /// Who shall be PID 1.
    pub init: Init,
}

/// One entry of the layer. Owner and group are root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path in the image, without a leading slash; no component but the last is a symlink below.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u16,
    /// What it is.
    pub kind: EntryKind<'a>,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A directory that the image lacks.
    Dir,
    /// A regular file and its content.
    File(std::borrow::Cow<'a, [u8]>),
    /// A symlink and its target.
    Symlink(Vec<u8>),
}

/// Why the layer cannot be made for this image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CustomiseError {
    /// The image has something other than a directory where firebrick's files must go.
    #[error("cannot add {path:?} to the image: {blocked:?} is not a directory there")]
    Blocked {
        /// What was to be added.
        path: PathBuf,
        /// What is in the way.
        blocked: PathBuf,
    },
    /// Symlinks of the image lead to where a filesystem is mounted when it runs.
    #[error(
        "cannot add {path:?} to the image: its folder is {folder:?} there, which a mounted filesystem hides"
    )]
    Hidden {
        /// What was to be added.
        path: PathBuf,
        /// Where it would lie.
        folder: PathBuf,
    },
}

const MOUNT_POINTS: [(&str, u16); 5] = [
    ("proc", 0o755),
    ("sys", 0o755),
    ("dev", 0o755),
    ("run", 0o755),
    ("tmp", 0o1777),
];

/// Decides the layer's entries: parents before children, each path once.
///
/// # Errors
/// [`CustomiseError::Blocked`] if a file of the image stands where a folder for ours must be, [`CustomiseError::Hidden`] if
/// that folder is one that nobody sees in a running machine.
pub fn plan<'a>(request: &Request<'a>, lower: &dyn Lower) -> Result<Vec<Entry<'a>>, CustomiseError> {
    let mut planner = Planner {
        lower,
        entries: Vec::new(),
        made: BTreeSet::new(),
    };
    for (path, mode) in MOUNT_POINTS {
        planner.mount_point(path, mode);
    }
    let json = request.image_json.to_bytes();
    planner.add(IMAGE_JSON_PATH, 0o644, EntryKind::File(json.into()))?;
    if let Some(guest) = request.guest {
        planner.add(GUEST_PATH, 0o755, EntryKind::File(guest.into()))?;
        let wanted = match request.init {
            Init::Auto => ImageInit::detect(lower) == ImageInit::Missing,
            Init::Firebrick => true,
            Init::None => false,
        };
        if wanted {
            let target = format!("/{GUEST_PATH}").into_bytes();
            planner.add("sbin/init", 0o777, EntryKind::Symlink(target))?;
        }
    }
    Ok(planner.entries)
}

struct Planner<'a, 'b> {
    lower: &'b dyn Lower,
    entries: Vec<Entry<'a>>,
    made: BTreeSet<Vec<u8>>,
}

impl<'a> Planner<'a, '_> {
    /// A folder to mount on, if nothing is there. A symlink that leads nowhere is the image's own business
    /// (`/run -> /var/run` with `/var` on another disk): it stays.
    fn mount_point(&mut self, path: &str, mode: u16) {
        if self.lower.kind(path.as_bytes()).is_none() {
            self.push(path.into(), mode, EntryKind::Dir);
        }
    }

    fn add(&mut self, path: &str, mode: u16, kind: EntryKind<'a>) -> Result<(), CustomiseError> {
        let (parent, name) = path.rsplit_once('/').expect("our paths have a folder");
        let blocked = |blocked: Vec<u8>| CustomiseError::Blocked {
            path: PathBuf::from(format!("/{path}")),
            blocked: PathBuf::from(OsString::from_vec([b"/", blocked.as_slice()].concat())),
        };
        let folder = match resolve(self.lower, parent.as_bytes()) {
            Resolved::Found(folder, LowerKind::Dir) => folder,
            Resolved::Missing(folder) => {
                self.make_dirs(&folder);
                folder
            }
            Resolved::Found(culprit, _) | Resolved::Blocked(culprit) => return Err(blocked(culprit)),
        };
        let first = folder.split(|&byte| byte == b'/').next().unwrap_or_default();
        if MOUNT_POINTS
            .iter()
            .any(|(mount_point, _)| mount_point.as_bytes() == first)
        {
            return Err(CustomiseError::Hidden {
                path: PathBuf::from(format!("/{path}")),
                folder: PathBuf::from(OsString::from_vec([b"/", folder.as_slice()].concat())),
            });
        }
        self.push(join(&folder, name.as_bytes()), mode, kind);
        Ok(())
    }

    /// Makes `folder` and those of its parents that neither the image nor this layer has.
    fn make_dirs(&mut self, folder: &[u8]) {
        let ends = folder
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(end, _)| end);
        for end in ends.chain([folder.len()]) {
            let dir = &folder[..end];
            if self.lower.kind(dir).is_none() && !self.made.contains(dir) {
                self.push(dir.to_vec(), 0o755, EntryKind::Dir);
            }
        }
    }

    fn push(&mut self, path: Vec<u8>, mode: u16, kind: EntryKind<'a>) {
        self.made.insert(path.clone());
        self.entries.push(Entry { path, mode, kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::tests::lower;

    fn planned(lines: &[&str], init: Init) -> Result<Vec<String>, CustomiseError> {
        let image_json = ImageJson::default();
        let request = Request {
            guest: Some(b"guest"),
            image_json: &image_json,
            init,
        };
        let entries = plan(&request, &lower(lines))?;
        Ok(entries
            .iter()
            .map(|entry| {
                let path = String::from_utf8_lossy(&entry.path);
                match &entry.kind {
                    EntryKind::Dir => format!("d {:o} {path}", entry.mode),
                    EntryKind::File(bytes) => {
                        let text = String::from_utf8_lossy(bytes);
                        format!("f {:o} {path} {text:?}", entry.mode)
                    }
                    EntryKind::Symlink(target) => {
                        format!("l {path} -> {}", String::from_utf8_lossy(target))
                    }
                }
            })
            .collect())
    }

    #[test]
    fn empty_image_gets_everything() {
        assert_eq!(
            planned(&[], Init::Auto).unwrap(),
            [
                "d 755 proc",
                "d 755 sys",
                "d 755 dev",
                "d 755 run",
                "d 1777 tmp",
                "d 755 etc",
                "d 755 etc/firebrick",
                "f 644 etc/firebrick/image.json \"{}\\n\"",
                "d 755 usr",
                "d 755 usr/lib",
                "d 755 usr/lib/firebrick",
                "f 755 usr/lib/firebrick/firebrick-guest \"guest\"",
                "d 755 sbin",
                "l sbin/init -> /usr/lib/firebrick/firebrick-guest",
            ]
        );
    }

    const DEBIAN: [&str; 13] = [
        "proc/",
        "sys/",
        "dev/",
        "run/",
        "tmp/",
        "etc/",
        "usr/",
        "usr/lib/",
        "usr/sbin/",
        "sbin -> usr/sbin",
        "usr/lib/systemd/",
        "usr/lib/systemd/systemd",
        "usr/sbin/init -> ../lib/systemd/systemd",
    ];

    #[test]
    fn existing_directories_and_symlinked_parents_are_kept() {
        let files = [
            "d 755 etc/firebrick",
            "f 644 etc/firebrick/image.json \"{}\\n\"",
            "d 755 usr/lib/firebrick",
            "f 755 usr/lib/firebrick/firebrick-guest \"guest\"",
        ];
        let link = "l usr/sbin/init -> /usr/lib/firebrick/firebrick-guest";
        assert_eq!(planned(&DEBIAN, Init::Auto).unwrap(), files);
        assert_eq!(planned(&DEBIAN, Init::None).unwrap(), files);
        assert_eq!(
            planned(&DEBIAN, Init::Firebrick).unwrap(),
            [&files[..], &[link]].concat()
        );
        let without_systemd = &DEBIAN[..10];
        assert_eq!(
            planned(without_systemd, Init::Auto).unwrap(),
            [&files[..], &[link]].concat()
        );
    }

    #[test]
    fn file_in_the_way_is_named() {
        let error = planned(&["usr/", "usr/lib -> ../data", "data"], Init::Auto).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot add \"/usr/lib/firebrick/firebrick-guest\" to the image: \"/data\" is not a directory there"
        );
        let error = planned(&["etc/", "etc/firebrick -> /tmp/x", "tmp/"], Init::Auto).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot add \"/etc/firebrick/image.json\" to the image: its folder is \"/tmp/x\" there, which a mounted \
             filesystem hides"
        );
    }
}
