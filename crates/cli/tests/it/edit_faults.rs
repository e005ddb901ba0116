//! Changes under bad conditions: a host without space, a run that is ended in the middle, files of gigabytes, one bad image among
//! many. What was there stays, nothing half remains; and a filesystem that can share blocks between files does.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firebrick_testkit::mount::Mount;
use firebrick_testkit::oracle::{self, Image};
use firebrick_testkit::targets::mutate::Random;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{Home, folder, layout};

/// Bytes that nothing compresses.
fn noise(len: usize) -> Vec<u8> {
    let mut random = Random::new(7);
    (0..len / 8).flat_map(|_| random.draw().to_le_bytes()).collect()
}

/// An image by `mke2fs` with so much in its file `/data`.
fn image_with(home: &Home, name: &str, data: usize, size: &str) -> PathBuf {
    let (content, image) = (home.path().join("content"), home.path().join(name));
    fs::create_dir_all(&content).expect("a folder");
    fs::write(content.join("data"), noise(data)).expect("a file");
    let (content, path) = (content.to_str().expect("text"), image.to_str().expect("text"));
    let words = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-O",
        "^has_journal",
        "-d",
        content,
        path,
        size,
    ];
    oracle::run_ok("mke2fs", words).expect("mke2fs");
    image
}

/// Each filesystem that can share blocks: a change of one file costs no copy of the image.
#[test]
fn a_copy_shares_its_blocks_where_the_filesystem_can() {
    let have = |tool| oracle::have(tool).expect("installed, or left out");
    if !oracle::have_mount().expect("root, or left out") || !have("mkfs.xfs") || !have("mkfs.btrfs") {
        return;
    }
    let home = Home::new();
    let image = image_with(&home, "image.ext4", 60 << 20, "80M");
    fs::write(home.path().join("small"), "small\n").expect("a file");
    for (filesystem, make) in [("xfs", "mkfs.xfs"), ("btrfs", "mkfs.btrfs")] {
        let disk = home.path().join("disk");
        File::create(&disk)
            .and_then(|file| file.set_len(512 << 20))
            .expect("a disk");
        oracle::run_ok(make, ["-q", "-f", disk.to_str().expect("text")]).expect(make);
        let mounted = Mount::of(&disk, filesystem, "rw").expect("the kernel knows it");
        let (here, copy) = (
            mounted.path().join("image.ext4"),
            mounted.path().join("copy.ext4"),
        );
        fs::copy(&image, &here).expect("a copy");
        let used = |mounted: &Mount| {
            let root = mounted.path().to_str().expect("text").to_owned();
            oracle::run_ok("sync", ["-f", &root]).expect("sync");
            let stat = rustix::fs::statvfs(&root).expect("it is there");
            (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        };
        let before = used(&mounted);
        let path = |path: &Path| path.to_str().expect("text").to_owned();
        home.firebrick(&[
            "rootfs",
            "edit",
            &path(&here),
            "--add",
            "small:/small",
            "-o",
            &path(&copy),
        ])
        .assert()
        .success();
        // Both may have more of their own to write down, but not the image.
        let grown = used(&mounted).saturating_sub(before);
        assert!(grown < 16 << 20, "{filesystem}: {grown} bytes for a small file");
        let extents = oracle::run_ok("filefrag", ["-v", &path(&copy)]).expect("filefrag");
        assert!(extents.contains("shared"), "{filesystem}: {extents}");
        assert!(fs::read(&here).expect("an image") == fs::read(&image).expect("an image"));
        Image::check(&copy).expect("e2fsck finds nothing");
        let mut small = home.firebrick(&["rootfs", "cat", &path(&copy), "/small"]);
        small.assert().success().stdout("small\n");
        mounted.unmount().expect("it lets go");
    }
}

/// A folder in memory that has little room: what does not fit is said, what was there stays, and there is nothing else.
#[test]
fn a_host_without_space_keeps_what_was_there() {
    let home = Home::new();
    image_with(&home, "image.ext4", 20 << 20, "40M");
    fs::write(home.path().join("small"), "small\n").expect("a file");
    let small = home.path().join("small").display().to_string();
    let add = format!("{small}:/small");
    // What is there takes 20 MiB and a bit of the 30.
    let script = "mkdir -p full && mount -t tmpfs -o size=30m none full && cp --sparse=always image.ext4 full/ && cd full && \
        sum=$(sha256sum < image.ext4) && { \"$@\"; code=$?; [ \"$sum\" = \"$(sha256sum < image.ext4)\" ] || echo changed; ls -A; exit $code; }";
    for command in [
        &["edit", "./image.ext4", "--add", &add][..],
        &["cp", &small, "./image.ext4:/small"],
        &["cp", "./image.ext4:/data", "data"],
        &["resize", "./image.ext4", "--free", "4M"],
        &[
            "convert",
            "./image.ext4",
            "--format",
            "squashfs",
            "--compression",
            "lz4",
        ],
    ] {
        let firebrick = assert_cmd::cargo::cargo_bin("firebrick");
        let output = Command::new("unshare")
            .args(["-r", "-m", "sh", "-c", script, "sh"])
            .arg(firebrick)
            .arg("rootfs")
            .args(command)
            .env("FIREBRICK_HOME", home.path().join("fb"))
            .current_dir(home.path())
            .output()
            .expect("unshare is installed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("No space left on device") && said.contains("hint: see what is full: df -h"),
            "{command:?}: {said}"
        );
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "image.ext4\n",
            "{command:?}"
        );
    }
}

