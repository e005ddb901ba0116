//! Decides the entries of the firebrick layer.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use crate::config::ImageJson;
use crate::init::{Chosen, Init, is_file, link_of};
use crate::lower::{Lower, LowerKind, Resolved, join, resolve};
use crate::service::{Service, ServiceFile};
use crate::{GUEST_PATH, IMAGE_JSON_PATH, WORDS_PATH};

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
    /// Containers cannot be started in the image.
    #[error(
        "the image has no runc: install it there (Debian and Alpine: package runc), or add a static one with --runc FILE"
    )]
    NoRunc,
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
        planner.add_init(request)?;
    }
    if let Some(runc) = request.runc {
        planner.add("usr/local/bin/runc", 0o755, EntryKind::File(runc.into()))?;
    } else if request.profile == Some(Profile::Containerd) {
        let has_runc = |folder| is_file(lower, &format!("{folder}/runc"));
        if !PROGRAM_FOLDERS.into_iter().any(has_runc) {
            return Err(CustomiseError::NoRunc);
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
    /// Everything that makes the chosen init start the agent.
    fn add_init(&mut self, request: &Request<'a>) -> Result<(), CustomiseError> {
        let chosen = request.init.choose(self.lower)?;
        let service = Service {
            minimal: request.service.minimal || request.profile == Some(Profile::Containerd),
            ..request.service.clone()
        };
        if request.init != Init::None {
            let target = format!("/{GUEST_PATH}").into_bytes();
            self.add("sbin/overlay-init", 0o777, EntryKind::Symlink(target))?;
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
        listed(&Request::new(Some(b"guest"), &image_json, init), lines)
    }

    fn listed(request: &Request<'_>, lines: &[&str]) -> Result<Vec<String>, CustomiseError> {
        let entries = plan(request, &lower(lines))?;
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
                "l sbin/overlay-init -> /usr/lib/firebrick/firebrick-guest",
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
        let overlay = "l usr/sbin/overlay-init -> /usr/lib/firebrick/firebrick-guest";
        let link = "l usr/sbin/init -> /usr/lib/firebrick/firebrick-guest";
        assert_eq!(planned(&DEBIAN, Init::None).unwrap(), files);
        assert_eq!(
            planned(&DEBIAN, Init::Firebrick).unwrap(),
            [&files[..], &[overlay, link]].concat()
        );
        let without_systemd = &DEBIAN[..10];
        assert_eq!(
            planned(without_systemd, Init::Auto).unwrap(),
            [&files[..], &[overlay, link]].concat()
        );
    }

    /// The paths that an init adds, after those of every image.
    fn added(lines: &[&str], init: Init) -> Vec<String> {
        let entries = planned(lines, init).unwrap();
        let at = entries
            .iter()
            .position(|entry| entry.contains("overlay-init"))
            .unwrap();
        let short = |entry: &String| entry.split(" \"").next().unwrap().to_owned();
        entries[at + 1..]
            .iter()
            .filter(|entry| !entry.starts_with("d "))
            .map(short)
            .collect()
    }

    #[test]
    fn systemd_gets_a_unit_and_a_link() {
        let unit = [
            "f 644 etc/systemd/system/firebrick-agent.service",
            "l etc/systemd/system/multi-user.target.wants/firebrick-agent.service -> ../firebrick-agent.service",
        ];
        assert_eq!(added(&DEBIAN, Init::Auto), unit);
        let words = "f 644 etc/firebrick/cmdline";
        assert_eq!(added(&DEBIAN, Init::Systemd), [unit[0], unit[1], words]);
        // Debian's package systemd alone makes no /sbin/init.
        let init = "l usr/sbin/init -> /usr/lib/systemd/systemd";
        assert_eq!(
            added(&DEBIAN[..12], Init::Systemd),
            [init, unit[0], unit[1], words]
        );
    }

    const OPENRC: [&str; 5] = [
        "sbin/",
        "sbin/openrc-run",
        "sbin/supervise-daemon",
        "sbin/openrc-init",
        "sbin/init -> openrc-init",
    ];

    #[test]
    fn openrc_gets_a_service_in_its_runlevel() {
        let service = [
            "f 755 etc/init.d/firebrick-agent",
            "l etc/runlevels/default/firebrick-agent -> /etc/init.d/firebrick-agent",
        ];
        assert_eq!(added(&OPENRC, Init::Auto), service);
        let words = "f 644 etc/firebrick/cmdline";
        assert_eq!(added(&OPENRC, Init::OpenRc), [service[0], service[1], words]);
        assert_eq!(
            added(&OPENRC[..4], Init::OpenRc),
            ["l sbin/init -> /sbin/openrc-init", service[0], service[1], words]
        );
    }

    #[test]
    fn busybox_gets_an_inittab_if_asked_and_the_guest_in_its_place_if_not() {
        let busybox = ["bin/", "bin/busybox", "sbin/", "sbin/init -> /bin/busybox"];
        let guest = "l sbin/init -> /usr/lib/firebrick/firebrick-guest";
        assert_eq!(added(&busybox, Init::Auto), [guest]);
        let files = ["f 644 etc/inittab", "f 644 etc/firebrick/cmdline"];
        assert_eq!(added(&busybox, Init::Busybox), files);
        let link = "l sbin/init -> /bin/busybox";
        assert_eq!(added(&busybox[..2], Init::Busybox), [link, files[0], files[1]]);
    }

    #[test]
    fn an_init_that_is_not_there_is_refused_with_the_way_out() {
        for (init, told) in [
            (
                Init::Systemd,
                "no /lib/systemd/systemd, so its init cannot be systemd: install",
            ),
            (
                Init::OpenRc,
                "no /sbin/openrc-run, so its init cannot be openrc: install",
            ),
            (
                Init::Busybox,
                "no /bin/busybox, so its init cannot be busybox: install",
            ),
        ] {
            let error = planned(&[], init).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn containers_need_a_runc() {
        let image_json = ImageJson::default();
        let mut request = Request::new(Some(b"guest"), &image_json, Init::Auto);
        request.profile = Some(Profile::Containerd);
        assert_eq!(listed(&request, &DEBIAN).unwrap_err(), CustomiseError::NoRunc);
        let with_runc = [&DEBIAN[..], &["usr/sbin/runc"]].concat();
        let entries = listed(&request, &with_runc).unwrap();
        let target = "l etc/systemd/system/default.target -> firebrick.target".to_owned();
        assert!(entries.contains(&target), "{entries:?}");
        request.runc = Some(b"static");
        request.words = vec!["firebrick.cgroup=v1".to_owned()];
        let entries = listed(&request, &DEBIAN).unwrap();
        for entry in [
            "f 755 usr/local/bin/runc \"static\"",
            "f 644 etc/firebrick/cmdline \"firebrick.cgroup=v1\\n\"",
        ] {
            assert!(entries.iter().any(|found| found == entry), "{entries:?}");
        }
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
