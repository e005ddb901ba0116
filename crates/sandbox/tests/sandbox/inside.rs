//! What works in a step, and what its layer says.

use std::time::{Duration, Instant};

use firebrick_sandbox::{Outcome, Run, Step};
use firebrick_tree::{DeviceKind, EntryKind, LayerPath, Metadata};

use crate::support::{CREATED, Lab, read, step};

mod hostile;

#[test]
fn a_step_that_does_nothing_leaves_an_empty_layer() {
    let Some(mut lab) = Lab::new() else { return };
    lab.done("true");
    assert_eq!(lab.layer().said(), Vec::<String>::new());
    lab.end();
}

#[test]
fn a_layer_says_what_changed() {
    let Some(mut lab) = Lab::new() else { return };
    lab.done(
        "echo hi > /etc/new; chmod 600 /etc/motd; rm /etc/issue; rm -r /etc/apk; mkdir /srv/a; ln -s ../x /srv/a/l
        mkfifo /srv/a/p; echo x >> /etc/hostname; rm -r /media; mkdir /media; touch /media/m; rm /etc/shells; mkdir /etc/shells",
    );
    let layer = lab.layer();
    assert_eq!(
        layer.said(),
        [
            "-etc/apk",
            "-etc/issue",
            "!media",
            "+",
            "+etc",
            "+etc/hostname",
            "+etc/motd",
            "+etc/new",
            "+etc/shells",
            "+media",
            "+media/m",
            "+srv",
            "+srv/a",
            "+srv/a/l",
            "+srv/a/p"
        ]
        .map(str::to_owned)
        .as_slice()
    );
    assert_eq!(layer.content("etc/new"), b"hi\n");
    assert_eq!(layer.content("etc/hostname"), b"localhost\nx\n");
    assert_eq!(layer.entry("etc/motd").meta.mode, 0o600);
    assert_eq!(layer.entry("etc/new").meta.mtime.seconds, CREATED);
    assert_eq!(
        layer.entry("srv/a/l").kind,
        EntryKind::Symlink(b"../x".as_slice().into())
    );
    assert_eq!(layer.entry("srv/a/p").kind, EntryKind::Fifo);
    // The next layer is only what the next step did.
    lab.done("rm /etc/new; mkdir -p /etc/apk");
    assert_eq!(lab.layer().said(), ["-etc/new", "+etc", "+etc/apk"]);
    lab.end();
}

#[test]
fn hardlinks_holes_times_and_large_files() {
    let Some(mut lab) = Lab::new() else { return };
    lab.done(
        "cd /srv; echo 1 > a; ln a b; truncate -s 3000000000 hole; printf x | dd of=hole bs=1 seek=2000000000 conv=notrunc 2>/dev/null
        touch -d @1000 old; touch -d @2000000000 future; head -c 5000000 /dev/zero > zeros; ln /etc/motd motd",
    );
    let layer = lab.layer();
    let path = |text: &str| LayerPath::parse(text.as_bytes()).unwrap();
    assert_eq!(layer.entry("srv/b").kind, EntryKind::Hardlink(path("srv/a")));
    assert_eq!(
        layer.entry("srv/motd").kind,
        EntryKind::Hardlink(path("etc/motd"))
    );
    assert_eq!(layer.entry("srv/old").meta.mtime.seconds, 1000);
    assert_eq!(layer.entry("srv/future").meta.mtime.seconds, CREATED);
    for (name, size, held) in [("srv/hole", 3_000_000_000, 4096), ("srv/zeros", 5_000_000, 0)] {
        let EntryKind::File(data) = &layer.entry(name).kind else {
            panic!("{name}")
        };
        assert_eq!(data.size, size, "{name}");
        let in_tar: u64 = data.segments.iter().map(|segment| segment.len).sum();
        assert!(in_tar <= held, "{name}: {data:?}");
    }
    lab.end();
}

#[test]
fn twice_the_same_step_gives_the_same_bytes() {
    let layer = || -> Option<Vec<u8>> {
        let mut lab = Lab::new()?;
        lab.done("mkdir -p /opt/x; for i in 3 1 2; do echo $i > /opt/x/$i; done; cp -a /etc /opt; rm -r /etc/apk; ln /opt/x/1 /opt/x/4");
        Some(lab.layer_bytes())
    };
    assert!(layer() == layer());
}

