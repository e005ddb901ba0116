//! What the store commands do about what is damaged, odd or in their way.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::process::Command;

use crate::support::Home;
use crate::support::folder::names_in;
use crate::support::image::make;
use crate::support::layout::home_with;

/// A home with the image `app`, which is in the store `store`, too.
fn home() -> Home {
    let home = home_with(&["f 0644 /etc/motd \"hello\"\n"], serde_json::json!({}));
    make(&home, "app", "oci:img", &["--agent", "none", "--init", "none"]);
    ok(&home, &["rootfs", "upload", "-l", "app", "-b", "./store"]);
    home
}

fn ok(home: &Home, args: &[&str]) -> String {
    let said = home.transcript(args);
    assert!(said.ends_with("exit code 0\n"), "{args:?}: {said}");
    said
}

/// What a command says that must fail with this code.
fn refused(home: &Home, args: &[&str], code: u8) -> String {
    let said = home.transcript(args);
    assert!(said.ends_with(&format!("exit code {code}\n")), "{args:?}: {said}");
    said
}

#[test]
fn only_files_are_written_over() {
    let home = home();
    let at = |name: &str| home.path().join(name);
    for pipe in ["pipe", "other"] {
        let made = Command::new("mkfifo").arg(at(pipe)).status();
        assert!(made.expect("mkfifo").success());
    }
    // Root alone may make devices.
    let _ = Command::new("mknod")
        .arg(at("null"))
        .args(["c", "1", "3"])
        .output();
    symlink("/proc/self/fd/1", at("stdout")).expect("a link");
    for place in ["pipe", "null", "stdout", "store"] {
        if fs::symlink_metadata(at(place)).is_err() {
            continue;
        }
        let before = fs::symlink_metadata(at(place)).expect("it is there").file_type();
        for args in [
            &["rootfs", "export", "app", "-o", place, "-b", "./store"][..],
            &["store", "stats", "--html", place, "-b", "./store"],
            &["rootfs", "download", "-l", "app", "-o", place, "-b", "./store"],
            &["rootfs", "inspect", "app", "--html", place],
        ] {
            refused(&home, args, 1);
            let now = fs::symlink_metadata(at(place)).expect("it is there").file_type();
            assert_eq!(now, before, "{args:?}");
        }
    }
    assert!(
        fs::metadata(at("pipe"))
            .expect("it is there")
            .file_type()
            .is_fifo()
    );
    // A link to a file stays one.
    symlink("far.tar", at("near.tar")).expect("a link");
    ok(
        &home,
        &["rootfs", "export", "app", "-o", "near.tar", "-b", "./store"],
    );
    assert!(at("near.tar").is_symlink() && at("far.tar").is_file());
}

#[test]
fn what_killed_exports_left_goes_with_the_next() {
    let home = home();
    for name in [".app.tar.partial-1-0", ".other.tar.partial-1-0"] {
        fs::write(home.path().join(name), "begun").expect("a file");
    }
    ok(
        &home,
        &["rootfs", "export", "app", "-o", "app.tar", "-b", "./store"],
    );
    let left = names_in(home.path());
    assert!(!left.contains(&".app.tar.partial-1-0".into()), "{left:?}");
    assert!(left.contains(&".other.tar.partial-1-0".into()), "{left:?}");
}

#[test]
fn flags_of_stores_need_a_store() {
    let home = home();
    for args in [
        &["rootfs", "rm", "-b", "./store", "app"][..],
        &["rootfs", "rm", "--key", "k", "app"],
        &["rootfs", "list", "-b", "./store"],
        &["run", "-b", "./store", "-i", "app", "--", "true"],
    ] {
        let said = refused(&home, args, 2);
        assert!(
            said.contains("required") || said.contains("cannot be used with"),
            "{said}"
        );
    }
    assert!(home.path().join("fb/images/rootfs-app.ext4").exists());
}
