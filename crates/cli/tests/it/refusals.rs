//! Images that cannot be made, or only with a warning: one error, and a hint that fits it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use firebrick_testkit::oracle::Image;
use serde_json::json;

use crate::support::folder::names_in;
use crate::support::{Home, layout};

fn make(home: &Home, more: &[&str]) -> String {
    let args = ["rootfs", "from-docker", "-q", "-n", "x", "-i", "oci:img"];
    home.transcript(&[&args[..], more].concat())
}

/// Fails with this exit code, one error line and a hint, each with these words; nothing is left.
#[track_caller]
fn check(home: &Home, more: &[&str], code: u8, error: &str, hint: &str) {
    let text = make(home, more);
    let lines = |start: &str| {
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.collect::<Vec<_>>().join("\n")
    };
    let errors = lines("error: ") + &lines("caused by: ");
    assert!(
        errors.contains(error) && text.ends_with(&format!("exit code {code}\n")),
        "{text}"
    );
    let hints = if code == 2 { errors } else { lines("hint: ") };
    assert!(hints.contains(hint), "no {hint:?} in\n{text}");
    assert_eq!(names_in(&home.path().join("fb/images")), [""; 0]);
}

#[test]
fn content_that_ext4_cannot_hold() {
    let links: String = (0..65_001).map(|n| format!("h /l{n} /a\n")).collect();
    let xattr = format!("f 0644 /a xattr:user.big={}", "v".repeat(70_000));
    for (layer, error, hint) in [
        (
            "f 0644 /lost+found \"x\"",
            "/lost+found is in the tree",
            "rm /lost+found",
        ),
        (
            "l /lost+found -> /x",
            "/lost+found is in the tree",
            "rm /lost+found",
        ),
        (
            &format!("f 0644 /a\n{links}"),
            "/a has 65002 names",
            "cp --preserve /a /a.copy",
        ),
        (&xattr, "/a cannot be stored", "setfattr -x NAME /a"),
        ("c 0600 /odd 5000 1", "/odd is device 5000:1", "rm /odd"),
        ("f 0644 /usr \"x\"", "\"/usr\" is not a directory", "rm /usr"),
    ] {
        check(&layout::home_with(&[layer], json!({})), &[], 1, error, hint);
    }
}

#[test]
fn layers_that_fit_no_other_are_named() {
    let hard = "h /l /nope";
    for (layer, hint) in [
        (hard, "see what layer 1 (the lowest is 0) holds"),
        (hard, "with /nope in it before the link"),
        ("l /a -> b\nl /b -> a\nf 0644 /a/x \"x\"", "without it"),
    ] {
        let home = layout::home_with(&["f 0644 /f \"x\"", layer], json!({}));
        check(&home, &[], 1, "layer 1 cannot be merged", hint);
    }
}

/// What a folder holds is no layer yet, and nobody but who filled it is to blame.
#[test]
fn folders_that_are_no_layer() {
    let home = Home::new();
    fs::create_dir(home.path().join("tree")).expect("a folder");
    fs::write(home.path().join("tree/.wh.x"), "").expect("a file");
    let text = home.transcript(&["rootfs", "from-docker", "-n", "x", "-i", "dir:tree"]);
    let hint =
        "whiteouts in layers\nhint: rename it where it lies, or move it out of the folder\nexit code 1\n";
    assert!(text.ends_with(hint), "{text}");
}

#[test]
fn caches_that_cannot_be_written() {
    let home = Home::new();
    fs::create_dir_all(home.path().join("fb/cache")).expect("a folder");
    fs::write(home.path().join("fb/cache/blobs"), "").expect("a file");
    let text = home.transcript(&["rootfs", "from-docker", "-n", "x", "-i", "localhost:1/x"]);
    let hints: Vec<&str> = text.lines().filter(|line| line.starts_with("hint: ")).collect();
    assert!(
        hints.len() == 1 && hints[0].contains("--no-cache") && hints[0].contains("XDG_CACHE_HOME="),
        "{text}"
    );
}

