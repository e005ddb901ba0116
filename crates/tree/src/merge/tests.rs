//! The rules of `docs/merge.md`, one test each, on layers in a small text form.

use super::*;
use crate::entry::DeviceKind;

/// One layer from text: `d /x`, `f /x`, `l /x target`, `h /x /target`, `c /x`, `w /x`, `opq /x`, one entry a line.
/// Files get mode 0644 and as uid the number of their line, so that it shows which entry won.
fn layer(text: &str) -> LayerIndex {
    let path = |text: &str| LayerPath::parse(text.as_bytes()).unwrap();
    let entries = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .zip(1..)
        .map(|(line, number)| {
            let mut words = line.split(' ');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            let mut mode = 0o644;
            let kind = match kind {
                "d" => {
                    mode = 0o700;
                    EntryKind::Directory
                }
                "f" => EntryKind::File(crate::FileData::default()),
                "l" => EntryKind::Symlink(words.next().unwrap().as_bytes().into()),
                "h" => EntryKind::Hardlink(path(words.next().unwrap())),
                "c" => EntryKind::Device {
                    kind: DeviceKind::Char,
                    major: 1,
                    minor: 3,
                },
                "w" => EntryKind::Whiteout,
                "opq" => EntryKind::OpaqueWhiteout,
                other => panic!("unknown entry {other}"),
            };
            Entry::new(
                path(name),
                Metadata {
                    mode,
                    uid: number,
                    ..Metadata::default()
                },
                kind,
            )
        });
    LayerIndex::new(entries.collect())
}

fn merged(layers: &[&str]) -> Result<String, MergeError> {
    let tree = Tree::merge(layers.iter().map(|text| layer(text)), &MergeOptions::default())?;
    let lines = tree.dump();
    // Times are all zero here, and the root is always the same.
    Ok(lines
        .lines()
        .skip(1)
        .map(|line| line.replace(" 0.000000000", "") + "\n")
        .collect())
}

#[track_caller]
fn check(layers: &[&str], expected: &str) {
    let expected: String = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(merged(layers).unwrap(), expected);
}

#[test]
fn whiteout_hides_lower_layers_only_wherever_it_stands() {
    check(
        &["f /a/b", "f /a/b\nw /a/b"],
        "d 0755 0:0 /a\nf 0644 1:0 /a/b 0B []",
    );
    check(
        &["f /a/b", "w /a/b\nf /a/b"],
        "d 0755 0:0 /a\nf 0644 2:0 /a/b 0B []",
    );
    check(&["f /a/b", "w /a"], "");
    check(&["f /a", "w /missing/x"], "f 0644 1:0 /a 0B []");
}

#[test]
fn opaque_marker_acts_before_its_layers_own_entries() {
    check(
        &["d /a\nf /a/old\nf /a/d/old", "f /a/new\nopq /a"],
        "d 0700 1:0 /a\nf 0644 1:0 /a/new 0B []",
    );
    check(&["f /old", "f /new\nopq /"], "f 0644 1:0 /new 0B []");
}

#[test]
fn opaque_marker_on_a_symlink_leaves_its_target_alone() {
    check(
        &["l /a b\nf /b/keep", "opq /a\nd /a"],
        "d 0700 2:0 /a\nd 0755 0:0 /b\nf 0644 2:0 /b/keep 0B []",
    );
}

#[test]
fn directory_merges_with_directory_and_replaces_anything_else() {
    check(
        &["d /a\nf /a/b", "f /x\nd /a"],
        "d 0700 2:0 /a\nf 0644 2:0 /a/b 0B []\nf 0644 1:0 /x 0B []",
    );
    check(&["f /a", "d /a"], "d 0700 1:0 /a");
    check(&["l /a b\nd /b", "d /a"], "d 0700 1:0 /a\nd 0700 2:0 /b");
    check(&["d /a\nf /a/b", "f /a"], "f 0644 1:0 /a 0B []");
}

#[test]
fn last_of_repeated_entries_wins() {
    check(&["f /a\nf /a\nc /a"], "c 0644 3:0 /a 1:3");
    check(&["d /a\nf /a/b\nd /a"], "d 0700 3:0 /a\nf 0644 2:0 /a/b 0B []");
}

