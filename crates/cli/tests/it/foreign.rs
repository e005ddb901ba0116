//! Images that `mke2fs` made, with each of its features by turns. The kernel mounts what becomes of them and sees the same tree;
//! what firebrick cannot do right with is refused by name; and a journal that a dying kernel left is nobody's secret.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use firebrick_testkit::listing::{Ignore, Listing, diff, without_lost_and_found};
use firebrick_testkit::mount::Mount;
use firebrick_testkit::oracle::{self, Image};
use firebrick_testkit::uml::{self, Uml};
use firebrick_testkit::{squashfs, walk};

use crate::support::{Home, folder};

/// An image by `mke2fs`, called `foreign.ext4`.
fn mke2fs(home: &Home, arguments: &str, content: Option<&Path>, size: &str) -> PathBuf {
    let image = home.path().join("foreign.ext4");
    let mut words: Vec<&str> = "-q -F -L theirs".split(' ').chain(arguments.split(' ')).collect();
    if let Some(content) = content {
        words.extend(["-d", content.to_str().expect("text")]);
    }
    words.extend([image.to_str().expect("text"), size]);
    oracle::run_ok("mke2fs", words).expect("mke2fs");
    image
}

/// A folder with something of each kind.
fn content(home: &Home) -> PathBuf {
    let files = home.path().join("files");
    let at = |name: &str| files.join(name);
    fs::create_dir_all(at("a/b")).expect("folders");
    fs::create_dir(at("closed")).expect("a folder");
    fs::write(at("a/file"), vec![7; 200_000]).expect("a file");
    fs::hard_link(at("a/file"), at("a/b/again")).expect("a link");
    for n in 0..400 {
        fs::write(at(&format!("a/b/{n:040}")), n.to_string()).expect("a file");
    }
    symlink("a/file", at("short")).expect("a link");
    symlink("a/".repeat(90), at("long")).expect("a link");
    let sparse = fs::File::create(at("sparse")).expect("a file");
    sparse.set_len(3_000_000).expect("a length");
    for n in 0..20 {
        sparse.write_all_at(&[9; 100], n * 100_000).expect("a write");
    }
    fs::write(at("tool"), "#!/bin/sh\n").expect("a file");
    chown(at("tool"), Some(70_000), Some(3)).expect("root");
    for (name, mode) in [("tool", 0o4755), ("closed", 0o1700)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    oracle::run_ok("mkfifo", [at("pipe")]).expect("mkfifo");
    let time = UNIX_EPOCH + Duration::new(1_500_000_000, 123_456_789);
    let file = fs::File::open(at("a/file")).expect("a file");
    file.set_modified(time).expect("a time");
    files
}

/// What `mke2fs -d` does not make.
fn finish(image: &Path) {
    let commands = format!(
        "mknod null c 1 3\nmknod disk b 259 70000\nea_set /a/file user.small value\nea_set /closed trusted.t {}\n",
        "x".repeat(600)
    );
    let mut script = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut script, commands.as_bytes()).expect("a write");
    let path = script.path().to_str().expect("text");
    oracle::run_ok("debugfs", ["-w", "-f", path, image.to_str().expect("text")]).expect("debugfs");
    Image::check(image).expect("e2fsck finds nothing");
}

/// What the kernel sees in an ext2, ext3 or ext4.
fn mounted(image: &Path) -> Listing {
    let mounted = Mount::new(image, "ro").expect("the kernel mounts it");
    let listing = walk::walk(mounted.path()).expect("all can be read");
    mounted.unmount().expect("it lets go");
    without_lost_and_found(listing)
}

