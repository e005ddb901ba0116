//! `from-docker --init` and its kin: what gets into the image, and what is said where it cannot.

use std::fs::File;
use std::io::Read as _;

use firebrick_ext4::read::{Filesystem, LastSymlink};
use firebrick_testkit::oracle::Image;
use serde_json::json;

use crate::support::Home;
use crate::support::layout::home_with;

const SYSTEMD: &str = "f 0755 /usr/lib/systemd/systemd \"\"\nl /sbin/init -> /usr/lib/systemd/systemd";
const BUSYBOX: &str = "f 0755 /bin/busybox \"\"\nl /sbin/init -> /bin/busybox";

/// What the command says; its image is checked if it made one.
fn made(home: &Home, more: &[&str]) -> Result<String, String> {
    let args = [&["rootfs", "from-docker", "-n", "app", "-i", "oci:img"], more].concat();
    let said = home.transcript(&args);
    if !said.ends_with("exit code 0\n") {
        return Err(said);
    }
    Image::check(&home.path().join("fb/images/rootfs-app.ext4")).expect("a sound image");
    Ok(said)
}

/// A text file of the image.
fn text(home: &Home, path: &str) -> Option<String> {
    let file = File::open(home.path().join("fb/images/rootfs-app.ext4")).expect("the image");
    let filesystem = Filesystem::open(file).expect("an ext4");
    let inode = filesystem.lookup(path.as_bytes(), LastSymlink::Follow).ok()?;
    let mut text = String::new();
    let mut file = filesystem.open_file(&inode).expect("a file");
    file.read_to_string(&mut text).expect("text");
    Some(text)
}

#[test]
fn a_unit_is_enabled_and_its_user_and_target_are_those_asked_for() {
    let home = home_with(&[SYSTEMD], json!({}));
    let more = [
        "--init",
        "systemd",
        "--agent-user",
        "1000:1000",
        "--init-target",
        "minimal",
    ];
    made(
        &home,
        &[&more[..], &["--guest-options", "firebrick.cgroup=v1 a=b"]].concat(),
    )
    .unwrap();
    let unit = text(
        &home,
        "/etc/systemd/system/multi-user.target.wants/firebrick-agent.service",
    )
    .expect("a unit");
    let start = "ExecStart=/usr/lib/firebrick/firebrick-guest --agent --everywhere --user 1000:1000\n";
    for line in [
        start,
        "Restart=on-failure\n",
        "RestartSec=2\n",
        "StartLimitBurst=5\n",
        "StartLimitIntervalSec=60\n",
    ] {
        assert!(unit.contains(line), "{unit}");
    }
    assert!(
        text(&home, "/etc/systemd/system/default.target")
            .expect("a target")
            .contains("Wants=firebrick-agent.service")
    );
    let words = text(&home, "/etc/firebrick/cmdline").expect("words");
    assert_eq!(words, "init=/sbin/init firebrick.cgroup=v1 a=b\n");
}

#[test]
fn auto_takes_the_place_of_a_busybox_and_says_so() {
    let home = home_with(&[BUSYBOX], json!({}));
    let said = made(&home, &[]).unwrap();
    assert!(
        said.contains("the guest takes its place; --init busybox keeps it"),
        "{said}"
    );
    assert_eq!(text(&home, "/etc/inittab"), None);
    let said = made(&home, &["--init", "busybox"]).unwrap();
    assert!(!said.contains("takes its place"), "{said}");
    let inittab = text(&home, "/etc/inittab").expect("an inittab");
    assert!(
        inittab.contains("::respawn:/usr/lib/firebrick/firebrick-guest --agent --everywhere\n"),
        "{inittab}"
    );
}

#[test]
fn what_the_image_lacks_is_refused_with_the_way_out() {
    let home = home_with(&[BUSYBOX], json!({}));
    for (more, told) in [
        (&["--init", "systemd"][..], "Debian: systemd-sysv"),
        (
            &["--init", "openrc"],
            "Alpine: openrc; Debian: openrc and sysvinit-core",
        ),
        (
            &["--profile", "containerd"],
            "package runc), or add a static one with --runc FILE",
        ),
        (
            &["--init", "systemd", "--agent", "none"],
            "leave one of the two flags out",
        ),
        (
            &["--agent-user", "nex"],
            "in this image the guest is PID 1: choose another --init, or leave it out",
        ),
        (
            &["--agent-user", "a b"],
            "is no user: expected NAME, UID, NAME:GROUP or UID:GID",
        ),
        (
            &["--init", "busybox", "--agent-user", "nex"],
            "cannot set the agent's user in the image caused by: there is no user \"nex\" in the image",
        ),
        (
            &["--init", "busybox", "--agent-user", "1000:nex"],
            "there is no group \"nex\" in the image",
        ),
        (
            &["--guest-options", "a=\"b\""],
            "cannot stand on a kernel command line",
        ),
        (
            &["--profile", "containerd", "--runc", "/etc/passwd"],
            "the runc \"/etc/passwd\" cannot run in every image",
        ),
    ] {
        let said = made(&home, more).unwrap_err();
        let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(told), "{more:?}: {said}");
    }
    let guest = home.path().join("static");
    let busybox = "/bin/busybox";
    std::fs::copy(busybox, &guest).expect("a static program (Debian package busybox-static)");
    made(&home, &["--profile", "containerd", "--runc", "static"]).unwrap();
}
