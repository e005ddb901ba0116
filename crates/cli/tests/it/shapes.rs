//! Images that are checked, repaired, resized and converted. `e2fsck`, `dumpe2fs`, `ext4-view`, the kernel and our readers judge
//! what comes out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_testkit::listing::{Ignore, Listing, diff};
use firebrick_testkit::oracle::{self, Image};
use firebrick_testkit::own;
use serde_json::{Value, json};

use crate::support::{Home, folder, layout};

/// Something of each kind.
const LAYER: &str = "d 0755 /etc\nf 0644 /etc/motd \"hello\" xattr:user.a=b\n\
    f 0600 /large @300000:1 uid=70000\nh /etc/hard /large\n\
    f 0644 /sparse len=900000 seg=401408:@512:1 sparse=1.0\n\
    l /link -> etc/motd\nl /own -> etc xattr:security.x=y\nc 0600 /null 1 3\nb 0660 /disk 259 70000\np 0644 /pipe xattr:trusted.x=y\n\
    d 1777 /tmp xattr:user.dir=1\nd 0700 /empty\nf 4755 /tool @70000:2\n";

/// A home with an image named `app`.
fn home(more: &[&str]) -> (Home, PathBuf) {
    let home = layout::home_with(&[LAYER], json!({ "Cmd": ["/tool"] }));
    home.firebrick(&["rootfs", "from-docker", "-n", "app", "-i", "oci:img"])
        .args(more)
        .assert()
        .success();
    let path = home.path().join("fb/images/rootfs-app.ext4");
    (home, path)
}

/// A foreign image of the same home's files.
fn foreign(home: &Home, arguments: &[&str]) -> PathBuf {
    let (folder, image) = (home.path().join("files"), home.path().join("foreign.ext4"));
    fs::create_dir_all(folder.join("a/b")).expect("folders");
    fs::write(folder.join("a/file"), vec![7; 200_000]).expect("a file");
    fs::hard_link(folder.join("a/file"), folder.join("a/b/again")).expect("a link");
    for n in 0..300 {
        fs::write(folder.join(format!("a/b/{n:040}")), "x").expect("a file");
    }
    let mut all = vec!["-q", "-F", "-L", "theirs"];
    all.extend(arguments);
    all.extend([
        "-d",
        folder.to_str().expect("text"),
        image.to_str().expect("text"),
        "24M",
    ]);
    oracle::run_ok("mke2fs", all).expect("mke2fs");
    image
}

fn listing(image: &Path) -> Listing {
    Image::check(image).expect("e2fsck finds nothing");
    own::listing(image).expect("our reader reads it")
}

/// What the kernel and another reader see is what ours does.
fn judge(image: &Path, expected: &Listing) {
    let checked = Image::check(image).expect("e2fsck finds nothing");
    diff(expected, &own::listing(image).expect("ours"), &Ignore::NOTHING).expect("the same");
    let viewed = checked.viewed_listing().expect("ext4-view reads it");
    diff(expected, &viewed, &Ignore::EXT4_VIEW).expect("the same");
    if let Some(mounted) = checked.mounted_listing().expect("the kernel mounts it") {
        diff(expected, &mounted, &Ignore::NOTHING).expect("the same");
    }
}

fn field(image: &Path, name: &str) -> String {
    Image::check(image)
        .and_then(|image| image.superblock_field(name))
        .expect("dumpe2fs says it")
}

fn number(image: &Path, name: &str) -> u64 {
    field(image, name).parse().expect("a number")
}

fn debugfs(image: &Path, command: &str) {
    let status = Command::new("debugfs")
        .env(
            "PATH",
            format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()),
        )
        .args(["-w", "-R", command])
        .arg(image)
        .output()
        .expect("debugfs is installed")
        .status;
    assert!(status.success());
}