/// All that stays when an image is made again. One feature is away, or another than usual, in each.
const SETS: [&str; 15] = [
    "-t ext4",
    "-t ext4 -b 2048 -g 4096",
    "-t ext4 -b 4096",
    "-t ext4 -O ^metadata_csum,uninit_bg",
    "-t ext4 -O ^metadata_csum,^uninit_bg",
    "-t ext4 -O ^64bit",
    "-t ext4 -O ^extents,^64bit",
    "-t ext4 -O ^flex_bg -g 8192",
    "-t ext4 -O ^has_journal",
    "-t ext4 -O metadata_csum_seed,orphan_file,fast_commit",
    "-t ext4 -O meta_bg,^resize_inode,sparse_super2",
    "-t ext4 -O ^dir_index,^filetype",
    "-t ext4 -I 128",
    "-t ext3",
    "-t ext2 -b 4096",
];

#[test]
fn the_kernel_sees_the_same_tree_in_whatever_they_become() {
    if !oracle::have_mount().expect("root, or left out") {
        return;
    }
    let home = Home::new();
    let files = content(&home);
    for arguments in SETS {
        let image = mke2fs(&home, arguments, Some(&files), "40M");
        finish(&image);
        let before = mounted(&image);
        assert!(before.len() > 410, "{}", before.len());
        for change in [
            &["resize", "--size", "64M"][..],
            &["resize", "--free", "9M"],
            &["resize", "--shrink"],
            &["convert", "--format", "ext4", "--journal"],
        ] {
            home.firebrick(&["rootfs", change[0], "./foreign.ext4", "-o", "new.ext4"])
                .args(&change[1..])
                .assert()
                .success();
            let new = home.path().join("new.ext4");
            Image::check(&new).expect("e2fsck finds nothing");
            diff(&before, &mounted(&new), &Ignore::NOTHING)
                .unwrap_or_else(|error| panic!("{arguments} {change:?}: {error}"));
        }
        for (from, format, to) in [
            ("./foreign.ext4", "squashfs", "new.squashfs"),
            ("./new.squashfs", "ext4", "again.ext4"),
        ] {
            home.firebrick(&["rootfs", "convert", from, "--format", format, "-o", to])
                .assert()
                .success();
        }
        let sayable = squashfs::sayable(before);
        squashfs::compare(&home.path().join("new.squashfs"), &sayable)
            .unwrap_or_else(|error| panic!("{arguments}: {error:#}"));
        diff(
            &sayable,
            &mounted(&home.path().join("again.ext4")),
            &Ignore::NOTHING,
        )
        .unwrap_or_else(|error| panic!("{arguments}, there and back: {error}"));
    }
}

/// A change, which asks most of an image, of those whose trees stay; and the check of all.
#[test]
fn they_are_checked_and_changed_in_place_of_a_mount() {
    if !oracle::have_mount().expect("root, or left out") {
        return;
    }
    let home = Home::new();
    let files = content(&home);
    fs::write(home.path().join("note"), "a note\n").expect("a file");
    for arguments in SETS {
        let image = mke2fs(&home, arguments, Some(&files), "40M");
        finish(&image);
        let before = mounted(&image);
        let said = home.transcript(&["rootfs", "check", "./foreign.ext4"]);
        assert!(
            said.contains(": clean, ") && said.ends_with("exit code 0\n"),
            "{arguments}: {said}"
        );
        home.firebrick(&["rootfs", "edit", "./foreign.ext4", "--add", "note:/a/b/note"])
            .args(["--rm", "/a/b/again", "--chmod", "0711:/closed"])
            .assert()
            .success();
        Image::check(&image).unwrap_or_else(|error| panic!("{arguments}: {error:#}"));
        let mut after = mounted(&image);
        let note = after.remove(b"/a/b/note".as_slice()).expect("it is there");
        assert_eq!((note.mode, note.uid), (0o644, 0), "{arguments}");
        let mut expected = before;
        expected.remove(b"/a/b/again".as_slice()).expect("it was there");
        let file = expected.get_mut(b"/a/file".as_slice()).expect("a file");
        (file.nlink, file.same_as) = (1, b"/a/file".to_vec());
        expected.get_mut(b"/closed".as_slice()).expect("a folder").mode = 0o711;
        diff(&expected, &after, &Ignore::NOTHING).unwrap_or_else(|error| panic!("{arguments}: {error}"));
    }
}