/// What is wrong with the flags is found before there is a kernel or an image.
#[test]
fn sockets_and_kernels_that_cannot_be() {
    let home = Home::new();
    fs::write(home.path().join("junk"), "junk").expect("a file");
    // What counts is the path from the root: Firecracker is told that.
    let fits = format!("/{}", "s".repeat(98));
    let no_image = "error: there is no image ";
    for (args, said) in [
        (["boot", "x", "--vsock", &fits], no_image),
        (
            ["boot", "x", "--vsock", &format!("{fits}s")],
            "has 100 bytes, at most 99 are possible\nhint: give a shorter one",
        ),
        (
            ["boot", "x", "--vsock", "no/where/s"],
            "in \"no/where\": there is no such folder\nhint: make it: mkdir -p no/where\n",
        ),
        (
            ["-q", "setup", "--deb", "junk"],
            "\nhint: see what it is: dpkg-deb -I",
        ),
        (
            ["-q", "setup", "--kernel", "junk"],
            "\nhint: see what it is: file PATH",
        ),
    ] {
        let text = home.transcript(&args);
        assert!(text.contains(said) && text.ends_with("exit code 1\n"), "{text}");
    }
}

/// That a file is no image is no finding in an image.
#[test]
fn what_is_no_image_cannot_be_checked() {
    let home = Home::new();
    for junk in [Vec::new(), b"junk".repeat(1000)] {
        fs::write(home.path().join("junk"), junk).expect("a file");
        let text = home.transcript(&["rootfs", "check", "./junk"]);
        assert!(
            text.contains("error: cannot check \"./junk\"")
                && text.contains("neither ext4 nor squashfs")
                && text.contains("hint: see what it is: file PATH")
                && text.ends_with("exit code 2\n"),
            "{text}"
        );
    }
}

#[test]
fn sizes_that_no_image_has() {
    let home = layout::home_with(&["f 0644 /a \"x\""], json!({}));
    let at_most = "may come to 1.0 TiB: -s auto";
    check(
        &home,
        &["--free", "1T"],
        1,
        "at most 1099511627776 are possible",
        at_most,
    );
    check(
        &home,
        &["-s", "1T", "--free", "16000000T"],
        1,
        "are possible",
        at_most,
    );
    check(&home, &["--inodes", "4294967295"], 1, "are possible", at_most);
    check(&home, &["-s", "0"], 1, "the content does not fit", "-s auto");
    check(
        &home,
        &["-s", "99999999T"],
        2,
        "99999999T is too large",
        "\"auto\" is what fits",
    );
    check(
        &home,
        &["--free", "99999999T"],
        2,
        "99999999T is too large",
        "--free",
    );
}

#[test]
fn places_that_no_image_can_have() {
    let home = layout::home_with(&["f 0644 /a \"x\""], json!({}));
    fs::create_dir(home.path().join("folder")).expect("a folder");
    fs::write(home.path().join("file"), "x").expect("a file");
    symlink("/dev/null", home.path().join("null")).expect("a link");
    let inside = "-o folder/rootfs-x.ext4";
    check(
        &home,
        &["-o", "folder"],
        1,
        "\"folder\": that is a folder",
        inside,
    );
    check(
        &home,
        &["-o", "folder/"],
        1,
        "\"folder/\": that is a folder",
        inside,
    );
    check(
        &home,
        &["-o", "."],
        1,
        "\".\": that is a folder",
        "-o ./rootfs-x.ext4",
    );
    check(
        &home,
        &["-o", "new/"],
        1,
        "ends in a slash",
        "mkdir -p new/, and name the file",
    );
    check(
        &home,
        &["-o", "new/x"],
        1,
        "there is no such folder",
        "mkdir -p new",
    );
    check(
        &home,
        &["-o", "file/x"],
        1,
        "\"file\": that is not a folder",
        "the name of a file",
    );
    check(&home, &["-o", "/dev/null"], 1, "not a file", "the name of a file");
    check(&home, &["-o", "null"], 1, "not a file", "the name of a file");
    assert!(home.path().join("null").is_symlink());
    assert_eq!(names_in(home.path()), ["file", "folder", "img", "null"]);
    // What was refused was refused before anything was read.
    fs::remove_dir_all(home.path().join("img")).expect("a folder");
    check(&home, &["-o", "folder"], 1, "that is a folder", inside);
}

