//! Decides the entries of the firebrick layer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use firebrick_tree::Xattrs;

use crate::config::ImageJson;
use crate::image::Image;
use crate::init::{Chosen, Init, is_file, link_of};
use crate::lower::{Lower, LowerKind, Resolved, join, resolve};
use crate::service::{Service, ServiceFile};
use crate::settings::{SettingError, Settings};
use crate::slim::Slimmed;
use crate::{COMMAND_PATH, GUEST_PATH, IMAGE_JSON_PATH, WORDS_PATH};

/// What the layer shall hold.
#[derive(Debug)]
pub struct Request<'a> {
    /// The guest's bytes: a static Linux program for the image's architecture. `None` puts no guest in.
    pub guest: Option<&'a [u8]>,
    /// The content of `/etc/firebrick/image.json`.
    pub image_json: &'a ImageJson,
    /// Who shall be PID 1.
    pub init: Init,
    /// How the agent runs where that is not the guest.
    pub service: Service,
    /// Words for the guest that are not on the kernel command line of whoever boots the image (`docs/guest.md`).
    pub words: Vec<String>,
    /// What the image is for.
    pub profile: Option<Profile>,
    /// The bytes of a static `runc` for `/usr/local/bin`.
    pub runc: Option<&'a [u8]>,
}

/// What an image is for, where that asks for more than an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Containers inside the VM: there must be a `runc`, and under systemd little else is booted.
    Containerd,
}

impl<'a> Request<'a> {
    /// A request for a guest and nothing special.
    pub fn new(guest: Option<&'a [u8]>, image_json: &'a ImageJson, init: Init) -> Request<'a> {
        Request {
            guest,
            image_json,
            init,
            service: Service::default(),
            words: Vec::new(),
            profile: None,
            runc: None,
        }
    }
}

/// One entry of the layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path in the image, without a leading slash; no component but the last is a symlink below.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u16,
    /// Owner and group; root's but for files of the user's and files that the image has already.
    pub owner: (u32, u32),
    /// Extended attributes: those that an edited file has in the image.
    pub xattrs: Xattrs,
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
    /// Takes away what the image has at this path.
    Whiteout,
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
    /// The init that was asked for is not in the image.
    #[error("the image has no {missing}, so its init cannot be {init}: {advice}, or choose another --init")]
    NoInit {
        /// What was asked for.
        init: &'static str,
        /// What is not there.
        missing: String,
        /// How to get it.
        advice: &'static str,
    },
    /// What is asked of a service, where there will be none.
    #[error("{option} is for {under}, and in this image {instead}: choose another --init, or leave it out")]
    NoService {
        /// What was asked for.
        option: &'static str,
        /// What it is for.
        under: &'static str,
        /// What there is.
        instead: Chosen,
    },
    /// Containers cannot be started in the image.
    #[error(
        "the image has no runc: install it there (Debian and Alpine: package runc), or add a static one with --runc FILE"
    )]
    NoRunc,
    /// A setting that this image has no place for.
    #[error("cannot set {what} in the image")]
    Setting {
        /// What was to be set.
        what: String,
        /// Why not.
        source: SettingError,
    },
}

/// Where programs lie that a shell finds.
const PROGRAM_FOLDERS: [&str; 6] = [
    "usr/local/sbin",
    "usr/local/bin",
    "usr/sbin",
    "usr/bin",
    "sbin",
    "bin",
];

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
    let mut planner = Planner::new(lower);
    planner.add_request(request)?;
    Ok(planner.entries)
}

/// Decides the layer's entries where more is asked for than a guest: `settings` are laid over `image`, then what they name
/// is slimmed away.
///
/// # Errors
/// As [`plan`], and [`CustomiseError::Setting`] for a setting that the image has no place for.
pub fn customise<'a>(
    request: &Request<'a>,
    settings: &'a Settings,
    image: &Image<'_>,
) -> Result<Customised<'a>, CustomiseError> {
    let mut planner = Planner::new(image);
    planner.add_request(request)?;
    let chosen = match request.guest {
        Some(_) => request.init.choose(image)?,
        None => Chosen::Untouched,
    };
    crate::settings::add(
        &mut planner,
        settings,
        request.service.user.as_ref(),
        image,
        chosen,
    )?;
    let slimmed =
        crate::slim::add(&mut planner, &settings.slim, image).map_err(|source| CustomiseError::Setting {
            what: "what is slimmed away".to_owned(),
            source,
        })?;
    Ok(Customised {
        entries: planner.entries,
        slimmed,
    })
}

/// Decides the entries of a layer that holds files and accounts of `settings`, and nothing else of them.
///
/// # Errors
/// [`CustomiseError::Setting`] for one that the image has no place for.
pub fn lay<'a>(settings: &'a Settings, image: &Image<'_>) -> Result<Vec<Entry<'a>>, CustomiseError> {
    let mut planner = Planner::new(image);
    crate::settings::add_files(&mut planner, settings, None, image)?;
    Ok(planner.entries)
}

/// What [`customise`] decided.
#[derive(Debug)]
pub struct Customised<'a> {
    /// The layer's entries: parents before children, each path once.
    pub entries: Vec<Entry<'a>>,
    /// What was slimmed away; nothing where nothing was asked for.
    pub slimmed: Slimmed,
}

impl<'a, 'b> Planner<'a, 'b> {
    fn new(lower: &'b dyn Lower) -> Planner<'a, 'b> {
        Planner {
            lower,
            entries: Vec::new(),
            made: BTreeMap::new(),
        }
    }