fn names(folder: &Path) -> Vec<OsString> {
    folder::names_in(folder)
}

/// Ended by Ctrl-C, or killed, at whatever moment: the old image or the new one, and nothing beside it.
#[test]
fn runs_that_are_ended_in_the_middle_leave_nothing_half() {
    let home = Home::new();
    let images = home.path().join("images");
    let output = home.path().join("output");
    fs::create_dir(&images).expect("a folder");
    let image = image_with(&home, "images/image.ext4", 24 << 20, "32M");
    fs::write(home.path().join("small"), "small\n").expect("a file");
    let old = fs::read(&image).expect("an image");
    let commands: [&[&str]; 4] = [
        &["edit", "images/image.ext4", "--add", "small:/small"],
        &["resize", "images/image.ext4", "--free", "2M"],
        &[
            "convert",
            "images/image.ext4",
            "--format",
            "squashfs",
            "--compression",
            "lz4",
        ],
        &["cp", "images/image.ext4:/data", "output/data"],
    ];
    let (mut ended, mut random) = (0, Random::new(3));
    for command in commands {
        let start = |restore: bool| {
            let _ = fs::remove_dir_all(&output);
            fs::create_dir(&output).expect("a folder");
            let _ = fs::remove_file(images.join("image.squashfs"));
            if restore {
                fs::write(&image, &old).expect("an image");
            }
            Command::new(assert_cmd::cargo::cargo_bin("firebrick"))
                .arg("rootfs")
                .args(command)
                .env("FIREBRICK_HOME", home.path().join("fb"))
                .current_dir(home.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it starts")
        };
        let begin = Instant::now();
        assert!(start(false).wait().expect("it ends").success(), "{command:?}");
        let whole = begin.elapsed().max(Duration::from_millis(8));
        let new = fs::read(&image).expect("an image");
        let made = (names(&images), names(&output));
        for signal in [Signal::INT, Signal::KILL, Signal::INT, Signal::TERM] {
            let mut child = start(true);
            let moment = u32::try_from(random.below(1000)).expect("it is small");
            std::thread::sleep(whole * moment / 1000);
            let _ = kill_process(Pid::from_child(&child), signal);
            let success = child.wait().expect("it ends").success();
            ended += u32::from(!success);
            let now = fs::read(&image).expect("an image");
            assert!(now == new || !success && now == old, "{command:?}: half an image");
            let left = (names(&images), names(&output));
            let untouched = (vec![OsString::from("image.ext4")], Vec::new());
            assert!(
                left == made || !success && left == untouched,
                "{command:?}: {left:?}"
            );
        }
        fs::write(&image, &old).expect("an image");
    }
    oracle::say(&format!("{ended} of 16 runs were ended in time"));
    assert!(
        ended >= 4,
        "{ended} of 16 runs were ended: the moments are badly chosen"
    );
}

/// Three gigabytes, next to all of them a hole: they go in and come out as what they are.
#[test]
fn files_of_gigabytes_stay_sparse_on_the_way_in_and_out() {
    const LEN: u64 = 3 << 30;
    let home = Home::new();
    let image = image_with(&home, "image.ext4", 0, "64M");
    let file = File::create(home.path().join("disk")).expect("a file");
    file.set_len(LEN).expect("a length");
    for (at, bytes) in [(0, &b"first"[..]), (LEN / 2 + 77, b"middle"), (LEN - 4, b"last")] {
        file.write_all_at(bytes, at).expect("a write");
    }
    home.firebrick(&["rootfs", "cp", "disk", "./image.ext4:/disk"])
        .assert()
        .success();
    Image::check(&image).expect("e2fsck finds nothing");
    home.firebrick(&["rootfs", "cp", "./image.ext4:/disk", "again"])
        .assert()
        .success();
    home.firebrick(&["rootfs", "resize", "./image.ext4", "--shrink"])
        .assert()
        .success();
    home.firebrick(&["rootfs", "cp", "./image.ext4:/disk", "resized"])
        .assert()
        .success();
    for name in ["again", "resized"] {
        let again = File::open(home.path().join(name)).expect("a file");
        let metadata = again.metadata().expect("it is there");
        assert_eq!(metadata.len(), LEN);
        assert!(
            metadata.blocks() * 512 < 2 << 20,
            "{name}: {} blocks",
            metadata.blocks()
        );
        for (at, bytes) in [(0, &b"first"[..]), (LEN / 2 + 77, b"middle"), (LEN - 4, b"last")] {
            let mut found = vec![0; bytes.len()];
            again.read_exact_at(&mut found, at).expect("it is there");
            assert_eq!(found, bytes, "{name} at {at}");
        }
    }
}

#[test]
fn one_bad_image_is_no_reason_to_leave_the_others_old() {
    let home = layout::home_with(&["d 0755 /etc"], json!({}));
    let images = home.path().join("fb/images");
    for name in ["a", "b", "c", "d"] {
        home.firebrick(&["rootfs", "from-docker", "-n", name, "-i", "oci:img", "-s", "16"])
            .assert()
            .success();
    }
    // One is no image, one has a journal to replay, and the last has another agent.
    fs::write(images.join("rootfs-a.ext4"), "no image").expect("a file");
    let path = |name: &str| images.join(format!("rootfs-{name}.ext4"));
    for command in ["feature has_journal", "feature needs_recovery"] {
        let path = path("b");
        let args = ["-w", "-R", command, path.to_str().expect("text")];
        oracle::run_ok("debugfs", args).expect("debugfs");
    }
    let agent = "/usr/lib/firebrick/firebrick-guest";
    home.firebrick(&["rootfs", "cp", &format!("d:{agent}"), "agent"])
        .assert()
        .success();
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(home.path().join("agent"))
        .expect("a file");
    file.write_all(b"\0another build").expect("a write");
    home.firebrick(&["rootfs", "cp", "agent", &format!("d:{agent}")])
        .assert()
        .success();
    let before = ["a", "b", "c"].map(|name| fs::read(path(name)).expect("an image"));
    let said = home.transcript(&["rootfs", "update-agent", "--all"]);
    for words in [
        "warning: a stays as it was: ",
        "it holds no filesystem",
        "warning: b stays as it was: ",
        "needs_recovery",
        "e2fsck -p",
        "already\n",
        "(another build), is ",
        "2 of 4 images could not be updated",
        "exit code 1",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(before == ["a", "b", "c"].map(|name| fs::read(path(name)).expect("an image")));
    Image::check(&path("d")).expect("e2fsck finds nothing");
    let said = home.transcript(&["rootfs", "update-agent", "d"]);
    assert!(said.contains("already\nexit code 0"), "{said}");
}

/// A change of `image.ext4`.
fn adding(home: &Home, what: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("firebrick"));
    command
        .args(["rootfs", "edit", "./image.ext4", "--add", what])
        .env("FIREBRICK_HOME", home.path().join("fb"))
        .current_dir(home.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Many change the same image at once: each waits for its turn, and none is lost.
#[test]
fn changes_at_the_same_time_are_all_made() {
    let home = Home::new();
    let image = image_with(&home, "image.ext4", 1 << 20, "8M");
    fs::write(home.path().join("note"), "a note\n").expect("a file");
    let changes: Vec<_> = (0..8)
        .map(|n| {
            adding(&home, &format!("note:/note-{n}"))
                .spawn()
                .expect("it starts")
        })
        .collect();
    for change in changes {
        let output = change.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
    }
    let listed = home.transcript(&["rootfs", "ls", "./image.ext4"]);
    assert_eq!(listed.matches("note-").count(), 8, "{listed}");
    Image::check(&image).expect("e2fsck finds nothing");
}

/// Whoever builds an image anew waits for nobody: a change that waited is made from what is there then.
#[test]
fn a_change_that_waited_is_made_from_what_is_there_then() {
    let home = Home::new();
    let image = image_with(&home, "image.ext4", 1 << 20, "8M");
    let new = image_with(&home, "new.ext4", 1 << 10, "8M");
    fs::write(home.path().join("note"), "a note\n").expect("a file");
    let holder = File::open(&image).expect("an image");
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    let mut change = adding(&home, "note:/note").spawn().expect("it starts");
    let mut said = BufReader::new(change.stderr.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    assert_eq!(line, "waiting until another firebrick has changed ./image.ext4\n");
    fs::rename(new, &image).expect("a new one");
    drop(holder);
    io::copy(&mut said, &mut io::sink()).expect("its words");
    assert!(change.wait().expect("it ends").success());
    for (path, len) in [("/data", 1 << 10), ("/note", 7)] {
        let output = home
            .firebrick(&["rootfs", "cat", "./image.ext4", path])
            .output()
            .expect("it starts");
        assert_eq!(output.stdout.len(), len, "{path}");
    }
    Image::check(&image).expect("e2fsck finds nothing");
}
