//! Proves that the command makes squashfs images and treats them as any other: by name, in lists, when it looks into them.

use std::fs;

use firebrick_testkit::own::squashfs_listing as listing;
use serde_json::{Value, json};

use crate::support::{Home, layout};

const LAYERS: [&str; 2] = [
    "d 0755 /etc\nf 0644 /etc/motd \"lower\\n\"\nf 0600 /etc/secret \"x\"\nf 0755 /bin/tool @70000:1",
    "f 0644 /etc/motd \"upper\\n\"\nw /etc/secret\nl /etc/link -> motd\nc 0600 /etc/null 1 3\nf 0644 /odd\\nname",
];

fn home(layers: &[&str]) -> Home {
    layout::home_with(layers, json!({ "Cmd": ["/bin/tool"] }))
}

fn make(home: &Home, more: &[&str]) -> (i32, String) {
    let output = home
        .firebrick(&["rootfs", "from-docker", "-n", "app", "-i", "oci:img"])
        .args(more)
        .output()
        .expect("the binary starts");
    let code = output.status.code().expect("no signal");
    (code, String::from_utf8(output.stderr).expect("text"))
}

const SQUASHFS: &[&str] = &["--format", "squashfs"];

#[test]
fn a_squashfs_is_an_image_like_any_other() {
    let home = home(&LAYERS);
    let (code, said) = make(&home, SQUASHFS);
    assert_eq!(code, 0, "{said}");
    for words in [
        "[4/6] Laying out squashfs for",
        "[5/6] Compressing ",
        "rootfs-app.squashfs: ",
        "read-only",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let path = home.path().join("fb/images/rootfs-app.squashfs");
    let shown = listing(&path).expect("a squashfs");
    assert!(shown.contains_key(b"/etc/link".as_slice()) && !shown.contains_key(b"/etc/secret".as_slice()));

    let list = home.transcript(&["rootfs", "list"]);
    assert!(
        list.contains("\napp ") && list.contains("~/fb/images/rootfs-app.squashfs\n"),
        "{list}"
    );
    assert_eq!(
        home.transcript(&["rootfs", "cat", "app", "/etc/link"]),
        "upper\nexit code 0\n"
    );
    assert_eq!(
        home.transcript(&["rootfs", "ls", "-l", "app", "etc"]),
        "drwxr-xr-x  2  0  0  33    2024-01-02 03:04  firebrick\n\
         -rw-r--r--  1  0  0  61    2024-01-02 03:04  hosts\n\
         lrwxrwxrwx  1  0  0  4     2023-11-14 22:13  link -> motd\n\
         -rw-r--r--  1  0  0  6     2023-11-14 22:13  motd\n\
         crw-------  1  0  0  1, 3  2023-11-14 22:13  null\nexit code 0\n"
    );
    let inspected = home.transcript(&["rootfs", "inspect", "app"]);
    assert!(
        inspected.contains("squashfs, read-only, zstd, blocks of 131072 bytes"),
        "{inspected}"
    );
    let output = home
        .firebrick(&["rootfs", "inspect", "--json", "app"])
        .output()
        .expect("it starts");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&json["format"], &json["compression"]),
        (&json!("squashfs"), &json!("zstd"))
    );
    assert_eq!(
        (&json["guest"], &json["image"]["Cmd"][0]),
        (&json!(true), &json!("/bin/tool"))
    );
    let missing = home.transcript(&["rootfs", "cat", "app", "/etc/secret"]);
    assert!(
        missing.contains("hint: see what is there: firebrick rootfs ls"),
        "{missing}"
    );

    // Cut off, it is refused, and not read as something else.
    let bytes = fs::read(&path).expect("the image");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("half of it");
    let cut = home.transcript(&["rootfs", "ls", "app"]);
    assert!(
        cut.contains("the image ends before the filesystem does") && cut.ends_with("exit code 1\n"),
        "{cut}"
    );
    home.firebrick(&["rootfs", "rm", "app"]).assert().success();
    assert!(!path.exists());
}

#[test]
fn one_name_is_one_image_and_flags_are_of_one_format() {
    let home = home(&LAYERS);
    let images = || {
        let entries = fs::read_dir(home.path().join("fb/images")).expect("the folder");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        names
    };
    for (more, name) in [
        (&[][..], "rootfs-app.ext4"),
        (SQUASHFS, "rootfs-app.squashfs"),
        (&["--format", "ext4"], "rootfs-app.ext4"),
    ] {
        assert_eq!(make(&home, more).0, 0);
        assert_eq!(images(), [name]);
    }
    for (more, words) in [
        (
            &["--format", "squashfs", "--free", "5"][..],
            "error: --free is not for squashfs images",
        ),
        (
            &["--format", "squashfs", "-s", "100"],
            "error: --size is not for squashfs images",
        ),
        (
            &["--compression", "lz4"],
            "error: --compression is not for ext4 images",
        ),
        (
            &[
                "--format",
                "squashfs",
                "--compression",
                "lz4",
                "--compression-level",
                "3",
            ],
            "lz4 has no compression level 3",
        ),
        (
            &["--format", "squashfs", "--compression-level", "23"],
            "zstd has no compression level 23: it has 1 to 22",
        ),
        (
            &["--format", "squashfs", "--block-size", "3K"],
            "a power of two from 4K to 1M",
        ),
    ] {
        let (code, said) = make(&home, more);
        assert!(code != 0 && said.contains(words), "{more:?}: {said}");
    }
    assert_eq!(images(), ["rootfs-app.ext4"], "nothing was replaced");
}

#[test]
fn what_is_lost_is_said() {
    let layer = "f 0644 /old mtime=-5\nf 0640 /acl acl=u::rw-,u:7:rw-,g::r--,m::rw-,o::---";
    let home = home(&[layer]);
    let (code, said) = make(&home, SQUASHFS);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("left out, since squashfs has no place for it: /acl: system.posix_acl_access"),
        "{said}"
    );
    assert!(said.contains("1 time before 1970 or after 2106"), "{said}");
}

/// Every flag does what it says, and the same flags give the same bytes.
#[test]
fn compressions_levels_and_block_sizes() {
    let home = home(&LAYERS);
    let path = home.path().join("fb/images/rootfs-app.squashfs");
    let inspect = || home.transcript(&["rootfs", "inspect", "app"]);
    let mut images = Vec::new();
    for (more, words) in [
        (&["--compression", "gzip"][..], "gzip, blocks of 131072 bytes"),
        (
            &["--compression", "lz4", "--block-size", "4K"],
            "lz4, blocks of 4096 bytes",
        ),
        (
            &["--compression", "xz", "--compression-level", "1"],
            "xz, blocks of 131072 bytes",
        ),
        (
            &["--compression-level", "1", "--block-size", "1M"],
            "zstd, blocks of 1048576 bytes",
        ),
    ] {
        let args = [SQUASHFS, more].concat();
        let mut twice = [0, 1].map(|_| {
            let (code, said) = make(&home, &args);
            assert_eq!(code, 0, "{said}");
            fs::read(&path).expect("the image")
        });
        assert!(twice[0] == twice[1], "{more:?}");
        let inspected = inspect();
        assert!(inspected.contains(words), "{inspected}");
        images.push(std::mem::take(&mut twice[0]));
    }
    images.sort();
    images.dedup();
    assert_eq!(images.len(), 4);
}
