//! What a step changed: two records in, the entries of a layer out. No input or output at all.

use std::collections::BTreeSet;

use super::record::{Node, Record};

/// Longest name that a whiteout can hide: `.wh.` stands in front of it.
const WHITEOUT_NAME_MAX: usize = 255 - ".wh.".len();

/// The entries of a layer, whiteouts first, parents before what they hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes<'a> {
    /// Paths that are gone, the topmost only.
    pub(crate) whiteouts: Vec<&'a [u8]>,
    /// Folders of which nothing that was below is there any more.
    pub(crate) opaque: Vec<&'a [u8]>,
    /// Paths that are new or changed.
    pub(crate) entries: Vec<&'a [u8]>,
}

/// Compares. `ours` are paths that the sandbox itself put there.
///
/// Whatever was done to an inode changed its time of change, which no step can set; so what has the inode and that time of before is
/// as it was. A folder with another inode or time of birth, or under which a name is gone that no whiteout could say, is new with everything below.
pub(crate) fn compare<'a>(before: &'a Record, after: &'a Record, ours: &BTreeSet<Box<[u8]>>) -> Changes<'a> {
    let mut changes = Changes::default();
    let mut replaced: BTreeSet<&[u8]> = BTreeSet::new();
    let gone = before.iter().filter(|(path, _)| !after.contains_key(*path));
    for (path, _) in gone {
        let (parent, name) = split(path);
        // What hid the parent hides this too.
        let parent_stays =
            after.get(parent).is_some_and(Node::is_folder) && before.get(parent).is_some_and(Node::is_folder);
        if !parent_stays || ours.contains(path) {
            continue;
        }
        if name.len() > WHITEOUT_NAME_MAX {
            replaced.insert(parent);
        } else {
            changes.whiteouts.push(path);
        }
    }
    for (path, node) in after {
        let new = |replaced: &BTreeSet<&[u8]>| !path.is_empty() && replaced.contains(split(path).0);
        match before.get(path) {
            Some(old) if node.is_folder() && old.is_folder() => {
                let other = (old.ino, old.born) != (node.ino, node.born) && !path.is_empty();
                if other || new(&replaced) || replaced.contains(&**path) {
                    replaced.insert(path);
                }
            }
            _ if node.is_folder() && new(&replaced) => {
                replaced.insert(path);
            }
            _ => {}
        }
        let changed = before.get(path).is_none_or(|old| {
            (old.ino, old.ctime, old.mode, old.uid, old.gid, old.size)
                != (node.ino, node.ctime, node.mode, node.uid, node.gid, node.size)
        });
        if ours.contains(path) {
            continue;
        }
        let is_replaced = replaced.contains(&**path);
        if changed || is_replaced || new(&replaced) {
            changes.entries.push(path);
        }
        // Only the topmost: below it, nothing of lower layers is left to hide.
        if is_replaced && !new(&replaced) && before.get(path).is_some_and(Node::is_folder) {
            changes.opaque.push(path);
        }
    }
    changes.whiteouts.retain(|path| !under(&changes.opaque, path));
    changes
}

/// Whether a path is below one of these.
fn under(folders: &[&[u8]], path: &[u8]) -> bool {
    folders.iter().any(|folder| {
        folder.is_empty()
            || path
                .strip_prefix(*folder)
                .is_some_and(|rest| rest.starts_with(b"/"))
    })
}

/// The parent and the name of a path that is not the root.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebrick_tree::Timestamp;

    /// `path inode ctime`, one a line; folders end with a slash.
    fn record(text: &str) -> Record {
        let mut record = Record::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| fields[at].parse::<u64>().unwrap();
            let time = Timestamp {
                seconds: number(2) as i64,
                nanoseconds: 0,
            };
            let kind = if fields[0].ends_with('/') {
                0o040_755
            } else {
                0o100_644
            };
            let node = Node {
                ino: number(1),
                born: Timestamp::default(),
                mode: kind,
                uid: 0,
                gid: 0,
                size: 0,
                links: 1,
                device: (0, 0),
                mtime: time,
                ctime: time,
            };
            record.insert(fields[0].trim_end_matches('/').as_bytes().into(), node);
        }
        record
    }

    fn said(before: &str, after: &str) -> String {
        let (before, after) = (record(before), record(after));
        let changes = compare(&before, &after, &BTreeSet::from([b"ours".as_slice().into()]));
        let list = |sign: &str, paths: &[&[u8]]| -> Vec<String> {
            paths
                .iter()
                .map(|path| format!("{sign}{}", String::from_utf8_lossy(path)))
                .collect()
        };
        [
            list("-", &changes.whiteouts),
            list("!", &changes.opaque),
            list("+", &changes.entries),
        ]
        .concat()
        .join(" ")
    }

    const BASE: &str = "/ 1 1\na/ 2 1\na/b/ 3 1\na/b/c 4 1\na/d 5 1\ne 6 1";

    #[test]
    fn nothing_changed() {
        assert_eq!(said(BASE, BASE), "");
        assert_eq!(said(BASE, &format!("{BASE}\nours 9 9")), "");
    }

    #[test]
    fn what_is_gone_is_hidden_once() {
        assert_eq!(said(BASE, "/ 1 2\na/ 2 2\na/d 5 1\ne 6 1"), "-a/b + +a");
        assert_eq!(said(BASE, "/ 1 2\ne 6 1"), "-a +");
        assert_eq!(said(BASE, "/ 1 1"), "-a -e");
    }

    #[test]
    fn changed_and_new() {
        let after = "/ 1 2\na/ 2 1\na/b/ 3 3\na/b/c 4 1\na/b/new 7 3\na/d 5 2\ne 8 2";
        assert_eq!(said(BASE, after), "+ +a/b +a/b/new +a/d +e");
    }

    #[test]
    fn a_folder_in_place_of_another_hides_what_was_below() {
        let after = "/ 1 1\na/ 2 2\na/b/ 9 2\na/b/x 10 2\na/b/y/ 11 2\na/d 5 1\ne 6 1";
        assert_eq!(said(BASE, after), "!a/b +a +a/b +a/b/x +a/b/y");
        // Moved away and a new one in its place, with the old one's file in it.
        let after = "/ 1 2\na/ 20 2\na/b/ 3 2\na/b/c 4 1\ne 6 1";
        assert_eq!(said(BASE, after), "!a + +a +a/b +a/b/c");
    }

    #[test]
    fn another_kind_replaces_by_itself() {
        assert_eq!(said(BASE, "/ 1 2\na 9 2\ne 6 1"), "+ +a");
        assert_eq!(
            said(
                BASE,
                "/ 1 2\na/ 2 1\na/b/ 3 1\na/b/c 4 1\na/d 5 1\ne/ 9 2\ne/f 10 2"
            ),
            "+ +e +e/f"
        );
    }

    #[test]
    fn a_name_too_long_for_a_whiteout_empties_its_folder() {
        let long = "x".repeat(252);
        let base = format!("/ 1 1\na/ 2 1\na/{long} 3 1\na/b/ 4 1\na/b/c 5 1\nz 6 1");
        assert_eq!(
            said(&base, "/ 1 1\na/ 2 2\na/b/ 4 1\na/b/c 5 1\nz 6 1"),
            "!a +a +a/b +a/b/c"
        );
    }
}