/// Odd things that do not stop a build are told.
#[test]
fn what_is_left_out_or_hidden_is_told() {
    let config = json!({ "Env": ["A=1", "NOEQUALS", "=x", "N=\u{0}", "L=\u{fffd}"], "Cmd": ["sh"] });
    let home = layout::home_with(
        &["f 0644 /dev \"x\"\nl /proc -> /etc\nl /run -> /gone\nd 1777 /tmp"],
        config,
    );
    let text = home.transcript(&["rootfs", "from-docker", "-n", "x", "-i", "oci:img"]);
    let warnings: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("warning: "))
        .collect();
    let starts = [
        "ENV entry \"NOEQUALS\" is left out",
        "ENV entry \"=x\" is left out",
        "ENV entry \"N=\\0\" is left out",
        "ENV entry \"L=\u{fffd}\" has bytes that were lost",
        "/dev is not a folder in the image: in a VM of firebrick a folder hides it",
        "/proc is a symbolic link in the image: ",
        "/run is a symbolic link in the image: it leads to no folder",
    ];
    assert_eq!(warnings.len(), starts.len(), "{text}");
    for (warning, start) in warnings.iter().zip(starts) {
        assert!(warning.starts_with(start), "{warning}");
    }
    Image::check(&home.path().join("fb/images/rootfs-x.ext4")).expect("a sound image");
    let json = home.transcript(&["rootfs", "cat", "x", "/etc/firebrick/image.json"]);
    assert!(json.contains("\"A=1\"") && !json.contains("NOEQUALS"), "{json}");
}

/// Looking at a cache makes nothing, and needs no right to.
#[test]
fn a_cache_that_may_only_be_read_is_listed() {
    let home = Home::new();
    let cache = home.path().join("fb/cache");
    let empty = "the cache in ~/fb/cache is empty\nexit code 0\n";
    assert_eq!(home.transcript(&["cache", "list"]), empty);
    assert_eq!(names_in(home.path()), [""; 0]);
    fs::create_dir_all(&cache).expect("a folder");
    assert_eq!(home.transcript(&["cache", "list"]), empty);
    assert_eq!(names_in(&cache), [""; 0]);

    let blobs = cache.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    fs::write(blobs.join("ab".repeat(32)), [0; 2048]).expect("a file");
    let all = |mode| {
        for folder in [&blobs, &cache.join("blobs"), &cache] {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).expect("a mode");
        }
    };
    all(0o555);
    let text = home.transcript(&["cache", "list"]);
    all(0o755);
    assert!(
        text.contains("2.0 KiB") && text.ends_with("exit code 0\n"),
        "{text}"
    );
    assert_eq!(names_in(&cache), ["blobs"]);
}

/// A full disk behind stdout is an error; a reader that leaves is none.
#[test]
fn stdout_that_takes_nothing() {
    let home = layout::home_with(&["f 0644 /a \"x\""], json!({}));
    for args in [
        &["rootfs", "from-docker", "-q", "-n", "x", "-i", "oci:img"][..],
        &["rootfs", "list"],
        &["rootfs", "ls", "x"],
        &["rootfs", "cat", "x", "/a"],
        &["completions", "fish"],
        &["--help"],
        &["-V"],
    ] {
        let run = |stdout: std::process::Stdio| {
            let output = std::process::Command::new(assert_cmd::cargo::cargo_bin("firebrick"))
                .args(args)
                .env("FIREBRICK_HOME", home.path().join("fb"))
                .current_dir(home.path())
                .stdout(stdout)
                .output()
                .expect("the binary starts");
            assert_ne!(output.status.code(), None, "{args:?}: a signal ended it");
            (
                output.status.code(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        };
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .expect("Linux has it");
        let (code, stderr) = run(full.into());
        assert_eq!(code, Some(1), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("error: cannot write to stdout\n")
                && stderr.contains("hint: where stdout leads"),
            "{args:?}: {stderr}"
        );
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(run(writer.into()), (Some(0), String::new()), "{args:?}");
    }
}
