//! From an OCI image to an ext4 image with the command itself: what it prints, what it makes, what it leaves.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use expect_test::expect;
use firebrick_testkit::oracle::Image;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::folder::names_in;
use crate::support::{Home, layout};

/// Two layers, the upper of which hides and changes things of the lower.
const LAYERS: [&str; 2] = [
    "d 0755 /etc\nf 0644 /etc/motd \"lower\\n\"\nf 0600 /etc/secret \"x\"\nd 0755 /bin\nf 0755 /bin/tool @70000:1",
    "f 0644 /etc/motd \"upper\\n\"\nw /etc/secret\nl /etc/link -> motd\nf 0644 /odd\\nname",
];

/// A home with the OCI layout `img` of these layers, whose config names a command.
fn with_layout(layers: &[&str]) -> Home {
    let config = json!({ "Env": ["GREETING=hello"], "Cmd": ["/bin/tool", "--now"], "WorkingDir": "/etc" });
    layout::home_with(layers, config)
}

fn image_of(home: &Home, name: &str) -> PathBuf {
    home.path().join(format!("fb/images/rootfs-{name}.ext4"))
}

#[test]
fn image_is_made_in_six_steps() {
    let home = with_layout(&LAYERS);
    let output = home
        .firebrick(&["rootfs", "from-docker", "-n", "app", "-i", "oci:img"])
        .output()
        .expect("the binary starts");
    let (stdout, stderr) = (
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text"),
    );
    assert!(output.status.success(), "{stderr}");
    let path = image_of(&home, "app");
    assert_eq!(stdout, format!("{}\n", path.display()), "only the path is data");
    let steps: Vec<&str> = stderr.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(steps.len(), 6, "{stderr}");
    assert_eq!(steps[0], "[1/6] Pulling oci:img");
    assert_eq!(steps[1], "[2/6] Reading 2 layers");
    assert!(stderr.contains("rootfs-app.ext4: "), "{stderr}");

    Image::check(&path).expect("a sound image");
}

