//! What package databases list, and taking files off those lists.
//!
//! - dpkg: `/var/lib/dpkg/info/*.list` names a path a line, `*.md5sums` a digest and a path; distroless images have
//!   `status.d/*.md5sums` instead. `dpkg --verify` goes by both.
//! - apk: `lib/apk/db/installed`, paragraphs in which `F:` names a folder and `R:` a file of it, with lines about each behind it.
//! - RPM and pacman: cannot be edited here, so what packages bring stays where either has a database.

use std::collections::BTreeSet;

use super::Rule;
use crate::image::Image;
use crate::lower::{Lower as _, LowerKind};
use crate::plan::{Entry, EntryKind, Planner};
use crate::settings::SettingError;

const DPKG: &str = "var/lib/dpkg";
const APK: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
const UNEDITABLE: [(&str, &str); 4] = [
    ("var/lib/rpm", "RPM"),
    ("usr/lib/sysimage/rpm", "RPM"),
    ("usr/share/rpm", "RPM"),
    ("var/lib/pacman/local", "pacman"),
];

/// A file of a database.
#[derive(Debug)]
struct List {
    path: Vec<u8>,
    form: Form,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `/path`
    Paths,
    /// `digest  path`
    Digests,
    /// `F:` and `R:` lines
    Apk,
}

/// The databases of an image.
#[derive(Debug)]
pub(super) struct Packages {
    lists: Vec<List>,
    /// Every file that a database lists, without a leading slash.
    listed: BTreeSet<Vec<u8>>,
    uneditable: Vec<&'static str>,
    has_dpkg: bool,
}

impl Packages {
    /// Reads all lists. Those of hundreds of packages have a few megabytes.
    pub(super) fn read(image: &Image<'_>) -> Result<Packages, SettingError> {
        let mut lists = Vec::new();
        for (folder, ends) in [
            ("info", &[(".list", Form::Paths), (".md5sums", Form::Digests)][..]),
            ("status.d", &[(".md5sums", Form::Digests)]),
        ] {
            let folder = format!("{DPKG}/{folder}");
            for name in image.names(folder.as_bytes()) {
                let form = ends.iter().find(|(end, _)| name.ends_with(end.as_bytes()));
                if let Some((_, form)) = form {
                    let path = [folder.as_bytes(), b"/", &name].concat();
                    lists.extend(List::read(image, path, *form)?);
                }
            }
        }
        let has_dpkg = !lists.is_empty();
        for path in APK {
            lists.extend(List::read(image, path.as_bytes().to_vec(), Form::Apk)?);
        }
        let mut listed = BTreeSet::new();
        for list in &lists {
            list.each_line(|path, _| {
                listed.extend(path.map(normal));
                true
            });
        }
        let is_folder = |path: &str| image.kind(path.as_bytes()) == Some(LowerKind::Dir);
        let mut uneditable: Vec<&str> = UNEDITABLE
            .into_iter()
            .filter(|(path, _)| is_folder(path) && !image.names(path.as_bytes()).is_empty())
            .map(|(_, name)| name)
            .collect();
        uneditable.dedup();
        Ok(Packages {
            lists,
            listed,
            uneditable,
            has_dpkg,
        })
    }

    pub(super) fn has_dpkg(&self) -> bool {
        self.has_dpkg
    }

    pub(super) fn uneditable(&self) -> Vec<&'static str> {
        self.uneditable.clone()
    }

    /// Whether a database that can be edited lists a path.
    pub(super) fn lists(&self, path: &[u8]) -> bool {
        self.listed.contains(path)
    }

    /// Whether a path must stay because a database that cannot be read may list it.
    pub(super) fn pins(&self, path: &[u8], rule: Rule) -> bool {
        let of_packages = match rule {
            Rule::Docs | Rule::Man | Rule::Info | Rule::Locale | Rule::Pyc => true,
            Rule::Cache | Rule::Logs | Rule::Tmp => false,
        };
        of_packages && !self.uneditable.is_empty() && !path.starts_with(b"usr/local/")
    }

    /// Takes what is gone off the lists.
    pub(super) fn forget(
        &self,
        planner: &mut Planner<'_, '_>,
        image: &Image<'_>,
        gone: &BTreeSet<Vec<u8>>,
    ) -> Result<(), SettingError> {
        for list in &self.lists {
            let kept = list.without(gone);
            if kept.len() == list.bytes.len() {
                continue;
            }
            let Some(id) = image.inode(&list.path) else {
                continue;
            };
            let meta = &image.tree.inode(id).meta;
            planner.push_entry(Entry {
                path: list.path.clone(),
                mode: meta.mode,
                owner: (meta.uid, meta.gid),
                xattrs: meta.xattrs.clone(),
                kind: EntryKind::File(kept.into()),
            });
        }
        Ok(())
    }
}

/// A listed path as the tree has it. Packages name `/bin/ls` where the image has `/bin -> usr/bin`, which no rule means.
fn normal(path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    path.strip_prefix(b"/").unwrap_or(path).to_vec()
}

impl List {
    fn read(image: &Image<'_>, path: Vec<u8>, form: Form) -> Result<Option<List>, SettingError> {
        let found = image.file(&path).map_err(|error| SettingError::Unreadable {
            path: String::from_utf8_lossy(&[b"/", path.as_slice()].concat())
                .into_owned()
                .into(),
            why: error.to_string(),
        })?;
        Ok(found.map(|(_, bytes)| List { path, form, bytes }))
    }

    /// Gives every line with the path that it is about, if it is about one; lines for which `keep` says no are left out of
    /// what comes back.
    fn each_line<'a>(&'a self, mut keep: impl FnMut(Option<&[u8]>, &'a [u8]) -> bool) -> Vec<u8> {
        let mut kept = Vec::with_capacity(self.bytes.len());
        let mut folder: &[u8] = b"";
        // What the lines behind an F: or R: line are about.
        let mut about: Option<Vec<u8>> = None;
        for line in self.bytes.split_inclusive(|&byte| byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let keeps = match self.form {
                Form::Paths => keep(Some(text).filter(|text| *text != b"/."), line),
                Form::Digests => {
                    let path = text
                        .splitn(2, |&byte| byte == b' ')
                        .nth(1)
                        .map(<[u8]>::trim_ascii_start);
                    keep(path, line)
                }
                Form::Apk => {
                    match text {
                        [b'F', b':', path @ ..] => {
                            folder = path;
                            about = Some(path.to_vec());
                        }
                        [b'R', b':', name @ ..] => about = Some(crate::lower::join(folder, name)),
                        [b'a' | b'Z' | b'M', b':', ..] => {}
                        _ => about = None,
                    }
                    keep(about.as_deref(), line)
                }
            };
            if keeps {
                kept.extend_from_slice(line);
            }
        }
        kept
    }

    fn without(&self, gone: &BTreeSet<Vec<u8>>) -> Vec<u8> {
        self.each_line(|path, _| path.is_none_or(|path| !gone.contains(&normal(path))))
    }
}
