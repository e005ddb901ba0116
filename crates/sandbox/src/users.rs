//! Users of the copy, by the text of its `/etc/passwd` and `/etc/group`.

/// Who a step runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, its own among them.
    pub(crate) groups: Vec<u32>,
    /// Where it is at home; `/` where nobody says.
    pub(crate) home: String,
}

/// Finds `USER[:GROUP]`, each a name or a number. Empty is root.
pub(crate) fn find(wanted: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 4 && (fields[0] == user || fields[2] == user));
    let (name, uid, own_gid) = match (&line, user.parse::<u32>()) {
        (Some(fields), _) => {
            let number = |at: usize| {
                let why = |_| format!("the image's /etc/passwd has no number for user {user:?}");
                fields[at].parse::<u32>().map_err(why)
            };
            (fields[0], number(2)?, number(3)?)
        }
        (None, Ok(uid)) => ("", uid, 0),
        (None, Err(_)) => return Err(format!("the image's /etc/passwd has no user {user:?}")),
    };
    let lines = || {
        group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|fields| fields.len() >= 4)
    };
    let gid = match wanted_group {
        None | Some("") => own_gid,
        Some(wanted) => match wanted.parse() {
            Ok(gid) => gid,
            Err(_) => lines()
                .find(|fields| fields[0] == wanted)
                .and_then(|fields| fields[2].parse().ok())
                .ok_or_else(|| format!("the image's /etc/group has no group {wanted:?}"))?,
        },
    };
    let mut groups = vec![gid];
    // As containers do it: naming a group leaves out the others.
    if wanted_group.is_none() && !name.is_empty() {
        let also = lines().filter(|fields| fields[3].split(',').any(|member| member == name));
        groups.extend(also.filter_map(|fields| fields[2].parse::<u32>().ok()));
    }
    groups.sort_unstable();
    groups.dedup();
    let home = match line.as_ref().and_then(|fields| fields.get(5)) {
        Some(home) if !home.is_empty() => (*home).to_owned(),
        None if uid == 0 => "/root".to_owned(),
        _ => "/".to_owned(),
    };
    Ok(Identity {
        uid,
        gid,
        groups,
        home,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100::/home/ann:\nbroken\nodd:x:x:y\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\naudio:x:29:bob,ann\n";

    #[test]
    fn names_numbers_and_groups() {
        let found = |wanted| find(wanted, PASSWD, GROUP).map(|found| (found.uid, found.gid, found.groups));
        assert_eq!(found(""), Ok((0, 0, vec![0])));
        assert_eq!(found("ann"), Ok((1000, 100, vec![29, 100])));
        assert_eq!(found("1000"), Ok((1000, 100, vec![29, 100])));
        assert_eq!(found("ann:audio"), Ok((1000, 29, vec![29])));
        let home = |wanted, passwd| find(wanted, passwd, GROUP).unwrap().home;
        assert_eq!(home("ann", PASSWD), "/home/ann");
        assert_eq!(
            (home("", ""), home("5", PASSWD)),
            ("/root".to_owned(), "/".to_owned())
        );
        assert_eq!(found("77:78"), Ok((77, 78, vec![78])));
        assert_eq!(
            find("5", "", ""),
            Ok(Identity {
                uid: 5,
                gid: 0,
                groups: vec![0],
                home: "/".to_owned()
            })
        );
        for wrong in ["eve", "ann:eve", "odd"] {
            assert!(found(wrong).is_err(), "{wrong}");
        }
    }
}