/// What a filesystem may have that none of the commands reads, and its name in what they say.
const UNREADABLE: [(&str, &str); 4] = [
    ("-t ext4 -O inline_data", "inline_data"),
    ("-t ext4 -O encrypt", "encrypt"),
    ("-t ext4 -O casefold -E encoding=utf8", "casefold"),
    ("-t ext4 -O bigalloc -C 16384", "bigalloc"),
];

/// What is read, but neither checked nor changed.
const READABLE: [(&str, &str); 5] = [
    ("-t ext4 -O quota", "quota"),
    ("-t ext4 -O project,quota", "project"),
    ("-t ext4 -O verity", "verity"),
    ("-t ext4 -O ea_inode", "ea_inode"),
    ("-t ext4 -O mmp", "mmp"),
];

/// Each of these fails, says these words and a hint, and changes nothing.
fn refused(home: &Home, commands: &[&[&str]], words: &[&str]) {
    let image = home.path().join("foreign.ext4");
    let before = (fs::read(&image).expect("an image"), folder::names_in(home.path()));
    for command in commands {
        let said = home.transcript(&[&["rootfs"], *command].concat());
        let code = if command[0] == "check" { 2 } else { 1 };
        assert!(
            words.iter().all(|word| said.contains(word))
                && said.contains("\nhint: ")
                && said.ends_with(&format!("exit code {code}\n")),
            "{command:?}: {said}"
        );
        assert!(
            (fs::read(&image).expect("an image"), folder::names_in(home.path())) == before,
            "{command:?}"
        );
    }
}

const CHANGES: [&[&str]; 4] = [
    &["check", "./foreign.ext4"],
    &["check", "./foreign.ext4", "--repair"],
    &["edit", "./foreign.ext4", "--add", "note:/note"],
    &["cp", "note", "./foreign.ext4:/note"],
];

const READS: [&[&str]; 7] = [
    &["resize", "./foreign.ext4", "--shrink"],
    &["convert", "./foreign.ext4", "--format", "squashfs"],
    &["cp", "./foreign.ext4:/note", "out"],
    &["ls", "./foreign.ext4"],
    &["cat", "./foreign.ext4", "/note"],
    &["inspect", "./foreign.ext4"],
    &["update-agent", "./foreign.ext4"],
];

#[test]
fn what_cannot_be_kept_right_is_refused_by_name() {
    let home = Home::new();
    fs::write(home.path().join("note"), "x").expect("a file");
    for (arguments, feature) in UNREADABLE {
        mke2fs(&home, arguments, None, "16M");
        refused(&home, &[&CHANGES[..], &READS].concat(), &[feature]);
    }
    for (arguments, feature) in READABLE {
        mke2fs(&home, arguments, None, "16M");
        refused(&home, &CHANGES, &[feature]);
        // Made again, it has the feature no more, and that is told.
        let output = home
            .firebrick(&[
                "rootfs",
                "resize",
                "./foreign.ext4",
                "--free",
                "1M",
                "-o",
                "new.ext4",
            ])
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let lost = feature != "ea_inode"; // which is only another place for the same
        assert_eq!(
            said.contains("warning: ") && said.contains(feature),
            lost,
            "{said}"
        );
        Image::check(&home.path().join("new.ext4")).expect("e2fsck finds nothing");
        fs::remove_file(home.path().join("new.ext4")).expect("it is there");
    }
}