#[test]
fn environment_users_and_folders_are_what_was_given() {
    let Some(mut lab) = Lab::new() else { return };
    let mut asked =
        step("env; pwd; id; hostname; cat /proc/1/cmdline >/dev/null && ls /proc | grep -c '^[0-9]'");
    asked.env.push(("A".into(), "b c".into()));
    asked.workdir = "/srv/made/here".into();
    let (outcome, output) = lab.step(&asked);
    assert_eq!(outcome, Outcome::Exited(0), "{output}");
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| {
            !line.starts_with("SHLVL") && !line.starts_with("APT_CONFIG") && !line.starts_with("OLDPWD")
        })
        .collect();
    for expected in [
        "A=b c",
        "HOME=/root",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "/srv/made/here",
        "firebrick",
    ] {
        assert!(lines.contains(&expected), "{expected}: {output}");
    }
    assert!(output.contains("uid=0(root) gid=0(root)"), "{output}");
    // PID 1, the shell, ls and grep at most.
    assert!(lines.last().unwrap().parse::<u32>().unwrap() <= 5, "{output}");
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains('=') && !line.starts_with("uid"))
            .count(),
        4,
        "{output}"
    );

    asked.user = "guest".into();
    asked.workdir.clear();
    let (outcome, output) = lab.step(&asked);
    if lab.single() {
        assert!(
            matches!(&outcome, Outcome::NotStarted(why) if why.contains("there is only one id")),
            "{outcome:?}"
        );
    } else {
        assert!(
            outcome == Outcome::Exited(0) && output.contains("uid=405(guest) gid=100(users)"),
            "{output}"
        );
    }
    asked.user = "nobody-here".into();
    let (outcome, _) = lab.step(&asked);
    assert!(
        matches!(&outcome, Outcome::NotStarted(why) if why.contains("nobody-here")),
        "{outcome:?}"
    );
    lab.end();
}

#[test]
fn owners_are_as_far_as_there_are_ids() {
    let Some(mut lab) = Lab::new() else { return };
    // Alpine's base has /etc/shadow for group 42.
    lab.done("touch /srv/mine; chown 405:100 /srv/mine; chmod 4755 /srv/mine; echo >> /etc/shadow");
    let layer = lab.layer();
    let owner = |path| (layer.entry(path).meta.uid, layer.entry(path).meta.gid);
    assert_eq!(owner("etc/shadow"), (0, 42));
    assert_eq!(owner("srv/mine"), if lab.single() { (0, 0) } else { (405, 100) });
    // As on any Linux, changing the owner clears the bit, and it was set again.
    assert_eq!(layer.entry("srv/mine").meta.mode, 0o4755);
    lab.end();
}

fn owned(mode: u16, uid: u32, xattrs: &[(&str, &[u8])]) -> Metadata {
    let xattrs = xattrs
        .iter()
        .map(|(name, value)| (name.as_bytes().into(), (*value).into()));
    Metadata {
        mode,
        uid,
        gid: uid,
        xattrs: xattrs.collect(),
        ..Metadata::default()
    }
}

/// Version 2, cap_net_raw.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// rwx for the owner, r for user 1, r for the group, the mask and others.
fn acl() -> Vec<u8> {
    let none = u32::MAX;
    let mut acl = vec![2, 0, 0, 0];
    for (tag, rights, id) in [
        (1, 7, none),
        (2, 4, 1),
        (4, 4, none),
        (16, 4, none),
        (32, 4, none),
    ] {
        acl.extend([tag, 0, rights, 0]);
        acl.extend(u32::to_le_bytes(id));
    }
    acl
}

/// A root with busybox, and all that an unprivileged user namespace cannot make.
fn odd_root(busybox: &[u8], musl: &[u8], listed: &Metadata) -> Vec<u8> {
    use firebrick_layer::tar::{Writer, WriterEntry};
    let plain = |mode| owned(mode, 0, &[]);
    let device = WriterEntry::Device {
        kind: DeviceKind::Block,
        major: 8,
        minor: 1,
    };
    let capable = owned(
        0o755,
        0,
        &[("security.capability", &CAPABILITY), ("trusted.t", b"1")],
    );
    let mut tar = Writer::new(Vec::new());
    for (name, meta, entry) in [
        ("", plain(0o755), WriterEntry::Directory),
        ("bin", plain(0o755), WriterEntry::Directory),
        ("bin/busybox", plain(0o755), WriterEntry::File(busybox)),
        ("bin/sh", plain(0o777), WriterEntry::Symlink(b"busybox")),
        ("capable", capable, WriterEntry::File(b"x")),
        ("disk", owned(0o660, 6, &[]), device.clone()),
        ("far", owned(0o644, 3_000_000_000, &[]), WriterEntry::File(b"y")),
        ("lib", plain(0o755), WriterEntry::Directory),
        ("lib/ld-musl-x86_64.so.1", plain(0o755), WriterEntry::File(musl)),
        ("listed", listed.clone(), WriterEntry::File(b"z")),
        ("untouched", owned(0o660, 6, &[]), device),
    ] {
        let path = LayerPath::parse(name.as_bytes()).unwrap();
        tar.entry(&path, &meta, entry).unwrap();
    }
    tar.finish().unwrap()
}

