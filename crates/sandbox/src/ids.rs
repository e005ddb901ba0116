//! Which user and group ids the sandbox gets.
//!
//! | who runs firebrick | ids in the sandbox | outside they are |
//! |---|---|---|
//! | root | 0 to 65535 (or as many as `/etc/subuid` gives root) | 1879048192 and on, or root's range |
//! | root of a container with ids of its own | as many as it has, less its own root | those behind root's |
//! | a user with ranges in `/etc/subuid` and `/etc/subgid`, and `newuidmap` | 0, and the range from 1 on | the user's own, and the range |
//! | anybody else, also in `unshare -r` | 0 | the user's own |
//!
//! Root of the sandbox is never root of the host where there is a choice.

use serde::{Deserialize, Serialize};

/// Which ids to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ids {
    /// As many as can be had.
    #[default]
    Auto,
    /// One, as if there were no more.
    Single,
}

/// Which owners files in the sandbox can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owners {
    /// Ids from 0 on, so many.
    Range(u32),
    /// Root alone. Changing owners seems to work and does nothing; files of the base keep theirs in the layer, new ones are root's.
    Single,
}

/// So many ids are worth having: a distribution's own users are below.
const RANGE_MIN: u32 = 1000;

/// Where root's ids go that nobody gave a range: far from users and from what `useradd` gives out.
const ROOT_BASE: u32 = 0x7000_0000;
const ROOT_COUNT: u32 = 65536;

/// One line of an id map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) count: u32,
}

/// How the maps come to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// This process may write any.
    Direct { uid: Extent, gid: Extent },
    /// `newuidmap` and `newgidmap` write what the administrator granted.
    Helper { uid: Vec<Extent>, gid: Vec<Extent> },
    /// The caller's own, and no other.
    Single { uid: u32, gid: u32 },
}

impl Mapping {
    pub(crate) fn owners(&self) -> Owners {
        match self {
            Mapping::Direct { uid, gid } => Owners::Range(uid.count.min(gid.count)),
            Mapping::Helper { uid, gid } => {
                let count = |map: &[Extent]| map.iter().map(|extent| extent.count).sum::<u32>();
                Owners::Range(count(uid).min(count(gid)))
            }
            Mapping::Single { .. } => Owners::Single,
        }
    }
}

/// What this process is, and what this system grants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// As `/etc/subuid` names the user.
    pub(crate) name: Option<String>,
    /// It has `CAP_SETUID`, `CAP_SETGID` and `CAP_CHOWN`.
    pub(crate) privileged: bool,
    /// `/proc/self/uid_map` and `gid_map`.
    pub(crate) uid_map: String,
    pub(crate) gid_map: String,
    pub(crate) subuid: String,
    pub(crate) subgid: String,
    /// `newuidmap` and `newgidmap` are installed.
    pub(crate) helpers: bool,
}

pub(crate) fn choose(ids: Ids, caller: &Caller) -> Mapping {
    let single = Mapping::Single {
        uid: caller.uid,
        gid: caller.gid,
    };
    if ids == Ids::Single {
        return single;
    }
    let name = caller.name.as_deref();
    let granted = |text: &str| granted(text, name, caller.uid);
    if caller.privileged {
        let (uid, gid) = (
            direct(&caller.uid_map, granted(&caller.subuid)),
            direct(&caller.gid_map, granted(&caller.subgid)),
        );
        return match (uid, gid) {
            (Some(uid), Some(gid)) => Mapping::Direct { uid, gid },
            _ => single,
        };
    }
    match (granted(&caller.subuid), granted(&caller.subgid)) {
        (Some(uid), Some(gid)) if caller.helpers => {
            let map = |own, (outside, count)| {
                let own = Extent {
                    inside: 0,
                    outside: own,
                    count: 1,
                };
                let range = Extent {
                    inside: 1,
                    outside,
                    count,
                };
                vec![own, range]
            };
            Mapping::Helper {
                uid: map(caller.uid, uid),
                gid: map(caller.gid, gid),
            }
        }
        _ => single,
    }
}

/// The first range of at least [`RANGE_MIN`] ids that a file like `/etc/subuid` grants (`name-or-uid:start:count`).
fn granted(text: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        if Some(who) != name && who.parse() != Ok(uid) {
            return None;
        }
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        start.checked_add(count)?;
        (count >= RANGE_MIN && start > 0).then_some((start, count.min(u32::MAX / 4)))
    })
}