fn check(home: &Home, more: &[&str]) -> (Option<i32>, Value) {
    let output = home
        .firebrick(&["rootfs", "check", "app", "--json"])
        .args(more)
        .output()
        .expect("it starts");
    let value = serde_json::from_slice(&output.stdout).expect("JSON");
    (output.status.code(), value)
}

#[test]
fn checks_say_what_is_wrong_and_repairs_mend_what_is_counted() {
    let (home, image) = home(&["--free", "4M"]);
    let (code, said) = check(&home, &[]);
    assert_eq!((code, &said["clean"]), (Some(0), &json!(true)), "{said}");
    let good = listing(&image);

    debugfs(&image, "set_super_value free_blocks_count 7");
    debugfs(&image, "set_inode_field /large links_count 9");
    let bad = fs::read(&image).expect("an image");
    let text = home.transcript(&["rootfs", "check", "app"]);
    for words in [
        "says 7 free blocks",
        "has 9 names, it has 2",
        "2 findings",
        "hint:",
        "--repair",
        "exit code 1",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(
        fs::read(&image).expect("an image") == bad,
        "a check changes nothing"
    );
    let (code, said) = check(&home, &["--repair", "-o", "mended.ext4"]);
    assert_eq!((code, &said["repaired"]), (Some(0), &json!(true)), "{said}");
    assert!(fs::read(&image).expect("an image") == bad);
    Image::check(&home.path().join("mended.ext4")).expect("e2fsck finds nothing");
    let (code, _) = check(&home, &["--repair"]);
    assert_eq!(code, Some(0));
    assert_eq!(listing(&image), good, "as if nothing had been");

    debugfs(&image, "unlink /pipe");
    let bad = fs::read(&image).expect("an image");
    let (code, said) = check(&home, &["--repair"]);
    assert_eq!((code, &said["repaired"]), (Some(1), &json!(false)), "{said}");
    assert!(fs::read(&image).expect("an image") == bad, "nothing was repaired");
    let text = home.transcript(&["rootfs", "check", "app"]);
    assert!(text.contains("e2fsck -f copy.ext4"), "{text}");
    let names = folder::names_in(image.parent().expect("a folder"));
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn what_cannot_be_checked_is_a_failure() {
    let (home, _) = home(&[]);
    home.firebrick(&["rootfs", "convert", "app", "--format", "squashfs"])
        .assert()
        .success();
    let text = home.transcript(&["rootfs", "check", "app"]);
    assert!(
        text.contains("squashfs") && text.contains("hint:") && text.ends_with("exit code 2\n"),
        "{text}"
    );
    let image = foreign(&home, &["-t", "ext4"]);
    debugfs(&image, "feature needs_recovery");
    for command in [
        vec!["rootfs", "check", "./foreign.ext4"],
        vec!["rootfs", "resize", "./foreign.ext4", "--shrink"],
        vec!["rootfs", "convert", "./foreign.ext4", "--format", "squashfs"],
    ] {
        let text = home.transcript(&command);
        assert!(
            text.contains("needs_recovery") && text.contains("e2fsck -p"),
            "{text}"
        );
    }
}

#[test]
fn sizes_change_and_nothing_else() {
    let (home, image) = home(&["--free", "8M", "--label", "mine"]);
    let (before, uuid) = (listing(&image), field(&image, "Filesystem UUID"));
    let first = fs::metadata(&image).expect("an image").len();
    for (arguments, is_right) in [
        (
            &["--size", "64M"][..],
            &(|len: u64, _: u64| len == 64 << 20) as &dyn Fn(u64, u64) -> bool,
        ),
        (&["--shrink"], &|len: u64, _: u64| len < first),
        (&["--free", "32M"], &|_, free| {
            (32 << 20..40 << 20).contains(&free)
        }),
        (&["--size", "200M"], &|len: u64, _: u64| len == 200 << 20),
    ] {
        home.firebrick(&["rootfs", "resize", "app"])
            .args(arguments)
            .assert()
            .success();
        judge(&image, &before);
        let len = fs::metadata(&image).expect("an image").len();
        let free = number(&image, "Free blocks") * 4096;
        assert_eq!(len, number(&image, "Block count") * 4096);
        assert!(is_right(len, free), "{arguments:?}: {len} bytes, {free} free");
        assert_eq!(field(&image, "Filesystem UUID"), uuid);
        assert_eq!(field(&image, "Filesystem volume name"), "mine");
    }
    let before = fs::read(&image).expect("an image");
    let text = home.transcript(&["rootfs", "resize", "app", "--size", "1"]);
    assert!(
        text.contains("hint:") && text.ends_with("exit code 1\n"),
        "{text}"
    );
    assert!(fs::read(&image).expect("an image") == before);
    home.firebrick(&["rootfs", "resize", "app"]).assert().code(2);
}

#[test]
fn images_of_others_become_as_good_as_new() {
    for arguments in [&["-t", "ext4"][..], &["-t", "ext2", "-b", "1024"]] {
        let (home, _) = home(&[]);
        let image = foreign(&home, arguments);
        let before = Image::check(&image)
            .and_then(|image| image.viewed_listing())
            .expect("ext4-view reads it");
        home.firebrick(&[
            "rootfs",
            "resize",
            "./foreign.ext4",
            "--free",
            "16M",
            "-o",
            "new.ext4",
        ])
        .assert()
        .success();
        let new = home.path().join("new.ext4");
        diff(&before, &listing(&new), &Ignore::EXT4_VIEW).expect("the same");
        home.firebrick(&["rootfs", "diff", "./foreign.ext4", "./new.ext4"])
            .assert()
            .success();
        assert_eq!(field(&new, "Filesystem UUID"), field(&image, "Filesystem UUID"));
        assert_eq!(field(&new, "Filesystem volume name"), "theirs");
        let journal = |path: &Path| field(path, "Filesystem features").contains("has_journal");
        assert_eq!(journal(&new), journal(&image));
    }
}

#[test]
fn formats_change_there_and_back() {
    let (home, ext4) = home(&["--free", "4M", "--label", "mine"]);
    let before = listing(&ext4);
    let sparse = |image: &Path| {
        let said = Image::check(image).and_then(|image| image.debugfs("stat /sparse"));
        said.expect("debugfs says it")
            .split_once("Blockcount: ")
            .expect("a count")
            .1
            .lines()
            .next()
            .expect("a number")
            .to_owned()
    };
    let holes = sparse(&ext4);
    home.firebrick(&["rootfs", "convert", "app", "--format", "squashfs"])
        .assert()
        .success();
    let squashfs = home.path().join("fb/images/rootfs-app.squashfs");
    assert!(!ext4.exists(), "a name has one format");
    let between = own::squashfs_listing(&squashfs).expect("our reader reads it");
    diff(
        &firebrick_testkit::squashfs::sayable(before.clone()),
        &firebrick_testkit::squashfs::sayable(between),
        &Ignore::NOTHING,
    )
    .expect("the same");
    if oracle::have("unsquashfs").expect("CI has it") {
        oracle::run_ok("unsquashfs", ["-lls", squashfs.to_str().expect("text")]).expect("another reader");
    }
    home.firebrick(&["rootfs", "convert", "app", "--format", "ext4", "--free", "4M"])
        .assert()
        .success();
    assert!(!squashfs.exists());
    judge(&ext4, &before);
    assert_eq!(sparse(&ext4), holes);

    home.firebrick(&[
        "rootfs",
        "convert",
        "app",
        "--format",
        "squashfs",
        "-o",
        "x.squashfs",
    ])
    .assert()
    .success();
    home.firebrick(&["rootfs", "convert", "./x.squashfs", "--format", "ext4"])
        .assert()
        .success();
    assert!(ext4.exists() && home.path().join("x.squashfs").exists());
    diff(&before, &listing(&home.path().join("x.ext4")), &Ignore::NOTHING).expect("the same");
}