    fn add_request(&mut self, request: &Request<'a>) -> Result<(), CustomiseError> {
        for (path, mode) in MOUNT_POINTS {
            self.mount_point(path, mode);
        }
        let json = request.image_json.to_bytes();
        self.add(IMAGE_JSON_PATH, 0o644, EntryKind::File(json.into()))?;
        if let Some(guest) = request.guest {
            self.add(GUEST_PATH, 0o755, EntryKind::File(guest.into()))?;
            self.add_init(request)?;
        }
        if let Some(runc) = request.runc {
            self.add("usr/local/bin/runc", 0o755, EntryKind::File(runc.into()))?;
        } else if request.profile == Some(Profile::Containerd) {
            let has_runc = |folder| is_file(self.lower, &format!("{folder}/runc"));
            if !PROGRAM_FOLDERS.into_iter().any(has_runc) {
                return Err(CustomiseError::NoRunc);
            }
        }
        Ok(())
    }
}

pub(crate) struct Planner<'a, 'b> {
    pub(crate) lower: &'b dyn Lower,
    entries: Vec<Entry<'a>>,
    /// Which entry makes a path.
    made: BTreeMap<Vec<u8>, usize>,
}

impl<'a> Planner<'a, '_> {
    /// Everything that makes the chosen init start the agent.
    fn add_init(&mut self, request: &Request<'a>) -> Result<(), CustomiseError> {
        let chosen = request.init.choose(self.lower)?;
        let no_service = |option, under| CustomiseError::NoService {
            option,
            under,
            instead: chosen,
        };
        if request.service.user.is_some() && matches!(chosen, Chosen::Guest | Chosen::Untouched) {
            return Err(no_service("--agent-user", "systemd, OpenRC and busybox"));
        }
        if request.service.minimal && chosen != Chosen::Systemd {
            return Err(no_service("--init-target minimal", "systemd"));
        }
        let service = Service {
            minimal: request.service.minimal || request.profile == Some(Profile::Containerd),
            ..request.service.clone()
        };
        let guest = format!("/{GUEST_PATH}").into_bytes();
        // A convenience: an image that has no place for it boots all the same.
        if matches!(resolve(self.lower, COMMAND_PATH.as_bytes()), Resolved::Missing(_)) {
            _ = self.add(COMMAND_PATH, 0o777, EntryKind::Symlink(guest.clone()));
        }
        if request.init != Init::None {
            self.add("sbin/overlay-init", 0o777, EntryKind::Symlink(guest))?;
        }
        if let Some(target) = link_of(chosen, self.lower) {
            self.add("sbin/init", 0o777, EntryKind::Symlink(target.into_bytes()))?;
        }
        let files = match chosen {
            Chosen::Guest | Chosen::Untouched => Vec::new(),
            Chosen::Systemd => service.systemd(),
            Chosen::OpenRc => service.openrc(),
            Chosen::Busybox => service.busybox(is_file(self.lower, "etc/init.d/rcS")),
        };
        for file in files {
            match file {
                ServiceFile::File(path, mode, text) => {
                    self.add(path, mode, EntryKind::File(text.into_bytes().into()))?;
                }
                ServiceFile::Link(path, target) => {
                    self.add(path, 0o777, EntryKind::Symlink(target.into()))?;
                }
            }
        }
        // Who asks for an init by name gets it from `firebrick run`, too, whose own guest would be faster.
        let by_name = matches!(request.init, Init::Systemd | Init::OpenRc | Init::Busybox);
        let own_init = by_name.then(|| "init=/sbin/init".to_owned());
        let words: Vec<String> = own_init
            .into_iter()
            .chain(request.words.iter().cloned())
            .collect();
        if !words.is_empty() {
            let text = words.join(" ") + "\n";
            self.add(WORDS_PATH, 0o644, EntryKind::File(text.into_bytes().into()))?;
        }
        Ok(())
    }

    /// A folder to mount on, if nothing is there. A symlink that leads nowhere is the image's own business
    /// (`/run -> /var/run` with `/var` on another disk): it stays.
    fn mount_point(&mut self, path: &str, mode: u16) {
        if self.lower.kind(path.as_bytes()).is_none() {
            self.push(path.into(), mode, EntryKind::Dir);
        }
    }

    pub(crate) fn add(&mut self, path: &str, mode: u16, kind: EntryKind<'a>) -> Result<(), CustomiseError> {
        self.add_owned(path, mode, kind, (0, 0), Xattrs::new())
    }

    /// As [`Planner::add`], with an owner and extended attributes.
    pub(crate) fn add_owned(
        &mut self,
        path: &str,
        mode: u16,
        kind: EntryKind<'a>,
        owner: (u32, u32),
        xattrs: Xattrs,
    ) -> Result<(), CustomiseError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
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
        self.push_entry(Entry {
            path: join(&folder, name.as_bytes()),
            mode,
            owner,
            xattrs,
            kind,
        });
        Ok(())
    }

    /// What the layer so far has at a real path.
    pub(crate) fn made(&self, path: &[u8]) -> Option<&Entry<'a>> {
        self.made.get(path).and_then(|&at| self.entries.get(at))
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
            if self.lower.kind(dir).is_none() && !self.made.contains_key(dir) {
                self.push(dir.to_vec(), 0o755, EntryKind::Dir);
            }
        }
    }

    fn push(&mut self, path: Vec<u8>, mode: u16, kind: EntryKind<'a>) {
        self.push_entry(Entry {
            path,
            mode,
            owner: (0, 0),
            xattrs: Xattrs::new(),
            kind,
        });
    }

    /// Adds an entry; one of the same path gives way.
    pub(crate) fn push_entry(&mut self, entry: Entry<'a>) {
        match self
            .made
            .get(&entry.path)
            .and_then(|&at| self.entries.get_mut(at))
        {
            Some(before) => *before = entry,
            None => {
                self.made.insert(entry.path.clone(), self.entries.len());
                self.entries.push(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests;
