//! The same tests as other callers.

use std::path::{Path, PathBuf};
use std::process::Command;

use firebrick_testkit::oracle::{self, leave_out};
use firebrick_testkit::uml::{self, Uml};

use crate::support;

/// The bomb that a control group bounds.
const GROUP_TEST: &str = "inside::hostile::a_group_bounds_a_bomb_of_anybody";

/// A folder with what the tests need, which other users may look into: they may not look into those that these are in.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Option<Shared> {
        let alpine = support::alpine()?;
        let shared = Shared(tempfile::tempdir().unwrap());
        let fixture = shared.at("alpine");
        std::fs::create_dir(&fixture).unwrap();
        std::fs::copy(std::env::current_exe().unwrap(), shared.at("tests")).unwrap();
        std::fs::copy(support::KEEPER, shared.at("keeper")).unwrap();
        std::fs::copy(&alpine, fixture.join(alpine.file_name().unwrap())).unwrap();
        let chmod = Command::new("chmod")
            .args(["-R", "a+rX"])
            .arg(shared.0.path())
            .status()
            .unwrap();
        assert!(chmod.success());
        Some(shared)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Runs every test of `inside` in a process that `wrap` makes another caller of.
fn again(wrap: &[&str], single: bool) {
    let Some(shared) = Shared::new() else { return };
    // The fork bomb by itself: where nothing limits its user, the others would find no place for theirs.
    for words in [
        ["--test-threads=2", "--skip=bomb", "inside::"],
        [
            "--exact",
            "inside::hostile::a_fork_bomb_is_bounded",
            "--nocapture",
        ],
        ["--exact", GROUP_TEST, "--nocapture"],
    ] {
        let mut command = Command::new(wrap[0]);
        command
            .args(&wrap[1..])
            .arg(shared.at("tests"))
            .args(words)
            .current_dir("/");
        command
            .env("FIREBRICK_FIXTURES", shared.0.path())
            .env("SANDBOX_KEEPER", shared.at("keeper"));
        if single {
            command.env("SANDBOX_SINGLE", "1");
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{wrap:?}\n{said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            said.contains("test result: ok") && !said.contains(" 0 passed"),
            "{said}"
        );
    }
}

/// A user of this machine who has ranges in `/etc/subuid` and `/etc/subgid`.
fn user_with_ranges() -> Option<String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (subuid, subgid, passwd) = (read("/etc/subuid"), read("/etc/subgid"), read("/etc/passwd"));
    subuid
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, _)| {
            let has_gid = subgid.lines().any(|line| line.starts_with(&format!("{name}:")));
            let line = passwd
                .lines()
                .find(|line| line.starts_with(&format!("{name}:")))?;
            has_gid.then(|| line.split(':').nth(2).map(str::to_owned))?
        })
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        leave_out("other callers than this user (only root can become others)");
    }
    root
}

#[test]
fn a_user_with_ranges_of_ids() {
    if !is_root() {
        return;
    }
    let Some(uid) = user_with_ranges() else {
        leave_out("a user with ranges of ids (none has any in /etc/subuid and /etc/subgid)");
        return;
    };
    again(
        &[
            "setpriv",
            "--reuid",
            &uid,
            "--regid",
            &uid,
            "--clear-groups",
            "--",
        ],
        false,
    );
}

#[test]
fn a_user_without() {
    if is_root() {
        again(
            &[
                "setpriv",
                "--reuid",
                "54321",
                "--regid",
                "54321",
                "--clear-groups",
                "--",
            ],
            false,
        );
    }
}

#[test]
fn root_with_one_id() {
    again(&["env"], true);
}

#[test]
fn root_of_unshare() {
    again(&["unshare", "-r", "--"], false);
}

/// A control group that belongs to whoever asks, as systemd delegates them: root whose user is alone in its namespace, and somebody else.
#[test]
fn callers_with_a_control_group() {
    let hierarchy = Path::new("/sys/fs/cgroup/pids");
    if !is_root() || !hierarchy.is_dir() {
        leave_out("control groups of version 1 (there are none here)");
        return;
    }
    let Some(shared) = Shared::new() else { return };
    let own = hierarchy.join(format!("firebrick.test.{}", std::process::id()));
    if std::fs::create_dir(&own).is_err() {
        leave_out("control groups of version 1 (none can be made here)");
        return;
    }
    let become_user = "chown -R 54321 $G; exec setpriv --reuid 54321 --regid 54321 --clear-groups --";
    for caller in ["exec unshare -r --", become_user] {
        let line = format!("echo $$ > $G/cgroup.procs; {caller} \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &line, "sh"])
            .arg(shared.at("tests"))
            .args(["--exact", GROUP_TEST, "--nocapture"])
            .current_dir("/")
            .env("G", &own)
            .env("SANDBOX_GROUP", "1")
            .env("FIREBRICK_FIXTURES", shared.0.path())
            .env("SANDBOX_KEEPER", shared.at("keeper"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let left: Vec<_> = std::fs::read_dir(&own)
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .collect();
        assert!(
            output.status.success() && said.contains("1 passed") && left.is_empty(),
            "{caller}: {left:?} {said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    std::fs::remove_dir(&own).unwrap();
}

/// Version 2, in a Linux of our own: in the hierarchy's root, and in a group that has other processes, where it is a threaded one.
#[test]
fn control_groups_of_version_2() {
    if !uml::have().unwrap() || !oracle::have("busybox").unwrap() {
        return;
    }
    let Some(shared) = Shared::new() else { return };
    // A step leaves 128 MiB to others.
    let disk = shared.at("disk");
    std::fs::File::create(&disk).unwrap().set_len(1 << 30).unwrap();
    oracle::run_ok(
        "mke2fs",
        ["-q", "-t", "ext4", "-O", "^has_journal", disk.to_str().unwrap()],
    )
    .unwrap();
    let bin = shared.at("root/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
    for applet in ["sh", "seq", "sleep"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    let (root, tar) = (shared.at("root"), shared.at("root.tar"));
    oracle::run_ok(
        "tar",
        ["-C", root.to_str().unwrap(), "-cf", tar.to_str().unwrap(), "bin"],
    )
    .unwrap();
    let script = format!(
        "mount -t sysfs sys /sys; mount -t cgroup2 none /sys/fs/cgroup\n\
         cd /; export TMPDIR=$M SANDBOX_ROOT={0}/root.tar SANDBOX_KEEPER={0}/keeper SANDBOX_GROUP=1 G=/sys/fs/cgroup\n\
         run() {{ \"$@\" {0}/tests --exact {GROUP_TEST} --nocapture 2>&1; }}\n\
         enter() {{ sh -c 'echo $PPID > $0/cgroup.procs' $1; }}\n\
         left() {{ echo \"left: $(cat $1/cgroup.subtree_control) $(cat $1/cgroup.type) $(ls -d $1/firebrick-*).\"; }}\n\
         SANDBOX_SINGLE=1 run env\n\
         left $G 2> /dev/null\n\
         echo +pids > $G/cgroup.subtree_control; mkdir $G/own; enter $G/own\n\
         run unshare -r --\n\
         left $G/own 2> /dev/null; enter $G",
        shared.0.path().display()
    );
    let said = Uml::start(&disk, "rw", &script).unwrap().finish().unwrap();
    assert_eq!(said.matches("test result: ok. 1 passed").count(), 2, "{said}");
    assert!(
        said.contains("left:   .\n") && said.contains("left:  domain .\n"),
        "{said}"
    );
}
