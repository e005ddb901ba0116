//! Users and groups, from the image's own `/etc/passwd` and `/etc/group`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Who a job runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The home folder, `/` where none is known.
    pub home: String,
}

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// The number of a user or group. The highest one means "leave it as it is" to the kernel, and so would keep root.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
        let (_comment, home) = (fields.next()?, fields.next()?);
        Some(Account { name, uid, gid, home })
    })
}

/// A line of `/etc/group`: name, id, and members parted by commas.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, gid) = (fields.next()?, fields.next()?, id(fields.next()?)?);
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

/// The user that `spec` means: `user[:group]`, each a name or a number; empty is root.
///
/// As container runtimes have it: a number need not be in `passwd` (group 0 then); an account brings its own group, and its
/// supplementary groups when `spec` names no group.
///
/// # Errors
/// What is not there, in words.
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, group_spec) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user);
    let account = accounts(passwd)
        .find(|account| account.name == user)
        .or_else(|| accounts(passwd).find(|account| Some(account.uid) == number));
    let uid = account.as_ref().map(|account| account.uid).or(number);
    let Some(uid) = uid else {
        return Err(alloc::format!("the image has no user {user:?}"));
    };
    let mut found = User {
        uid,
        gid: account.as_ref().map_or(0, |account| account.gid),
        groups: Vec::new(),
        home: account
            .as_ref()
            .map(|account| account.home)
            .filter(|home| !home.is_empty())
            .unwrap_or("/")
            .to_string(),
    };
    match group_spec {
        Some(wanted) => {
            let named = groups(group)
                .find(|(name, ..)| *name == wanted)
                .map(|(_, gid, _)| gid);
            found.gid = named
                .or_else(|| id(wanted))
                .ok_or_else(|| alloc::format!("the image has no group {wanted:?}"))?;
        }
        None => {
            if let Some(account) = account {
                found.groups = groups(group)
                    .filter(|(.., members)| members.split(',').any(|member| member == account.name))
                    .map(|(_, gid, _)| gid)
                    .collect();
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbad line\n42:x:7:7::/seven:\nnex:x:1000:1001:Nex:/home/nex:/bin/sh\n\
                          empty:x:5:5:::\nhuge:x:99999999999:0::/:\n";
    const GROUP: &str =
        "root:x:0:root\nwheel:x:10:root,nex\nnex:x:1001:\naudio:x:29:other,nex\nbad:x:zz:nex\n";

    fn ids(spec: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        resolve(spec, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.groups, user.home))
    }

    #[test]
    fn names_and_numbers() {
        let root: (u32, u32, Vec<u32>, String) = (0, 0, [0, 10].into(), "/root".into());
        for spec in ["", "root", "0", ":"] {
            assert_eq!(ids(spec).as_ref(), Ok(&root), "{spec:?}");
        }
        assert_eq!(ids("nex"), Ok((1000, 1001, [10, 29].into(), "/home/nex".into())));
        assert_eq!(ids("nex:audio"), Ok((1000, 29, [].into(), "/home/nex".into())));
        assert_eq!(ids("1000:3"), Ok((1000, 3, [].into(), "/home/nex".into())));
        assert_eq!(ids("2000"), Ok((2000, 0, [].into(), "/".into())));
        assert_eq!(
            ids("42"),
            Ok((7, 7, [].into(), "/seven".into())),
            "a name of digits comes first"
        );
        assert_eq!(ids("empty").map(|user| user.3), Ok("/".into()));
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert!(ids("nobody").is_err_and(|problem| problem.contains("nobody")));
        assert!(ids("root:staff").is_err_and(|problem| problem.contains("staff")));
        assert!(ids("huge").is_err());
        assert!(ids("-1").is_err());
        for spec in [
            "4294967295",
            "4294967295:5",
            "1000:4294967295",
            "none",
            "root:none",
        ] {
            let (passwd, group) = ("none:x:4294967295:0::/:\n", "none:x:4294967295:\n");
            assert!(resolve(spec, passwd, group).is_err(), "{spec:?} would stay root");
        }
        assert!(resolve("0", "", "").is_ok_and(|user| user.home == "/"));
    }
}