/// Of the ids that this process' own map has (`inside outside count` in each line), the longest stretch without 0.
fn direct(own: &str, granted: Option<(u32, u32)>) -> Option<Extent> {
    let mut best: Option<Extent> = None;
    for line in own.lines() {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u32>());
        let (Some(Ok(start)), Some(Ok(_)), Some(Ok(count))) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let end = start.saturating_add(count);
        let extent = match granted {
            Some((from, len)) if from >= start && from.saturating_add(len) <= end => (from, len),
            // All there are: the host's own.
            _ if start == 0 && count == u32::MAX => (ROOT_BASE, ROOT_COUNT),
            _ => (start.max(1), end.saturating_sub(start.max(1))),
        };
        if best.is_none_or(|best| best.count < extent.1) {
            best = Some(Extent {
                inside: 0,
                outside: extent.0,
                count: extent.1.min(u32::MAX / 4),
            });
        }
    }
    best.filter(|best| best.count >= RANGE_MIN)
}

/// Whether a process with this `uid_map` is in a namespace that has next to no ids, as `unshare -r` makes it: nobody can grant it more.
pub(crate) fn confined(uid_map: &str) -> bool {
    let counts = uid_map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u32>().ok());
    !uid_map.trim().is_empty() && counts.fold(0, u32::saturating_add) < RANGE_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "         0          0 4294967295\n";

    fn caller(map: &str, subuid: &str) -> Caller {
        Caller {
            uid: 1001,
            gid: 1002,
            name: Some("ann".to_owned()),
            uid_map: map.to_owned(),
            gid_map: map.to_owned(),
            subuid: subuid.to_owned(),
            subgid: subuid.to_owned(),
            helpers: true,
            ..Caller::default()
        }
    }

    fn extent(inside: u32, outside: u32, count: u32) -> Extent {
        Extent {
            inside,
            outside,
            count,
        }
    }

    #[test]
    fn users_get_what_they_were_granted() {
        let single = Mapping::Single { uid: 1001, gid: 1002 };
        let mapping = choose(Ids::Auto, &caller(HOST, "bob:1:70000\nann:100000:65536\n"));
        let Mapping::Helper { uid, gid } = &mapping else {
            panic!("{mapping:?}")
        };
        assert_eq!(uid, &[extent(0, 1001, 1), extent(1, 100_000, 65536)]);
        assert_eq!(gid[0], extent(0, 1002, 1));
        assert_eq!(mapping.owners(), Owners::Range(65537));
        let by_number = choose(Ids::Auto, &caller(HOST, "1001:5000:1000"));
        assert_eq!(by_number.owners(), Owners::Range(1001));
        for subuid in [
            "",
            "bob:1:70000",
            "ann:100000:999",
            "ann:4294967295:65536",
            "ann:0:65536",
            "ann:x:y",
            "ann",
        ] {
            assert_eq!(choose(Ids::Auto, &caller(HOST, subuid)), single, "{subuid}");
        }
        let mut no_helpers = caller(HOST, "ann:100000:65536");
        no_helpers.helpers = false;
        assert_eq!(choose(Ids::Auto, &no_helpers), single);
        assert_eq!(choose(Ids::Single, &caller(HOST, "ann:100000:65536")), single);
    }

    #[test]
    fn root_of_the_sandbox_is_not_root_outside() {
        let ask = |map: &str, subuid: &str| {
            let caller = Caller {
                uid: 0,
                privileged: true,
                name: Some("root".into()),
                ..caller(map, subuid)
            };
            choose(Ids::Auto, &caller)
        };
        let direct = |map, subuid| match ask(map, subuid) {
            Mapping::Direct { uid, gid } if uid == gid => Some(uid),
            Mapping::Single { uid: 0, .. } => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(direct(HOST, ""), Some(extent(0, ROOT_BASE, ROOT_COUNT)));
        assert_eq!(
            direct(HOST, "root:200000:131072"),
            Some(extent(0, 200_000, 131_072))
        );
        // A rootless container, and `unshare -r`.
        assert_eq!(
            direct("0 1000 1\n1 100000 65536\n", ""),
            Some(extent(0, 1, 65536))
        );
        assert_eq!(
            direct("0 100000 65536\n", "root:200000:65536"),
            Some(extent(0, 1, 65535))
        );
        assert_eq!(direct("0 1000 1\n", ""), None);
        assert!(confined("0 1000 1\n"));
        for map in ["", HOST, "0 1000 1\n1 100000 65536\n"] {
            assert!(!confined(map), "{map}");
        }
    }
}
