//! Changing images: copies in and out, edits, agents. `e2fsck` judges every image afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_testkit::layers::{oci, text};

use crate::support::{Home, folder};

const LAYER: &str = "d 0755 /etc\n\
    f 0644 /etc/passwd \"root:x:0:0::/root:/bin/sh\\nnex:x:1000:1001::/:/bin/sh\\n\"\n\
    f 0644 /etc/hosts \"127.0.0.1 localhost\\n127.0.1.1 old\\n\"\n\
    d 0755 /usr\nd 0755 /usr/bin\nf 0755 /usr/bin/tool \"tool\"\nl /bin -> usr/bin\n\
    d 0755 /srv\nf 0600 /srv/secret \"nobody may find this\"\nl /srv/link -> /etc/passwd\n";

/// A home with an image named `box`.
fn home_with_box() -> (Home, PathBuf) {
    let home = Home::new();
    oci::write_layout(
        &home.path().join("img"),
        &text::layers(&[LAYER]),
        &oci::Options::default(),
    )
    .expect("a layout");
    home.firebrick(&["rootfs", "from-docker", "-n", "box", "-i", "oci:img", "-s", "16"])
        .assert()
        .success();
    let image = home.path().join("fb/images/rootfs-box.ext4");
    (home, image)
}

fn judge(image: &Path) {
    let output = Command::new("e2fsck")
        .env(
            "PATH",
            format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()),
        )
        .arg("-fn")
        .arg(image)
        .output()
        .expect("e2fsck is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

fn cat(home: &Home, path: &str) -> String {
    let output = home
        .firebrick(&["rootfs", "cat", "box", path])
        .output()
        .expect("it starts");
    assert!(
        output.status.success(),
        "{path}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn long(home: &Home, path: &str) -> String {
    let output = home
        .firebrick(&["rootfs", "ls", "-l", "box", path])
        .output()
        .expect("it starts");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Gives a file an attribute, or reads it.
fn xattr(path: &Path, name: &str, value: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut found = vec![0; 100];
    match value {
        Some(value) => rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).map(|()| 0),
        None => rustix::fs::getxattr(path, name, found.as_mut_slice()),
    }
    .map(|len| found[..len].to_vec())
    .ok()
}

#[test]
fn copies_into_an_image_and_out_again() {
    let (home, image) = home_with_box();
    let tree = home.path().join("tree");
    fs::create_dir_all(tree.join("sub")).expect("folders");
    fs::write(tree.join("sub/file"), vec![b'x'; 300_000]).expect("a file");
    fs::set_permissions(tree.join("sub/file"), fs::Permissions::from_mode(0o4751)).expect("a mode");
    fs::hard_link(tree.join("sub/file"), tree.join("again")).expect("a link");
    symlink("sub/file", tree.join("link")).expect("a link");
    symlink("/nowhere", tree.join("sub/dangling")).expect("a link");
    for path in [tree.join("sub/file"), tree.join("sub")] {
        xattr(&path, "user.note", Some(b"kept")).expect("the tests' folder takes attributes");
    }

    // To a new place, into a folder, and only what is in it.
    for (from, to) in [
        ("tree", "box:/new"),
        ("tree", "box:/srv"),
        ("tree/.", "box:/etc/"),
    ] {
        home.firebrick(&["rootfs", "cp", "--chown", "nex", from, to])
            .assert()
            .success();
        judge(&image);
    }
    for folder in ["/new", "/srv/tree", "/etc"] {
        assert_eq!(cat(&home, &format!("{folder}/sub/file")).len(), 300_000);
        let listed = long(&home, &format!("{folder}/sub/file"));
        assert!(
            listed.contains("-rwsr-x--x") && listed.contains("1000") && listed.contains("1001"),
            "{listed}"
        );
    }
    assert!(long(&home, "/etc/sub").contains("dangling -> /nowhere"));

    home.firebrick(&["rootfs", "cp", "box:/new", "out"])
        .assert()
        .success();
    assert_eq!(
        fs::read(home.path().join("out/sub/file")).expect("a file").len(),
        300_000
    );
    assert_eq!(
        fs::read_link(home.path().join("out/link")).expect("a link"),
        Path::new("sub/file")
    );
    let copied = fs::metadata(home.path().join("out/sub/file")).expect("a file");
    for path in ["out/sub/file", "out/sub"] {
        let path = home.path().join(path);
        assert_eq!(
            xattr(&path, "user.note", None).as_deref(),
            Some(&b"kept"[..]),
            "{path:?}"
        );
    }
    // Nobody else's rights: the set-user-ID bit stays behind.
    assert_eq!(copied.mode() & 0o7777, 0o751);
    let original = fs::metadata(tree.join("sub/file")).expect("a file");
    assert_eq!(copied.mtime(), original.mtime());
    home.firebrick(&["rootfs", "cp", "box:/etc/passwd", "."])
        .assert()
        .success();
    assert!(home.path().join("passwd").exists());
    home.firebrick(&["rootfs", "cp", "box:/etc/passwd", "renamed"])
        .assert()
        .success();
    assert!(home.path().join("renamed").exists());
}

/// A link that stands on the host where the image has a folder leads nowhere.
#[test]
fn copies_out_of_an_image_stay_where_they_were_sent() {
    let (home, _) = home_with_box();
    let outside = home.path().join("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::create_dir(home.path().join("dst")).expect("a folder");
    symlink(&outside, home.path().join("dst/etc")).expect("a link");
    let said = home.transcript(&["rootfs", "cp", "box:/etc", "dst"]);
    assert!(said.contains("exit code 1"), "{said}");
    assert_eq!(folder::names_in(&outside).len(), 0);
    // A link in a file's place is replaced, not followed.
    fs::write(outside.join("target"), "before").expect("a file");
    symlink(outside.join("target"), home.path().join("dst/passwd")).expect("a link");
    home.firebrick(&["rootfs", "cp", "box:/etc/passwd", "dst"])
        .assert()
        .success();
    assert_eq!(
        fs::read_to_string(outside.join("target")).expect("a file"),
        "before"
    );
}

#[test]
fn copies_that_make_no_sense() {
    let (home, image) = home_with_box();
    let before = fs::read(&image).expect("an image");
    fs::create_dir(home.path().join("folder")).expect("a folder");
    fs::write(home.path().join("file"), "x").expect("a file");
    for (from, to, why) in [
        ("file", "other", "one of the two sides"),
        ("box:/etc", "box:/srv", "one of the two sides"),
        ("file", "box:/no/such/folder/file", "\"/no\" does not exist"),
        ("file", "box:/nosuch/", "is no folder"),
        ("folder", "box:/etc/passwd", "a folder cannot take its place"),
        ("absent", "box:/etc", "cannot read"),
        ("box:/absent", "out", "does not exist"),
        ("box:/etc/passwd", "-", "no place to copy"),
        ("-", "box:/file", "no place to copy"),
    ] {
        let said = home.transcript(&["rootfs", "cp", from, to]);
        assert!(
            said.contains(why) && said.contains("hint:") && said.ends_with("exit code 1\n"),
            "{from} {to}: {said}"
        );
    }
    assert!(fs::read(&image).expect("an image") == before);
    assert_eq!(folder::names_in(image.parent().expect("a folder")).len(), 1);
}

#[test]
fn edits_are_all_or_nothing() {
    let (home, image) = home_with_box();
    let before = fs::read(&image).expect("an image");
    fs::write(home.path().join("motd"), "welcome\n").expect("a file");
    let arguments = [
        "rootfs",
        "edit",
        "box",
        "--set-hostname",
        "new",
        "--add",
        "motd:/etc/",
        "--rm",
        "/srv/secret",
        "--chmod",
        "0700:/usr/bin/tool",
        "--chown",
        "nex:0:/bin/tool",
    ];
    // With one that cannot be done, none is.
    let said = home.transcript(&[&arguments[..], &["--rm", "/not/there"]].concat());
    assert!(
        said.contains("cannot remove \"/not/there\"") && said.contains("hint:"),
        "{said}"
    );
    assert!(fs::read(&image).expect("an image") == before);

    home.firebrick(&[&arguments[..], &["-o", "other.ext4"]].concat())
        .assert()
        .success();
    assert!(fs::read(&image).expect("an image") == before);
    home.firebrick(&arguments).assert().success();
    let after = fs::read(&image).expect("an image");
    assert!(
        after == fs::read(home.path().join("other.ext4")).expect("an image"),
        "the same changes, the same bytes"
    );
    judge(&image);
    assert!(!after.windows(20).any(|part| part == b"nobody may find this"));
    assert_eq!(cat(&home, "/etc/hostname"), "new\n");
    assert_eq!(cat(&home, "/etc/hosts"), "127.0.0.1 localhost\n127.0.1.1\tnew\n");
    assert_eq!(cat(&home, "/etc/motd"), "welcome\n");
    let tool = long(&home, "/usr/bin/tool");
    assert!(tool.contains("-rwx------") && tool.contains("1000"), "{tool}");
    assert_eq!(folder::names_in(image.parent().expect("a folder")).len(), 1);
}

#[test]
fn images_that_cannot_be_changed() {
    let (home, _) = home_with_box();
    fs::write(home.path().join("f"), "x").expect("a file");
    home.firebrick(&[
        "rootfs",
        "from-docker",
        "-n",
        "flat",
        "-i",
        "oci:img",
        "--format",
        "squashfs",
    ])
    .assert()
    .success();
    let said = home.transcript(&["rootfs", "cp", "f", "flat:/f"]);
    assert!(
        said.contains("squashfs, which cannot be changed") && said.contains("hint:"),
        "{said}"
    );
    let said = home.transcript(&["rootfs", "edit", "-n", "box", "--chmod", "rwx:/etc"]);
    assert!(said.contains("expected MODE:PATH"), "{said}");
    let said = home.transcript(&["rootfs", "edit", "-n", "box", "--chown", "who:0:/etc"]);
    assert!(said.contains("has no \"who\""), "{said}");
    home.firebrick(&["rootfs", "edit", "box"]).assert().code(2);
}

#[test]
fn a_full_image_stays_as_it_was() {
    let (home, image) = home_with_box();
    let before = fs::read(&image).expect("an image");
    fs::write(home.path().join("big"), vec![b'b'; 40 << 20]).expect("a file");
    let said = home.transcript(&["rootfs", "cp", "big", "box:/big"]);
    assert!(
        said.contains("the filesystem is full") && said.contains("hint:"),
        "{said}"
    );
    assert!(fs::read(&image).expect("an image") == before);
    assert_eq!(folder::names_in(image.parent().expect("a folder")).len(), 1);
}

#[test]
fn agents_are_updated_where_they_are_old() {
    let (home, image) = home_with_box();
    let say = |arguments: &[&str]| home.transcript(&[&["rootfs", "update-agent"], arguments].concat());
    assert_eq!(
        say(&["box"]),
        format!("box: {} already\nexit code 0\n", env!("CARGO_PKG_VERSION"))
    );
    let guest = "/usr/lib/firebrick/firebrick-guest";
    home.firebrick(&["rootfs", "cp", &format!("box:{guest}"), "guest"])
        .assert()
        .success();
    let new = fs::read(home.path().join("guest")).expect("a guest");
    let mark = b"firebrick-guest version ";
    let at = new
        .windows(mark.len())
        .position(|part| part == mark)
        .expect("a version");
    let mut old = new.clone();
    old[at + mark.len()..at + mark.len() + 5].copy_from_slice(b"0.0.1");
    fs::write(home.path().join("guest"), &old).expect("a guest");
    home.firebrick(&["rootfs", "cp", "guest", &format!("box:{guest}")])
        .assert()
        .success();
    let said = say(&["--all"]);
    assert_eq!(
        said,
        format!("box: was 0.0.1, is {}\nexit code 0\n", env!("CARGO_PKG_VERSION"))
    );
    judge(&image);
    home.firebrick(&["rootfs", "cp", &format!("box:{guest}"), "guest"])
        .assert()
        .success();
    assert!(fs::read(home.path().join("guest")).expect("a guest") == new);
    let listed = long(&home, guest);
    assert!(listed.contains("-rwxr-xr-x"), "{listed}");
    home.firebrick(&["rootfs", "edit", "box", "--rm", guest])
        .assert()
        .success();
    assert!(say(&["--all"]).contains("box: has no agent\nexit code 0"));
    assert!(say(&["box"]).contains("has no agent of firebrick"));
}
