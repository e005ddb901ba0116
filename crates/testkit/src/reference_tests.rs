//! Each rule of the specification and each decision of docs/merge.md, on the reference alone.

use super::*;
use crate::layers::text::layers;

/// Applies and says `path kind` of every path but the root.
fn paths(texts: &[&str]) -> String {
    let listing = apply(&layers(texts), Time::default()).unwrap();
    let line = |(path, record): (&Vec<u8>, &Record)| {
        let kind = match &record.kind {
            Kind::Dir => "d".to_owned(),
            Kind::File { len, .. } => format!("f{len}"),
            Kind::Symlink(target) => format!("->{}", String::from_utf8_lossy(target)),
            other => format!("{other:?}"),
        };
        format!("{} {kind}", String::from_utf8_lossy(path))
    };
    listing.iter().skip(1).map(line).collect::<Vec<_>>().join(", ")
}

fn refusal(texts: &[&str]) -> Refusal {
    apply(&layers(texts), Time::default()).unwrap_err()
}

#[test]
fn whiteouts_touch_lower_layers_only_wherever_they_stand() {
    let lower = "f 0644 /a/x\nf 0644 /a/y";
    assert_eq!(paths(&[lower, "w /a/x"]), "/a d, /a/y f0");
    assert_eq!(
        paths(&[lower, "f 0644 /a/x \"hi\"\nw /a/x"]),
        "/a d, /a/x f2, /a/y f0"
    );
    assert_eq!(paths(&[lower, "w /a"]), "");
    assert_eq!(paths(&[lower, "f 0644 /a/new\nopq /a"]), "/a d, /a/new f0");
    assert_eq!(paths(&[lower, "opq /a\nf 0644 /a/new"]), "/a d, /a/new f0");
    assert_eq!(paths(&[lower, "opq /\nf 0644 /b"]), "/b f0");
    assert_eq!(paths(&["f 0644 /a\nw /a"]), "/a f0");
    assert_eq!(paths(&[lower, "w /nothing/here"]), "/a d, /a/x f0, /a/y f0");
}

#[test]
fn a_whiteout_does_not_hide_what_only_begins_alike() {
    assert_eq!(
        paths(&["f 0644 /a/x\nf 0644 /a-b\nf 0644 /a0\nf 0644 /ab", "w /a"]),
        "/a-b f0, /a0 f0, /ab f0"
    );
}

#[test]
fn the_order_of_whiteouts_does_not_matter() {
    let lower = "d 0755 /d\nf 0644 /d/x\nf 0644 /d/y\nl /l -> d";
    let expected = "/d d, /d/y f0";
    assert_eq!(paths(&[lower, "w /l\nw /l/x"]), expected);
    assert_eq!(paths(&[lower, "w /l/x\nw /l"]), expected);
}

#[test]
fn kinds_replace_each_other() {
    assert_eq!(paths(&["f 0644 /a/b/c", "f 0644 /a \"hi\""]), "/a f2");
    assert_eq!(paths(&["f 0644 /a", "d 0755 /a\nf 0644 /a/b"]), "/a d, /a/b f0");
    assert_eq!(
        paths(&["d 0755 /d\nl /a -> d", "d 0755 /a\nf 0644 /a/b"]),
        "/a d, /a/b f0, /d d"
    );
    assert_eq!(paths(&["f 0644 /d/x", "d 0700 /d"]), "/d d, /d/x f0");
}

#[test]
fn symbolic_links_among_parents_are_followed_inside_the_root() {
    assert_eq!(
        paths(&["d 0755 /d\nl /a -> /d\nf 0644 /a/b"]),
        "/a ->/d, /d d, /d/b f0"
    );
    assert_eq!(
        paths(&["l /a -> ../../x\nf 0644 /a/b"]),
        "/a ->../../x, /x d, /x/b f0"
    );
    assert_eq!(
        refusal(&["l /a -> b\nl /b -> a\nf 0644 /a/x"]),
        Refusal::Loop("f 0644 /a/x \"\"".to_owned())
    );
    assert!(matches!(
        refusal(&["f 0644 /a\nf 0644 /a/x"]),
        Refusal::NotDirectory(_)
    ));
    assert!(matches!(refusal(&["f 0644 ../x"]), Refusal::Path(_)));
    assert!(matches!(refusal(&["f 0644 /"]), Refusal::Root(_)));
    assert_eq!(paths(&["f 0644 //etc/x\nf 0644 ./y"]), "/etc d, /etc/x f0, /y f0");
}

#[test]
fn hard_links_share_an_inode_across_layers() {
    let texts = [
        "f 0644 /a \"hi\" uid=7\nl /l -> a",
        "h /b /a uid=9\nh /m /l\nw /a",
    ];
    assert!(matches!(refusal(&texts), Refusal::LinkMissing(_)));
    let listing = apply(&layers(&[texts[0], "h /b /a uid=9\nh /m /l"]), Time::default()).unwrap();
    let of = |path: &str| &listing[path.as_bytes()];
    assert_eq!(
        (of("/b").nlink, of("/b").uid, of("/b").same_as.as_slice()),
        (2, 7, b"/a".as_slice())
    );
    assert_eq!(of("/m").kind, Kind::Symlink(b"a".to_vec()));
    assert_eq!(of("/m").same_as, b"/l");
    assert!(matches!(
        refusal(&["d 0755 /d\nh /x /d"]),
        Refusal::LinkDirectory(_)
    ));
    assert_eq!(paths(&["f 0644 /a\nh /a /a"]), "/a f0");
    assert_eq!(
        paths(&["f 0644 /a \"1\"\nh /b /a\nf 0644 /a \"22\""]),
        "/a f2, /b f1"
    );
}

#[test]
fn directories_count_their_subdirectories() {
    let listing = apply(
        &layers(&["f 0644 /d/e/x\nd 0755 /d/f"]),
        Time { secs: 7, nanos: 0 },
    )
    .unwrap();
    let of = |path: &str| {
        (
            listing[path.as_bytes()].nlink,
            listing[path.as_bytes()].mtime.secs,
        )
    };
    assert_eq!(
        (of("/"), of("/d"), of("/d/f")),
        ((3, 7), (4, 7), (2, crate::layers::DEFAULT_MTIME.secs))
    );
}
