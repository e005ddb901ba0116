//! Listing and deleting images, and behaviour at the edges of the process: closed pipes, quiet, no colours.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use crate::support::Home;

fn with_images(names: &[&str]) -> Home {
    let home = Home::new();
    let images = home.path().join("fb/images");
    fs::create_dir_all(&images).expect("a folder");
    for (index, name) in names.iter().enumerate() {
        fs::write(images.join(name), vec![0; (index + 1) << 20]).expect("a file");
    }
    home
}

#[test]
fn list_shows_images_only() {
    let home = with_images(&[
        "rootfs-python.ext4",
        "rootfs-go.ext4",
        "vmlinux",
        "rootfs-.ext4",
        ".rootfs-x.ext4",
    ]);
    assert_eq!(
        home.transcript(&["rootfs", "list"]),
        "LANGUAGE  SIZE     PATH\n\
         go        2.0 MiB  ~/fb/images/rootfs-go.ext4\n\
         python    1.0 MiB  ~/fb/images/rootfs-python.ext4\n\
         exit code 0\n"
    );
    let output = home
        .firebrick(&["rootfs", "list", "--json"])
        .output()
        .expect("the binary starts");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json[0]["name"], "go");
    assert_eq!(json[0]["size_bytes"], 2 << 20);
    assert!(
        json[1]["modified_unix"]
            .as_i64()
            .is_some_and(|seconds| seconds > 1_600_000_000)
    );
}

#[test]
fn rm_deletes_all_or_nothing() {
    let home = with_images(&["rootfs-a.ext4", "rootfs-b.ext4"]);
    let images = home.path().join("fb/images");
    home.firebrick(&["rootfs", "rm", "a", "gone"]).assert().code(1);
    assert!(images.join("rootfs-a.ext4").exists());
    home.firebrick(&["rootfs", "rm", "a", "a", "b"])
        .assert()
        .success();
    assert_eq!(fs::read_dir(&images).expect("a folder").count(), 0);
}

#[test]
fn missing_image_hint_names_those_there_are() {
    let home = with_images(&["rootfs-a.ext4", "rootfs-b.ext4"]);
    let text = home.transcript(&["rootfs", "rm", "c"]);
    assert!(text.contains("hint: there are: a, b\n"), "{text}");
}

#[test]
fn quiet_says_nothing() {
    let home = with_images(&["rootfs-a.ext4"]);
    home.firebrick(&["-q", "rootfs", "rm", "a"])
        .assert()
        .success()
        .stderr("")
        .stdout("");
}

#[test]
fn closed_stdout_is_silent() {
    let home = with_images(&["rootfs-a.ext4"]);
    for args in [
        &["rootfs", "list"][..],
        &["completions", "bash"],
        &["--help"],
        &["rootfs", "list", "--json"],
    ] {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("firebrick"));
        command.args(args).env("FIREBRICK_HOME", home.path().join("fb"));
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut child = command
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut stderr)
            .expect("text");
        assert_eq!(
            child.wait().expect("it ends").code(),
            Some(0),
            "{args:?}: {stderr}"
        );
        assert_eq!(stderr, "", "{args:?}");
    }
}
