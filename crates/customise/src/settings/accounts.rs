//! Users, groups and root's password: `/etc/passwd`, `group`, `shadow` and `gshadow`, edited line by line.
//!
//! The files of an image may hold anything: lines are kept as they are unless they are what is edited, and fields are only
//! ever read. Numbers are given out from 1000 on, the first that nobody has, so that the same image gets the same ones.
#![cfg_attr(not(test), deny(clippy::as_conversions, clippy::arithmetic_side_effects))]

use std::collections::BTreeSet;
use std::ops::Range;

use firebrick_tree::Metadata;

use super::files::{self, Content, NewFile, Owner};
use super::{AccountName, PasswordHash, SettingError, Settings, setting};
use crate::image::Image;
use crate::init::is_file;
use crate::lower::Lower;
use crate::plan::{CustomiseError, Planner};

/// Numbers for users and groups that name none.
const NUMBERS: Range<u32> = 1000..60_000;

/// A group to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    /// Its name.
    pub name: AccountName,
    /// Its number; the first free one where nothing is said.
    pub gid: Option<u32>,
}

/// A user to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// Its name.
    pub name: AccountName,
    /// Its number; the first free one where nothing is said.
    pub uid: Option<u32>,
    /// Its own group, by name or number; one of its own name, which is added, where nothing is said.
    pub group: Option<String>,
    /// Other groups that it is in.
    pub groups: Vec<AccountName>,
    /// Its folder, which is made; `/home/NAME` where nothing is said.
    pub home: Option<String>,
    /// Its shell; the image's bash, else `/bin/sh`, where nothing is said.
    pub shell: Option<String>,
}

/// One of the four files.
#[derive(Debug, Default)]
struct Database {
    path: &'static str,
    /// Where it really is.
    real: Vec<u8>,
    meta: Option<Metadata>,
    lines: Vec<Vec<u8>>,
    exists: bool,
    changed: bool,
}

impl Database {
    fn read(
        path: &'static str,
        planner: &Planner<'_, '_>,
        image: &Image<'_>,
        new: &[NewFile],
    ) -> Result<Database, SettingError> {
        let own = new.iter().rev().find(|file| file.path == path);
        let (real, found) = match own.map(|file| &file.content) {
            Some(Content::File(bytes)) => (path.as_bytes().to_vec(), Some((None, bytes.clone()))),
            _ => files::existing(planner, image, path)?,
        };
        let exists = found.is_some();
        let (meta, bytes) = found.unwrap_or_default();
        let mut lines: Vec<Vec<u8>> = bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        // What follows the last newline is no line unless something is there.
        if lines.last().is_some_and(Vec::is_empty) {
            lines.pop();
        }
        Ok(Database {
            path,
            real,
            meta,
            lines,
            exists,
            changed: false,
        })
    }

    /// The fields of the line of a name.
    fn fields(&self, name: &str) -> Option<Vec<&[u8]>> {
        let mut all = self.lines.iter().map(|line| fields(line));
        all.find(|fields| fields.first() == Some(&name.as_bytes()))
    }

    /// The name that has a number in the third field.
    fn name_of(&self, number: u32) -> Option<&[u8]> {
        let mut all = self.lines.iter().map(|line| fields(line));
        all.find(|fields| fields.len() > 2 && number_in(fields, 2) == Some(number))
            .and_then(|fields| fields.first().copied())
    }

    fn free_number(&self, kind: &'static str, wanted: Option<u32>) -> Result<u32, SettingError> {
        let taken: BTreeSet<u32> = self
            .lines
            .iter()
            .filter_map(|line| number_in(&fields(line), 2))
            .collect();
        let is_free = |number: &u32| !taken.contains(number);
        wanted
            .into_iter()
            .chain(NUMBERS)
            .find(is_free)
            .ok_or(SettingError::NoNumber { kind })
    }

    fn push(&mut self, line: String) {
        self.lines.push(line.into_bytes());
        self.changed = true;
    }

    /// Changes one field of the line of a name, if it has as many.
    fn change(&mut self, name: &str, field: usize, change: impl FnOnce(&[u8]) -> Vec<u8>) -> bool {
        for line in &mut self.lines {
            let mut parts: Vec<Vec<u8>> = fields(line).into_iter().map(<[u8]>::to_vec).collect();
            if parts.first().map(Vec::as_slice) != Some(name.as_bytes()) {
                continue;
            }
            let Some(part) = parts.get_mut(field) else {
                return false;
            };
            *part = change(part);
            *line = parts.join(&b':');
            self.changed = true;
            return true;
        }
        false
    }
}