#[test]
fn hardlinks_join_inodes_also_across_layers_and_of_symlinks() {
    check(
        &["f /a", "h /b /a"],
        "f 0644 1:0 /a 0B [] inode=0\nf 0644 1:0 /b 0B [] inode=0",
    );
    check(
        &["l /a target\nh /b /a"],
        "l 0644 1:0 /a -> target inode=0\nl 0644 1:0 /b -> target inode=0",
    );
    // Replacing one name leaves the other with the old inode.
    check(
        &["f /a\nh /b /a", "f /x\nf /a"],
        "f 0644 2:0 /a 0B []\nf 0644 1:0 /b 0B []\nf 0644 1:0 /x 0B []",
    );
    check(&["f /a\nh /a /a"], "f 0644 1:0 /a 0B []");
}

#[test]
fn hardlink_to_nothing_or_a_directory_is_an_error() {
    assert!(matches!(
        merged(&["h /a /b\nh /b /a"]),
        Err(MergeError::LinkTargetMissing { .. })
    ));
    assert!(matches!(
        merged(&["d /d\nh /a /d"]),
        Err(MergeError::LinkTargetDirectory { .. })
    ));
    assert!(matches!(
        merged(&["f /f\nh /a /f/x"]),
        Err(MergeError::LinkTargetMissing { .. })
    ));
    assert!(matches!(
        merged(&["h /a /"]),
        Err(MergeError::LinkTargetDirectory { .. })
    ));
    // A whiteout takes the target away before the layer's entries are looked at.
    assert!(matches!(
        merged(&["f /a", "w /a\nh /b /a"]),
        Err(MergeError::LinkTargetMissing { .. })
    ));
}

#[test]
fn parents_that_are_symlinks_are_followed_inside_the_root() {
    check(
        &["d /usr/bin\nl /bin usr/bin", "f /bin/sh"],
        "l 0644 2:0 /bin -> usr/bin\nd 0755 0:0 /usr\nd 0700 1:0 /usr/bin\nf 0644 1:0 /usr/bin/sh 0B []",
    );
    check(
        &["l /up ../../..", "f /up/x"],
        "l 0644 1:0 /up -> ../../..\nf 0644 1:0 /x 0B []",
    );
    check(
        &["l /abs /made/here", "f /abs/x"],
        "l 0644 1:0 /abs -> /made/here\nd 0755 0:0 /made\nd 0755 0:0 /made/here\nf 0644 1:0 /made/here/x 0B []",
    );
    check(
        &["l /bin usr/bin\nf /usr/bin/sh", "w /bin/sh"],
        "l 0644 1:0 /bin -> usr/bin\nd 0755 0:0 /usr\nd 0755 0:0 /usr/bin",
    );
    assert!(matches!(
        merged(&["l /a b\nl /b a\nf /a/x"]),
        Err(MergeError::SymlinkLoop { .. })
    ));
}

#[test]
fn a_replaced_parent_is_looked_up_again() {
    check(
        &["d /a\nf /a/x\nl /a b\nf /a/y"],
        "l 0644 3:0 /a -> b\nd 0755 0:0 /b\nf 0644 4:0 /b/y 0B []",
    );
}

#[test]
fn what_has_no_place_to_stand_is_an_error() {
    assert!(matches!(
        merged(&["f /a\nf /a/b"]),
        Err(MergeError::ParentNotDirectory { .. })
    ));
    assert!(matches!(merged(&["f /"]), Err(MergeError::RootReplaced { .. })));
    assert!(merged(&["w /", "opq /missing"]).is_ok());
}

#[test]
fn whiteouts_of_one_layer_act_at_once() {
    let lower = "d /d\nf /d/x\nf /d/y\nl /l d";
    let left = "d 0700 1:0 /d\nf 0644 3:0 /d/y 0B []";
    check(&[lower, "w /l\nw /l/x"], left);
    check(&[lower, "w /l/x\nw /l"], left);
}

#[test]
fn inodes_are_told_apart_by_layer() {
    let layers = ["f /a/b\nf /a/c", "w /a/b", "f /a/c\nd /a"];
    let tree = Tree::merge(layers.map(layer), &MergeOptions::default()).unwrap();
    let ids: Vec<Vec<usize>> = tree
        .inode_ids_by_layer()
        .map(|ids| ids.into_iter().map(InodeId::index).collect())
        .collect();
    // The root and the implied directory come with the first; nothing comes behind the last.
    assert_eq!(ids, [vec![0, 1, 2, 3], vec![], vec![4], vec![]]);
    let bare = Tree::new(Metadata::default());
    assert_eq!(bare.inode_ids_by_layer().collect::<Vec<_>>(), [[Tree::ROOT]]);
}