#[test]
fn image_can_be_looked_into() {
    let home = with_layout(&LAYERS);
    home.firebrick(&["rootfs", "from-docker", "-n", "app", "-i", "oci:img"])
        .assert()
        .success();
    assert_eq!(
        home.transcript(&["rootfs", "cat", "app", "/etc/link"]),
        "upper\nexit code 0\n"
    );
    expect![[r#"
        bin
        dev
        etc
        lost+found
        odd\nname
        proc
        run
        sbin
        sys
        tmp
        usr
        exit code 0
    "#]]
    .assert_eq(&home.transcript(&["rootfs", "ls", "app"]));
    expect![[r#"
        drwxr-xr-x  2  0  0  4096  2024-01-02 03:04  firebrick
        -rw-r--r--  1  0  0  61    2024-01-02 03:04  hosts
        lrwxrwxrwx  1  0  0  4     2023-11-14 22:13  link -> motd
        -rw-r--r--  1  0  0  6     2023-11-14 22:13  motd
        exit code 0
    "#]]
    .assert_eq(&home.transcript(&["rootfs", "ls", "-l", "app", "etc"]));
    expect![[r#"
        {
          "Cmd": [
            "/bin/tool",
            "--now"
          ],
          "Env": [
            "GREETING=hello"
          ],
          "WorkingDir": "/etc",
    "#]]
    .assert_eq(
        &home
            .transcript(&["rootfs", "cat", "app", "/etc/firebrick/image.json"])
            .lines()
            .take(9)
            .collect::<Vec<_>>()
            .join("\n")
            .replace("\"/etc\",", "\"/etc\",\n"),
    );
}

#[test]
fn json_says_the_same() {
    let home = with_layout(&LAYERS);
    home.firebrick(&["rootfs", "from-docker", "-n", "app", "-i", "oci:img"])
        .assert()
        .success();
    let inspected = home
        .firebrick(&["rootfs", "inspect", "app", "--json"])
        .output()
        .expect("the binary starts");
    let inspected: serde_json::Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
    assert_eq!(inspected["guest"], true);
    assert_eq!(inspected["clean"], true);
    assert_eq!(inspected["image"]["WorkingDir"], "/etc");
    let listed = home
        .firebrick(&["rootfs", "ls", "app", "/etc", "--json"])
        .output()
        .expect("the binary starts");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed[2]["target"], "motd");
    assert_eq!(listed[3]["size_bytes"], 6);
}

#[test]
fn flags_decide_the_filesystem() {
    let home = with_layout(&LAYERS);
    let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f";
    home.firebrick(&["rootfs", "from-docker", "-n", "x", "-i", "oci:img", "-o", "x.img"])
        .args([
            "-s",
            "64",
            "--label",
            "data",
            "--uuid",
            uuid,
            "--inodes",
            "5000",
            "--journal",
        ])
        .assert()
        .success();
    let path = home.path().join("x.img");
    assert_eq!(fs::metadata(&path).expect("the image").len(), 64 << 20);
    let image = Image::check(&path).expect("a sound image");
    let field = |name: &str| image.superblock_field(name).expect("dumpe2fs shows it");
    assert_eq!(field("Filesystem volume name"), "data");
    assert_eq!(field("Filesystem UUID"), uuid);
    assert!(field("Inode count").parse::<u32>().expect("a number") >= 5000);
    assert!(field("Filesystem features").contains("has_journal"));
    assert!(!image_of(&home, "x").exists(), "-o is the only place");
}

#[test]
fn same_input_gives_the_same_bytes() {
    let home = with_layout(&LAYERS);
    let make = |name: &str| {
        home.firebrick(&["rootfs", "from-docker", "-q", "-n", name, "-i", "oci:img"])
            .assert()
            .success()
            .stderr("");
        fs::read(image_of(&home, name)).expect("the image")
    };
    assert!(make("a") == make("b"), "two builds differ");
}

#[test]
fn too_small_a_size_says_what_is_needed_and_leaves_the_old_image() {
    let home = with_layout(&["d 0755 /srv\nf 0644 /srv/big @9000000:1\nf 0644 /small"]);
    let path = image_of(&home, "app");
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(&path, "the old one").expect("a file");
    let text = home.transcript(&["rootfs", "from-docker", "-n", "app", "-i", "oci:img", "-s", "2"]);
    for part in [
        "error: cannot turn oci:img into an image",
        "the size is 2.0 MiB",
        "largest layers: layer 0 (8.6 MiB)",
        "largest folders: /srv (8.6 MiB)",
        "hint: give it enough with -s ",
        "exit code 1",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert_eq!(fs::read(&path).expect("still there"), b"the old one");
    assert_eq!(names_in(path.parent().expect("a folder")), ["rootfs-app.ext4"]);
    // What the hint says is enough.
    let size = text.split("enough with -s ").nth(1).expect("a size");
    let size = size.split(',').next().expect("a size");
    home.firebrick(&["rootfs", "from-docker", "-n", "app", "-i", "oci:img", "-s", size])
        .assert()
        .success();
    Image::check(&path).expect("a sound image");
}

#[test]
fn damaged_layer_is_named() {
    let home = with_layout(&LAYERS);
    let blobs = home.path().join("img/blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .max_by_key(|path| fs::metadata(path).expect("a file").len())
        .expect("there are blobs");
    let mut bytes = fs::read(&largest).expect("a blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).expect("a blob");
    let text = home.transcript(&["rootfs", "from-docker", "-n", "app", "-i", "oci:img"]);
    assert!(text.ends_with("exit code 1\n"), "{text}");
    assert!(
        text.contains(largest.file_name().expect("a name").to_str().expect("hex")),
        "the layer's digest is not in\n{text}"
    );
    assert!(!image_of(&home, "app").exists());
}

#[test]
fn only_images_of_this_machine_get_our_guest() {
    let home = with_layout(&LAYERS);
    let text = home.transcript(&[
        "rootfs",
        "from-docker",
        "-n",
        "app",
        "-i",
        "oci:img",
        "--platform",
        "linux/s390x",
    ]);
    assert!(text.contains("error: ") && text.contains("hint: "), "{text}");
    assert!(
        text.contains("linux/amd64") || text.contains("linux/arm64"),
        "{text}"
    );
    assert!(text.ends_with("exit code 1\n"), "{text}");
}

/// A signal at any time leaves no file that the next run would not have.
#[test]
fn interrupted_build_leaves_nothing() {
    let home = with_layout(&["f 0644 /big @60000000:1", "f 0644 /bigger @80000000:2"]);
    let images = home.path().join("fb/images");
    let signals = [Signal::TERM, Signal::INT, Signal::KILL];
    for (round, by) in signals.into_iter().cycle().take(9).enumerate() {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("firebrick"))
            .args(["rootfs", "from-docker", "-n", "app", "-i", "oci:img"])
            .env("FIREBRICK_HOME", home.path().join("fb"))
            .current_dir(home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        std::thread::sleep(Duration::from_millis(15 * round as u64));
        kill_process(Pid::from_child(&child), by).expect("it is there");
        let ended = child.wait().expect("it ends");
        if ended.success() {
            continue; // it was faster than we
        }
        let left = names_in(&images);
        assert!(
            left.iter().all(|name| name == "rootfs-app.ext4"),
            "{by:?} left {left:?}"
        );
    }
    let started = Instant::now();
    home.firebrick(&["rootfs", "from-docker", "-n", "app", "-i", "oci:img"])
        .assert()
        .success();
    assert!(started.elapsed() < Duration::from_secs(120), "nothing hangs");
    Image::check(&image_of(&home, "app")).expect("a sound image");
}

#[test]
fn output_goes_where_a_link_leads() {
    let home = with_layout(&LAYERS);
    std::os::unix::fs::symlink("kept/elsewhere.ext4", home.path().join("link.ext4")).expect("a link");
    fs::create_dir(home.path().join("kept")).expect("a folder");
    let make =
        |output: &str| home.transcript(&["rootfs", "from-docker", "-n", "x", "-i", "oci:img", "-o", output]);
    assert!(make("link.ext4").ends_with("exit code 0\n"));
    Image::check(&home.path().join("kept/elsewhere.ext4")).expect("a sound image");
    assert!(home.path().join("link.ext4").is_symlink());
}

#[test]
fn size_holds_the_free_space_too() {
    let home = with_layout(&LAYERS);
    let text = home.transcript(&[
        "rootfs",
        "from-docker",
        "-n",
        "x",
        "-i",
        "oci:img",
        "-s",
        "20",
        "--free",
        "30",
    ]);
    assert!(text.contains("the size is 20.0 MiB"), "{text}");
    home.firebrick(&[
        "rootfs",
        "from-docker",
        "-n",
        "x",
        "-i",
        "oci:img",
        "-s",
        "40",
        "--free",
        "30",
    ])
    .assert()
    .success();
    let image = Image::check(&image_of(&home, "x")).expect("a sound image");
    let free: u64 = image
        .superblock_field("Free blocks")
        .expect("dumpe2fs shows it")
        .parse()
        .expect("a number");
    assert!(free * 4096 >= 30 << 20, "{free} blocks are free");
}

#[test]
fn what_is_no_tar_says_so() {
    let home = Home::new();
    fs::write(home.path().join("text"), "hello\n").expect("a file");
    fs::write(home.path().join("empty"), [0; 1024]).expect("a file");
    let make =
        |file: &str| home.transcript(&["rootfs", "from-docker", "-n", "x", "-i", &format!("tar:{file}")]);
    assert!(
        make("text").contains("hint: this may be no tar at all"),
        "{}",
        make("text")
    );
    assert!(make(".").contains("dir:PATH"), "{}", make("."));
    assert!(make("/dev/zero").ends_with("exit code 1\n"));
    assert!(make("empty").contains("warning: tar:empty holds no files"));
}