fn fields(line: &[u8]) -> Vec<&[u8]> {
    line.split(|&byte| byte == b':').collect()
}

fn number_in(fields: &[&[u8]], field: usize) -> Option<u32> {
    std::str::from_utf8(fields.get(field)?).ok()?.parse().ok()
}

/// The four files while they are being edited.
#[derive(Debug)]
pub(super) struct Accounts {
    passwd: Database,
    group: Database,
    shadow: Database,
    gshadow: Database,
    /// Folders of the users that are added, and their owners.
    homes: Vec<(String, (u32, u32))>,
}

impl Accounts {
    pub(super) fn read(
        planner: &Planner<'_, '_>,
        image: &Image<'_>,
        settings: &Settings,
        is_asked: bool,
    ) -> Result<Accounts, CustomiseError> {
        let owners = settings.files.iter().any(|file| file.owner.is_some());
        if !owners
            && !is_asked
            && settings.users.is_empty()
            && settings.groups.is_empty()
            && settings.root_password.is_none()
        {
            // Nobody asks, and images without users are fine.
            return Ok(Accounts {
                passwd: Database::default(),
                group: Database::default(),
                shadow: Database::default(),
                gshadow: Database::default(),
                homes: Vec::new(),
            });
        }
        let read = |path| {
            setting(
                "users and groups",
                Database::read(path, planner, image, &settings.files),
            )
        };
        Ok(Accounts {
            passwd: read("etc/passwd")?,
            group: read("etc/group")?,
            shadow: read("etc/shadow")?,
            gshadow: read("etc/gshadow")?,
            homes: Vec::new(),
        })
    }

    /// Adds everybody whom the settings name.
    pub(super) fn add(&mut self, settings: &Settings, lower: &dyn Lower) -> Result<(), CustomiseError> {
        for group in &settings.groups {
            let added = self.add_group(group.name.as_str(), group.gid);
            setting(format!("the group {}", group.name), added)?;
        }
        for user in &settings.users {
            setting(format!("the user {}", user.name), self.add_user(user, lower))?;
        }
        if let Some(hash) = &settings.root_password {
            setting("root's password", self.set_root_password(hash))?;
        }
        Ok(())
    }

    fn add_group(&mut self, name: &str, gid: Option<u32>) -> Result<u32, SettingError> {
        if let Some(fields) = self.group.fields(name) {
            let has = number_in(&fields, 2);
            return match (has, gid) {
                (Some(has), Some(gid)) if has != gid => {
                    Err(taken(format!("the group {name} has number {has}")))
                }
                (Some(has), _) => Ok(has),
                (None, _) => Err(taken(format!("the group {name} has no number"))),
            };
        }
        if let Some(gid) = gid
            && let Some(other) = self.group.name_of(gid)
        {
            let other = String::from_utf8_lossy(other);
            return Err(taken(format!("the group {other} has number {gid}")));
        }
        let gid = self.group.free_number("group", gid)?;
        self.group.push(format!("{name}:x:{gid}:"));
        if self.gshadow.exists {
            self.gshadow.push(format!("{name}:!::"));
        }
        Ok(gid)
    }

    fn add_user(&mut self, user: &NewUser, lower: &dyn Lower) -> Result<(), SettingError> {
        let name = user.name.as_str();
        if let Some(fields) = self.passwd.fields(name) {
            let has = number_in(&fields, 2);
            if user.uid.is_some_and(|uid| Some(uid) != has) {
                let has = has.map_or("no number".to_owned(), |has| format!("number {has}"));
                return Err(taken(format!("the user {name} has {has}")));
            }
        } else {
            if let Some(uid) = user.uid
                && let Some(other) = self.passwd.name_of(uid)
            {
                let other = String::from_utf8_lossy(other);
                return Err(taken(format!("the user {other} has number {uid}")));
            }
            let uid = self.passwd.free_number("user", user.uid)?;
            let gid = self.own_group(user, uid)?;
            let home = user.home.clone().unwrap_or_else(|| format!("/home/{name}"));
            let bash = ["bin/bash", "usr/bin/bash"]
                .into_iter()
                .any(|path| is_file(lower, path));
            let shell = user.shell.clone().unwrap_or_else(|| match bash {
                true => "/bin/bash".to_owned(),
                false => "/bin/sh".to_owned(),
            });
            self.passwd.push(format!("{name}:x:{uid}:{gid}::{home}:{shell}"));
            if self.shadow.exists {
                self.shadow.push(format!("{name}:!::0:99999:7:::"));
            }
            self.homes.push((home.trim_matches('/').to_owned(), (uid, gid)));
        }
        for group in &user.groups {
            self.join(name, group.as_str())?;
        }
        Ok(())
    }