#[test]
fn what_the_copy_cannot_show_stays_in_the_layer() {
    let Some(mut lab) = Lab::new() else { return };
    lab.done("mkdir /s; cp /bin/busybox /lib/ld-musl-x86_64.so.1 /s");
    let layer = lab.layer();
    lab.end();
    let listed = owned(
        0o744,
        0,
        &[("system.posix_acl_access", &acl()), ("user.a", b"\0")],
    );
    let tar = odd_root(
        &layer.content("s/busybox"),
        &layer.content("s/ld-musl-x86_64.so.1"),
        &listed,
    );
    let mut lab = Lab::of(&tar);
    lab.done("busybox chmod 700 /capable /disk /far; busybox ln /disk /disk2; busybox touch /listed");
    let layer = lab.layer();
    assert_eq!(
        layer.said(),
        ["+", "+capable", "+disk", "+disk2", "+far", "+listed"]
    );
    let now = &layer.entry("listed").meta;
    assert_eq!((&now.xattrs, now.mode), (&listed.xattrs, 0o744));
    let disk = layer.entry("disk");
    assert_eq!((disk.meta.mode, disk.meta.uid), (0o700, 6));
    let device = EntryKind::Device {
        kind: DeviceKind::Block,
        major: 8,
        minor: 1,
    };
    assert_eq!(disk.kind, device);
    assert_eq!(layer.entry("far").meta.uid, 3_000_000_000);
    let capable = owned(0, 0, &[("security.capability", &CAPABILITY), ("trusted.t", b"1")]);
    assert_eq!(layer.entry("capable").meta.xattrs, capable.xattrs);
    // A file in the place of a device is one, also if it gets the same inode.
    lab.done("busybox rm /disk /disk2; echo no device > /disk");
    assert_eq!(lab.layer().content("disk"), b"no device\n");
    lab.end();
}

#[test]
fn mount_points_and_resolver_are_not_in_the_layer() {
    let Some(mut lab) = Lab::new() else { return };
    lab.done("rm -rf /media; ls /proc/self/fd >/dev/null; test -c /dev/null; test ! -e /sys/kernel; echo > /dev/shm/x; test -w /dev/full");
    let mut asked =
        step("test -s /etc/resolv.conf; echo nameserver 1.2.3.4 > /etc/resolv.conf; ls -l /etc/resolv.conf");
    asked.network = true;
    let (outcome, output) = lab.step(&asked);
    assert_eq!(outcome, Outcome::Exited(0), "{output}");
    assert_eq!(lab.layer().said(), ["-media", "+"]);
    lab.end();
}

#[test]
fn without_a_network_there_is_a_loopback_interface_and_nothing_else() {
    let Some(mut lab) = Lab::new() else { return };
    let output = lab.done("grep -c : /proc/net/dev; ping -c1 -w2 127.0.0.1 >/dev/null 2>&1 || nc -l -p 99 -s 127.0.0.1 & sleep 1; kill %1 2>/dev/null; ifconfig lo");
    assert!(
        output.starts_with("1\n") && output.contains("UP LOOPBACK"),
        "{output}"
    );
    lab.end();
}

#[test]
fn programs_and_interpreters() {
    let Some(mut lab) = Lab::new() else { return };
    let command = |argv: &[&str]| Step {
        run: Run::Command(argv.iter().map(ToString::to_string).collect()),
        ..step("")
    };
    let (outcome, output) = lab.step(&command(&["echo", "a b", "c"]));
    assert_eq!((outcome, output.as_str()), (Outcome::Exited(0), "a b c\n"));
    assert_eq!(lab.run("exit 7").0, Outcome::Exited(7));
    assert_eq!(lab.run("false; echo not reached").0, Outcome::Exited(1));
    assert_eq!(lab.run("kill -9 $$").0, Outcome::Signal(9));
    assert_eq!(lab.run("#!/bin/cat\nhi").1, "#!/bin/cat\nhi");
    for missing in [
        command(&["no-such-program"]),
        step("#!/no/interpreter\n"),
        command(&[]),
    ] {
        let (outcome, _) = lab.step(&missing);
        assert!(matches!(outcome, Outcome::NotStarted(_)), "{outcome:?}");
    }
    let Outcome::NotStarted(why) = lab.step(&step("#!/no/interpreter -x\n")).0 else {
        panic!()
    };
    assert!(why.contains("\"/no/interpreter -x\""), "{why}");
    lab.end();
}

#[test]
fn a_step_ends_when_its_time_is_over() {
    let Some(mut lab) = Lab::new() else { return };
    lab.limits.time = Duration::from_secs(1);
    let started = Instant::now();
    let (outcome, output) = lab.run("echo begun; trap '' TERM INT HUP; (sleep 1000) & sleep 1000");
    assert_eq!(
        (outcome, output.as_str()),
        (Outcome::TimedOut(Duration::from_secs(1)), "begun\n")
    );
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    lab.done("true");
    lab.end();
}

#[test]
fn a_broken_tar_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut sandbox = firebrick_sandbox::Sandbox::start(&crate::support::options(dir.path())).unwrap();
    let mut unpacker = sandbox.unpack();
    std::io::Write::write_all(&mut unpacker, &[7; 4096]).unwrap();
    let error = unpacker.finish().unwrap_err();
    assert!(
        matches!(error, firebrick_sandbox::SandboxError::Inside { .. }),
        "{error:?}"
    );
    drop(sandbox);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_empty_layer_is_a_tar() {
    let Some(mut lab) = Lab::new() else { return };
    assert!(read(&lab.layer_bytes()).entries.is_empty());
    lab.end();
}