/// An ext2 has no journal, and tells by a flag that somebody has it mounted, or had.
#[test]
fn what_was_not_unmounted_is_refused() {
    let home = Home::new();
    fs::write(home.path().join("note"), "x").expect("a file");
    let image = mke2fs(&home, "-t ext2", None, "16M");
    let image = Image::check(&image).expect("e2fsck finds nothing");
    for (command, why) in [
        ("set_super_value state 0", "was not unmounted cleanly"),
        ("set_super_value state 3", "has errors"),
    ] {
        image.change(command).expect("debugfs");
        let commands = [CHANGES[2], CHANGES[3], READS[0], READS[1]];
        refused(&home, &commands, &[why, "e2fsck -f"]);
    }
}

/// Writes for ever, and says what is on disk for sure.
const WRITES: &str = "n=0\nwhile :; do\n\
    head -c 5000 /dev/zero | tr '\\0' x > $M/promised-$n; sync $M/promised-$n; echo promised $n\n\
    head -c 90000 /dev/zero > $M/other-$n; mkdir $M/folder-$n; mv $M/other-$n $M/folder-$n/; n=$((n + 1))\ndone";

/// A whole Linux is killed while it writes to an image as `mke2fs` makes it: its journal must be replayed before anything else.
#[test]
fn a_journal_that_must_be_replayed_is_refused_and_the_hint_helps() {
    if !uml::have().expect("installed, or left out") {
        return;
    }
    let home = Home::new();
    fs::write(home.path().join("note"), "a note\n").expect("a file");
    let image = mke2fs(&home, "-t ext4", None, "64M");
    let mut linux = Uml::start(&image, "rw", WRITES).expect("it boots");
    let mut promised = 0;
    while promised < 12 {
        let line = linux.line().expect("text").expect("it writes for ever");
        promised += usize::from(line.starts_with("promised "));
    }
    drop(linux);
    let dirty = oracle::run_ok("dumpe2fs", ["-h", image.to_str().expect("text")]).expect("dumpe2fs");
    assert!(dirty.contains("needs_recovery"), "{dirty}");
    refused(
        &home,
        &[&CHANGES[..], &READS].concat(),
        &["needs_recovery", "e2fsck -p"],
    );

    // What the hint says.
    let replayed = oracle::run("e2fsck", ["-p".as_ref(), image.as_os_str()]).expect("it starts");
    let said = String::from_utf8_lossy(&replayed.stdout).into_owned();
    assert!(
        replayed.status.code().is_some_and(|code| code <= 1) && said.contains("recovering journal"),
        "{said}"
    );
    home.firebrick(&["rootfs", "edit", "./foreign.ext4", "--add", "note:/note"])
        .assert()
        .success();
    Image::check(&image).expect("e2fsck finds nothing");
    for n in 0..promised {
        let content = home
            .firebrick(&[
                "rootfs",
                "cat",
                "./foreign.ext4",
                &format!("/promised-{n}"),
                "/note",
            ])
            .output()
            .expect("it starts");
        assert_eq!(content.stdout, [&[b'x'; 5000][..], b"a note\n"].concat());
    }
}

/// A disk of a virtual machine is locked as QEMU locks it; Python holds the lock here.
#[test]
fn what_a_machine_writes_to_is_left_alone() {
    let home = Home::new();
    fs::write(home.path().join("note"), "x").expect("a file");
    let image = mke2fs(&home, "-t ext2", None, "16M");
    let script = "import fcntl, sys\nfile = open(sys.argv[1], 'r+b')\n\
        for byte in 101, 201: fcntl.lockf(file, fcntl.LOCK_SH, 1, byte)\nprint('locked', flush=True)\nsys.stdin.read()";
    let mut holder = Command::new("python3")
        .args(["-c", script])
        .arg(&image)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut line = String::new();
    let stdout = holder.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("it says so");
    let commands = [&CHANGES[..], &READS[..2]].concat();
    refused(&home, &commands, &["a virtual machine is writing to"]);
    drop(holder.stdin.take());
    holder.wait().expect("it ends");
    home.firebrick(&["rootfs", "cp", "note", "./foreign.ext4:/note"])
        .assert()
        .success();
    Image::check(&image).expect("e2fsck finds nothing");
}