    fn own_group(&mut self, user: &NewUser, uid: u32) -> Result<u32, SettingError> {
        match &user.group {
            Some(group) => self.group_number(group),
            None => {
                let name = user.name.as_str();
                let gid = self.group.name_of(uid).is_none().then_some(uid);
                match self.group.fields(name) {
                    Some(_) => self.group_number(name),
                    None => self.add_group(name, gid),
                }
            }
        }
    }

    fn join(&mut self, user: &str, group: &str) -> Result<(), SettingError> {
        let with = |members: &[u8]| {
            let mut all: Vec<&[u8]> = members
                .split(|&byte| byte == b',')
                .filter(|member| !member.is_empty())
                .collect();
            if !all.contains(&user.as_bytes()) {
                all.push(user.as_bytes());
            }
            all.join(&b',')
        };
        if !self.group.change(group, 3, with) {
            return Err(unknown("group", group));
        }
        if self.gshadow.exists {
            self.gshadow.change(group, 3, with);
        }
        Ok(())
    }

    fn set_root_password(&mut self, hash: &PasswordHash) -> Result<(), SettingError> {
        if self.passwd.fields("root").is_none() {
            return Err(unknown("user", "root"));
        }
        let hash = hash.as_str();
        if !self.shadow.exists {
            let gid = self
                .group
                .fields("shadow")
                .and_then(|fields| number_in(&fields, 2));
            self.shadow.meta = Some(Metadata {
                mode: 0o640,
                gid: gid.unwrap_or(0),
                ..Metadata::default()
            });
        }
        self.passwd.change("root", 1, |_| b"x".to_vec());
        if !self.shadow.change("root", 1, |_| hash.as_bytes().to_vec()) {
            self.shadow.push(format!("root:{hash}::0:99999:7:::"));
        }
        Ok(())
    }

    fn group_number(&self, group: &str) -> Result<u32, SettingError> {
        if let Ok(gid) = group.parse() {
            return Ok(gid);
        }
        let fields = self.group.fields(group).ok_or_else(|| unknown("group", group))?;
        number_in(&fields, 2).ok_or_else(|| unknown("group", group))
    }

    /// The numbers of an owner.
    pub(super) fn numbers(&self, owner: &Owner) -> Result<(u32, u32), SettingError> {
        let fields = self.passwd.fields(&owner.user);
        let uid = match owner.user.parse() {
            Ok(uid) => uid,
            Err(_) => fields
                .as_ref()
                .and_then(|fields| number_in(fields, 2))
                .ok_or_else(|| unknown("user", &owner.user))?,
        };
        let gid = match &owner.group {
            Some(group) => self.group_number(group)?,
            None => match owner.user.parse() {
                Ok(same) => same,
                Err(_) => fields.and_then(|fields| number_in(&fields, 3)).unwrap_or(uid),
            },
        };
        Ok((uid, gid))
    }

    /// Puts what changed into the layer.
    pub(super) fn write(&mut self, planner: &mut Planner<'_, '_>) -> Result<(), CustomiseError> {
        for (home, owner) in std::mem::take(&mut self.homes) {
            if !home.is_empty() && !exists(planner, &home) {
                let kind = crate::plan::EntryKind::Dir;
                planner.add_owned(&home, 0o755, kind, owner, firebrick_tree::Xattrs::new())?;
            }
        }
        for database in [
            &mut self.passwd,
            &mut self.group,
            &mut self.shadow,
            &mut self.gshadow,
        ] {
            if !database.changed {
                continue;
            }
            let mut bytes = database.lines.join(&b'\n');
            bytes.push(b'\n');
            let real = match database.real.is_empty() {
                true => database.path.as_bytes().to_vec(),
                false => std::mem::take(&mut database.real),
            };
            files::edited(planner, real, database.meta.take(), bytes)?;
        }
        Ok(())
    }
}

/// Whether a path leads to anything in the image, or this layer makes it.
fn exists(planner: &Planner<'_, '_>, path: &str) -> bool {
    use crate::lower::{Resolved, resolve};
    planner.made(path.as_bytes()).is_some()
        || !matches!(resolve(planner.lower, path.as_bytes()), Resolved::Missing(_))
}

fn taken(what: String) -> SettingError {
    SettingError::Taken { what }
}

fn unknown(kind: &'static str, name: &str) -> SettingError {
    SettingError::Unknown {
        kind,
        name: name.to_owned(),
    }
}
