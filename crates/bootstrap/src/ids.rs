//! Whether this process can own files as several users, which every system's packages want.
//!
//! Root can. Anyone else needs a *range*: user and group IDs that `/etc/subuid` and `/etc/subgid` set aside for them, and
//! `newuidmap` and `newgidmap`, which put them into a user namespace.

use std::path::Path;

use crate::error::BootstrapError;

/// IDs that packages use: up to `nogroup`, 65534.
const IDS: u64 = 65_536;

/// Who runs the tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Root, of this host or of a namespace that has all IDs.
    Root,
    /// Root of a user namespace of its own.
    Unshare,
}

/// Finds out which way there is, below `/` of this host.
pub(crate) fn mode(root: &Path, uid: u32) -> Result<Mode, BootstrapError> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    if uid == 0 {
        let ids = mapped(&read("proc/self/uid_map"));
        return match ids < IDS {
            true => Err(BootstrapError::FewIds { ids }),
            false => Ok(Mode::Root),
        };
    }
    let user = user_name(&read("etc/passwd"), uid).unwrap_or_else(|| uid.to_string());
    for file in ["etc/subuid", "etc/subgid"] {
        let range = range(&read(file), &user, uid);
        if range < IDS {
            return Err(BootstrapError::NoRange {
                user,
                file: Path::new("/").join(file),
                found: range,
            });
        }
    }
    Ok(Mode::Unshare)
}

/// How many IDs a `uid_map` has. A host without user namespaces has no such file, and all IDs.
fn mapped(map: &str) -> u64 {
    if map.trim().is_empty() {
        return u64::MAX;
    }
    map.lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The longest range of a user, by name or number.
fn range(table: &str, user: &str, uid: u32) -> u64 {
    let number = uid.to_string();
    let ranges = table.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        let count = fields.nth(1)?.parse::<u64>().ok()?;
        (name == user || name == number).then_some(count)
    });
    ranges.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::host;

    #[test]
    fn root_needs_all_ids_and_others_a_range() {
        let all = host(&[("proc/self/uid_map", "         0          0 4294967295\n")]);
        assert_eq!(mode(all.path(), 0).unwrap(), Mode::Root);
        assert_eq!(mode(host(&[]).path(), 0).unwrap(), Mode::Root);
        let one = host(&[("proc/self/uid_map", "         0       1001          1\n")]);
        assert!(matches!(
            mode(one.path(), 0),
            Err(BootstrapError::FewIds { ids: 1 })
        ));
        let rootless = host(&[("proc/self/uid_map", "0 1001 1\n1 100000 65536\n")]);
        assert_eq!(mode(rootless.path(), 0).unwrap(), Mode::Root);

        let passwd = (
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\nann:x:1001:1001::/:/bin/sh\n",
        );
        let ranges = [
            passwd,
            ("etc/subuid", "ann:100000:65536\n"),
            ("etc/subgid", "1001:100000:65536\n"),
        ];
        assert_eq!(mode(host(&ranges).path(), 1001).unwrap(), Mode::Unshare);
        let half = host(&[passwd, ("etc/subuid", "ann:100000:65536\nbob:1:65536\n")]);
        let Err(BootstrapError::NoRange { user, file, found: 0 }) = mode(half.path(), 1001) else {
            panic!("there are no groups");
        };
        assert_eq!((user.as_str(), file.to_str()), ("ann", Some("/etc/subgid")));
        assert!(matches!(
            mode(host(&ranges).path(), 1002),
            Err(BootstrapError::NoRange { found: 0, .. })
        ));
    }
}
